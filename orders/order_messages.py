"""Orders as messages: JSON parameters in, a JSON answer out; the parameters are those of `OrderIntent`."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, TypedDict, TypeVar

from aegis import codes
from aegis.broker import Broker, BrokerError
from aegis.chase import Plan
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, OrderKind, Side
from orders import serializers
from orders.intents import MAX_TICK_OFFSET, STRATEGY_ID_LENGTH, EntryStop
from orders.models import REQUEST_ID_LENGTH, TradeOrder
from orders.service import OrderDenied, OrderIntent, OrderService, default_plan

WORDS = (
    "request_id",
    "code",
    "side",
    "qty",
    "strategy",
    "price",
    "market",
    "plan",
    "kind",
    "trigger",
    "strategy_id",
    "tick_offset",
    "stops",
)
MAX_RETRIES, MAX_TICKS = 100, 1_000
Member = TypeVar("Member", bound=StrEnum)


class SubmitOutcome(StrEnum):
    """PLACED: there is a row, and its status is the result. Otherwise nothing was sent, and there is no row."""

    PLACED = "PLACED"
    DENIED = "DENIED"  # AEGIS does not send it; `reasons` says why
    UNASKED = "UNASKED"  # the broker could not be asked beforehand: the same message may be sent again
    INVALID = "INVALID"  # a parameter is wrong; `error` names it


class Answer(TypedDict):
    outcome: str
    request_id: str
    order: serializers.OrderShape | None
    reasons: list[serializers.ReasonShape]
    error: str


class BadRequest(ValueError):
    """A parameter of a request is wrong. The message names the parameter, its value and a valid form."""


def submit(params: dict[str, Any], broker: Broker, now: Callable[[], datetime]) -> Answer:
    """Place the order of `params` and return its outcome. A repeated request id returns the same order."""
    try:
        intent = parse_intent(params)
        order = OrderService(broker, now).place(intent)
    except BadRequest as error:
        return _answer(SubmitOutcome.INVALID, params, error=str(error))
    except OrderDenied as error:
        return _answer(SubmitOutcome.DENIED, params, reasons=[serializers.reason(denial) for denial in error.reasons])
    except BrokerError as error:
        return _answer(SubmitOutcome.UNASKED, params, error=str(error))
    return _answer(SubmitOutcome.PLACED, params, order=serializers.order(order))


def _answer(
    outcome: SubmitOutcome,
    params: dict[str, Any],
    *,
    order: serializers.OrderShape | None = None,
    reasons: list[serializers.ReasonShape] | None = None,
    error: str = "",
) -> Answer:
    request_id = str(params.get("request_id", ""))
    return {
        "outcome": outcome.value,
        "request_id": request_id,
        "order": order,
        "reasons": reasons or [],
        "error": error,
    }


def parse_intent(params: dict[str, Any]) -> OrderIntent:
    """Return the order intent of a message's parameters. Raises BadRequest."""
    if unknown_names := params.keys() - set(WORDS):
        raise BadRequest(f"{', '.join(sorted(unknown_names))}: no such word; there are {', '.join(WORDS)}")
    plan = params.get("plan")
    price = params.get("price")
    strategy = _text(params, "strategy")
    if strategy and price is not None:
        raise BadRequest(f"strategy {strategy!r} and price {price!r} exclude each other: give one, or neither")
    side = _member(params, "side", Side)
    return OrderIntent(
        request_id=_request_id(params),
        code=_code(params),
        side=side,
        qty=_number(params, "qty", least=1),
        strategy=strategy,
        price=None if price is None else _number(params, "price", least=1),
        market=None if params.get("market") is None else _member(params, "market", Market),
        plan=None if plan is None else _plan(plan),
        kind=None if params.get("kind") is None else _member(params, "kind", OrderKind),
        trigger=0 if params.get("trigger") is None else _number(params, "trigger", least=0),
        strategy_id=_strategy_id(params),
        tick_offset=None if params.get("tick_offset") is None else _ticks(params),
        stops=_stops(params.get("stops") or [], side),
    )


def _stops(value: Any, side: Side) -> tuple[EntryStop, ...]:
    """Read the entry stops, which each fill arms: a list of {kind, unit, value}."""
    needed = "a list of {kind, unit, value} is needed, as {'kind': 'STOP_LOSS', 'unit': 'PERCENT', 'value': '5'}"
    if not isinstance(value, list) or any(
        not isinstance(entry, dict) or entry.keys() != {"kind", "unit", "value"} for entry in value
    ):
        raise BadRequest(f"stops {value!r}: {needed}")
    if value and side is not Side.BUY:
        raise BadRequest(f"stops {value!r}: a sale arms none; leave them out")
    return tuple(_stop(entry) for entry in value)


def _stop(params: dict[str, Any]) -> EntryStop:
    kind, unit = _member(params, "kind", StopKind), _member(params, "unit", StopUnit)
    try:
        return EntryStop(kind, unit, Decimal(str(params["value"])))
    except (InvalidOperation, ValueError):
        message = f"stops.value {params['value']!r}: a number above 0 is needed, in won a whole one"
        raise BadRequest(message) from None


def _request_id(params: dict[str, Any]) -> str:
    value = _text(params, "request_id")
    if not 0 < len(value) <= REQUEST_ID_LENGTH:
        raise BadRequest(
            f"request_id {value!r}: 1 to {REQUEST_ID_LENGTH} letters are needed, new for each new order and "
            "the same for each repetition"
        )
    if value.startswith(TradeOrder.OWN_IDS):
        raise BadRequest(f"request_id {value!r}: {', '.join(TradeOrder.OWN_IDS)} begin AEGIS's own; begin it otherwise")
    return value


def _code(params: dict[str, Any]) -> str:
    value = _text(params, "code")
    try:
        return codes.normalise(value)
    except codes.NotACode:
        raise BadRequest(
            f"code {value!r}: six digits or letters are needed, as 005930 or 0009K0, or seven as Q500001"
        ) from None


def _strategy_id(params: dict[str, Any]) -> str:
    value = codes.plain(_text(params, "strategy_id"))
    if len(value) > STRATEGY_ID_LENGTH or not value.isprintable():
        raise BadRequest(f"strategy_id {value!r}: up to {STRATEGY_ID_LENGTH} printable letters are needed")
    return value


def _ticks(params: dict[str, Any]) -> int:
    value = params["tick_offset"]
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_TICK_OFFSET:
        raise BadRequest(f"tick_offset {value!r}: a whole number of ticks, -{MAX_TICK_OFFSET} to {MAX_TICK_OFFSET}")
    if params.get("price") is not None:
        raise BadRequest(
            f"tick_offset {value!r} and price {params['price']!r} exclude each other: give one, or neither"
        )
    return value


def _text(params: dict[str, Any], name: str) -> str:
    value = params.get(name, "")
    if not isinstance(value, str) or "\0" in value:
        raise BadRequest(f"{name} {value!r}: text is needed")
    return value


def _number(params: dict[str, Any], name: str, *, least: int, most: int | None = None) -> int:
    value, upper = params.get(name), 10**12 - 1 if most is None else most
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= upper:
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise BadRequest(f"{name} {value!r}: a whole number, {bounds}, is needed")
    return value


def _member(params: dict[str, Any], name: str, kinds: type[Member]) -> Member:
    value = params.get(name)
    if value not in list(kinds):
        raise BadRequest(f"{name} {value!r}: one of {', '.join(kinds)} is needed")
    return kinds(value)


def _plan(params: Any) -> Plan:
    """Read a chase plan; the settings provide the missing fields."""
    defaults = serializers.plan(default_plan())
    if not isinstance(params, dict) or not params.keys() <= defaults.keys():
        raise BadRequest(f"plan {params!r}: an object with any of {', '.join(defaults)} is needed")
    merged = {**defaults, **params}
    wait, market_after = merged["wait_seconds"], merged["market_after"]
    if not isinstance(wait, int | float) or isinstance(wait, bool) or not 0 <= wait < 86_400:
        raise BadRequest(f"plan.wait_seconds {wait!r}: seconds are needed, 0 for no chase at all")
    if not isinstance(market_after, bool):
        raise BadRequest(f"plan.market_after {market_after!r}: true or false is needed")
    retries = _number(merged, "max_retries", least=0, most=MAX_RETRIES)
    step = _number(merged, "step_ticks", least=1, most=MAX_TICKS)
    return Plan(float(wait), retries, step, market_after)
