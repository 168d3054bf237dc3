"""What `@tool` makes of functions, and what it refuses. Schemas of single types: `test_tool_schemas.py`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, cast

import pytest
from msgspec import Meta

from remit.errors import OutcomeUnknown, ToolFailed
from remit.tools.decorator import tool
from remit.tools.spec import (
    Compensation,
    Connection,
    Effect,
    FieldClass,
    Happened,
    Idempotency,
    Money,
    Reconciled,
    Resource,
    Tool,
    ToolContext,
)
from remit.values import Json

READ = {Effect.READ}
STRANGE = object()
ONE_EURO = Money(amount=Decimal(1), currency="EUR")
MOVES = {Effect.WRITE, Effect.MONEY}


def _no_client(name: str, connect: Callable[[Connection], Any]) -> Any:
    raise ToolFailed(f"connection `{name}` is not declared")


CONTEXT = ToolContext(
    tenant="shop",
    run="r1",
    step="1",
    idempotency_key="k1",
    timeout_ms=1000,
    resource=None,
    client=_no_client,
)


def call(made: Tool, **arguments: Json) -> Json:
    async def run() -> Json:
        return await made.function(CONTEXT, arguments)

    return asyncio.run(run())


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of an order.

    Attributes:
        sku: What was sold.
    """

    sku: str
    count: Annotated[int, Meta(ge=1)] = 1


@dataclass(frozen=True, kw_only=True)
class Order:
    order: int
    email: str
    note: str
    lines: list[Line]
    total: Money


@tool(
    "orders.read",
    effects=READ,
    field_classes={"result.email": FieldClass.PERSONAL, "result.total": FieldClass.MONEY},
    untrusted=["note", "lines.*.sku"],
)
async def read_order(ctx: ToolContext, order: Annotated[int, Meta(ge=1)], region: Literal["eu", "us"] = "eu") -> Order:
    """Read one order.

    Args:
        ctx: What the gate hands in; no part of the schema.
        order: Number of the order.
    """
    total = Money(amount=Decimal("8.4E+1"), currency="EUR")
    return Order(order=order, email=f"{ctx.tenant}@{region}.example", note="", lines=[Line(sku="a")], total=total)


def test_signature_and_docstring_become_a_closed_schema() -> None:
    assert read_order.spec.description == "Read one order."
    assert read_order.spec.input_schema == {
        "type": "object",
        "properties": {
            "order": {"type": "integer", "minimum": 1, "description": "Number of the order."},
            "region": {"type": "string", "enum": ["eu", "us"], "default": "eu"},
        },
        "required": ["order"],
        "additionalProperties": False,
    }
    lines = read_order.spec.output_schema["properties"]["lines"]
    assert lines["items"] == {
        "title": "Line",
        "description": "One line of an order.",
        "type": "object",
        "properties": {
            "sku": {"type": "string", "description": "What was sold."},
            "count": {"type": "integer", "minimum": 1, "default": 1},
        },
        "required": ["sku"],
        "additionalProperties": False,
    }


def test_a_tool_can_not_be_called_by_its_name() -> None:
    assert isinstance(read_order, Tool)
    assert not callable(read_order)


def test_the_result_is_json_with_exact_decimals() -> None:
    assert call(read_order, order=7) == {
        "order": 7,
        "email": "shop@eu.example",
        "note": "",
        "lines": [{"sku": "a", "count": 1}],
        "total": {"amount": "84", "currency": "EUR"},
    }


@pytest.mark.parametrize("arguments", [{"order": "7"}, {"order": True}, {"order": 7, "x": 1}, {"order": 0}, {}])
def test_nothing_is_coerced_and_nothing_unknown_is_let_in(arguments: dict[str, Json]) -> None:
    assert not read_order.spec.input_validator.is_valid(arguments)
    with pytest.raises(ToolFailed) as caught:
        call(read_order, **arguments)
    assert caught.value.code == "arguments_invalid"


def test_a_whole_float_passes_as_an_integer_in_json_schema_but_not_here() -> None:
    assert read_order.spec.input_validator.is_valid({"order": 7.0})
    with pytest.raises(ToolFailed, match="argument `order`: expected `int`, got `float`"):
        call(read_order, order=7.0)


def test_a_pure_read_is_idempotent_without_saying_so_and_a_write_is_not() -> None:
    @tool("orders.mark", effects={Effect.WRITE})
    async def mark(order: int) -> None:
        """Mark an order."""

    assert read_order.spec.idempotency is Idempotency.SAFE
    assert mark.spec.idempotency is Idempotency.NONE
    assert mark.spec.output_schema == {"type": "null"}
    assert call(mark, order=1) is None


def test_a_function_that_is_not_async_runs_in_another_thread() -> None:
    @tool("thread.name", effects=READ)
    def thread_name() -> int:
        """Tell the thread."""
        return threading.get_ident()

    assert call(thread_name) != threading.get_ident()


def test_arguments_arrive_as_the_annotated_types() -> None:
    @tool("orders.pay", effects=MOVES, money="amount", rows="lines")
    async def pay(amount: Money, lines: list[Line], reason: str | None = None) -> str:
        """Pay."""
        assert isinstance(amount.amount, Decimal)
        return f"{amount.amount + 1} {lines[0].sku} {reason}"

    result = call(pay, amount={"amount": "0.10", "currency": "EUR"}, lines=[{"sku": "a"}])
    assert result == "1.10 a None"


def test_an_amount_that_a_call_moves_has_no_sign() -> None:
    @tool("orders.pay", effects=MOVES, money="payment.amount")
    async def pay(payment: Payment, balance: Money) -> None:
        """Pay."""

    minus = {"amount": "-1", "currency": "EUR"}
    plus = {"amount": "1", "currency": "EUR"}
    valid = pay.spec.input_validator.is_valid
    assert valid({"payment": {"amount": plus}, "balance": minus})
    assert not valid({"payment": {"amount": minus}, "balance": plus})


@dataclass(frozen=True)
class Payment:
    amount: Money
    note: str = ""


def test_a_result_without_a_json_form_is_unknown_for_a_write_and_failed_for_a_read() -> None:
    async def decimal() -> Decimal:
        """Count."""
        return Decimal("NaN")

    with pytest.raises(ToolFailed) as failed:
        call(tool("count.read", effects=READ)(decimal))
    with pytest.raises(OutcomeUnknown) as unknown:
        call(tool("count.write", effects={Effect.WRITE})(decimal))
    assert failed.value.code == unknown.value.code == "result_invalid"


async def locate_order(ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    attributes: dict[str, str | int | bool] = {"vip": args["order"] == 1, "lines": 2}
    if args["order"] == 2:
        attributes["vip"] = "yes"
    return Resource(kind="Order", id=str(args["order"]), tenant=ctx.tenant, attributes=attributes)


async def reconcile_order(ctx: ToolContext, args: Mapping[str, Json]) -> Reconciled:
    return Reconciled(happened=Happened.NO)


def undo_arguments(args: Mapping[str, Json], result: Json, before: Resource | None) -> Mapping[str, Json]:
    return {"order": args["order"]}


@tool(
    "orders.cancel",
    effects={Effect.WRITE},
    resource_kind="Order",
    resource_attributes={"vip": "Bool", "lines": "Long"},
    locate=locate_order,
    reconcile=reconcile_order,
    compensation=Compensation(tool="orders.restore", arguments=undo_arguments),
    authority=("order",),
)
async def cancel(order: int) -> None:
    """Cancel an order."""


def locate(order: int) -> Resource:
    found = cancel.locate
    assert found is not None

    async def run() -> Resource:
        return await found(CONTEXT, {"order": order})

    return asyncio.run(run())


def test_what_locate_finds_is_held_to_what_was_declared() -> None:
    assert locate(1).attributes == {"vip": True, "lines": 2}
    with pytest.raises(ToolFailed, match="`locate` found attribute `vip`, which is not as declared"):
        locate(2)


def test_reconcile_and_compensation_are_kept_with_the_tool() -> None:
    assert cancel.reconcile is reconcile_order
    assert cancel.compensation is not None
    assert cancel.compensation.tool == "orders.restore"


def refused(message: str, function: Callable[..., Any], *, name: str = "a.b", **options: Any) -> None:
    declared: dict[str, Any] = {"effects": READ} | options
    with pytest.raises(TypeError) as caught:
        tool(name, **declared)(function)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"tool `{name}`: ")
    assert not str(caught.value).endswith(".")


def plain(order: int = 1, changes: dict[str, str] | None = None) -> Order:
    """Do it."""
    raise NotImplementedError(order, changes)


@pytest.mark.parametrize("name", ["read", "Orders.read", "orders.reäd", "orders.read\n", "orders..read", "оrders.read"])
def test_a_name_that_is_not_plain_is_refused(name: str) -> None:
    refused("is not of the form `service.verb` in lower-case ASCII", plain, name=name)


@pytest.mark.parametrize("name", ["model.read", "model:gpt"])
def test_names_of_models_are_reserved(name: str) -> None:
    refused("is reserved for models", plain, name=name)


def test_signatures_that_leave_something_open_are_refused() -> None:
    def many(*order: int) -> None:
        """Do it."""

    def more(**order: int) -> None:
        """Do it."""

    def positional(order: int, /) -> None:
        """Do it."""

    def late(order: int, ctx: ToolContext) -> None:
        """Do it."""

    def silent(order: int):  # pyright: ignore
        """Do it."""

    def unresolved(order: Elsewhere) -> None:  # noqa: F821  # pyright: ignore
        """Do it."""

    def unannotated(order: int) -> None:
        """Do it."""

    unannotated.__annotations__.pop("order")

    def foreign(größe: int) -> None:  # noqa: PLC2401
        """Do it."""

    def shadowing(result: int) -> None:
        """Do it."""

    def undocumented(order: int) -> None: ...

    def misdocumented(order: int) -> None:
        """Do it.

        Args:
            ordre: The order.
        """

    refused("argument `order` has no annotation; add its type", unannotated)
    refused("argument `order` is open or positional-only; name every argument", many)
    refused("argument `order` is open or positional-only; name every argument", more)
    refused("argument `order` is open or positional-only; name every argument", positional)
    refused("argument `ctx` is a ToolContext; make it the first parameter", late)
    refused("no return annotation; add it, `-> None` if it returns nothing", silent)
    refused("name 'Elsewhere' is not defined; import it at run time", cast("Any", unresolved))
    refused("argument `größe` needs another name", foreign)
    refused("argument `result` needs another name", shadowing)
    refused("there is no description; say in a docstring", undocumented)
    refused("the docstring describes `ordre`, which is no argument; did you mean `order`?", misdocumented)
    refused("stands on a plain or async function", Order)


def test_types_that_admit_anything_are_refused_where_they_stand() -> None:
    def bare(lines: int) -> None:
        """Do it."""

    def anything(lines: dict[str, Any]) -> None:
        """Do it."""

    def binary(lines: bytes) -> None:
        """Do it."""

    def custom(lines: complex) -> None:
        """Do it."""

    def result() -> set[int]:
        """Do it."""
        return set()

    bare.__annotations__["lines"] = list
    refused("argument `lines`: `Any` and bare `list` or `dict` admit everything", bare)
    refused("argument `lines`: `Any` and bare `list` or `dict` admit everything", anything)
    refused("argument `lines`: `bytes` has no strict JSON form", binary)
    refused("argument `lines`: `complex` has no JSON form", custom)
    refused("the return type: `set` has no strict JSON form", result)


def test_defaults_are_json_of_the_annotated_type() -> None:
    def nothing(order: int = cast("int", None)) -> None:
        """Do it."""

    def small(order: Annotated[int, Meta(ge=1)] = 0) -> None:
        """Do it."""

    def strange(order: int = cast("int", STRANGE)) -> None:
        """Do it."""

    refused('default of `order`: null is not of type "integer"', nothing)
    refused("default of `order`: 0 is less than the minimum of 1", small)
    refused("default of `order`: ", strange)


def test_money_is_never_a_float_never_missing_and_one() -> None:
    def floating(amount: float) -> None:
        """Do it."""

    def optional(amount: Money | None) -> None:
        """Do it."""

    def left_out(amount: Money = ONE_EURO) -> None:
        """Do it."""

    def several(amounts: list[Money]) -> None:
        """Do it."""

    refused("annotate it as `Money`, never a float", floating, effects=MOVES, money="amount")
    refused("`amount` in `money` may be missing; make it required", optional, effects=MOVES, money="amount")
    refused("`amount` in `money` may be missing; make it required", left_out, effects=MOVES, money="amount")
    refused("`amounts.*` in `money` means many values", several, effects=MOVES, money="amounts.*")
    refused("effect `money` and `money=…`", floating, effects=MOVES)
    classes = {"amount": FieldClass.MONEY}
    refused("`amount` holds money as a float", floating, effects={Effect.WRITE}, field_classes=classes)


def test_declared_paths_lead_somewhere_and_suggest_what_was_meant() -> None:
    refused("`ordre` in `authority` leads nowhere; did you mean `order`?", plain, authority=["ordre"])
    refused(
        "`lines.sku` in `untrusted` leads nowhere; did you mean `lines.*.sku`?",
        plain,
        untrusted=["lines.sku"],
    )
    refused("`changes.x` in `authority` leads nowhere; did you mean `changes`?", plain, authority=["changes.x"])
    email = {"result.emial": FieldClass.PERSONAL}
    refused("`emial` in `field_classes` leads nowhere; did you mean `email`?", plain, field_classes=email)
    refused(
        "`order` in `written` is not of the right type; annotate it as an object",
        plain,
        written="order",
        effects={Effect.WRITE},
    )
    refused("`order` in `rows` is not of the right type; annotate it as a list", plain, rows="order")
    refused("`authority` is a list of paths; write `authority=[…]`", plain, authority="order")


def test_effects_and_declarations_agree() -> None:
    undo = Compensation(tool="orders.restore", arguments=undo_arguments)
    refused("no effects are declared", plain, effects=set())
    refused("`written` is declared without a write effect", plain, written="changes")
    refused("a pure read leaves nothing to reconcile", plain, reconcile=reconcile_order)
    refused("a pure read leaves nothing to reconcile or compensate", plain, compensation=undo)
    refused(
        "an irreversible effect can't have a compensation",
        plain,
        effects={Effect.IRREVERSIBLE},
        compensation=undo,
    )
    refused("`timeout_ms` is at least 1", plain, timeout_ms=0)
    refused("`timeout` is no option of `@tool`; did you mean `timeout_ms`?", plain, timeout=1)


def test_resources_are_declared_whole() -> None:
    refused("`resource_kind` and `locate` belong together", plain, resource_kind="Order")
    refused("`resource_kind` and `locate` belong together", plain, locate=locate_order)
    order: dict[str, Any] = {"resource_kind": "Order", "locate": locate_order}
    refused("resource attribute `vip` is never found; add `locate`", plain, resource_attributes={"vip": "Bool"})
    refused(
        "resource attribute `tenant` needs another name",
        plain,
        resource_attributes={"tenant": "String"},
        **order,
    )
    refused("of type `bool`; did you mean `Bool`?", plain, resource_attributes={"vip": "bool"}, **order)
    refused("resource kind `Ördér` is not an ASCII identifier", plain, resource_kind="Ördér", locate=locate_order)


def test_a_pattern_that_the_validator_does_not_know_is_refused() -> None:
    def strange(order: Annotated[str, Meta(pattern=r"^a\Z")]) -> None:
        """Do it."""

    refused("the schema of `args` is not valid", strange)


def test_awaiting_a_tool_that_is_cancelled_ends_it() -> None:
    reached: list[str] = []

    @tool("slow.read", effects=READ)
    async def slow() -> None:
        """Wait for ever."""
        reached.append("started")
        await asyncio.Event().wait()

    async def run() -> None:
        waiting: Awaitable[Json] = slow.function(CONTEXT, {})
        await asyncio.wait_for(waiting, timeout=0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert reached == ["started"]
