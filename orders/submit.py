"""Commits an order and sends it once: first the row, then the last check before sending, then the request."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max

from aegis import sessions
from aegis.broker import (
    Broker,
    BrokerError,
    HeldBack,
    NoMarketOrders,
    NotSent,
    OrderRequest,
    OutcomeUnknown,
    Refused,
)
from aegis.chase import ChaseBy
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.lifecycle import Status
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy
from aegis.risk import COMMIT_CHECKS, RiskCheck
from aegis.terms import Market, OrderKind, Side
from market import queries
from orders import fills, journal, kill_switch, pretrade_context, requests, risk
from orders.intents import OrderDenied
from orders.models import TradeOrder
from orders.pretrade import PreTrade, PricedOrder, require
from orders.pretrade_context import CompetingOrders
from orders.requests import Grounds

log = logging.getLogger(__name__)


# a new order is denied after this many commit conflicts with other orders
MAX_COMMIT_CONFLICTS = 100


class Submitter:
    """Commits and sends orders with one broker and one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    def row(self, draft: PricedOrder, request_id: str) -> TradeOrder:
        """Return the unsaved row of a new order."""
        request, plan = draft.request, draft.plan
        return TradeOrder(
            request_id=request_id,
            stock_code=request.code,
            stock_name=draft.stock.name,
            order_type=request.side,
            market=request.market,
            order_kind=request.kind,
            strategy=draft.strategy,
            strategy_id=draft.strategy_id,
            tick_offset=draft.tick_offset,
            band_percent=draft.band_percent,
            arrival_percent=_arrival_percent(request.side),
            qty=request.qty,
            price=request.price if request.kind.is_priced else 0,
            trigger_price=request.trigger,
            arrival_price=draft.quote.price,
            arrival_sweep_price=draft.arrival_sweep_price,
            quoted_at=draft.quoted_at,
            order_date=draft.inputs.now.date(),
            chase_by=ChaseBy(settings.CHASE_BY.upper()),
            wait_seconds=plan.wait_seconds,
            max_retries=plan.max_retries,
            step_ticks=plan.step_ticks,
            market_after=plan.market_after,
        )

    def child_row(self, draft: PricedOrder, order: TradeOrder, request_id: str) -> TradeOrder:
        """Return the unsaved row of the next order of a family. It keeps the pricing and chase fields of `order`."""
        row = self.row(draft, request_id)
        row.root_id, row.attempt = order.root_pk, next_attempt(order)
        row.strategy, row.strategy_id, row.tick_offset = order.strategy, order.strategy_id, order.tick_offset
        row.arrival_price, row.chase_by = order.arrival_price, order.chase_by
        row.band_percent, row.arrival_percent = order.band_percent, order.arrival_percent
        row.entry_stops = order.entry_stops
        return row

    def commit(
        self,
        draft: PricedOrder,
        row: TradeOrder,
        competing: CompetingOrders,
        *,
        by: RequestedBy,
        follows: int | None = None,
        checks: tuple[RiskCheck, ...] = COMMIT_CHECKS,
        who: str = "",
        is_whole: bool = True,
        is_checked: bool = False,
        on_conflict: Callable[[], None] | None = None,
    ) -> TradeOrder:
        """Commit an order before it is sent, if no competing order changed since the checks.

        Otherwise run `checks` again with the orders committed meanwhile; `on_conflict` is called before that, and may
        raise. `is_checked` says that the draft passed all checks with these very competing orders. `follows` is the
        order whose chase must not have ended. `who` and `is_whole` are fields of its broker request. Raises
        OrderDenied, IntegrityError if the request id already has a row, and RuntimeError inside a transaction, whose
        rollback could delete the row.
        """
        if any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            raise RuntimeError("an order is placed inside a transaction: place it after the commit, the row must stand")
        # a duplicate is an order with the same pricing style or, without a style, with the same price
        query = competing.query if draft.strategy else replace(competing.query, price=row.price)
        kind_change = risk.denial_text(draft.changed) if draft.changed else ""
        for _ in range(MAX_COMMIT_CONFLICTS):
            now = self._now()
            if competing.query != query:
                competing = pretrade_context.load_competing_orders(query, now=now)
                is_checked = False
            if not is_checked:
                require(pretrade_context.with_current_exposure(draft.inputs, competing), checks)
            is_written = journal.insert_if_unchanged(
                row, competing, at=now, by=by, who=who, is_whole=is_whole, changed=kind_change, follows=follows
            )
            if is_written:
                return row
            if follows and not TradeOrder.objects.filter(pk=follows, chase_at__isnull=False).exists():
                raise OrderDenied([Denial(DenialCode.CHASE_ENDED, gettext_noop("its chase was ended meanwhile"))])
            kill_switch.ensure_exists(now)
            competing = pretrade_context.load_competing_orders(query, now=self._now())
            is_checked = False
            if on_conflict is not None:
                on_conflict()
        raise OrderDenied(
            [Denial(DenialCode.RIVALS, gettext_noop("other orders were committed first each time: try once more"))]
        )

    def send(self, order: TradeOrder, grounds: Grounds | None = None) -> TradeOrder:
        """Send a committed order and record the outcome. Called once for each row.

        `grounds` are what the last check before sending compares with, by default those of an order of its own.
        """
        grounds = grounds or requests.grounds_of(order)
        request = OrderRequest(
            code=order.stock_code,
            side=Side(order.order_type),
            market=Market(order.market),
            kind=OrderKind(order.order_kind),
            qty=order.qty,
            price=order.price,
            trigger=order.trigger_price,
            last_check=requests.new_order_check(order, grounds, self._now),
        )
        try:
            try:
                acceptance = self._broker.place(request)
            except NoMarketOrders as refusal:
                # the refusal proves that the first request is not an order, so the row still has at most one
                acceptance = self._broker.place(self._at_best_opposite(order, request, grounds, refusal))
        except HeldBack as error:
            self._record_held_back(order, error)
        except (NotSent, Refused) as error:
            journal.with_retry(journal.record_rejected, order, error, at=self._now())
            kill_switch.check_trips(self._now())
        except OutcomeUnknown as error:
            log.error("order %s: no answer, it may have arrived: %s", order.pk, error)
            journal.with_retry(journal.record_unknown, order, error, at=self._now())
        else:
            journal.with_retry(journal.record_accepted, order, acceptance, at=self._now(), evidence="reply")
            fills.replay(order)
        order.refresh_from_db()
        return order

    def _record_held_back(self, order: TradeOrder, error: HeldBack) -> None:
        """Record that the last check stopped a committed order. Reconciliation settles one that another sender took."""
        log.warning("order %s: not sent: %s", order.pk, error)
        order.refresh_from_db()
        if order.state is Status.SUBMITTING and error.code != requests.CLAIM_LOST:
            journal.record_rejected(order, error, at=self._now())

    def _at_best_opposite(
        self, order: TradeOrder, request: OrderRequest, grounds: Grounds, refusal: Refused
    ) -> OrderRequest:
        """Change a market order to a limit order, record that, and return its request. Raises `refusal` on failure."""
        pretrade, quoted_at = PreTrade(self._broker, self._now), self._now()
        kind = sessions.limit_kind(sessions.legal_kinds(request.market, queries.today(quoted_at), quoted_at))
        if kind is None:
            raise refusal
        try:
            quote = self._broker.quote(request.code, request.market)
            limit_request = pretrade.as_best_opposite_limit(request, quote, pretrade.stock_of(request.code), kind)
        except (BrokerError, OrderDenied) as error:
            raise refusal from error
        template = gettext_noop(
            "{code} takes no market orders: it goes as a limit at {price:,} won, the best opposite quote"
        )
        kind_change = Denial(DenialCode.KIND_CHANGED, template, {"code": request.code, "price": limit_request.price})
        with transaction.atomic():
            journal.update_fields(order, order_kind=kind.value, price=limit_request.price, quoted_at=quoted_at)
            journal.append_event(order, OrderEventKind.KIND_CHANGED, risk.denial_text(kind_change), at=self._now())
        check = requests.new_order_check(order, replace(grounds, quoted_at=quoted_at), self._now)
        return replace(limit_request, last_check=check)


def next_attempt(order: TradeOrder) -> int:
    """Return the number of the next order in an order's family."""
    newest = order.family.aggregate(most=Max("attempt"))["most"]
    return int(newest or 0) + 1


def _arrival_percent(side: Side) -> Decimal:
    """Return how far a chase of this side may move from the arrival price, in percent; 0 means no limit."""
    return settings.CHASE_ARRIVAL_PERCENT_BUY if side is Side.BUY else settings.CHASE_ARRIVAL_PERCENT_SELL
