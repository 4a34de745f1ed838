"""What a caller wants (an intent), how it is chased unless the caller says, and why AEGIS will not send it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from django.conf import settings
from django.utils.translation import gettext

from aegis import codes, pricing
from aegis.broker import OrderRequest
from aegis.chase import ChaseBy, Plan
from aegis.denials import Denial
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, OrderKind, Side

STRATEGY_ID_LENGTH = 64
# further than any band allows: a slip of the hand
MAX_TICK_OFFSET = 100
NO_CHASE = Plan(wait_seconds=0, max_retries=0, step_ticks=0, market_after=False)


class OrderDenied(Exception):
    """AEGIS itself will not send this order; `reasons` says why, one by one."""

    def __init__(self, reasons: Sequence[Denial]) -> None:
        super().__init__("; ".join(str(reason) for reason in reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class EntryStop:
    """A stop that each fill of a buy arms for the shares filled: `value` in won, percent, or average true ranges.

    Raises ValueError if the value can be none of these.
    """

    kind: StopKind
    unit: StopUnit
    value: Decimal

    def __post_init__(self) -> None:
        if self.value <= 0 or (self.unit is StopUnit.PRICE and self.value != int(self.value)):
            words = gettext("stop value {value:f}: more than 0 is needed, in won a whole number")
            raise ValueError(words.format(value=self.value))


@dataclass(frozen=True, slots=True)
class OrderIntent:
    """What a caller wants: shares of a stock, priced by a pricing style (`strategy`), by a `price`, or at market.

    `market` None lets the hour choose the venue, `kind` None the order code; a kind asked for by name goes as
    it is or not at all, but for a market order. `trigger` is the condition price, in won, of a stop-limit
    order. The same `request_id` again returns the same order. `plan` None leaves orders with a price or a kind
    of their own and market orders alone, and chases every other by the settings.

    `strategy_id` is the caller's own text that says who wants it, up to 64 characters. `tick_offset` replaces the
    offset of the pricing style, in ticks; without a style it counts from the last price. `stops` are armed in each
    fill's own transaction, for the shares filled; only a buy has any.

    Raises ValueError if `code` cannot be one or `strategy_id` is too long; padding, small and full-width letters of the
    code are brought to the usual form.
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

    def __post_init__(self) -> None:
        if self.stops and self.side is not Side.BUY:
            raise ValueError(gettext("stops: a sale arms none; leave them out"))
        object.__setattr__(self, "code", codes.normalise(self.code))
        if len(self.strategy_id) > STRATEGY_ID_LENGTH:
            words = gettext("strategy_id {text!r} has {count} characters: at most {most} are possible")
            raise ValueError(words.format(text=self.strategy_id, count=len(self.strategy_id), most=STRATEGY_ID_LENGTH))

    @property
    def names_price(self) -> bool:
        return bool(self.strategy) or self.price is not None or self.tick_offset is not None

    @property
    def is_at_market(self) -> bool:
        return not self.names_price and self.kind in (None, OrderKind.MARKET)


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


def default_chase_by() -> ChaseBy:
    return ChaseBy(settings.CHASE_BY.upper())


def plan_for(intent: OrderIntent, request: OrderRequest) -> Plan:
    """Return how an order is chased. Nothing is nearer than a market order; a kind asked for by name is meant so."""
    if intent.plan is not None:
        return intent.plan
    by_name = intent.kind not in (None, OrderKind.MARKET)
    return NO_CHASE if intent.price is not None or by_name or request.kind.is_market else default_plan()
