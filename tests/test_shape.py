"""The code's shape, held by a machine: short functions, modules of one screenful of ideas, one noun for one class."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"


def modules() -> Iterator[Path]:
    # What lies in the tracker's own folder is Roundup's form, not ours.
    return (path for path in sorted((*SOURCE.glob("remit/**/*.py"), *SOURCE.glob("remit_verify/**/*.py"))) if "tracker_home" not in path.parts)


def test_no_module_has_more_than_500_lines() -> None:
    assert [path.name for path in modules() if len(path.read_text().splitlines()) > 500] == []


def test_no_function_has_more_than_60_lines() -> None:
    found = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert found == []


def test_one_noun_is_one_class() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                # The verifier shares no code with the rest, and so has its own word for the same thing.
                package = path.relative_to(SOURCE).parts[0]
                places[f"{package}.{node.name}"].add(str(path.relative_to(SOURCE)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
