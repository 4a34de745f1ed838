"""OrderService: the interface to place, amend and cancel orders.

An intent is priced and checked (`orders.pretrade`), then committed and sent (`orders.submit`). `orders.cancel` cancels
an order, and `orders.amend` amends one. The row is committed before the request is sent, and a request whose answer was
lost is never sent again.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError

from aegis.broker import Broker
from aegis.chase import ChaseStep
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy
from aegis.stops import ATR_DAYS, StopUnit
from kis.catalogue import CallPriority
from kis.serving import serving
from market.codes import resolve
from orders import cancel, cancel_all, entry_stops, journal, unknown
from orders.amend import Amender
from orders.cancel import Canceller
from orders.cancel_all import CancelAll, CancelAllResult, OpenList
from orders.intents import NO_CHASE, EntryStop, OrderDenied, OrderIntent, default_plan, offsets
from orders.models import TradeOrder
from orders.pretrade import PreTrade, PricedOrder
from orders.pretrade_context import PreTradeContext
from orders.stops import true_range
from orders.submit import Submitter

__all__ = [
    "NO_CHASE",
    "CancelAllResult",
    "EntryStop",
    "OrderDenied",
    "OrderIntent",
    "OrderService",
    "PricedOrder",
    "default_plan",
    "offsets",
]


class OrderService:
    """Places, amends and cancels orders with one broker and one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now
        self._pretrade = PreTrade(broker, now)
        self._submit = Submitter(broker, now)

    @serving(CallPriority.ORDER)
    def place(self, intent: OrderIntent) -> TradeOrder:
        """Place an order and return its row, whatever the broker's answer. The same request id returns the same row.

        Raises OrderDenied if AEGIS does not send it, and another BrokerError if the broker could not be asked
        beforehand; in both cases no row is written.
        """
        intent, context = self._pretrade.canonical_context(intent)
        if context.existing_order is not None:
            return _existing_order(TradeOrder.objects.get(pk=context.existing_order), intent)
        try:
            context = self._pretrade.ensure_current(context, intent)
            draft = self._pretrade.draft(intent, context)
            order = self._commit(draft, intent, context)
        except (IntegrityError, OrderDenied):
            existing = TradeOrder.objects.filter(request_id=intent.request_id).first()
            if existing is None:
                raise
            return _existing_order(existing, intent)  # another process committed it first
        return self._submit.send(order)

    def _commit(self, draft: PricedOrder, intent: OrderIntent, context: PreTradeContext) -> TradeOrder:
        row = self._submit.row(draft, intent.request_id)
        if intent.stops:
            row.entry_stops = self._entry_stops(intent)
        is_checked = context.competing.reconciled
        return self._submit.commit(draft, row, context.competing, by=RequestedBy.CALLER, is_checked=is_checked)

    def _entry_stops(self, intent: OrderIntent) -> list[dict[str, str]]:
        """Return the entry stops, which each fill arms. Raises OrderDenied if a needed true range is not known."""
        needs_atr = any(stop.unit is StopUnit.ATR for stop in intent.stops)
        atr = true_range(intent.code, self._now()) if needs_atr else Decimal(0)
        if needs_atr and not atr:
            template = gettext_noop(
                "the average true range is not known: {days} daily prices are needed (backfill_daily)"
            )
            raise OrderDenied([Denial(DenialCode.STOP_ATR, template, {"days": ATR_DAYS + 1})])
        return entry_stops.to_json(intent.stops, atr)

    def draft(self, intent: OrderIntent) -> PricedOrder:
        """Price and check an intent without committing or sending it. Raises OrderDenied or a BrokerError."""
        intent, context = self._pretrade.canonical_context(intent)
        return self._pretrade.draft(intent, self._pretrade.with_fresh_opposites(context, intent))

    @serving(CallPriority.ORDER)
    def amend(
        self,
        order: TradeOrder,
        *,
        price: int | None = None,
        qty: int | None = None,
        by: RequestedBy = RequestedBy.CALLER,
        who: str = "",
    ) -> TradeOrder:
        """Amend an open order (정정) and return the order that replaces it; see `orders.amend`.

        `price` is in won, `qty` in shares. The same row is returned if shares are only taken off.
        """
        return Amender(self._broker, self._now).amend(order, price=price, qty=qty, by=by, who=who)

    def preview_amend(
        self, order: TradeOrder, *, price: int | None = None, qty: int | None = None
    ) -> PricedOrder | None:
        """Check an amend without sending it; None if shares are only taken off. Raises OrderDenied and BrokerError."""
        return Amender(self._broker, self._now).preview(order, price=price, qty=qty)

    def cancel(self, order: TradeOrder, *, by: RequestedBy = RequestedBy.CALLER, who: str = "") -> TradeOrder:
        """Request the cancel of an order's open shares; the cancel is repeated until the broker's list confirms it.

        The order is not re-ordered. The cancel of an order without an answer is deferred until its number is known.
        Raises Refused if the broker refused it, NotSent if the broker was not reached or the order is of another day,
        and ValueError for an order that has no number and gets none. A lost answer is no error: the list resolves it.
        """
        if order.order_no is None:
            is_deferred = cancel.defer_cancel(order, by=by, who=who, at=self._now())
            order.refresh_from_db()
            if is_deferred:
                return order
        with serving(CallPriority.CANCEL):
            Canceller(self._broker, self._now).cancel(order, by=by, who=who)
        order.refresh_from_db()
        return order

    @serving(CallPriority.CANCEL)
    def cancel_all(self, *, external: bool = False, code: str | None = None, who: str = "") -> CancelAllResult:
        """Cancel every open order, or those of one stock; external orders too if `external`.

        `code` is the operator's input. Raises codes.NotACode and ManyStocks if it does not name one stock.
        """
        code = None if code is None else resolve(code)
        return CancelAll(self._broker, self._now, external=external, code=code, who=who).run()

    def would_cancel(self, *, external: bool = False, code: str | None = None) -> OpenList:
        """Return what `cancel_all` would cancel, by the broker's own list. Raises BrokerError."""
        code = None if code is None else resolve(code)
        return cancel_all.would_cancel(self._broker, external=external, code=code)

    def end_chase(self, order: TradeOrder, why: str) -> None:
        """End an order's chase on request: the order is not re-ordered."""
        cancel.end_chase(order, why, at=self._now())

    def chase_now(self, order: TradeOrder) -> None:
        """Make an order's chase take its next step at once. An order without a plan is chased by the settings."""
        plan = order.plan if order.wait_seconds else default_plan()
        journal.update_fields(
            order,
            chase_at=self._now(),
            chase_step=ChaseStep.CHECK.value,
            chase_note="",
            wait_seconds=plan.wait_seconds,
            max_retries=plan.max_retries,
            step_ticks=plan.step_ticks,
            market_after=plan.market_after,
        )
        journal.append_event(order, OrderEventKind.CHASE_WANTED, at=self._now())

    def decide(self, order: TradeOrder, order_no: str | None, *, by: str) -> TradeOrder:
        """Settle an order of unknown outcome by an operator's decision; see `orders.unknown`."""
        return unknown.decide(order, order_no, by=by, at=self._now())


def _existing_order(order: TradeOrder, intent: OrderIntent) -> TradeOrder:
    """Return the order with the intent's request id. Raises OrderDenied if its stock or side differs.

    Quantity and price may differ: a caller that repeats a request after a crash may calculate with less cash.
    """
    if (order.stock_code, order.order_type) == (intent.code, intent.side):
        return order
    template = gettext_noop(
        "request id {request_id} is order {order}, {side} {code}: take a new one for each new order"
    )
    params = {"request_id": order.request_id, "order": f"#{order.pk}", "side": order.order_type}
    raise OrderDenied([Denial(DenialCode.REQUEST_TAKEN, template, {**params, "code": order.stock_code})])
