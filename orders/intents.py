"""Order intents: what a caller wants, how its order is chased by default, and the error if AEGIS denies it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from django.conf import settings
from django.utils.translation import gettext

from aegis import codes, pricing
from aegis.chase import Plan
from aegis.denials import Denial
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, OrderKind, Side

STRATEGY_ID_LENGTH = 64
# further than any price band allows: a larger offset is a typing error
MAX_TICK_OFFSET = 100
NO_CHASE = Plan(wait_seconds=0, max_retries=0, step_ticks=0, market_after=False)


class OrderDenied(Exception):
    """AEGIS itself does not send this order; `reasons` are all its denials."""

    def __init__(self, reasons: Sequence[Denial]) -> None:
        super().__init__("; ".join(str(reason) for reason in reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class EntryStop:
    """A stop that each fill of a buy arms for the shares filled: `value` in won, percent, or average true ranges.

    Raises ValueError if the value is not above 0, or is a price that is not whole won.
    """

    kind: StopKind
    unit: StopUnit
    value: Decimal

    def __post_init__(self) -> None:
        if self.value <= 0 or (self.unit is StopUnit.PRICE and self.value != int(self.value)):
            template = gettext("stop value {value:f}: it must be more than 0, and a whole number if it is in won")
            raise ValueError(template.format(value=self.value))


@dataclass(frozen=True, slots=True)
class OrderIntent:
    """What a caller wants: shares of a stock, priced by a pricing style (`strategy`), by a `price`, or at market.

    If `market` is None, the time of day decides the venue; if `kind` is None, it decides the order kind. A `kind` that
    is given is sent unchanged or not at all, except a market order. `trigger` is the condition price, in won, of a
    stop-limit order. The same `request_id` again returns the same order. If `plan` is None, market orders and orders
    with a `price` or a `kind` are not chased, and all others are chased by the settings.

    `strategy_id` is the caller's own text that identifies the strategy, up to 64 characters. `tick_offset` replaces the
    offset of the pricing style, in ticks; without a style it counts from the last price. `stops` are armed in each
    fill's own transaction, for the shares filled; only a buy may have stops.

    Raises ValueError if `code` is not a stock code, `strategy_id` is too long, or a sale has `stops`. Padding, small
    and full-width letters of the code are normalised.
    """

    code: str
    side: Side
    qty: int
    strategy: str = ""
    price: int | None = None
    market: Market | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    plan: Plan | None = None
    kind: OrderKind | None = None
    trigger: int = 0
    strategy_id: str = ""
    tick_offset: int | None = None
    stops: tuple[EntryStop, ...] = ()
    names_price: bool = field(init=False)
    is_at_market: bool = field(init=False)

    def __post_init__(self) -> None:
        if self.stops and self.side is not Side.BUY:
            raise ValueError(gettext("stops: a sale arms none; leave them out"))
        object.__setattr__(self, "code", codes.normalise(self.code))
        if len(self.strategy_id) > STRATEGY_ID_LENGTH:
            template = gettext("strategy_id {text!r} has {count} characters: at most {most} are possible")
            raise ValueError(
                template.format(text=self.strategy_id, count=len(self.strategy_id), most=STRATEGY_ID_LENGTH)
            )
        names_price = bool(self.strategy) or self.price is not None or self.tick_offset is not None
        object.__setattr__(self, "names_price", names_price)
        object.__setattr__(self, "is_at_market", not names_price and self.kind in (None, OrderKind.MARKET))


def offsets() -> pricing.Offsets:
    return pricing.Offsets(
        buy=settings.DEFAULT_BUY_OFFSET,
        sell=settings.DEFAULT_SELL_OFFSET,
        urgent_buy=settings.URGENT_BUY_OFFSET,
        stop_loss=settings.STOP_LOSS_OFFSET,
        emergency_sell=settings.EMERGENCY_SELL_OFFSET,
    )


def default_plan() -> Plan:
    return Plan(
        wait_seconds=settings.UNFILLED_WAIT_SECONDS,
        max_retries=settings.MAX_RETRY_COUNT,
        step_ticks=settings.RETRY_OFFSET_ADJUST,
        market_after=settings.FORCE_MARKET_AFTER_RETRY,
    )
