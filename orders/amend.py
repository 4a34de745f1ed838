"""Amends (정정): one request moves an open order to another price, or reduces it. Written ahead like a new order.

The new order's row and the request are committed before anything is sent. The row's quantity is an upper bound until
a line of the order list confirms it. After an amend of unknown outcome no new order follows: its family waits for the
list.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from django.utils.translation import gettext

from aegis.amends import can_amend, only_lowers_risk
from aegis.broker import Broker, HeldBack, NotSent, OrderRequest, OutcomeUnknown, Refused
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.lifecycle import UNANSWERED
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy, RequestKind
from aegis.risk import COMMIT_CHECKS, HARMLESS_AMEND_CHECKS, RISK_CHECKS
from aegis.terms import Market, OrderKind
from orders import fills, journal, kill_switch, requests
from orders.cancel import Canceller, inherit, why_not_today
from orders.intents import NO_CHASE, OrderDenied, OrderIntent
from orders.models import BrokerRequest, TradeOrder
from orders.pretrade import PreTrade, Priced, PricedOrder, risk_inputs
from orders.reorders import check_fills_listed
from orders.requests import LOWERS_RISK, Grounds
from orders.submit import Submitter, next_attempt

log = logging.getLogger(__name__)


class Amender:
    """Amends orders at one broker, by one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now
        self._pretrade = PreTrade(broker, now)
        self._submit = Submitter(broker, now)

    def amend(
        self,
        order: TradeOrder,
        *,
        price: int | None = None,
        qty: int | None = None,
        by: RequestedBy = RequestedBy.CALLER,
        who: str = "",
    ) -> TradeOrder:
        """Amend an open limit order, and return the order that stands for it afterwards.

        With only a `price`, all open shares move there, whatever fills meanwhile. With a `qty` too, that many shares
        move, and the rest keeps its price and number. With only a `qty`, the order is reduced to that many open shares
        and keeps its place in the queue. The order's chase ends: a price that the caller chose is not chased.

        Raises OrderDenied if AEGIS denies the amend, and BrokerError if the broker could not be asked beforehand; in
        both cases nothing has changed.
        """
        order.refresh_from_db()  # count what was withdrawn or filled since the row was read
        self._check_possible(order, price, qty)
        if price is None:
            assert qty is not None
            Canceller(self._broker, self._now).cancel(order, by=by, who=who, qty=order.open_qty - qty)
            order.refresh_from_db()
            return order
        is_whole = qty is None or qty == order.open_qty
        draft, row, grounds = self._prepare(order, price, order.open_qty if qty is None else qty)
        return self._commit_and_send(order, draft, row, grounds, by=by, who=who, is_whole=is_whole)

    def follow(self, order: TradeOrder, draft: PricedOrder) -> TradeOrder:
        """Amend an order to the price of its chase's next step; the chase continues with the resulting order."""
        row = self._submit.child_row(draft, order, f"chase:{order.root_pk}:amend:{next_attempt(order)}")
        row.replaces = order
        grounds = Grounds(draft.quoted_at, follows=order.pk)
        return self._commit_and_send(order, draft, row, grounds, by=RequestedBy.CHASE, who="", is_whole=True)

    def preview(self, order: TradeOrder, *, price: int | None = None, qty: int | None = None) -> PricedOrder | None:
        """Check an amend without sending it; return its draft, None if the amend only takes off shares.

        Raises OrderDenied, and BrokerError if the broker could not be asked.
        """
        order.refresh_from_db()
        self._check_possible(order, price, qty)
        if price is None:
            return None
        return self._prepare(order, price, order.open_qty if qty is None else qty)[0]

    # --- before

    def _check_possible(self, order: TradeOrder, price: int | None, qty: int | None) -> None:
        denial = _why_impossible(order, price, qty, self._now())
        if denial is not None:
            raise OrderDenied([denial])

    def _prepare(self, order: TradeOrder, price: int, qty: int) -> tuple[PricedOrder, TradeOrder, Grounds]:
        """Check the amend, and return its draft, its row and the grounds of its last check."""
        check_fills_listed(order)
        lowers_risk = only_lowers_risk(order.side, order.price, price)
        market, kind = Market(order.market), OrderKind(order.order_kind)
        number = order.requests.filter(kind=RequestKind.AMEND).count() + 1
        request_id = f"amend:{order.pk}:{number}"
        intent = OrderIntent(
            order.stock_code, order.side, qty, price=price, market=market, request_id=request_id, kind=kind
        )
        context = self._pretrade.context(intent, order.root_pk)
        if not lowers_risk:
            context = self._pretrade.ensure_reconciled(context, intent, order.root_pk)
        stock = context.stock or self._pretrade.new_stock(order.stock_code)
        request = OrderRequest(order.stock_code, order.side, market, kind, qty, price)
        quoted_at = self._now()
        quote = self._broker.quote(order.stock_code, market)
        kept_qty, kept_won = _exposure_kept(order, qty)
        inputs = risk_inputs(request, stock, context, is_child_order=True)
        inputs = replace(inputs, kept_qty=kept_qty, kept_won=kept_won)
        draft = self._pretrade.run_checks(
            Priced(request, None),
            stock,
            quote,
            quoted_at,
            intent,
            inputs,
            released_qty=qty if order.side.sign < 0 else 0,
            cost_won=max(0, (price - order.price) * qty),
            checks=HARMLESS_AMEND_CHECKS if lowers_risk else RISK_CHECKS,
        )
        row = self._submit.child_row(replace(draft, plan=NO_CHASE), order, request_id)
        row.replaces = order
        return draft, row, Grounds(quoted_at, skip=LOWERS_RISK if lowers_risk else frozenset())

    # --- commit, send, record

    def _commit_and_send(
        self,
        order: TradeOrder,
        draft: PricedOrder,
        row: TradeOrder,
        grounds: Grounds,
        *,
        by: RequestedBy,
        who: str,
        is_whole: bool,
    ) -> TradeOrder:
        query = OrderIntent(row.stock_code, row.side, row.qty, price=row.price, request_id=row.request_id)
        competing = self._pretrade.context(query, order.root_pk).competing
        checks = () if grounds.skip else COMMIT_CHECKS
        row = self._submit.commit(
            draft, row, competing, by=by, follows=grounds.follows, checks=checks, who=who, is_whole=is_whole
        )
        if by is not RequestedBy.CHASE:
            journal.update_fields(order, chase_at=None, chase_note="")
        journal.append_event(order, OrderEventKind.AMEND_SENT, f"#{row.pk} {row.qty} @ {row.price}", at=self._now())
        self._send(order, row, BrokerRequest.objects.get(makes=row), grounds, None if is_whole else row.qty)
        row.refresh_from_db()
        return row

    def _send(
        self, order: TradeOrder, row: TradeOrder, request: BrokerRequest, grounds: Grounds, qty: int | None
    ) -> None:
        check = requests.change_check(request, order, grounds, self._now)
        try:
            acceptance = self._broker.amend(replace(order.placed, last_check=check), price=row.price, qty=qty)
        except (NotSent, Refused) as error:
            self._record(order, OrderEventKind.AMEND_REFUSED, str(error))
            journal.record_rejected(row, error, at=self._now())
            if not isinstance(error, HeldBack):
                kill_switch.check_trips(self._now())
        except OutcomeUnknown as error:
            log.error("order %s: no answer to its amend, it may have arrived: %s", order.pk, error)
            self._record(order, OrderEventKind.AMEND_UNKNOWN, str(error))
            journal.record_unknown(row, error, at=self._now())
        else:
            request.refresh_from_db(fields=["sent_at"])
            journal.record_accepted(row, acceptance, at=self._now(), evidence="reply", sent_at=request.sent_at)
            inherit(order.pk, row)
            self._record(order, OrderEventKind.AMEND_TAKEN, acceptance.order_no)
            fills.replay(row)

    def _record(self, order: TradeOrder, kind: OrderEventKind, detail: str) -> None:
        journal.append_event(order, kind, detail, at=self._now())
        journal.request_confirmation(order)


def _why_impossible(order: TradeOrder, price: int | None, qty: int | None, now: datetime) -> Denial | None:
    """Return why this amend of the order is not possible, None if it is."""
    name, market = f"#{order.pk}", Market(order.market)
    if why := why_not_today(order, now):
        return why
    if order.order_no is None or not order.is_open or not order.open_qty:
        return Denial(DenialCode.NOT_OPEN, gettext_noop("nothing of order {order} is open"), {"order": name})
    if price is None and (qty is None or qty == order.open_qty):
        template = gettext_noop("nothing would change: name a new price, or a quantity below the {open:,} open shares")
        return Denial(DenialCode.NOTHING_TO_AMEND, template, {"open": order.open_qty})
    if qty is not None and not 0 < qty <= order.open_qty:
        template = gettext_noop("quantity {qty:,}: 1 to {open:,} shares of it are open")
        return Denial(DenialCode.QUANTITY, template, {"qty": qty, "open": order.open_qty})
    if price is not None and not can_amend(market, OrderKind(order.order_kind), order.order_date):
        template = gettext_noop(
            "{market} orders of kind {kind} cannot be amended, only limit orders (00): cancel it and place a new order"
        )
        return Denial(DenialCode.AMEND_KIND, template, {"market": market, "kind": order.order_kind})
    if price == order.price:
        return Denial(DenialCode.NOTHING_TO_AMEND, gettext_noop("its price is {price:,} won already"), {"price": price})
    return _why_pending(order)


def _exposure_kept(order: TradeOrder, qty: int) -> tuple[int, int]:
    """Return the family's exposure without `qty` open shares of this order: open shares, and won open or filled."""
    family = list(order.family)
    resting = [member for member in family if member.is_open]
    won = sum(member.filled_amount for member in family) + sum(member.open_qty * member.price for member in resting)
    return sum(member.open_qty for member in resting) - qty, won - qty * order.price


def _why_pending(order: TradeOrder) -> Denial | None:
    """Return why the family must wait for the list first: a cancel, an amend or an order of it has no known outcome.

    A requested cancel is pending until the list confirms it, answered or not.
    """
    is_unknown = order.family.filter(status__in=UNANSWERED).exists()
    if not is_unknown and not order.is_cancel_requested and not requests.has_live_changes(order):
        return None
    template = gettext_noop("a cancel or an amend of order {order} is not confirmed by the list yet: wait for that")
    return Denial(DenialCode.CHANGE_PENDING, template, {"order": f"#{order.pk}"})


def describe_amend(order: TradeOrder, row: TradeOrder) -> str:
    """Return a short text about an amend, for an operator."""
    return gettext("#{pk} → #{new}: {qty:,} shares at {price:,} won").format(
        pk=order.pk, new=row.pk, qty=row.qty, price=row.price
    )
