"""OrderService: places, amends and cancels orders. The door to the order path; the rooms are behind it.

An intent is priced and judged (`orders.pretrade`), committed and sent (`orders.submit`), cancelled (`orders.cancel`),
amended (`orders.amend`). The row is committed before the request leaves, and a request whose answer was lost is never
sent again.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError

from aegis.broker import Broker, BrokerError
from aegis.chase import ChaseStep
from aegis.denials import Denial, DenialCode
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy
from aegis.risk import gettext_noop
from aegis.stops import ATR_DAYS, StopUnit
from kis.catalogue import Urgency
from kis.serving import serving
from market.codes import canonical, resolve
from orders import cancel, cancel_all, entry_stops, journal, reconcile, unknown
from orders.amend import Amender
from orders.cancel import Canceller
from orders.cancel_all import CancelAll, CancelAllResult, OpenList
from orders.intents import NO_CHASE, EntryStop, OrderDenied, OrderIntent, default_plan, offsets
from orders.models import TradeOrder
from orders.pretrade import PreTrade, PricedOrder
from orders.pretrade_context import PreTradeContext
from orders.stops import true_range
from orders.submit import Submitter, grounds_of

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
    """Places, amends and cancels orders with one broker, by one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    @serving(Urgency.ORDER)
    def place(self, intent: OrderIntent) -> TradeOrder:
        """Place an order and return its row, whatever became of it at the broker.

        Raises OrderDenied if AEGIS will not send it, and another BrokerError if the broker could not be asked
        beforehand; in both cases there is no row but one that has the request id for something else.
        """
        pretrade = PreTrade(self._broker, self._now)
        intent, context = _context(pretrade, intent)
        if context.known is not None:
            return _same(TradeOrder.objects.get(pk=context.known), intent)
        try:
            context = self._with_fresh_opposites(pretrade, pretrade.ensure_reconciled(context, intent), intent)
            draft = pretrade.draft(intent, context)
            order = self._commit(draft, intent, context)
        except (IntegrityError, OrderDenied):
            known = TradeOrder.objects.filter(request_id=intent.request_id).first()
            if known is None:
                raise
            return _same(known, intent)  # a moment sooner
        return Submitter(self._broker, self._now).send(order, grounds_of(order))

    def _commit(self, draft: PricedOrder, intent: OrderIntent, context: PreTradeContext) -> TradeOrder:
        submit = Submitter(self._broker, self._now)
        row = submit.row(draft, intent.request_id)
        row.entry_stops = self._entry_stops(intent)
        return submit.commit(draft, row, context.competing, by=RequestedBy.CALLER)

    def _entry_stops(self, intent: OrderIntent) -> list[dict[str, str]]:
        """Return the stops that each fill arms. Raises OrderDenied if one needs a true range that is not known."""
        needs_atr = any(each.unit is StopUnit.ATR for each in intent.stops)
        atr = true_range(intent.code, self._now()) if needs_atr else Decimal(0)
        if needs_atr and not atr:
            words = gettext_noop("the average true range is not known: {days} daily prices are needed (backfill_daily)")
            raise OrderDenied([Denial(DenialCode.STOP_ATR, words, {"days": ATR_DAYS + 1})])
        return entry_stops.as_stored(intent.stops, atr)

    def _with_fresh_opposites(
        self, pretrade: PreTrade, context: PreTradeContext, intent: OrderIntent
    ) -> PreTradeContext:
        """Read the list first if orders on the other side seem open: one of them may have filled without a notice."""
        if not context.competing.others.opposite:
            return context
        with suppress(BrokerError):
            reconcile.reconcile_now(self._broker, self._now)
        return pretrade.context(intent)

    def draft(self, intent: OrderIntent) -> PricedOrder:
        """Judge and price an intent without committing or sending it. Raises OrderDenied or a BrokerError."""
        pretrade = PreTrade(self._broker, self._now)
        intent, context = _context(pretrade, intent)
        return pretrade.draft(intent, self._with_fresh_opposites(pretrade, context, intent))

    @serving(Urgency.ORDER)
    def amend(
        self,
        order: TradeOrder,
        *,
        price: int | None = None,
        qty: int | None = None,
        by: RequestedBy = RequestedBy.CALLER,
        who: str = "",
    ) -> TradeOrder:
        """Amend an open order (정정) and return the order that stands for it then; see `orders.amend`."""
        return Amender(self._broker, self._now).amend(order, price=price, qty=qty, by=by, who=who)

    def preview_amend(
        self, order: TradeOrder, *, price: int | None = None, qty: int | None = None
    ) -> PricedOrder | None:
        """Judge an amend without sending it; None if shares are only taken off. Raises OrderDenied, BrokerError."""
        return Amender(self._broker, self._now).preview(order, price=price, qty=qty)

    def cancel(self, order: TradeOrder, *, by: RequestedBy = RequestedBy.CALLER, who: str = "") -> TradeOrder:
        """Request the cancel of what is left of an order; it is driven until the broker's list confirms it.

        Nothing of it is ordered again. The cancel of an order without an answer is deferred until its number is known.
        Raises Refused if the broker refused it, NotSent if the broker was not reached or the order is of another day,
        and ValueError for an order that has no number and gets none. A lost answer is no error: the order is looked up.
        """
        if order.order_no is None:
            is_deferred = cancel.defer_cancel(order, by=by, who=who, at=self._now())
            order.refresh_from_db()
            if is_deferred:
                return order
        with serving(Urgency.CANCEL):
            Canceller(self._broker, self._now).cancel(order, by=by, who=who)
        order.refresh_from_db()
        return order

    @serving(Urgency.CANCEL)
    def cancel_all(self, *, external: bool = False, code: str | None = None, who: str = "") -> CancelAllResult:
        """Cancel everything that is open, external orders too if `external`, or of one stock only.

        `code` as typed; raises codes.NotACode and ManyStocks where it is no stock's.
        """
        code = None if code is None else resolve(code)
        return CancelAll(self._broker, self._now, external=external, code=code, who=who).run()

    def would_cancel(self, *, external: bool = False, code: str | None = None) -> OpenList:
        """Return what `cancel_all` would cancel, by the broker's own list. Raises BrokerError."""
        code = None if code is None else resolve(code)
        return cancel_all.would_cancel(self._broker, external=external, code=code)

    def end_chase(self, order: TradeOrder, why: str) -> None:
        """End an order's chase, by somebody's will: nothing of it is ordered again."""
        cancel.end_chase(order, why, at=self._now())

    def chase_now(self, order: TradeOrder) -> None:
        """Let an order's chase take its next step at once, by the settings if it had no plan of its own."""
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


def _context(pretrade: PreTrade, intent: OrderIntent) -> tuple[OrderIntent, PreTradeContext]:
    """Return an intent by our own code of its stock, and what our tables say of it."""
    context = pretrade.context(intent)
    if context.stock is None and (code := canonical(intent.code)) != intent.code:
        intent = replace(intent, code=code)
        context = pretrade.context(intent)
    return intent, context


def _same(order: TradeOrder, intent: OrderIntent) -> TradeOrder:
    """Return the order that a request has already. Raises OrderDenied if that was for something else.

    Shares and price may differ: who asks again after a crash reckons with less cash.
    """
    if (order.stock_code, order.order_type) == (intent.code, intent.side):
        return order
    words = gettext_noop("request id {request_id} is order {order}, {side} {code}: take a new one for each new order")
    figures = {"request_id": order.request_id, "order": f"#{order.pk}", "side": order.order_type}
    raise OrderDenied([Denial(DenialCode.REQUEST_TAKEN, words, {**figures, "code": order.stock_code})])
