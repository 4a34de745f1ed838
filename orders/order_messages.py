"""Orders that come as a message: plain words in, what became of them out, as in `orders.service.OrderIntent`."""

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
MOST_RETRIES, MOST_TICKS = 100, 1_000
Member = TypeVar("Member", bound=StrEnum)


class SubmitOutcome(StrEnum):
    """PLACED: there is a row, and its status says what became of it. The others: nothing was sent, there is no row."""

    PLACED = "PLACED"
    DENIED = "DENIED"  # AEGIS will not send it; the reasons say why
    UNASKED = "UNASKED"  # the broker could not be asked beforehand: the same words may be sent again
    INVALID = "INVALID"  # a word is wrong; the error names it


class Answer(TypedDict):
    outcome: str
    request_id: str
    order: serializers.OrderShape | None
    reasons: list[serializers.ReasonShape]
    error: str


class BadRequest(ValueError):
    """A word of a request is wrong; the text names the field, its value and what would be right."""


def submit(words: dict[str, Any], broker: Broker, now: Callable[[], datetime]) -> Answer:
    """Place the order that `words` ask for and tell what became of it. Any number of times: one id, one order."""
    try:
        intent = read(words)
        order = OrderService(broker, now).place(intent)
    except BadRequest as error:
        return _answer(SubmitOutcome.INVALID, words, error=str(error))
    except OrderDenied as denied:
        return _answer(SubmitOutcome.DENIED, words, reasons=[serializers.reason(each) for each in denied.reasons])
    except BrokerError as error:
        return _answer(SubmitOutcome.UNASKED, words, error=str(error))
    return _answer(SubmitOutcome.PLACED, words, order=serializers.order(order))


def _answer(
    outcome: SubmitOutcome,
    words: dict[str, Any],
    *,
    order: serializers.OrderShape | None = None,
    reasons: list[serializers.ReasonShape] | None = None,
    error: str = "",
) -> Answer:
    request_id = str(words.get("request_id", ""))
    return {
        "outcome": outcome.value,
        "request_id": request_id,
        "order": order,
        "reasons": reasons or [],
        "error": error,
    }


def read(words: dict[str, Any]) -> OrderIntent:
    """Return the intent that plain words mean. Raises BadRequest."""
    if strange := words.keys() - set(WORDS):
        raise BadRequest(f"{', '.join(sorted(strange))}: no such word; there are {', '.join(WORDS)}")
    plan = words.get("plan")
    price = words.get("price")
    strategy = _text(words, "strategy")
    if strategy and price is not None:
        raise BadRequest(f"strategy {strategy!r} and price {price!r} exclude each other: give one, or neither")
    side = _member(words, "side", Side)
    return OrderIntent(
        request_id=_request_id(words),
        code=_code(words),
        side=side,
        qty=_number(words, "qty", least=1),
        strategy=strategy,
        price=None if price is None else _number(words, "price", least=1),
        market=None if words.get("market") is None else _member(words, "market", Market),
        plan=None if plan is None else _plan(plan),
        kind=None if words.get("kind") is None else _member(words, "kind", OrderKind),
        trigger=0 if words.get("trigger") is None else _number(words, "trigger", least=0),
        strategy_id=_strategy_id(words),
        tick_offset=None if words.get("tick_offset") is None else _ticks(words),
        stops=_stops(words.get("stops") or [], side),
    )


def _stops(value: Any, side: Side) -> tuple[EntryStop, ...]:
    """Read the stops that each fill arms: a list of {kind, unit, value}."""
    needed = "a list of {kind, unit, value} is needed, as {'kind': 'STOP_LOSS', 'unit': 'PERCENT', 'value': '5'}"
    if not isinstance(value, list) or any(
        not isinstance(each, dict) or each.keys() != {"kind", "unit", "value"} for each in value
    ):
        raise BadRequest(f"stops {value!r}: {needed}")
    if value and side is not Side.BUY:
        raise BadRequest(f"stops {value!r}: a sale arms none; leave them out")
    return tuple(_stop(each) for each in value)


def _stop(words: dict[str, Any]) -> EntryStop:
    kind, unit = _member(words, "kind", StopKind), _member(words, "unit", StopUnit)
    try:
        return EntryStop(kind, unit, Decimal(str(words["value"])))
    except (InvalidOperation, ValueError):
        text = f"stops.value {words['value']!r}: a number above 0 is needed, in won a whole one"
        raise BadRequest(text) from None


def _request_id(words: dict[str, Any]) -> str:
    value = _text(words, "request_id")
    if not 0 < len(value) <= REQUEST_ID_LENGTH:
        raise BadRequest(
            f"request_id {value!r}: 1 to {REQUEST_ID_LENGTH} letters are needed, new for each new order and "
            "the same for each repetition"
        )
    if value.startswith(TradeOrder.OWN_IDS):
        raise BadRequest(f"request_id {value!r}: {', '.join(TradeOrder.OWN_IDS)} begin AEGIS's own; begin it otherwise")
    return value


def _code(words: dict[str, Any]) -> str:
    value = _text(words, "code")
    try:
        return codes.normalise(value)
    except codes.NotACode:
        raise BadRequest(
            f"code {value!r}: six digits or letters are needed, as 005930 or 0009K0, or seven as Q500001"
        ) from None


def _strategy_id(words: dict[str, Any]) -> str:
    value = codes.plain(_text(words, "strategy_id"))
    if len(value) > STRATEGY_ID_LENGTH or not value.isprintable():
        raise BadRequest(f"strategy_id {value!r}: up to {STRATEGY_ID_LENGTH} printable letters are needed")
    return value


def _ticks(words: dict[str, Any]) -> int:
    value = words["tick_offset"]
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_TICK_OFFSET:
        raise BadRequest(f"tick_offset {value!r}: a whole number of ticks, -{MAX_TICK_OFFSET} to {MAX_TICK_OFFSET}")
    if words.get("price") is not None:
        raise BadRequest(f"tick_offset {value!r} and price {words['price']!r} exclude each other: give one, or neither")
    return value


def _text(words: dict[str, Any], name: str) -> str:
    value = words.get(name, "")
    if not isinstance(value, str) or "\0" in value:
        raise BadRequest(f"{name} {value!r}: text is needed")
    return value


def _number(words: dict[str, Any], name: str, *, least: int, most: int | None = None) -> int:
    value, largest = words.get(name), 10**12 - 1 if most is None else most
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= largest:
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise BadRequest(f"{name} {value!r}: a whole number, {bounds}, is needed")
    return value


def _member(words: dict[str, Any], name: str, kinds: type[Member]) -> Member:
    value = words.get(name)
    if value not in list(kinds):
        raise BadRequest(f"{name} {value!r}: one of {', '.join(kinds)} is needed")
    return kinds(value)


def _plan(words: Any) -> Plan:
    """Read a chase; what it does not name is as the settings say."""
    usual = serializers.plan(default_plan())
    if not isinstance(words, dict) or not words.keys() <= usual.keys():
        raise BadRequest(f"plan {words!r}: an object with any of {', '.join(usual)} is needed")
    whole = {**usual, **words}
    wait, market_after = whole["wait_seconds"], whole["market_after"]
    if not isinstance(wait, int | float) or isinstance(wait, bool) or not 0 <= wait < 86_400:
        raise BadRequest(f"plan.wait_seconds {wait!r}: seconds are needed, 0 for no chase at all")
    if not isinstance(market_after, bool):
        raise BadRequest(f"plan.market_after {market_after!r}: true or false is needed")
    retries = _number(whole, "max_retries", least=0, most=MOST_RETRIES)
    step = _number(whole, "step_ticks", least=1, most=MOST_TICKS)
    return Plan(float(wait), retries, step, market_after)
