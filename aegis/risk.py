"""Pre-trade risk checks. Trips of the trading state are in `aegis.trading_state`.

Each check is a function of the risk inputs and returns at most one denial; an order gets all of its denials
together. A denial has an English sentence, the key of its translation, and the figures that fill it. A check
whose inputs are not known yet returns None: it runs again when they are known.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from aegis.broker import OrderRequest, Quote
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.sessions import Phase, PhaseName, kinds_of
from aegis.terms import Instrument, Market, OrderKind, Side
from aegis.ticks import get_tick_size, is_on_tick
from aegis.trading_state import TradingState


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's limits, in won, percent and orders; 0 disables a limit.

    Limits on value, concentration and sector apply to buys only: holdings must always be sellable.
    """

    order_won: int = 0
    day_won: int = 0
    position_percent: Decimal = Decimal(0)
    collar_percent: Decimal = Decimal(0)
    orders_per_minute: int = 0
    excluded_sectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestingOrder:
    """An order of the same account and stock on the other side: its name, venue, and price in won (0: any price)."""

    name: str
    market: Market
    price: int


@dataclass(frozen=True, slots=True)
class ExposureFromOtherOrders:
    """The exposure from our other orders. The order's own family and its own request are not counted.

    `last_minute` is the number of intents of its side within a minute, `bought_today_won` the value of the day's buys.
    `duplicate_of` names an order of some seconds ago for the same; `blocked_by_unknown` an order of the same stock and
    side with an unknown outcome; `blocked_by_unknown_amend` an order that an amend of unknown outcome may lead to. Cash
    and shares that orders of unknown outcome may have taken count as spent (`unknown_cash_won`, `unknown_qty`).
    `open_buy_qty` are the shares of this stock that open buys may still bring. `opposite` are the account's own orders
    on the other side of this stock.
    """

    last_minute: int = 0
    bought_today_won: int = 0
    duplicate_of: str = ""
    blocked_by_unknown: str = ""
    blocked_by_unknown_amend: str = ""
    unknown_cash_won: int = 0
    unknown_qty: int = 0
    open_buy_qty: int = 0
    opposite: tuple[RestingOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class RiskInputs:
    """The inputs of the risk checks. An input that was not read yet is None and is not checked.

    `open_phases` are the phases of the order's venue that contain `now`. `is_priced` is false while the order's price
    is not known. `blacklisted` is the reason why the stock is on the blacklist, None if it is not. `orderable_cash`
    (won), `orderable_qty` and `sellable_qty` (shares) are the broker's present figures. `is_child_order` marks a
    chase's re-order or a stop's sale, which no caller requests. `total_asset` is the last known value of the account in
    won, `held_qty` the shares that it holds of this stock. `best_opposite` is the price in won that the order would
    meet first, None if the book was not read. `may_cross` names the account's own orders that it may trade against.
    `kept_qty` and `kept_won` are the shares and won that the family of an amend has bought or may still buy beside it.
    `breaker_since` is when a circuit breaker that still lasts began.
    """

    request: OrderRequest
    now: datetime
    state: TradingState
    open_phases: tuple[Phase, ...]
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
        """The price to check, in won: the order's own, or the last price if the order has none."""
        if self.request.kind.is_priced:
            return self.request.price if self.is_priced else None
        return self.quote.price if self.quote else None

    @property
    def value_won(self) -> int | None:
        return None if self.price is None else self.request.qty * self.price


RiskCheck = Callable[[RiskInputs], Denial | None]


def check_quantity(inputs: RiskInputs) -> Denial | None:
    if inputs.request.qty > 0:
        return None
    return Denial(
        DenialCode.QUANTITY,
        gettext_noop("quantity {qty} is not a positive number of shares"),
        {"qty": inputs.request.qty},
    )


def check_trading_state(inputs: RiskInputs) -> Denial | None:
    if inputs.request.side in inputs.state.allowed_sides:
        return None
    if inputs.state is TradingState.HALTED:
        return Denial(DenialCode.HALTED, gettext_noop("trading is halted: resume it before ordering"))
    return Denial(DenialCode.REDUCING, gettext_noop("only sales are allowed now: the trading state is REDUCING"))


def check_circuit_breaker(inputs: RiskInputs) -> Denial | None:
    """New orders wait until the venue trades again. A stop's sale checks its stock's halt by the quote instead."""
    if inputs.breaker_since is None:
        return None
    return Denial(
        DenialCode.CIRCUIT_BREAKER,
        gettext_noop("a circuit breaker has halted the market since {time}: new orders wait until it trades again"),
        {"time": f"{inputs.breaker_since.astimezone(inputs.now.tzinfo):%H:%M:%S}"},
    )


def check_reconciled(inputs: RiskInputs) -> Denial | None:
    """No order is sent unless our orders were reconciled recently with a complete list of the broker."""
    if inputs.reconciled:
        return None
    return Denial(DenialCode.NOT_RECONCILED, gettext_noop("our orders are not reconciled with the broker's list yet"))


def check_blacklist(inputs: RiskInputs) -> Denial | None:
    """Buys only: holdings must always be sellable. Source: spec §12.1.

    An entry counts through its `until` date, and without one for ever (`orders.models.BlacklistedStock`).
    """
    if inputs.blacklisted is None or not inputs.is_buy:
        return None
    return Denial(
        DenialCode.BLACKLISTED,
        gettext_noop("{code} is on the blacklist: {why}"),
        {"code": inputs.request.code, "why": inputs.blacklisted},
    )


def check_sector(inputs: RiskInputs) -> Denial | None:
    """Buys only. A sector is excluded if a word of the setting is part of its name. Source: spec §12.1."""
    if not inputs.is_buy:
        return None
    sector = _letters(inputs.sector)
    word = next((word for word in inputs.limits.excluded_sectors if (bare := _letters(word)) and bare in sector), None)
    if word is None:
        return None
    return Denial(
        DenialCode.SECTOR,
        gettext_noop("{code} is in the sector {sector}, which is excluded ({word}, AEGIS_EXCLUDED_SECTORS)"),
        {"code": inputs.request.code, "sector": inputs.sector, "word": word},
    )


@lru_cache(maxsize=512)
def _letters(text: str) -> str:
    """Return a sector's name without punctuation, which differs by list: "전기·가스" and "전기,가스" are the same."""
    return re.sub(r"[\W_]", "", text)


def check_venue(inputs: RiskInputs) -> Denial | None:
    """The venue must be open, and its phase must take this kind of order."""
    request = inputs.request
    if request.market is not Market.KRX and not inputs.trades_on_nxt:
        return Denial(
            DenialCode.NOT_ON_NXT, gettext_noop("{code} does not trade on NXT: use KRX"), {"code": request.code}
        )
    if not inputs.open_phases:
        return Denial(
            DenialCode.MARKET_CLOSED,
            gettext_noop("{market} takes no orders at {time}"),
            {"market": request.market, "time": f"{inputs.now:%Y-%m-%d %H:%M:%S}"},
        )
    if inputs.instrument is not Instrument.STOCK and _is_krx_after_market(inputs.open_phases):
        return Denial(
            DenialCode.FUND_AFTER_HOURS,
            gettext_noop("{code} is not a share: KRX's after-market trades shares only"),
            {"code": request.code},
        )
    if any(request.kind in phase.kinds for phase in inputs.open_phases):
        return None
    return Denial(
        DenialCode.ORDER_KIND,
        gettext_noop("{market} does not take order kind {kind} at {time}: it takes {legal}"),
        {
            "market": request.market,
            "kind": request.kind.value,
            "time": f"{inputs.now:%H:%M:%S}",
            "legal": " ".join(sorted(kinds_of(inputs.open_phases))),
        },
    )


def _is_krx_after_market(phases: tuple[Phase, ...]) -> bool:
    return all(phase.market is Market.KRX and phase.name is PhaseName.AFTER_MARKET for phase in phases)


def check_unknown_order(inputs: RiskInputs) -> Denial | None:
    """While the outcome of an order is unknown, no other order of its stock and side is sent: it could be a duplicate.

    An amend adds no shares to those of its original, so it does not block a stop or the chase of another family.
    """
    name = inputs.others.blocked_by_unknown or ("" if inputs.is_child_order else inputs.others.blocked_by_unknown_amend)
    if not name:
        return None
    return Denial(
        DenialCode.FROZEN,
        gettext_noop("order {order} of {code} has no known outcome yet: new ones on its side wait for that"),
        {"order": name, "code": inputs.request.code},
    )


def check_duplicate(inputs: RiskInputs) -> Denial | None:
    """Duplicate order: the same order by two request ids within seconds is most likely an accident."""
    if inputs.is_child_order or not inputs.others.duplicate_of:
        return None
    return Denial(
        DenialCode.DUPLICATE,
        gettext_noop("order {order} asked for the same a moment ago: wait (AEGIS_DUPLICATE_SECONDS) if you mean both"),
        {"order": inputs.others.duplicate_of},
    )


def check_order_rate(inputs: RiskInputs) -> Denial | None:
    """Buys and sales are counted separately. Sales of stops bypass the rate limit."""
    limit = inputs.limits.orders_per_minute
    if inputs.is_child_order or not limit or inputs.others.last_minute < limit:
        return None
    return Denial(
        DenialCode.PACE,
        gettext_noop("{count} orders of this side within a minute: at most {most} (AEGIS_MAX_ORDERS_PER_MINUTE)"),
        {"count": inputs.others.last_minute, "most": limit},
    )


def check_self_cross(inputs: RiskInputs) -> Denial | None:
    """An order must not trade against a resting order of the same account: the exchange forbids such trades (통정매매).

    The check uses the order's limit price, or the best opposite quote if it has none. SOR counts as both venues.
    """
    price = inputs.price if inputs.request.kind.is_priced else inputs.best_opposite or inputs.price
    if price is None:
        return None
    candidates = (order for order in inputs.others.opposite if order.name not in inputs.may_cross)
    rival = next((order for order in candidates if _crosses(inputs.request, price, order)), None)
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


def check_order_value(inputs: RiskInputs) -> Denial | None:
    value, limit = inputs.value_won, inputs.limits.order_won
    if not inputs.is_buy or not limit or value is None or value <= limit:
        return None
    return Denial(
        DenialCode.ORDER_VALUE,
        gettext_noop("the order is worth {value:,} won: at most {most:,} (AEGIS_MAX_ORDER_WON)"),
        {"value": value, "most": limit},
    )


def check_day_value(inputs: RiskInputs) -> Denial | None:
    value, limit, before = inputs.value_won, inputs.limits.day_won, inputs.others.bought_today_won + inputs.kept_won
    if not inputs.is_buy or not limit or value is None or before + value <= limit:
        return None
    return Denial(
        DenialCode.DAY_VALUE,
        gettext_noop(
            "with {before:,} won ordered to buy today, {value:,} more is too much: at most {most:,} (AEGIS_MAX_DAY_WON)"
        ),
        {"before": before, "value": value, "most": limit},
    )


def check_concentration(inputs: RiskInputs) -> Denial | None:
    """The value of the holding, of open buys and of this order, against the account's total."""
    value, limit = inputs.value_won, inputs.limits.position_percent
    if not inputs.is_buy or not limit or value is None or inputs.quote is None or inputs.total_asset is None:
        return None
    position = (inputs.held_qty + inputs.others.open_buy_qty + inputs.kept_qty) * inputs.quote.price + value
    if position * 100 <= inputs.total_asset * limit:
        return None
    return Denial(
        DenialCode.POSITION_WEIGHT,
        gettext_noop(
            "{code} would be worth {position:,} won of {total:,}: at most {most:g}% (AEGIS_MAX_POSITION_PERCENT)"
        ),
        {"code": inputs.request.code, "position": position, "total": inputs.total_asset, "most": limit},
    )


def check_tick(inputs: RiskInputs) -> Denial | None:
    """The price must be on the tick grid of its instrument. The tick in the broker's quote counts, if it was read."""
    request = inputs.request
    if not request.kind.is_priced or not inputs.is_priced:
        return None
    if is_on_tick(request.price, inputs.instrument, quoted=inputs.quote):
        return None
    return Denial(
        DenialCode.TICK,
        gettext_noop("price {price:,} is not on the grid: the tick there is {tick:,} won"),
        {"price": request.price, "tick": get_tick_size(request.price, inputs.instrument, quoted=inputs.quote)},
    )


def check_trigger(inputs: RiskInputs) -> Denial | None:
    """A stop-limit order needs a trigger price (CNDT_PRIC) on the grid, within the day's limits; others have none."""
    request, quote = inputs.request, inputs.quote
    if request.kind is not OrderKind.STOP_LIMIT:
        if not request.trigger:
            return None
        template = gettext_noop("only a stop-limit order (22) has a trigger price, and this one is of kind {kind}")
        return Denial(DenialCode.TRIGGER, template, {"kind": request.kind.value})
    is_within_limits = quote is None or quote.lower_limit <= request.trigger <= quote.upper_limit
    if is_within_limits and is_on_tick(request.trigger, inputs.instrument, quoted=quote):
        return None
    return Denial(
        DenialCode.TRIGGER,
        gettext_noop("a stop-limit order needs a trigger price on the grid and within today's limits, not {trigger:,}"),
        {"trigger": request.trigger},
    )


def check_daily_limits(inputs: RiskInputs) -> Denial | None:
    quote, price = inputs.quote, inputs.price
    if quote is None or price is None or not inputs.request.kind.is_priced:
        return None
    if quote.lower_limit <= price <= quote.upper_limit:
        return None
    return Denial(
        DenialCode.DAILY_LIMIT,
        gettext_noop("price {price:,} is outside today's limits {lower:,} to {upper:,}"),
        {"price": price, "lower": quote.lower_limit, "upper": quote.upper_limit},
    )


def check_price_collar(inputs: RiskInputs) -> Denial | None:
    """A buy far above the last trade, or a sale far below it, is likely a typing error. On the other side it rests.

    The ±3 % band of the pricing styles is `aegis.pricing.price_band`.
    """
    quote, price, limit = inputs.quote, inputs.price, inputs.limits.collar_percent
    if not limit or quote is None or price is None or not inputs.request.kind.is_priced:
        return None
    if (price - quote.price) * inputs.request.side.sign * 100 <= quote.price * limit:
        return None
    return Denial(
        DenialCode.COLLAR,
        gettext_noop(
            "price {price:,} is too far from the last trade at {last:,}: at most {most:g}% (AEGIS_MAX_COLLAR_PERCENT)"
        ),
        {"price": price, "last": quote.price, "most": limit},
    )


def check_halt(inputs: RiskInputs) -> Denial | None:
    if inputs.quote is None or not inputs.quote.is_halted:
        return None
    return Denial(
        DenialCode.STOCK_HALTED, gettext_noop("{code} is halted by the exchange"), {"code": inputs.request.code}
    )


def check_cash(inputs: RiskInputs) -> Denial | None:
    """`orderable_cash` already excludes commission and the cash of open buys: never subtract them again.

    Cash that buys of unknown outcome may have taken counts as spent: the broker may not know of them yet.
    """
    if not inputs.is_buy or inputs.orderable_cash is None:
        return None
    cash = max(0, inputs.orderable_cash - inputs.others.unknown_cash_won)
    has_shares = inputs.orderable_qty is None or inputs.request.qty <= inputs.orderable_qty
    if has_shares and inputs.cost_won <= cash:
        return None
    return Denial(
        DenialCode.CASH,
        gettext_noop("not enough cash: {needed:,} won needed, {cash:,} won orderable"),
        {"needed": inputs.cost_won, "cash": cash},
    )


def check_shares(inputs: RiskInputs) -> Denial | None:
    if inputs.is_buy or inputs.sellable_qty is None:
        return None
    sellable = max(0, inputs.sellable_qty - inputs.others.unknown_qty)
    if inputs.request.qty <= sellable:
        return None
    return Denial(
        DenialCode.SHARES,
        gettext_noop("not enough shares: {qty:,} asked, {sellable:,} sellable"),
        {"qty": inputs.request.qty, "sellable": sellable},
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
    check_trigger,
    check_daily_limits,
    check_price_collar,
    check_halt,
    check_cash,
    check_shares,
    check_tick,
)
# checks of data that another process may have changed: they run again under the lock that commits the order
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


# for an amend that adds no risk: only what the exchange would refuse
HARMLESS_AMEND_CHECKS: tuple[RiskCheck, ...] = (
    check_quantity,
    check_venue,
    check_tick,
    check_daily_limits,
    check_halt,
)


def denials(inputs: RiskInputs, checks: tuple[RiskCheck, ...] = RISK_CHECKS) -> list[Denial]:
    """Return every denial of the order, in the order of the checks."""
    return [denial for check in checks if (denial := check(inputs)) is not None]


def check_order_kind_fields(kind: OrderKind, *, names_price: bool) -> Denial | None:
    """Return the denial of an intent whose order kind needs a price and has none, or takes none and has one."""
    if kind.is_priced is names_price:
        return None
    if kind.is_priced:
        template = gettext_noop("order kind {kind} needs a price or a strategy")
        return Denial(DenialCode.NEEDS_PRICE, template, {"kind": kind.value})
    template = gettext_noop("order kind {kind} takes no price: leave out price and strategy")
    return Denial(DenialCode.NAMES_NO_PRICE, template, {"kind": kind.value})
