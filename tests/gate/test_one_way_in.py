"""Every way to a tool goes through the gate: shown by walking the code, not by trusting it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import remit
from remit import Effect, Tool, tool

SOURCE = Path(remit.__file__).parent
# Whoever reaches the functions behind a tool could call them.
MAY_REACH = {
    "function": {"gate/execute.py"},
    "reconcile": {"gate/execute.py"},
    "locate": {"gate/checks/located.py"},
    "read_changes": {"records/completeness.py"},
}
# What is called so and belongs to no tool: a finder of files, and the name of a function in a section of remit.toml.
NO_TOOL = {"file.locate", "section.function"}
# Who may speak to a system of record without the gate: the tools themselves, and those that stage and check the demo.
MAY_CONNECT = ("connectors/", "demo/")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if "tracker_home" not in name:
            yield name, ast.parse(path.read_text())


def reached(module: ast.Module, attribute: str) -> list[ast.AST]:
    """Where an attribute of that name is read, however that is written; to ask whether it is there is not to reach it."""
    found: list[ast.AST] = []
    asked = {id(node.left) for node in ast.walk(module) if isinstance(node, ast.Compare) and _is_none(node)}
    for node in ast.walk(module):
        is_read = isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Load)
        if is_read and id(node) not in asked and ast.unparse(node) not in NO_TOOL:
            found.append(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "attrgetter"):
            found += [arg for arg in node.args if isinstance(arg, ast.Constant) and arg.value == attribute]
    return found


def _is_none(node: ast.Compare) -> bool:
    return isinstance(node.ops[0], ast.Is | ast.IsNot) and ast.unparse(node.comparators[0]) == "None"


@pytest.mark.parametrize("attribute", sorted(MAY_REACH))
def test_only_the_gate_reaches_the_functions_behind_a_tool_and_only_verification_those_that_list_changes(attribute: str) -> None:
    users = {name for name, module in modules() if reached(module, attribute)}
    assert users == MAY_REACH[attribute]


def calls_of(module: ast.Module, attribute: str) -> int:
    return sum(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == attribute
        for node in ast.walk(module)
    )


def test_a_tool_is_called_at_one_place_in_the_whole_code() -> None:
    assert sum(calls_of(module, "function") for _, module in modules()) == 1


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_connectors_are_imported_by_their_tools_and_the_demo_alone() -> None:
    for name, module in modules():
        connects = [each for each in imported(module) if each.startswith("remit.connectors")]
        assert not connects or name.startswith(MAY_CONNECT), (name, connects)


def test_the_executor_is_made_by_the_gate_alone() -> None:
    users = {
        name for name, module in modules() if "Executor" in {n.id for n in ast.walk(module) if isinstance(n, ast.Name)}
    }
    assert users == {"gate/gate.py"}


def test_a_tool_can_not_be_called() -> None:
    @tool("notes.read", effects={Effect.READ})
    async def read(note: int) -> str:
        """Read a note."""
        return str(note)

    assert isinstance(read, Tool)
    assert not callable(read)
