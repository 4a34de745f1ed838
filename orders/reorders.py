"""What follows an unfilled order: its re-order a few ticks nearer, or at market, priced and judged before the cancel.

Source: spec §9.3 (the ±3 % band is measured from the current price), §9.6, §9.8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from aegis import pricing, sessions
from aegis.broker import Broker, OrderRequest, Quote
from aegis.chase import goes_to_market, why_held
from aegis.denials import Denial, DenialCode
from aegis.requests import RequestedBy
from aegis.risk import RiskInputs, gettext_noop
from aegis.terms import Instrument, Market, OrderKind
from aegis.ticks import step
from market.models import Stock
from orders.intents import OrderDenied, OrderIntent
from orders.models import TradeOrder
from orders.pretrade import PreTrade, Priced, PricedOrder, reserved_won
from orders.pretrade_context import PreTradeContext
from orders.submit import Submitter, grounds_of


@dataclass(frozen=True, slots=True)
class Preview:
    """The re-order that would follow, judged as if the resting order were gone; `why_held`: no step may be taken."""

    draft: PricedOrder
    why_held: str


class Reorders:
    """Prices, judges and sends the re-orders of chases."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._now = now
        self._broker = broker
        self._pretrade = PreTrade(broker, now)
        self._submit = Submitter(broker, now)

    def preview(self, order: TradeOrder, retry: int) -> Preview:
        """Price the next order of a chase and judge it by every check, before the resting one is cancelled or amended.

        What the resting order holds at the broker counts as released. Raises OrderDenied and BrokerError.
        """
        intent = self._intent(order, order.open_qty, retry)
        context = self._pretrade.context(intent, order.root_pk)
        check_fills_listed(order)
        stock = context.stock or self._pretrade.new_stock(order.stock_code)
        quoted_at = self._now()
        quote = self._broker.quote(order.stock_code, Market(order.market))
        if held := why_held(quote):
            return Preview(self._unjudged(order, intent, stock, quote, quoted_at, context), held)
        won, qty = _released(order, quote)
        draft = self._judged(order, intent, stock, quote, quoted_at, context, retry, won=won, qty=qty)
        return Preview(draft, "")

    def reorder(self, order: TradeOrder, qty: int, retry: int) -> TradeOrder:
        """Send the chase's re-order of `qty` shares, priced by a fresh quote; `retry` is its place in the plan.

        Raises OrderDenied or BrokerError, with no row left behind; IntegrityError if another worker has already
        committed this re-order.
        """
        intent = self._intent(order, qty, retry)
        context = self._pretrade.ensure_reconciled(self._pretrade.context(intent, order.root_pk), intent, order.root_pk)
        check_fills_listed(order)
        stock = context.stock or self._pretrade.new_stock(order.stock_code)
        quoted_at = self._now()
        quote = self._broker.quote(order.stock_code, Market(order.market))
        if held := why_held(quote):
            raise OrderDenied([Denial(DenialCode.HELD, held)])
        draft = self._judged(order, intent, stock, quote, quoted_at, context, retry)
        row = self._submit.child_row(draft, order, intent.request_id)
        row = self._submit.commit(draft, row, context.competing, by=RequestedBy.CHASE, follows=order.pk)
        return self._submit.send(row, grounds_of(row, follows=order.pk))

    def _intent(self, order: TradeOrder, qty: int, retry: int) -> OrderIntent:
        at_market = goes_to_market(retry, order.plan)
        is_styled = bool(order.strategy) or order.tick_offset is not None
        # an order that was sent without a price is chased from the last trade
        has_price = OrderKind(order.order_kind).is_priced
        offset = order.tick_offset if is_styled or has_price else 0
        return OrderIntent(
            code=order.stock_code,
            side=order.side,
            qty=qty,
            strategy="" if at_market else order.strategy,
            tick_offset=None if at_market else offset,
            price=self._stepped(order) if has_price and not at_market and not is_styled else None,
            market=Market(order.market),
            request_id=_request_id(order),
            plan=order.plan,
        )

    def _stepped(self, order: TradeOrder) -> int:
        """Return the next price of an order that had a price of its own."""
        instrument = Instrument(self._pretrade.stock_of(order.stock_code).instrument)
        return step(order.price, order.step_ticks * order.side.sign, instrument)

    def _judged(
        self,
        order: TradeOrder,
        intent: OrderIntent,
        stock: Stock,
        quote: Quote,
        quoted_at: datetime,
        context: PreTradeContext,
        retry: int,
        *,
        won: int = 0,
        qty: int = 0,
    ) -> PricedOrder:
        """Price and judge a re-order. At market without the cash for it, it becomes a limit at the best opposite."""
        priced = self._pretrade.price(
            intent,
            Market(order.market),
            stock,
            quote,
            context.phases,
            self._pretrade.strategy_of(intent),
            ticks_closer=retry * order.step_ticks,
            band_percent=order.band_percent or None,
        )
        facts = self._pretrade.facts(priced.request, stock, intent, context, is_child_order=True)
        try:
            return self._judge(order, priced, stock, quote, quoted_at, intent, facts, won, qty)
        except OrderDenied as denied:
            kind = sessions.limit_kind(sessions.legal_kinds(priced.request.market, context.phases, self._now()))
            is_short = [reason.code for reason in denied.reasons] == ["CASH"]
            if not is_short or kind is None or not priced.request.kind.is_market:
                raise
            instead = self._pretrade.at_best_opposite(priced.request, quote, stock, kind)
            draft = self._judge(order, Priced(instead, None), stock, quote, quoted_at, intent, facts, won, qty)
            return replace(draft, changed=_too_little_cash(instead))

    def _judge(
        self,
        order: TradeOrder,
        priced: Priced,
        stock: Stock,
        quote: Quote,
        quoted_at: datetime,
        intent: OrderIntent,
        facts: RiskInputs,
        won: int,
        qty: int,
    ) -> PricedOrder:
        _check_arrival_band(order, priced.request, quote)
        return self._pretrade.judge(priced, stock, quote, quoted_at, intent, facts, released_won=won, released_qty=qty)

    def _unjudged(
        self,
        order: TradeOrder,
        intent: OrderIntent,
        stock: Stock,
        quote: Quote,
        quoted_at: datetime,
        context: PreTradeContext,
    ) -> PricedOrder:
        """Return the draft of a step that is not taken now, by the price that the order has."""
        kind = OrderKind(order.order_kind)
        request = OrderRequest(order.stock_code, order.side, Market(order.market), kind, order.open_qty, order.price)
        facts = self._pretrade.facts(request, stock, intent, context, is_child_order=True)
        return PricedOrder(request, stock, quote, quoted_at, order.strategy, order.plan, 0, facts)


def _request_id(order: TradeOrder) -> str:
    """Return the request id of the one order that may follow this one."""
    return f"chase:{order.root_pk}:after:{order.pk}"


def reorder_of(order: TradeOrder) -> TradeOrder | None:
    return TradeOrder.objects.filter(request_id=_request_id(order)).first()


def _released(order: TradeOrder, quote: Quote) -> tuple[int, int]:
    """Return the won, or the shares, that an order holds at the broker while it rests."""
    if order.side.sign < 0:
        return 0, order.open_qty
    kind = OrderKind(order.order_kind)
    held = OrderRequest(order.stock_code, order.side, Market(order.market), kind, order.open_qty, order.price)
    return reserved_won(held, quote), 0


def _check_arrival_band(order: TradeOrder, request: OrderRequest, quote: Quote) -> None:
    """Bound a re-order by the price at arrival: a chase follows a market, it does not run after one."""
    percent = Decimal(order.arrival_percent)
    price = request.price if request.kind.is_priced else quote.price
    if percent and order.arrival_price and pricing.beyond_band(order.arrival_price, price, percent):
        words = gettext_noop("{price:,} won is more than {percent:g}% away from the {arrival:,} won at arrival")
        figures = {"price": price, "percent": percent, "arrival": order.arrival_price}
        raise OrderDenied([Denial(DenialCode.BAND, words, figures)])


def check_fills_listed(order: TradeOrder) -> None:
    """Order nothing of a family while the list lacks fills that a notice told of."""
    if order.family.filter(unlisted_since__isnull=False).exists():
        words = gettext_noop("fills of it are not in the broker's list yet")
        raise OrderDenied([Denial(DenialCode.FILL_UNLISTED, words)])


def _too_little_cash(request: OrderRequest) -> Denial:
    words = gettext_noop(
        "at market it would need cash for the upper limit: it goes as a limit at {price:,} won, the best opposite quote"
    )
    return Denial(DenialCode.KIND_CHANGED, words, {"price": request.price})
