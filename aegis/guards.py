"""Why an order must not go: a list of reasons, all at once, empty when it may.

Each guard is a function of the facts and returns at most one reason. A reason carries its sentence in
English as the key of a translation, and the figures that fill it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from aegis.broker import OrderRequest, Quote
from aegis.sessions import Phase, legal_kinds, phases_at
from aegis.terms import Instrument, Market, Side
from aegis.ticks import get_tick_size, is_on_tick


def gettext_noop(text: str) -> str:
    """Mark a sentence for the catalogue of translations; it is translated where people read it."""
    return text


class TradingState(StrEnum):
    """The kill switch. Sales pass in REDUCING; nothing new passes in HALTED."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason against an order: a stable code, and a sentence with named places for `figures`."""

    code: str
    sentence: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence.format(**self.figures)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the guards look at. What the broker was not asked for is None and is not judged.

    `blacklisted` is the reason a stock is on the blacklist; `orderable_cash` won and `sellable_qty`
    shares are the broker's own answers of this moment.
    """

    request: OrderRequest
    now: datetime
    state: TradingState
    phases: tuple[Phase, ...]
    instrument: Instrument
    trades_on_nxt: bool
    blacklisted: str | None = None
    quote: Quote | None = None
    orderable_cash: int | None = None
    orderable_qty: int | None = None
    sellable_qty: int | None = None
    cost_won: int = 0


Guard = Callable[[Facts], Reason | None]


def check_quantity(facts: Facts) -> Reason | None:
    if facts.request.qty > 0:
        return None
    return Reason(
        "QUANTITY", gettext_noop("quantity {qty} is not a positive number of shares"), {"qty": facts.request.qty}
    )


def check_switch(facts: Facts) -> Reason | None:
    if facts.state is TradingState.HALTED:
        return Reason("HALTED", gettext_noop("trading is halted: resume it before ordering"))
    if facts.state is TradingState.REDUCING and facts.request.side is Side.BUY:
        return Reason("REDUCING", gettext_noop("only sales are allowed now: the switch stands on reducing"))
    return None


def check_blacklist(facts: Facts) -> Reason | None:
    """Buys only: what is held must always be sellable. Source: spec §12.1."""
    if facts.blacklisted is None or facts.request.side is Side.SELL:
        return None
    return Reason(
        "BLACKLISTED",
        gettext_noop("{code} is on the blacklist: {why}"),
        {"code": facts.request.code, "why": facts.blacklisted},
    )


def check_venue(facts: Facts) -> Reason | None:
    """The venue must be open, and its phase must take this kind of order."""
    request = facts.request
    if request.market is not Market.KRX and not facts.trades_on_nxt:
        return Reason("NOT_ON_NXT", gettext_noop("{code} does not trade on NXT: use KRX"), {"code": request.code})
    if not phases_at(facts.phases, request.market, facts.now):
        return Reason(
            "MARKET_CLOSED",
            gettext_noop("{market} takes no orders at {time}"),
            {"market": request.market, "time": f"{facts.now:%Y-%m-%d %H:%M:%S}"},
        )
    if request.kind not in legal_kinds(request.market, facts.phases, facts.now):
        return Reason(
            "ORDER_KIND",
            gettext_noop("{market} does not take order kind {kind} at {time}"),
            {"market": request.market, "kind": request.kind.value, "time": f"{facts.now:%H:%M:%S}"},
        )
    return None


def check_tick(facts: Facts) -> Reason | None:
    request = facts.request
    if not request.kind.is_priced or is_on_tick(request.price, facts.instrument):
        return None
    return Reason(
        "TICK",
        gettext_noop("price {price:,} is not on the grid: the tick there is {tick:,} won"),
        {"price": request.price, "tick": get_tick_size(request.price, facts.instrument)},
    )


def check_daily_limits(facts: Facts) -> Reason | None:
    request, quote = facts.request, facts.quote
    if quote is None or not request.kind.is_priced or quote.lower_limit <= request.price <= quote.upper_limit:
        return None
    return Reason(
        "DAILY_LIMIT",
        gettext_noop("price {price:,} is outside today's limits {lower:,} to {upper:,}"),
        {"price": request.price, "lower": quote.lower_limit, "upper": quote.upper_limit},
    )


def check_halt(facts: Facts) -> Reason | None:
    if facts.quote is None or not facts.quote.is_halted:
        return None
    return Reason("STOCK_HALTED", gettext_noop("{code} is halted by the exchange"), {"code": facts.request.code})


def check_cash(facts: Facts) -> Reason | None:
    """`orderable_cash` already leaves out commission and what open buys hold: never subtract them again."""
    if facts.request.side is Side.SELL or facts.orderable_cash is None:
        return None
    enough = facts.orderable_qty is None or facts.request.qty <= facts.orderable_qty
    if enough and facts.cost_won <= facts.orderable_cash:
        return None
    return Reason(
        "CASH",
        gettext_noop("not enough cash: {needed:,} won needed, {cash:,} won orderable"),
        {"needed": facts.cost_won, "cash": facts.orderable_cash},
    )


def check_shares(facts: Facts) -> Reason | None:
    if facts.request.side is Side.BUY or facts.sellable_qty is None or facts.request.qty <= facts.sellable_qty:
        return None
    return Reason(
        "SHARES",
        gettext_noop("not enough shares: {qty:,} asked, {sellable:,} sellable"),
        {"qty": facts.request.qty, "sellable": facts.sellable_qty},
    )


# what needs no question to the broker comes first: a refused order then costs no call
STANDING: tuple[Guard, ...] = (check_quantity, check_switch, check_blacklist, check_venue)
PRICED: tuple[Guard, ...] = (check_tick,)
LIVE: tuple[Guard, ...] = (check_daily_limits, check_halt, check_cash, check_shares)


def reasons(facts: Facts, guards: tuple[Guard, ...] = STANDING + PRICED + LIVE) -> list[Reason]:
    """Return every reason against the order, in the order of the guards."""
    return [reason for guard in guards if (reason := guard(facts)) is not None]
