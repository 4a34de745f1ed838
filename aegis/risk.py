"""Why an order must not go: a list of reasons, all at once, empty when it may. And when the switch trips itself.

Each guard is a function of the facts and returns at most one reason. A reason carries its sentence in
English as the key of a translation, and the figures that fill it. A guard whose facts are not known yet
says nothing: it is asked again when they are.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from aegis.broker import OrderRequest, Quote
from aegis.denials import Denial, DenialCode
from aegis.sessions import Phase, PhaseName, legal_kinds, phases_at
from aegis.terms import Instrument, Market, OrderKind, Side
from aegis.ticks import get_tick_size, is_on_tick


def gettext_noop(text: str) -> str:
    """Mark a sentence for the catalogue of translations; it is translated where people read it."""
    return text


class TradingState(StrEnum):
    """The kill switch. Sales pass in REDUCING, stops among them; nothing new passes in HALTED. HALTED is a person's."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"

    def lets_pass(self, side: Side) -> bool:
        """Whether a new order of this side may go."""
        return self is TradingState.ACTIVE or (self is TradingState.REDUCING and side is Side.SELL)


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's own bounds, in won, percent and orders; 0 leaves one out.

    Those on value, weight and sector bind buys only: what is held must always be sellable.
    """

    order_won: int = 0
    day_won: int = 0
    position_percent: Decimal = Decimal(0)
    collar_percent: Decimal = Decimal(0)
    orders_per_minute: int = 0
    excluded_sectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestingOrder:
    """An order of the same account and stock on the other side: its name, venue, and price in won (0: at any)."""

    name: str
    market: Market
    price: int


@dataclass(frozen=True, slots=True)
class ExposureFromOtherOrders:
    """What our other orders mean for this one. Its own family is not counted, nor its own request.

    `last_minute` counts intents of its side, `bought_today_won` those of the day that buy. `twin` names an order
    of seconds ago that asks for the same; `blocked_by_unknown` one of the same stock and side whose outcome is unknown,
    and `blocked_by_unknown_amend` one that an amend of unknown outcome may lead to. Cash and shares that orders of
    unknown outcome may have taken count as spent. `open_buy_qty` are shares of this stock that open buys may still
    bring. `opposite` are the account's own orders on the other side of this stock.
    """

    last_minute: int = 0
    bought_today_won: int = 0
    twin: str = ""
    blocked_by_unknown: str = ""
    blocked_by_unknown_amend: str = ""
    unknown_cash_won: int = 0
    unknown_qty: int = 0
    open_buy_qty: int = 0
    opposite: tuple[RestingOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class RiskInputs:
    """All that the risk checks look at. What was not asked for yet is None and is not judged.

    `is_priced` is false while the price to go is not known. `blacklisted` is the reason a stock is on the
    blacklist; `orderable_cash` won and `sellable_qty` shares are the broker's own answers of this moment.
    `is_child_order` marks a chase's re-order or a stop's sale, which no caller asks for. `total_asset` in won is the
    account as last seen, `held_qty` what it holds of this stock. `best_opposite` is the price in won that it would meet
    first, None if the book was not asked. `may_cross` names the account's own orders that it may trade against.
    `kept_qty` and `kept_won` are what the family of an amend has bought or may still buy beside it. `breaker_since`: a
    circuit breaker goes on since then.
    """

    request: OrderRequest
    now: datetime
    state: TradingState
    phases: tuple[Phase, ...]
    instrument: Instrument
    trades_on_nxt: bool
    is_priced: bool = True
    reconciled: bool = True
    is_child_order: bool = False
    sector: str = ""
    blacklisted: str | None = None
    limits: Limits = Limits()
    others: ExposureFromOtherOrders = ExposureFromOtherOrders()
    held_qty: int = 0
    total_asset: int | None = None
    quote: Quote | None = None
    orderable_cash: int | None = None
    orderable_qty: int | None = None
    sellable_qty: int | None = None
    cost_won: int = 0
    best_opposite: int | None = None
    may_cross: frozenset[str] = frozenset()
    kept_qty: int = 0
    kept_won: int = 0
    breaker_since: datetime | None = None

    @property
    def is_buy(self) -> bool:
        return self.request.side is Side.BUY

    @property
    def price(self) -> int | None:
        """Return the price to judge by, in won: the order's own, the last one where it names none."""
        if self.request.kind.is_priced:
            return self.request.price if self.is_priced else None
        return self.quote.price if self.quote else None

    @property
    def value_won(self) -> int | None:
        return None if self.price is None else self.request.qty * self.price


RiskCheck = Callable[[RiskInputs], Denial | None]


def check_quantity(facts: RiskInputs) -> Denial | None:
    if facts.request.qty > 0:
        return None
    return Denial(
        DenialCode.QUANTITY,
        gettext_noop("quantity {qty} is not a positive number of shares"),
        {"qty": facts.request.qty},
    )


def check_trading_state(facts: RiskInputs) -> Denial | None:
    if facts.state.lets_pass(facts.request.side):
        return None
    if facts.state is TradingState.HALTED:
        return Denial(DenialCode.HALTED, gettext_noop("trading is halted: resume it before ordering"))
    return Denial(DenialCode.REDUCING, gettext_noop("only sales are allowed now: the switch stands on reducing"))


def check_circuit_breaker(facts: RiskInputs) -> Denial | None:
    """New orders wait until the venue trades again. For a stop's sale the quote tells whether its stock is halted."""
    if facts.breaker_since is None:
        return None
    return Denial(
        DenialCode.CIRCUIT_BREAKER,
        gettext_noop("a circuit breaker holds the market since {time}: new orders wait until it trades again"),
        {"time": f"{facts.breaker_since.astimezone(facts.now.tzinfo):%H:%M:%S}"},
    )


def check_reconciled(facts: RiskInputs) -> Denial | None:
    """Nothing leaves before our orders were held against the broker's list, whole and not long ago."""
    if facts.reconciled:
        return None
    return Denial(DenialCode.NOT_RECONCILED, gettext_noop("our orders are not reconciled with the broker's list yet"))


def check_blacklist(facts: RiskInputs) -> Denial | None:
    """Buys only: what is held must always be sellable. Source: spec §12.1."""
    if facts.blacklisted is None or not facts.is_buy:
        return None
    return Denial(
        DenialCode.BLACKLISTED,
        gettext_noop("{code} is on the blacklist: {why}"),
        {"code": facts.request.code, "why": facts.blacklisted},
    )


def check_sector(facts: RiskInputs) -> Denial | None:
    """Buys only. A sector is meant where a word of the setting is part of its name. Source: spec §12.1."""
    if not facts.is_buy:
        return None
    sector = _letters(facts.sector)
    word = next((word for word in facts.limits.excluded_sectors if (bare := _letters(word)) and bare in sector), None)
    if word is None:
        return None
    return Denial(
        DenialCode.SECTOR,
        gettext_noop("{code} is in the sector {sector}, which is excluded ({word}, AEGIS_EXCLUDED_SECTORS)"),
        {"code": facts.request.code, "sector": facts.sector, "word": word},
    )


@lru_cache(maxsize=512)
def _letters(text: str) -> str:
    """Return a sector's name without what lists write differently: "전기·가스" and "전기,가스" are one."""
    return re.sub(r"[\W_]", "", text)


def check_venue(facts: RiskInputs) -> Denial | None:
    """The venue must be open, and its phase must take this kind of order."""
    request = facts.request
    if request.market is not Market.KRX and not facts.trades_on_nxt:
        return Denial(
            DenialCode.NOT_ON_NXT, gettext_noop("{code} does not trade on NXT: use KRX"), {"code": request.code}
        )
    open_phases = phases_at(facts.phases, request.market, facts.now)
    if not open_phases:
        return Denial(
            DenialCode.MARKET_CLOSED,
            gettext_noop("{market} takes no orders at {time}"),
            {"market": request.market, "time": f"{facts.now:%Y-%m-%d %H:%M:%S}"},
        )
    if facts.instrument is not Instrument.STOCK and _is_krx_after_market(open_phases):
        return Denial(
            DenialCode.FUND_AFTER_HOURS,
            gettext_noop("{code} is no share: KRX's after-market trades shares only"),
            {"code": request.code},
        )
    return _check_kind(facts)


def _is_krx_after_market(phases: tuple[Phase, ...]) -> bool:
    return all(phase.market is Market.KRX and phase.name is PhaseName.AFTER_MARKET for phase in phases)


def _check_kind(facts: RiskInputs) -> Denial | None:
    request = facts.request
    legal = legal_kinds(request.market, facts.phases, facts.now)
    if request.kind in legal:
        return None
    return Denial(
        DenialCode.ORDER_KIND,
        gettext_noop("{market} does not take order kind {kind} at {time}: it takes {legal}"),
        {
            "market": request.market,
            "kind": request.kind.value,
            "time": f"{facts.now:%H:%M:%S}",
            "legal": " ".join(sorted(legal)),
        },
    )


def check_unknown_order(facts: RiskInputs) -> Denial | None:
    """While one order's fate is unknown, no second one of its stock and side goes: it could be the same again.

    An amend adds no shares to those of its original: it holds up no stop, and no chase of another family.
    """
    name = facts.others.blocked_by_unknown or ("" if facts.is_child_order else facts.others.blocked_by_unknown_amend)
    if not name:
        return None
    return Denial(
        DenialCode.FROZEN,
        gettext_noop("order {order} of {code} has no known outcome yet: new ones on its side wait for that"),
        {"order": name, "code": facts.request.code},
    )


def check_duplicate(facts: RiskInputs) -> Denial | None:
    """The same asked for twice within seconds, by two request ids, is most likely meant once."""
    if facts.is_child_order or not facts.others.twin:
        return None
    return Denial(
        DenialCode.DUPLICATE,
        gettext_noop("order {order} asked for the same a moment ago: wait (AEGIS_DUPLICATE_SECONDS) if you mean both"),
        {"order": facts.others.twin},
    )


def check_order_rate(facts: RiskInputs) -> Denial | None:
    """Buys and sales are counted apart, and a stop waits for neither: no haste may hold up what has to be sold."""
    most = facts.limits.orders_per_minute
    if facts.is_child_order or not most or facts.others.last_minute < most:
        return None
    return Denial(
        DenialCode.PACE,
        gettext_noop("{count} orders of this side within a minute: at most {most} (AEGIS_MAX_ORDERS_PER_MINUTE)"),
        {"count": facts.others.last_minute, "most": most},
    )


def check_self_cross(facts: RiskInputs) -> Denial | None:
    """An order must not trade against a resting order of the same account: the exchange forbids such trades (통정매매).

    It is judged by its limit, or without a price by the best opposite quote. SOR counts as both venues.
    """
    price = facts.price if facts.request.kind.is_priced else facts.best_opposite or facts.price
    if price is None:
        return None
    against = (each for each in facts.others.opposite if each.name not in facts.may_cross)
    rival = next((each for each in against if _crosses(facts.request, price, each)), None)
    if rival is None:
        return None
    return Denial(
        DenialCode.SELF_CROSS,
        gettext_noop("it could trade against order {order} of the same account: cancel that one first"),
        {"order": rival.name},
    )


def _crosses(request: OrderRequest, price: int, rival: RestingOrder) -> bool:
    same_venue = Market.SOR in (request.market, rival.market) or request.market is rival.market
    return same_venue and (not rival.price or (price - rival.price) * request.side.sign >= 0)


def check_order_value(facts: RiskInputs) -> Denial | None:
    value, most = facts.value_won, facts.limits.order_won
    if not facts.is_buy or not most or value is None or value <= most:
        return None
    return Denial(
        DenialCode.ORDER_VALUE,
        gettext_noop("the order is worth {value:,} won: at most {most:,} (AEGIS_MAX_ORDER_WON)"),
        {"value": value, "most": most},
    )


def check_day_value(facts: RiskInputs) -> Denial | None:
    value, most, before = facts.value_won, facts.limits.day_won, facts.others.bought_today_won + facts.kept_won
    if not facts.is_buy or not most or value is None or before + value <= most:
        return None
    return Denial(
        DenialCode.DAY_VALUE,
        gettext_noop(
            "with {before:,} won ordered to buy today, {value:,} more is too much: at most {most:,} (AEGIS_MAX_DAY_WON)"
        ),
        {"before": before, "value": value, "most": most},
    )


def check_concentration(facts: RiskInputs) -> Denial | None:
    """What is held, what open buys may bring, and this order, against the account's total."""
    value, most = facts.value_won, facts.limits.position_percent
    if not facts.is_buy or not most or value is None or facts.quote is None or facts.total_asset is None:
        return None
    position = (facts.held_qty + facts.others.open_buy_qty + facts.kept_qty) * facts.quote.price + value
    if position * 100 <= facts.total_asset * most:
        return None
    return Denial(
        DenialCode.POSITION_WEIGHT,
        gettext_noop(
            "{code} would be worth {position:,} won of {total:,}: at most {most:g}% (AEGIS_MAX_POSITION_PERCENT)"
        ),
        {"code": facts.request.code, "position": position, "total": facts.total_asset, "most": most},
    )


def check_tick(facts: RiskInputs) -> Denial | None:
    """The price lies on the grid of its instrument, by the tick that the broker's quote tells if it was asked."""
    request, quoted = facts.request, facts.quote.quoted_tick if facts.quote else None
    if not request.kind.is_priced or not facts.is_priced:
        return None
    if is_on_tick(request.price, facts.instrument, quoted=quoted):
        return None
    return Denial(
        DenialCode.TICK,
        gettext_noop("price {price:,} is not on the grid: the tick there is {tick:,} won"),
        {"price": request.price, "tick": get_tick_size(request.price, facts.instrument, quoted=quoted)},
    )


def check_trigger(facts: RiskInputs) -> Denial | None:
    """A stop-limit order names its condition price (CNDT_PRIC), on the grid, within the day; no other kind does."""
    request, quote = facts.request, facts.quote
    if request.kind is not OrderKind.STOP_LIMIT:
        if not request.trigger:
            return None
        words = gettext_noop("only a stop-limit order (22) has a trigger price, and this one is of kind {kind}")
        return Denial(DenialCode.TRIGGER, words, {"kind": request.kind.value})
    inside = quote is None or quote.lower_limit <= request.trigger <= quote.upper_limit
    quoted = quote.quoted_tick if quote else None
    if inside and is_on_tick(request.trigger, facts.instrument, quoted=quoted):
        return None
    return Denial(
        DenialCode.TRIGGER,
        gettext_noop("a stop-limit order needs a trigger price on the grid and within today's limits, not {trigger:,}"),
        {"trigger": request.trigger},
    )


def check_daily_limits(facts: RiskInputs) -> Denial | None:
    quote, price = facts.quote, facts.price
    if quote is None or price is None or not facts.request.kind.is_priced:
        return None
    if quote.lower_limit <= price <= quote.upper_limit:
        return None
    return Denial(
        DenialCode.DAILY_LIMIT,
        gettext_noop("price {price:,} is outside today's limits {lower:,} to {upper:,}"),
        {"price": price, "lower": quote.lower_limit, "upper": quote.upper_limit},
    )


def check_price_collar(facts: RiskInputs) -> Denial | None:
    """A buy far over the last trade, or a sale far under it, is a slip of the hand. The other way it only rests."""
    quote, price, most = facts.quote, facts.price, facts.limits.collar_percent
    if not most or quote is None or price is None or not facts.request.kind.is_priced:
        return None
    if (price - quote.price) * facts.request.side.sign * 100 <= quote.price * most:
        return None
    return Denial(
        DenialCode.COLLAR,
        gettext_noop(
            "price {price:,} is too far from the last trade at {last:,}: at most {most:g}% (AEGIS_MAX_COLLAR_PERCENT)"
        ),
        {"price": price, "last": quote.price, "most": most},
    )


def check_halt(facts: RiskInputs) -> Denial | None:
    if facts.quote is None or not facts.quote.is_halted:
        return None
    return Denial(
        DenialCode.STOCK_HALTED, gettext_noop("{code} is halted by the exchange"), {"code": facts.request.code}
    )


def check_cash(facts: RiskInputs) -> Denial | None:
    """`orderable_cash` already leaves out commission and what open buys hold: never subtract them again.

    What buys of unknown fate may have taken does count as spent: the broker may not know of them yet.
    """
    if not facts.is_buy or facts.orderable_cash is None:
        return None
    cash = max(0, facts.orderable_cash - facts.others.unknown_cash_won)
    enough = facts.orderable_qty is None or facts.request.qty <= facts.orderable_qty
    if enough and facts.cost_won <= cash:
        return None
    return Denial(
        DenialCode.CASH,
        gettext_noop("not enough cash: {needed:,} won needed, {cash:,} won orderable"),
        {"needed": facts.cost_won, "cash": cash},
    )


def check_shares(facts: RiskInputs) -> Denial | None:
    if facts.is_buy or facts.sellable_qty is None:
        return None
    sellable = max(0, facts.sellable_qty - facts.others.unknown_qty)
    if facts.request.qty <= sellable:
        return None
    return Denial(
        DenialCode.SHARES,
        gettext_noop("not enough shares: {qty:,} asked, {sellable:,} sellable"),
        {"qty": facts.request.qty, "sellable": sellable},
    )


RISK_CHECKS: tuple[RiskCheck, ...] = (
    check_quantity,
    check_trading_state,
    check_circuit_breaker,
    check_reconciled,
    check_blacklist,
    check_sector,
    check_venue,
    check_unknown_order,
    check_duplicate,
    check_order_rate,
    check_self_cross,
    check_order_value,
    check_day_value,
    check_concentration,
    check_tick,
    check_trigger,
    check_daily_limits,
    check_price_collar,
    check_halt,
    check_cash,
    check_shares,
)
# what another process may have changed since: asked again under the lock in which the order is committed
COMMIT_CHECKS: tuple[RiskCheck, ...] = (
    check_trading_state,
    check_circuit_breaker,
    check_reconciled,
    check_unknown_order,
    check_duplicate,
    check_order_rate,
    check_self_cross,
    check_day_value,
    check_concentration,
)


# for an amend that commits no more than before: what the exchange would refuse, and nothing else
HARMLESS: tuple[RiskCheck, ...] = (
    check_quantity,
    check_venue,
    check_tick,
    check_daily_limits,
    check_halt,
)


def denials(facts: RiskInputs, guards: tuple[RiskCheck, ...] = RISK_CHECKS) -> list[Denial]:
    """Return every reason against the order, in the order of the guards."""
    return [reason for guard in guards if (reason := guard(facts)) is not None]


def check_order_kind_fields(kind: OrderKind, *, names_price: bool) -> Denial | None:
    """Return what is wrong with an intent that asks for an order kind by name: some name a price, others none."""
    if kind.is_priced is names_price:
        return None
    if kind.is_priced:
        words = gettext_noop("order kind {kind} needs a price or a strategy")
        return Denial(DenialCode.NEEDS_PRICE, words, {"kind": kind.value})
    words = gettext_noop("order kind {kind} names no price: leave price and strategy out")
    return Denial(DenialCode.NAMES_NO_PRICE, words, {"kind": kind.value})


# --- when the trading state changes by itself ------------------------------------------------------

DAILY_LOSS, REFUSALS, LIST_MISSING = DenialCode.DAILY_LOSS, DenialCode.REFUSALS, DenialCode.LIST_MISSING
# a trip for missing lists ends once every list was complete for this long, at most N times a day
LIST_COMPLETE_FOR = timedelta(minutes=2)
MAX_CLEARED_A_DAY = 3


@dataclass(frozen=True, slots=True)
class TripLimits:
    """When the state trips to REDUCING by itself; 0 leaves one out.

    Losses in won and in percent of yesterday's total, refused orders in a row, minutes without a complete list.
    """

    loss_won: int = 0
    loss_percent: Decimal = Decimal(0)
    refusals: int = 0
    blind_minutes: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a trip, since a person last changed the state.

    `is_by_person`: a person chose the present state. `causes` are the codes of the trips that stand. `loss_won` is what
    today's trading has lost, `loss_when_turned` what it had lost when a person last resumed (0 if that was another
    trading day). `refused` are the stocks of the newest orders that were refused in a row. `blind_for`: no complete
    order list was read for so long, while a market was open; `complete_for`: every list was, for so long.
    `cleared_today`: how many trips ended by themselves today.
    """

    state: TradingState
    is_by_person: bool = False
    causes: frozenset[str] = frozenset()
    loss_won: int = 0
    loss_when_turned: int = 0
    total_yesterday: int = 0
    refused: tuple[str, ...] = ()
    blind_for: timedelta = timedelta(0)
    complete_for: timedelta = timedelta(0)
    cleared_today: int = 0


@dataclass(frozen=True, slots=True)
class Trip:
    """Why the state trips to REDUCING."""

    why: tuple[Denial, ...]

    @property
    def causes(self) -> frozenset[str]:
        return frozenset(reason.code for reason in self.why)


def trip(evidence: Evidence, limits: TripLimits) -> Trip | None:
    """Return why the state trips to REDUCING, None if it does not. A cause that stands already is no new trip.

    Never to HALTED: what is held can be sold whatever trips by itself, and no state that a person chose to be
    stricter is touched.
    """
    if evidence.state is TradingState.HALTED or (evidence.state is TradingState.REDUCING and evidence.is_by_person):
        return None
    why = tuple(reason for reason in _reasons_to_trip(evidence, limits) if reason.code not in evidence.causes)
    return Trip(why) if why else None


def may_clear(evidence: Evidence, limits: TripLimits) -> bool:
    """Whether a trip ends by itself: missing lists alone caused it, and the list has been complete for a while."""
    return (
        evidence.state is TradingState.REDUCING
        and not evidence.is_by_person
        and evidence.causes == {LIST_MISSING}
        and evidence.complete_for >= LIST_COMPLETE_FOR
        and evidence.cleared_today < MAX_CLEARED_A_DAY
        and not _reasons_to_trip(evidence, limits)
    )


def _reasons_to_trip(evidence: Evidence, limits: TripLimits) -> list[Denial]:
    checks = (_refused(evidence, limits), _list_missing(evidence, limits), _losing(evidence, limits))
    return [reason for reason in checks if reason is not None]


def _losing(evidence: Evidence, limits: TripLimits) -> Denial | None:
    """A person who resumes over the limit has seen that loss: from there the limit counts anew."""
    by_percent = int(evidence.total_yesterday * limits.loss_percent / 100)
    bounds = [bound for bound in (limits.loss_won, by_percent) if bound > 0]
    if not bounds:
        return None
    most = min(bounds)
    seen = evidence.loss_when_turned if evidence.loss_when_turned >= most else 0
    if evidence.loss_won - seen < most:
        return None
    return Denial(
        DAILY_LOSS,
        gettext_noop("{loss:,} won are lost today, {since:,} since the switch was last turned: at most {most:,}"),
        {"loss": evidence.loss_won, "since": evidence.loss_won - seen, "most": most},
    )


def _refused(evidence: Evidence, limits: TripLimits) -> Denial | None:
    """Refusals of one stock say nothing of the others: each stock counts for half of the limit at most."""
    by_stock = Counter(evidence.refused)
    most_of_one = (limits.refusals + 1) // 2
    count = sum(min(each, most_of_one) for each in by_stock.values())
    if not limits.refusals or len(by_stock) < 2 or count < limits.refusals:
        return None
    return Denial(
        REFUSALS,
        gettext_noop("the broker refused {count} orders of {stocks} stocks in a row: something is wrong with them"),
        {"count": len(evidence.refused), "stocks": len(by_stock)},
    )


def _list_missing(evidence: Evidence, limits: TripLimits) -> Denial | None:
    if not limits.blind_minutes or evidence.blind_for < timedelta(minutes=limits.blind_minutes):
        return None
    return Denial(
        LIST_MISSING,
        gettext_noop("no complete order list for {minutes} minutes: what became of our orders cannot be seen"),
        {"minutes": int(evidence.blind_for.total_seconds() // 60)},
    )
