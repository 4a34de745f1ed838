"""The re-orders of a chase: some ticks closer or at market, priced and checked before the resting order is cancelled.

Source: spec §9.3 (the ±3 % band is measured from the current price), §9.6, §9.8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from aegis import pricing, sessions
from aegis.broker import Broker, OrderRequest, Quote
from aegis.chase import goes_to_market, why_held
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.requests import RequestedBy
from aegis.risk import RiskInputs
from aegis.terms import Instrument, Market, OrderKind
from aegis.ticks import step
from market.models import Stock
from orders.intents import OrderDenied, OrderIntent
from orders.models import TradeOrder
from orders.pretrade import PreTrade, Priced, PricedOrder, reserved_won, risk_inputs, unpriced
from orders.pretrade_context import PreTradeContext
from orders.requests import grounds_of
from orders.submit import Submitter


@dataclass(frozen=True, slots=True)
class Preview:
    """The next re-order, checked as if the resting order were already cancelled.

    `why_held`: why the chase must wait, empty if it need not.
    """

    draft: PricedOrder
    why_held: str


class Reorders:
    """Prices, checks and sends the re-orders of chases."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._now = now
        self._broker = broker
        self._pretrade = PreTrade(broker, now)
        self._submit = Submitter(broker, now)

    def preview(self, order: TradeOrder, retry: int) -> Preview:
        """Price the next order of a chase and run every check on it, before the resting one is cancelled or amended.

        The cash or shares that the resting order reserves count as released. Raises OrderDenied and BrokerError.
        """
        intent = self._intent(order, order.open_qty, retry)
        context = self._pretrade.context(intent, order.root_pk)
        check_fills_listed(order)
        stock = context.stock or self._pretrade.new_stock(order.stock_code)
        quoted_at = self._now()
        quote = self._broker.quote(order.stock_code, Market(order.market))
        if hold_reason := why_held(quote):
            return Preview(self._unchecked(order, intent, stock, quote, quoted_at, context), hold_reason)
        won, qty = _released(order, quote)
        draft = self._price_and_check(order, intent, stock, quote, quoted_at, context, retry, won=won, qty=qty)
        return Preview(draft, "")

    def reorder(self, order: TradeOrder, qty: int, retry: int) -> TradeOrder:
        """Send the chase's re-order of `qty` shares, priced by a fresh quote; `retry` is its number in the plan.

        Raises OrderDenied or BrokerError, in which case there is no row, and IntegrityError if another worker has
        already committed this re-order.
        """
        intent = self._intent(order, qty, retry)
        context = self._pretrade.ensure_reconciled(self._pretrade.context(intent, order.root_pk), intent, order.root_pk)
        check_fills_listed(order)
        stock = context.stock or self._pretrade.new_stock(order.stock_code)
        quoted_at = self._now()
        quote = self._broker.quote(order.stock_code, Market(order.market))
        if hold_reason := why_held(quote):
            raise OrderDenied([Denial(DenialCode.HELD, hold_reason)])
        draft = self._price_and_check(order, intent, stock, quote, quoted_at, context, retry)
        row = self._submit.child_row(draft, order, intent.request_id)
        row = self._submit.commit(draft, row, context.competing, by=RequestedBy.CHASE, follows=order.pk)
        return self._submit.send(row, grounds_of(row, follows=order.pk))

    def _intent(self, order: TradeOrder, qty: int, retry: int) -> OrderIntent:
        at_market = goes_to_market(retry, order.plan)
        is_styled = bool(order.strategy) or order.tick_offset is not None
        # an order that was sent without a price is chased from the last trade
        has_price = OrderKind(order.order_kind).is_priced
        tick_offset = order.tick_offset if is_styled or has_price else 0
        return OrderIntent(
            code=order.stock_code,
            side=order.side,
            qty=qty,
            strategy="" if at_market else order.strategy,
            tick_offset=None if at_market else tick_offset,
            price=self._next_price(order) if has_price and not at_market and not is_styled else None,
            market=Market(order.market),
            request_id=_request_id(order),
            plan=order.plan,
        )

    def _next_price(self, order: TradeOrder) -> int:
        """Return the next price, in won, of an order that was placed with a fixed price."""
        instrument = Instrument(self._pretrade.stock_of(order.stock_code).instrument)
        return step(order.price, order.step_ticks * order.side.sign, instrument)

    def _price_and_check(
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
        """Price and check a re-order. If the cash is too little for a market order, it becomes a limit order.

        That limit is the best opposite quote. Raises OrderDenied and BrokerError.
        """
        priced = self._pretrade.price(
            unpriced(intent, stock, context)[0],
            intent,
            stock,
            quote,
            self._pretrade.strategy_of(intent),
            ticks_closer=retry * order.step_ticks,
            band_percent=order.band_percent or None,
        )
        inputs = risk_inputs(priced.request, stock, context, is_child_order=True)
        try:
            return self._check(order, priced, stock, quote, quoted_at, intent, inputs, won, qty)
        except OrderDenied as error:
            kind = sessions.limit_kind(sessions.legal_kinds(priced.request.market, context.phases, self._now()))
            lacks_cash_only = [reason.code for reason in error.reasons] == [DenialCode.CASH]
            if not lacks_cash_only or kind is None or not priced.request.kind.is_market:
                raise
            limit_request = self._pretrade.as_best_opposite_limit(priced.request, quote, stock, kind)
            draft = self._check(order, Priced(limit_request, None), stock, quote, quoted_at, intent, inputs, won, qty)
            return replace(draft, changed=_too_little_cash(limit_request))

    def _check(
        self,
        order: TradeOrder,
        priced: Priced,
        stock: Stock,
        quote: Quote,
        quoted_at: datetime,
        intent: OrderIntent,
        inputs: RiskInputs,
        won: int,
        qty: int,
    ) -> PricedOrder:
        _check_arrival_band(order, priced.request, quote)
        return self._pretrade.run_checks(
            priced, stock, quote, quoted_at, intent, inputs, released_won=won, released_qty=qty
        )

    def _unchecked(
        self,
        order: TradeOrder,
        intent: OrderIntent,
        stock: Stock,
        quote: Quote,
        quoted_at: datetime,
        context: PreTradeContext,
    ) -> PricedOrder:
        """Return the draft of a held step, at the order's current price and without checks."""
        kind = OrderKind(order.order_kind)
        request = OrderRequest(order.stock_code, order.side, Market(order.market), kind, order.open_qty, order.price)
        inputs = risk_inputs(request, stock, context, is_child_order=True)
        return PricedOrder(request, stock, quote, quoted_at, order.strategy, order.plan, 0, inputs)


def _request_id(order: TradeOrder) -> str:
    """Return the request id of the only order that may follow this one."""
    return f"chase:{order.root_pk}:after:{order.pk}"


def reorder_of(order: TradeOrder) -> TradeOrder | None:
    return TradeOrder.objects.filter(request_id=_request_id(order)).first()


def _released(order: TradeOrder, quote: Quote) -> tuple[int, int]:
    """Return the won of a buy, or the shares of a sale, that the broker reserves for a resting order."""
    if order.side.sign < 0:
        return 0, order.open_qty
    kind = OrderKind(order.order_kind)
    resting = OrderRequest(order.stock_code, order.side, Market(order.market), kind, order.open_qty, order.price)
    return reserved_won(resting, quote), 0


def _check_arrival_band(order: TradeOrder, request: OrderRequest, quote: Quote) -> None:
    """Deny a re-order that is too far from the arrival price. Raises OrderDenied."""
    percent = Decimal(order.arrival_percent)
    price = request.price if request.kind.is_priced else quote.price
    if percent and order.arrival_price and pricing.beyond_band(order.arrival_price, price, percent):
        template = gettext_noop("{price:,} won is more than {percent:g}% away from the {arrival:,} won at arrival")
        params = {"price": price, "percent": percent, "arrival": order.arrival_price}
        raise OrderDenied([Denial(DenialCode.BAND, template, params)])


def check_fills_listed(order: TradeOrder) -> None:
    """Deny re-orders of a family while the list lacks fills that a notice reported. Raises OrderDenied."""
    if order.family.filter(unlisted_since__isnull=False).exists():
        template = gettext_noop("fills of it are not in the broker's list yet")
        raise OrderDenied([Denial(DenialCode.FILL_UNLISTED, template)])


def _too_little_cash(request: OrderRequest) -> Denial:
    template = gettext_noop(
        "at market it would need cash for the upper limit: it goes as a limit at {price:,} won, the best opposite quote"
    )
    return Denial(DenialCode.KIND_CHANGED, template, {"price": request.price})
