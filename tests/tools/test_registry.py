from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.errors import ConfigError
from remit.tools.registry import load_tools, problems_of
from remit.tools.spec import Effect, FieldClass, Idempotency, Tool, ToolContext, ToolSpec
from remit.values import Json

HEADER = "from remit.tools.decorator import tool\nfrom remit.tools.spec import Compensation, Effect\n"


def a_tool(name: str, *, options: str = "", function: str = "one") -> str:
    return (
        f'@tool("{name}", effects={{Effect.WRITE}}{options})\n'
        f'async def {function}(order: int) -> int:\n    """Do it."""\n    return order\n'
    )


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


def refused(folder: Path, *modules: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_tools(modules, folder)
    return caught.value.message.splitlines()


def test_tools_of_a_file_are_found_by_name_and_sorted(tmp_path: Path) -> None:
    text = HEADER + a_tool("orders.pay") + a_tool("orders.cancel", function="two") + "again = one\n"
    tools = load_tools([write(tmp_path, "tools/orders.py", text)], tmp_path)
    assert list(tools) == ["orders.cancel", "orders.pay"]
    assert tools["orders.pay"].spec.name == "orders.pay"


def test_tools_of_an_importable_module_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "site/shop_tools_here.py", HEADER + a_tool("orders.pay"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    tools = load_tools(["shop_tools_here"], tmp_path / "project")
    assert list(tools) == ["orders.pay"]
    # The same tool taken into another module is the same tool, not a second one of its name.
    more = write(tmp_path / "project", "more.py", "from shop_tools_here import one\n")
    assert load_tools(["shop_tools_here", more], tmp_path / "project") == tools


def test_a_file_is_loaded_under_a_private_name_and_leaves_no_compiled_file(tmp_path: Path) -> None:
    before = set(sys.modules)
    load_tools([write(tmp_path, "json.py", HEADER + a_tool("orders.pay"))], tmp_path)
    assert all(name.startswith("_remit_tools_") for name in set(sys.modules) - before)
    assert [path.name for path in tmp_path.iterdir()] == ["json.py"]


def test_a_file_is_read_again_each_time(tmp_path: Path) -> None:
    name = write(tmp_path, "orders.py", HEADER + a_tool("orders.pay"))
    load_tools([name], tmp_path)
    write(tmp_path, "orders.py", HEADER + a_tool("orders.buy"))
    assert list(load_tools([name], tmp_path)) == ["orders.buy"]


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_a_file_outside_of_the_project_folder_is_never_loaded(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text("raise SystemExit('loaded')", encoding="utf-8")
    project = tmp_path / "project"
    project.mkdir()
    (project / "link.py").symlink_to(outside)
    entry = {"parent": "../outside.py", "absolute": str(outside), "link": "link.py"}[kind]
    message = f"tool module `{entry}` leads out of the project folder; move the file into it"
    assert refused(project, entry) == [message]


def test_modules_that_are_not_there_are_named(tmp_path: Path) -> None:
    write(tmp_path, "tools/orders.py", HEADER + a_tool("orders.pay"))
    assert refused(tmp_path, "tools/order.py", "not.here.at_all", "json..tool", "os.notthere", "é") == [
        "tool module `tools/order.py` does not exist in the project folder; did you mean `tools/orders.py`?",
        "tool module `not.here.at_all` is not installed; install it or correct its name",
        "tool module `json..tool` is neither an importable name nor a `.py` file of the project",
        "tool module `os.notthere` is not installed; install it or correct its name",
        "tool module `é` is neither an importable name nor a `.py` file of the project",
    ]


def test_an_error_while_loading_is_told_with_its_line(tmp_path: Path) -> None:
    syntax = write(tmp_path, "syntax.py", "x = 1\ny = (\n")
    missing = write(tmp_path, "missing.py", "\n\nimport not_here_at_all\n")
    raising = write(tmp_path, "raising.py", "def f():\n    return 1 / 0\n\nf()\n")
    leaving = write(tmp_path, "leaving.py", "import sys\nsys.exit('bye')\n")
    untyped = write(tmp_path, "untyped.py", HEADER + a_tool("orders.pay").replace(": int", ""))
    binary = write(tmp_path, "binary.py", "")
    (tmp_path / binary).write_bytes(b"x = '\xff'\n")
    found = refused(tmp_path, syntax, missing, raising, leaving, untyped, binary)
    assert found[:5] == [
        "syntax.py:2: SyntaxError: '(' was never closed",
        "missing.py:3: ModuleNotFoundError: No module named 'not_here_at_all'",
        "raising.py:2: ZeroDivisionError: division by zero",
        "leaving.py:2: SystemExit: bye",
        "untyped.py:3: tool `orders.pay`: argument `order` has no annotation; add its type",
    ]
    assert found[5].startswith("binary.py:1: SyntaxError: ")


def test_an_error_in_an_importable_module_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "broken_shop/__init__.py", "")
    write(tmp_path, "broken_shop/tools.py", "import json\n\njson.loads('{')\n")
    write(tmp_path, "broken_shop/needs.py", "import not_here_at_all\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = refused(tmp_path, "broken_shop.tools", "broken_shop.needs")
    assert found[0].startswith("broken_shop.tools:3: JSONDecodeError: ")
    assert found[1] == "broken_shop.needs:1: ModuleNotFoundError: No module named 'not_here_at_all'"


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    one = write(tmp_path, "one.py", HEADER + a_tool("orders.pay"))
    two = write(tmp_path, "two.py", HEADER + "\n" + a_tool("orders.pay"))
    empty = write(tmp_path, "empty.py", "")
    undo = ', compensation=Compensation(tool="orders.payy", arguments=lambda args, result, before: {})'
    undone = write(tmp_path, "undone.py", HEADER + a_tool("orders.buy", options=undo))
    assert refused(tmp_path, one, two, empty, undone) == [
        "two.py:4: tool `orders.pay` is declared by `one.py` already; rename one of them",
        "empty.py: holds no tool; declare one with `@tool` or take it out of `[tools] modules`",
        "undone.py: tool `orders.buy` is undone by `orders.payy`, unknown; did you mean `orders.pay`?",
    ]


async def nothing(ctx: ToolContext, args: object) -> Json:
    return None


OPEN: dict[str, Any] = {
    "type": "object",
    "properties": {"order": {"type": "object", "properties": {}}},
    "additionalProperties": False,
}

HAND_MADE = Tool(
    spec=ToolSpec(
        name="orders.pay",
        description="Pay.",
        input_schema={"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        output_schema={"type": "null"},
        effects=frozenset({Effect.WRITE}),
    ),
    function=nothing,
)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(HAND_MADE.spec, name="model.pay"), "reserved for models"),
        (replace(HAND_MADE.spec, input_schema=OPEN), "`args.order` admits unknown fields"),
        (replace(HAND_MADE.spec, output_schema={"anyOf": [OPEN]}), "`result.order` admits unknown fields"),
        (replace(HAND_MADE.spec, input_schema={"type": "array"}), "the input schema is not of type `object`"),
        (replace(HAND_MADE.spec, output_schema={"type": "strange"}), "the schema of `result` is not valid"),
        (replace(HAND_MADE.spec, effects=frozenset({Effect.READ})), "a pure read is idempotent"),
        (replace(HAND_MADE.spec, authority=("payee",)), "`payee` in `authority` leads nowhere"),
        (
            replace(HAND_MADE.spec, field_classes={"resource.owner": FieldClass.PERSONAL}),
            "`resource.owner` in `field_classes` is no attribute of the object",
        ),
    ],
)
def test_tools_made_by_hand_are_held_to_the_same_rules(spec: ToolSpec, message: str) -> None:
    assert list(problems_of(HAND_MADE)) == []
    assert spec.idempotency is Idempotency.NONE
    assert message in "\n".join(problems_of(replace(HAND_MADE, spec=spec)))
