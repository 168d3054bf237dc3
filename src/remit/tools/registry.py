"""The tools that a project has: loaded from modules, each one coherent, each name once."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, ModuleType

import jsonschema_rs

from remit.errors import ConfigError
from remit.tools.changes import ChangeLog
from remit.tools.schemas import Schema, nodes_at, paths, walk
from remit.tools.source import FileLoader, source_digest
from remit.tools.spec import TOOL_NAME, Effect, Idempotency, Tool, ToolSpec

CEDAR_TYPES: Mapping[type, str] = MappingProxyType({str: "String", int: "Long", bool: "Bool"})
"""What an attribute of a resource may be, and the name of that type in Cedar's schemas."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_RESERVED_ATTRIBUTES = frozenset({"tenant", "region"})
_OF_PASSAGES = ("chunk", "document", "version", "hash", "label")


def closest(name: str, known: Collection[str]) -> str:
    """The tail of a message about an unknown name: `; did you mean …?`, else what there is to choose from."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; there are {', '.join(f'`{each}`' for each in sorted(known))}" if known else ""


# Whether a tool is coherent


def problems_of(tool: Tool) -> Iterator[str]:
    """What is wrong with a tool's declarations, one message each; nothing if they are coherent.

    Declared paths lead somewhere in the schemas, objects are closed, effects agree with the rest.
    """
    spec = tool.spec
    yield from _naming(spec)
    yield from _speed(spec)
    yield from _closedness(spec)
    yield from _effects(tool)
    yield from _resource(tool)
    yield from _declared_paths(spec)


def _naming(spec: ToolSpec) -> Iterator[str]:
    if spec.name.startswith(("model.", "model:")):
        yield f"the name `{spec.name}` is reserved for models; choose another prefix than `model`"
    elif not TOOL_NAME.fullmatch(spec.name):
        yield f"the name `{spec.name}` is not of the form `service.verb` in lower-case ASCII; rename it"
    if not spec.description:
        yield "there is no description; say in a docstring what the tool does, the agent reads it"
    if spec.timeout_ms < 1 or not 1 <= spec.retry.attempts <= 10 or spec.retry.backoff_ms < 0:
        yield "`timeout_ms` is at least 1, `retry.attempts` 1 to 10, `retry.backoff_ms` not negative"


def _speed(spec: ToolSpec) -> Iterator[str]:
    if spec.fresh_ms < 0 or spec.hedge_ms < 0:
        yield "`fresh_ms` and `hedge_ms` are not negative"
    if (spec.fresh_ms or spec.hedge_ms) and not spec.is_pure_read:
        yield "`fresh_ms` and `hedge_ms` are for tools that only read; what changes or sends something is done anew, once"
    if spec.hedge_ms and spec.hedge_ms >= spec.timeout_ms:
        yield f"`hedge_ms` is {spec.hedge_ms}, and by then the call is over; let it be less than `timeout_ms`"


def _closedness(spec: ToolSpec) -> Iterator[str]:
    if spec.input_schema.get("type") != "object":
        yield "the input schema is not of type `object`; arguments have names"
    for root, schema in (("args", spec.input_schema), ("result", spec.output_schema)):
        for place, node in walk(schema, root):
            if "properties" in node and node.get("additionalProperties") is not False:
                yield f"`{place}` admits unknown fields; set `additionalProperties` to false"
        try:
            jsonschema_rs.Draft202012Validator(dict(schema), validate_formats=True)
        except ValueError as error:
            yield f"the schema of `{root}` is not valid: {getattr(error, 'message', error)}"


def _effects(tool: Tool) -> Iterator[str]:
    spec = tool.spec
    if not spec.effects:
        yield "no effects are declared; a call that changes nothing has `Effect.READ`"
    if (Effect.MONEY in spec.effects) != (spec.money is not None):
        yield "effect `money` and `money=…`, the path of the amount, belong together; declare both or none"
    if spec.written is not None and not spec.is_write:
        yield "`written` is declared without a write effect; add `Effect.WRITE` or leave it out"
    if spec.is_pure_read and (tool.reconcile is not None or tool.compensation is not None):
        yield "a pure read leaves nothing to reconcile or compensate; leave these out"
    if Effect.IRREVERSIBLE in spec.effects and tool.compensation is not None:
        yield "an irreversible effect can't have a compensation; leave one of the two out"
    if tool.compensation is not None and not TOOL_NAME.fullmatch(tool.compensation.tool):
        yield f"the compensation names `{tool.compensation.tool}`, which is no tool name"
    if spec.idempotency is Idempotency.NONE and spec.is_pure_read:
        yield "a pure read is idempotent; declare `Idempotency.SAFE`"


def _resource(tool: Tool) -> Iterator[str]:
    spec = tool.spec
    if not _IDENTIFIER.fullmatch(spec.resource_kind):
        yield f"resource kind `{spec.resource_kind}` is not an ASCII identifier such as `Issue`"
    if (spec.resource_kind != "Tool") != (tool.locate is not None):
        yield "`resource_kind` and `locate` belong together; declare both or none"
    for name, kind in spec.resource_attributes.items():
        if tool.locate is None:
            yield f"resource attribute `{name}` is never found; add `locate`"
        if not _IDENTIFIER.fullmatch(name) or name in _RESERVED_ATTRIBUTES:
            yield f"resource attribute `{name}` needs another name: ASCII, not `tenant` or `region`"
        if kind not in CEDAR_TYPES.values():
            yield f"resource attribute `{name}` is of type `{kind}`{closest(kind, CEDAR_TYPES.values())}"


def _declared_paths(spec: ToolSpec) -> Iterator[str]:
    for path in spec.field_classes:
        attribute = path.removeprefix("resource.")
        if attribute != path and not nodes_at(spec.input_schema, path):
            if attribute not in spec.resource_attributes:
                yield f"`{path}` in `field_classes` is no attribute of the object{closest(attribute, spec.resource_attributes)}"
            continue
        schema = spec.output_schema if path.startswith("result.") else spec.input_schema
        yield from _known("field_classes", path.removeprefix("result."), schema)
    for option, declared, schema in (
        ("authority", spec.authority, spec.input_schema),
        ("untrusted", spec.untrusted, spec.output_schema),
        ("money", [spec.money], spec.input_schema),
        ("rows", [spec.rows], spec.input_schema),
        ("written", [spec.written], spec.input_schema),
        ("usage", [spec.usage], spec.output_schema),
        *(("retrieves", [f"{spec.retrieves}.*.{name}"], spec.output_schema) for name in _OF_PASSAGES if spec.retrieves),
    ):
        for path in declared:
            if path is not None:
                yield from _known(option, path, schema)
    yield from _shapes(spec)


def _known(option: str, path: str, schema: Schema) -> Iterator[str]:
    if not nodes_at(schema, path):
        yield f"`{path}` in `{option}` leads nowhere{closest(path, list(paths(schema)))}"


def _shapes(spec: ToolSpec) -> Iterator[str]:
    """Whether what money, rows and written point at can be what they claim."""
    for option, path, fits, wanted in (
        ("money", spec.money, _is_money, "`Money`, never a float"),
        ("rows", spec.rows, _is_list, "a list"),
        ("written", spec.written, _is_object, "an object"),
    ):
        found = nodes_at(spec.input_schema, path) if path is not None else []
        if "*" in (path or "").split("."):
            yield f"`{path}` in `{option}` means many values; it must lead to one"
        elif not all(fits(node) or node.get("type") == "null" for node in found):
            yield f"`{path}` in `{option}` is not of the right type; annotate it as {wanted}"
    if spec.money is not None and not _is_always_there(spec.input_schema, spec.money):
        yield f"`{spec.money}` in `money` may be missing; make it required, or limits can't count it"
    for path, kind in spec.field_classes.items():
        schema = spec.output_schema if path.startswith("result.") else spec.input_schema
        if kind == "money" and any(
            node.get("type") == "number" for node in nodes_at(schema, path.removeprefix("result."))
        ):
            yield f"`{path}` holds money as a float; annotate it as `Money` or `Decimal`"


def _is_always_there(schema: Schema, path: str) -> bool:
    node: Schema = schema
    for part in path.split("."):
        if part not in node.get("required", ()):
            return False
        node = node["properties"][part]
    return "anyOf" not in node


def _is_list(node: Schema) -> bool:
    return node.get("type") == "array"


def _is_object(node: Schema) -> bool:
    return node.get("type") == "object"


def _is_money(node: Schema) -> bool:
    fields = node.get("properties", {})
    return set(fields) == {"amount", "currency"} and fields["amount"].get("format") == "decimal"


# Loading

_Found = tuple[Tool, str, ModuleType]
"""A tool, the entry of `[tools] modules` that it was found in first, and the module."""


def load_tools(modules: Sequence[str], folder: Path) -> Mapping[str, Tool]:
    """Load every `Tool` of the modules, by name, sorted.

    A module is an importable name (`remit.connectors.roundup.tools`) or a `.py` file inside `folder`, written
    relative to it (`tools/directory.py`). A file stands alone: it may import what is installed, not its
    neighbours. Raises `ConfigError` with every problem found, one a line, with file and line where there are
    such.
    """
    problems: list[str] = []
    found: dict[str, _Found] = {}
    for entry in modules:
        try:
            module = load_module(entry, folder)
        except ConfigError as error:
            problems.append(error.message)
            continue
        problems += _collect(module, entry, found)
    for tool, entry, _ in found.values():
        other = tool.compensation.tool if tool.compensation else None
        if other is not None and other not in found:
            problems.append(f"{entry}: tool `{tool.spec.name}` is undone by `{other}`, unknown{closest(other, found)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return MappingProxyType({name: _with_source(*found[name]) for name in sorted(found)})


def load_change_logs(modules: Sequence[str], folder: Path) -> Mapping[str, ChangeLog]:
    """The change logs that the modules offer, by the connection that they read; see `load_tools`. Raises `ConfigError`."""
    found: dict[str, ChangeLog] = {}
    tools = load_tools(modules, folder)
    for entry in modules:
        for log in {id(item): item for item in vars(load_module(entry, folder)).values() if isinstance(item, ChangeLog)}.values():
            if log.connection in found:
                raise ConfigError(f"{entry}: the changes of `{log.connection}` are listed by another module already; take one out")
            for name in log.traces:
                if name not in tools:
                    raise ConfigError(f"{entry}: the changes of `{log.connection}` name tool `{name}`{closest(name, tools)}")
            found[log.connection] = log
    return MappingProxyType(found)


def _with_source(tool: Tool, _entry: str, module: ModuleType) -> Tool:
    """A tool made by hand does not know where it stands."""
    return tool if tool.source else replace(tool, source=source_digest(module))


def _collect(module: ModuleType, entry: str, found: dict[str, _Found]) -> list[str]:
    problems: list[str] = []
    tools = {id(item): item for item in vars(module).values() if isinstance(item, Tool)}
    if not tools:
        problems.append(f"{entry}: holds no tool; declare one with `@tool` or take it out of `[tools] modules`")
    for tool in tools.values():
        name = tool.spec.name
        earlier, where, _ = found.setdefault(name, (tool, entry, module))
        place = f"{entry}{_line_of(module, name)}"
        if earlier is not tool:
            problems.append(f"{place}: tool `{name}` is declared by `{where}` already; rename one of them")
        problems += [f"{place}: tool `{name}`: {problem}" for problem in problems_of(tool)]
    return problems


def _line_of(module: ModuleType, name: str) -> str:
    """`:12` where the module's text says the name, last time; a tool itself does not know its line."""
    try:
        lines = Path(module.__file__ or "").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    said = [number for number, line in enumerate(lines, 1) if f'"{name}"' in line or f"'{name}'" in line]
    return f":{said[-1]}" if said else ""


def load_module(entry: str, folder: Path) -> ModuleType:
    """An importable module, or a `.py` file inside `folder`, under a name of its own. Raises `ConfigError`."""
    if not entry.endswith(".py"):
        return _import(entry)
    path = _inside(entry, folder)
    # A name of its own for every file: it can neither shadow an installed module nor be imported by others.
    name = f"_remit_tools_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    loader = FileLoader(name, str(path), entry)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"{entry}{_line(error)}: {_said(error)}") from error
    return module


def _inside(entry: str, folder: Path) -> Path:
    root = folder.resolve()
    path = (root / entry).resolve()
    if "\\" in entry or "\0" in entry or not path.is_relative_to(root):
        raise ConfigError(f"tool module `{entry}` leads out of the project folder; move the file into it")
    if not path.is_file():
        near = closest(entry, [str(each.relative_to(root)) for each in root.glob("tools/*.py")])
        raise ConfigError(f"tool module `{entry}` does not exist in the project folder{near}")
    return path


def _import(entry: str) -> ModuleType:
    if not _MODULE.fullmatch(entry):
        raise ConfigError(f"tool module `{entry}` is neither an importable name nor a `.py` file of the project")
    try:
        return importlib.import_module(entry)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{entry}.".startswith(f"{error.name}."):
            raise ConfigError(f"tool module `{entry}` is not installed; install it or correct its name") from error
        raise ConfigError(f"{entry}{_line(error)}: {_said(error)}") from error


def _line(error: BaseException) -> str:
    """`:12`, the line at which loading a module failed: of bad syntax, else of its own outermost frame."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f":{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    inner = [frame.lineno for frame in frames if frame.filename == frames[0].filename]
    return f":{inner[-1]}" if inner and inner[-1] else ""


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return text if isinstance(error, TypeError) else f"{type(error).__name__}: {text}"
