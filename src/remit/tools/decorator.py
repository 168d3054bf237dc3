"""`@tool`: a typed Python function becomes a tool; its signature and docstring become strict JSON Schemas.

    @tool("orders.read", effects={Effect.READ}, untrusted=("note",))
    async def read(ctx: ToolContext, order: Annotated[int, Meta(ge=1)]) -> Order:
        '''Read one order.

Args:
            order: Number of the order.
        '''

The name then stands for a `Tool`, which can't be called: only the gate's executor reaches the function.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict, TypeVar, Unpack, cast, get_origin, get_type_hints

import jsonschema_rs
import msgspec
from msgspec import inspect as types

from remit.errors import OutcomeUnknown, ToolError, ToolFailed
from remit.tools.docstring import Docstring, parse_docstring
from remit.tools.registry import CEDAR_TYPES, closest, problems_of
from remit.tools.schemas import nodes_at
from remit.tools.source import digest_of
from remit.tools.spec import (
    Compensation,
    Effect,
    FieldClass,
    Idempotency,
    Locate,
    Money,
    Reconcile,
    Resource,
    Retry,
    Tool,
    ToolContext,
    ToolFunction,
    ToolSpec,
)
from remit.tools.threads import in_thread
from remit.values import Json

Schema = dict[str, Any]
_T = TypeVar("_T")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
# As many places as Cedar's decimals have, so that whatever is accepted can be decided about.
_UNSIGNED = r"^(0|[1-9][0-9]{0,13})(\.[0-9]{1,4})?$"
_DECIMAL = _UNSIGNED.replace("^", "^-?", 1)
# Years 1000 to 9999 and no leap seconds: what RFC 3339 has beyond that, Python's datetime has not.
_DATE = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
_DATETIME = rf"^{_DATE}T[0-9]{{2}}:[0-9]{{2}}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-][0-9]{{2}}:[0-9]{{2}})$"
_SCALARS: Mapping[type[types.Type], Schema] = {
    types.NoneType: {"type": "null"},
    types.BoolType: {"type": "boolean"},
    types.DecimalType: {"type": "string", "format": "decimal", "pattern": _DECIMAL},
    types.DateType: {"type": "string", "format": "date", "pattern": f"^{_DATE}$"},
    types.UUIDType: {"type": "string", "format": "uuid"},
}
# What `extra_json_schema` may add: it tells more, or accepts less, than the type itself.
_ADDITIONS = frozenset(
    {"title", "description", "examples", "deprecated", "format", "minProperties", "maxProperties", "uniqueItems"}
)
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
_KEYWORDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}


class ToolOptions(TypedDict, total=False):
    """What may be declared beside a tool; each is a field of `Tool` or `ToolSpec` and is described there."""

    timeout_ms: int
    retry: Retry
    idempotency: Idempotency
    resource_kind: str
    resource_attributes: Mapping[str, str]
    field_classes: Mapping[str, FieldClass]
    authority: Sequence[str]
    untrusted: Sequence[str]
    money: str
    rows: str
    written: str
    usage: str
    retrieves: str
    fresh_ms: int
    hedge_ms: int
    locate: Locate
    reconcile: Reconcile
    compensation: Compensation


def tool(
    name: str, *, effects: Collection[Effect], **options: Unpack[ToolOptions]
) -> Callable[[Callable[..., Any]], Tool]:
    """Make a `Tool` of a typed function, `async` or not; one that is not runs in a worker thread.

    A thread can't be stopped: a plain function that takes longer than its time-out is waited for as long again.

    A first parameter annotated `ToolContext` is handed in by the gate and is no part of the schema. Arguments
    arrive validated and are converted to the annotated types without coercion; the result is turned into
    JSON. A pure read is idempotent without saying so. Raises `TypeError` at decoration if anything about it
    is not strict or does not fit.
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        try:
            return _build(name, frozenset(effects), options, function)
        except (TypeError, ValueError, NameError) as error:
            raise TypeError(f"tool `{name}`: {error}") from error

    return decorate


def json_schema_for(annotation: Any) -> Schema:
    """The strict JSON Schema (2020-12) of a type: objects closed, nothing referenced, decimals as text.

    Decimals have at most 14 digits before the point and four after it; what has more is better a `str`.

    Whatever it accepts, `msgspec.convert(…, strict=True)` converts, save that JSON Schema takes `1.0` for an
    integer. Raises `TypeError` for a type that can't be described strictly.
    """
    return _schema(types.type_info(annotation), ())


def _schema(node: types.Type, within: tuple[Any, ...]) -> Schema:
    match node:
        case types.Metadata():
            extra = cast("dict[str, Any] | None", node.extra_json_schema)  # pyright: ignore[reportUnknownMemberType]
            return _annotated(_schema(node.type, within), extra or {})
        case types.IntType():
            return {"type": "integer"} | _constraints(node)
        case types.FloatType():
            return {"type": "number"} | _constraints(node)
        case types.StrType():
            return {"type": "string"} | _constraints(node, size="Length")
        case types.DateTimeType():
            if node.tz is False:
                raise TypeError("a datetime without a time zone is ambiguous; use one with it")
            return {"type": "string", "format": "date-time", "pattern": _DATETIME}
        case types.LiteralType():
            return _choice(node.values)
        case types.EnumType():
            return _choice([member.value for member in node.cls])
        case _ if type(node) in _SCALARS:
            return dict(_SCALARS[type(node)])
        case _:
            return _container(node, within)


def _container(node: types.Type, within: tuple[Any, ...]) -> Schema:
    match node:
        case types.UnionType():
            return {"anyOf": [_schema(each, within) for each in node.types]}
        case types.ListType() | types.VarTupleType():
            return {"type": "array", "items": _schema(node.item_type, within)} | _constraints(node, size="Items")
        case types.TupleType():
            items = [_schema(each, within) for each in node.item_types]
            size = len(items)
            return {"type": "array", "prefixItems": items, "items": False, "minItems": size, "maxItems": size}
        case types.DictType():
            keys = _schema(node.key_type, within)
            if keys.pop("type") != "string" or "enum" in keys or "format" in keys:
                raise TypeError("a dict has keys of type `str`; for a fixed set of keys use a TypedDict")
            values = {"type": "object", "additionalProperties": _schema(node.value_type, within)}
            return values | ({"propertyNames": keys} if keys else {}) | _constraints(node, size="Properties")
        case types.StructType() | types.DataclassType() | types.TypedDictType():
            if node.cls is Money:
                return _money()
            return _object(node, within)
        case types.AnyType():
            raise TypeError("`Any` and bare `list` or `dict` admit everything; say what they hold, as in `list[str]`")
        case types.CustomType():
            raise TypeError(f"`{node.cls.__name__}` has no JSON form; use a dataclass, TypedDict or msgspec.Struct")
        case _:
            kind = type(node).__name__.removesuffix("Type").lower()
            raise TypeError(f"`{kind}` has no strict JSON form; use str, int, list or an object with named fields")


def _object(node: types.StructType | types.DataclassType | types.TypedDictType, within: tuple[Any, ...]) -> Schema:
    cls = cast("type[Any]", node.cls)
    name = getattr(cls, "__name__", str(cls))
    if cls in within:
        raise TypeError(f"`{name}` contains itself; give it a fixed depth")
    properties: dict[str, Schema] = {}
    if isinstance(node, types.StructType):
        if node.array_like:
            raise TypeError(f"`{name}` is array-like, which hides the names of its fields; leave `array_like` out")
        if node.tag_field is not None:
            properties[node.tag_field] = _choice([node.tag])
    required = list(properties)
    docs = _documented(cls)
    for each in node.fields:
        if not _NAME.fullmatch(each.encode_name):
            raise TypeError(
                f"field `{each.encode_name}` of `{name}` is not named in ASCII letters, digits, underscores"
            )
        place = f"field `{each.encode_name}` of `{name}`"
        schema = _within(place, _schema, each.type, (*within, cls))
        if each.name in docs.fields:
            schema["description"] = docs.fields[each.name]
        default = _default(each)
        if default is not msgspec.UNSET:
            _within(f"default of {place}", _set_default, schema, default)
        if each.required:
            required.append(each.encode_name)
        properties[each.encode_name] = schema
    about = {"description": docs.description} if docs.description else {}
    return {"title": name, **about, **_closed(properties, required)}


def _default(field: types.Field) -> Any:
    """What a field holds if it is left out; `UNSET` if it must be given or is made anew each time."""
    if field.default is not msgspec.NODEFAULT:
        return field.default
    made: dict[Any, Any] = {list: [], dict: {}}
    factory = field.default_factory
    return made.get(get_origin(factory) or factory, msgspec.UNSET)


def _set_default(schema: Schema, default: Any) -> None:
    value = to_json(default)
    try:
        jsonschema_rs.validate(schema, value, validate_formats=True)
    except jsonschema_rs.ValidationError as error:
        raise TypeError(f"{error.message}; give a default of the annotated type") from error
    schema["default"] = value


def _documented(cls: type[Any]) -> Docstring:
    # Through `vars`, because a class without a docstring answers with its parent's.
    text = vars(cls).get("__doc__")
    if text and text.startswith(f"{cls.__name__}("):
        # Dataclasses without a docstring get their signature in its place.
        return Docstring()
    return parse_docstring(text)


def _closed(properties: Mapping[str, Schema], required: Sequence[str]) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _money() -> Schema:
    amount = {"type": "string", "format": "decimal", "pattern": _DECIMAL}
    currency = {"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 code"}
    fields = _closed({"amount": amount, "currency": currency}, ["amount", "currency"])
    return {"title": "Money", "description": "An exact amount, as text with at most four decimals.", **fields}


def _choice(values: Sequence[Any]) -> Schema:
    kinds: set[type[Any]] = {type(value) for value in values}
    if not kinds or not kinds <= _JSON_TYPES.keys():
        raise TypeError("the values to choose from are strings or integers, at least one")
    kind = {"type": _JSON_TYPES[kinds.pop()]} if len(kinds) == 1 else {}
    return {**kind, "enum": list(values)}


def _constraints(node: types.Type, *, size: str = "") -> Schema:
    keywords = _KEYWORDS | {"min_length": f"min{size}", "max_length": f"max{size}"}
    found = {keyword: getattr(node, name, None) for name, keyword in keywords.items()}
    return {keyword: value for keyword, value in found.items() if value is not None}


def _annotated(schema: Schema, extra: Mapping[str, Any]) -> Schema:
    foreign = sorted(extra.keys() - _ADDITIONS)
    if foreign:
        raise TypeError(f"`{foreign[0]}` in `extra_json_schema` would change what is accepted; use `msgspec.Meta`")
    return schema | dict(extra)


def _within(place: str, step: Callable[..., _T], *arguments: Any) -> _T:
    try:
        return step(*arguments)
    except (TypeError, ValueError, NameError) as error:
        raise TypeError(f"{place}: {error}") from error


def to_json(value: Any) -> Json:
    """A Python value as JSON builtins; decimals as plain text (`84.00`, never `8.4E+1`).

    Raises `TypeError` for what has no JSON form, not-a-number decimals included.
    """
    return _plain(msgspec.to_builtins(value, builtin_types=(Decimal,)))


def _plain(value: Any) -> Json:
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        if not all(type(key) is str for key in items):
            raise TypeError("a dict has a key that is no text; JSON has no others")
        return {key: _plain(item) for key, item in items.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise TypeError(f"{value} is not a finite decimal")
        return format(value, "f")
    return value


@dataclass(frozen=True, kw_only=True)
class _Signature:
    """A tool function taken apart: the types of its arguments (without the context) and what it returns."""

    arguments: Mapping[str, Any]
    defaults: Mapping[str, Any]
    context: str | None
    returns: Any


def _signature(function: Callable[..., Any]) -> _Signature:
    if (
        not inspect.isfunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise TypeError("`@tool` stands on a plain or async function that returns its result")
    parameters = list(inspect.signature(function).parameters.values())
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"{error}; import it at run time, at the top of the module") from error
    context = parameters[0].name if parameters and hints.get(parameters[0].name) is ToolContext else None
    arguments: dict[str, Any] = {}
    for parameter in parameters[1:] if context else parameters:
        name = parameter.name
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"argument `{name}` is open or positional-only; name every argument")
        if name not in hints:
            raise TypeError(f"argument `{name}` has no annotation; add its type")
        if hints[name] is ToolContext:
            raise TypeError(f"argument `{name}` is a ToolContext; make it the first parameter")
        if not _NAME.fullmatch(name) or name == "result":
            raise TypeError(f"argument `{name}` needs another name: ASCII, a letter first, not `result`")
        arguments[name] = hints[name]
    if "return" not in hints:
        raise TypeError("the function has no return annotation; add it, `-> None` if it returns nothing")
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return _Signature(arguments=arguments, defaults=defaults, context=context, returns=hints["return"])


def _input_schema(signature: _Signature, docs: Docstring) -> Schema:
    stray = [name for name in docs.fields if name not in signature.arguments and name != signature.context]
    if stray:
        near = closest(stray[0], signature.arguments)
        raise TypeError(f"the docstring describes `{stray[0]}`, which is no argument{near}")
    properties: dict[str, Schema] = {}
    for name, annotation in signature.arguments.items():
        schema = _within(f"argument `{name}`", json_schema_for, annotation)
        if name in docs.fields:
            schema["description"] = docs.fields[name]
        if name in signature.defaults:
            _within(f"default of `{name}`", _set_default, schema, signature.defaults[name])
        properties[name] = schema
    return _closed(properties, [name for name in properties if name not in signature.defaults])


def _bind(signature: _Signature, args: Mapping[str, Json]) -> dict[str, Any]:
    """Arguments, validated before, as the annotated types; what a schema can't refuse (`1.0`) ends here."""
    for name in args:
        if name not in signature.arguments:
            raise ToolFailed(f"argument `{name}` is not known", code="arguments_invalid")
    bound: dict[str, Any] = {}
    for name, annotation in signature.arguments.items():
        if name in args:
            try:
                bound[name] = msgspec.convert(args[name], annotation, strict=True)
            except msgspec.ValidationError as error:
                raise ToolFailed(f"argument `{name}`: {_lower(str(error))}", code="arguments_invalid") from error
        elif name not in signature.defaults:
            raise ToolFailed(f"argument `{name}` is missing", code="arguments_invalid")
    return bound


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _adapter(signature: _Signature, function: Callable[..., Any], unusable: type[ToolError]) -> ToolFunction:
    """The function as the executor calls it. `unusable` is raised for a result that has no JSON form."""
    call = function if inspect.iscoroutinefunction(function) else in_thread(function)

    async def run(ctx: ToolContext, args: Mapping[str, Json]) -> Json:
        arguments = _bind(signature, args)
        result = await (call(ctx, **arguments) if signature.context else call(**arguments))
        try:
            return to_json(result)
        except TypeError as error:
            raise unusable(f"the result has no JSON form: {_lower(str(error))}", code="result_invalid") from error

    # Where it breaks is looked for in the module that declares it.
    run.__module__ = function.__module__
    return run


def _locator(locate: Locate, kind: str, attributes: Mapping[str, str]) -> Locate:
    """`locate`, held to what is declared: policy relies on the kind and on every attribute being there."""

    async def run(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
        found = await locate(ctx, args)
        present = {name: CEDAR_TYPES.get(type(value)) for name, value in found.attributes.items()}
        if found.kind != kind or present != attributes:
            wrong = sorted(name for name, _ in present.items() ^ attributes.items())
            what = f"kind `{found.kind}`" if found.kind != kind else f"attribute `{wrong[0]}`"
            raise ToolFailed(f"`locate` found {what}, which is not as declared", code="resource_invalid")
        return found

    run.__module__ = locate.__module__
    return run


def _build(name: str, effects: frozenset[Effect], options: ToolOptions, function: Callable[..., Any]) -> Tool:
    _check_options(options)
    signature = _signature(function)
    docs = parse_docstring(function.__doc__)
    pure_read = effects == frozenset({Effect.READ})
    spec = ToolSpec(
        name=name,
        description=docs.description,
        input_schema=_input_schema(signature, docs),
        output_schema=_within("the return type", json_schema_for, signature.returns),
        effects=effects,
        timeout_ms=options.get("timeout_ms", 10_000),
        retry=options.get("retry", Retry()),
        idempotency=options.get("idempotency", Idempotency.SAFE if pure_read else Idempotency.NONE),
        resource_kind=options.get("resource_kind", "Tool"),
        resource_attributes=dict(options.get("resource_attributes", {})),
        field_classes=dict(options.get("field_classes", {})),
        authority=tuple(options.get("authority", ())),
        untrusted=tuple(options.get("untrusted", ())),
        money=options.get("money"),
        rows=options.get("rows"),
        written=options.get("written"),
        usage=options.get("usage"),
        retrieves=options.get("retrieves"),
        fresh_ms=options.get("fresh_ms", 0),
        hedge_ms=options.get("hedge_ms", 0),
    )
    locate = options.get("locate")
    built = Tool(
        spec=spec,
        function=_adapter(signature, function, ToolFailed if pure_read else OutcomeUnknown),
        locate=None if locate is None else _locator(locate, spec.resource_kind, spec.resource_attributes),
        reconcile=options.get("reconcile"),
        compensation=options.get("compensation"),
        module=function.__module__,
        source=digest_of(function.__globals__),
    )
    _forbid_negative(spec)
    for problem in problems_of(built):
        raise TypeError(problem)
    return built


def _check_options(options: ToolOptions) -> None:
    known = ToolOptions.__annotations__
    for option in options:
        if option not in known:
            raise TypeError(f"`{option}` is no option of `@tool`{closest(option, known)}")
    for option in ("authority", "untrusted"):
        if isinstance(options.get(option), str):
            raise TypeError(f"`{option}` is a list of paths; write `{option}=[…]`")


def _forbid_negative(spec: ToolSpec) -> None:
    """An amount that a call moves has no sign: a negative one would lower the sum that a limit counts."""
    for node in nodes_at(spec.input_schema, spec.money) if spec.money else ():
        amount = node.get("properties", {}).get("amount", {})
        if amount.get("format") == "decimal":
            amount["pattern"] = _UNSIGNED
