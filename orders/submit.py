"""Commits an order and sends it: the row before the request, the last check before the bytes, never twice."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import ParamSpec

from django.db import connection, transaction
from django.db.models import Max
from django.utils.translation import gettext

from aegis import sessions
from aegis.broker import (
    Acceptance,
    Broker,
    BrokerError,
    HeldBack,
    NoMarketOrders,
    NotSent,
    OrderRequest,
    OutcomeUnknown,
    Refused,
)
from aegis.denials import Denial, DenialCode
from aegis.lifecycle import Status
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy
from aegis.risk import COMMIT_CHECKS, RiskCheck, denials, gettext_noop
from aegis.sessions import KST
from aegis.terms import Market, OrderKind
from infra import db_limits
from market import queries
from orders import fills, journal, kill_switch, pretrade_context, requests, risk
from orders.intents import OrderDenied, default_chase_by
from orders.models import TradeOrder
from orders.pretrade import PreTrade, PricedOrder
from orders.pretrade_context import CompetingOrders
from orders.requests import Grounds

log = logging.getLogger(__name__)

Words = ParamSpec("Words")

# an order is given up after this many commit conflicts with other orders
MAX_COMMIT_CONFLICTS = 100
# how often the database is asked to record an answer; after that the broker's list tells it
RECORD_TRIES = 3


class Submitter:
    """Commits and sends orders with one broker, by one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    def row(self, draft: PricedOrder, request_id: str) -> TradeOrder:
        """Return the row of a new order, not saved."""
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
            arrival_percent=risk.arrival_percent(request.side),
            qty=request.qty,
            price=request.price if request.kind.is_priced else 0,
            trigger_price=request.trigger,
            arrival_price=draft.quote.price,
            arrival_market=draft.arrival_market,
            quoted_at=draft.quoted_at,
            order_date=self._now().astimezone(KST).date(),
            chase_by=default_chase_by(),
            wait_seconds=plan.wait_seconds,
            max_retries=plan.max_retries,
            step_ticks=plan.step_ticks,
            market_after=plan.market_after,
        )

    def child_row(self, draft: PricedOrder, order: TradeOrder, request_id: str) -> TradeOrder:
        """Return the row of the next order of a family. It keeps what the order before it was priced and chased by."""
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
        overtaken: Callable[[], None] | None = None,
    ) -> TradeOrder:
        """Commit an order that is about to leave, if no competing order changed since the checks.

        Otherwise it is judged once more, by `checks`, beside those that came between; `overtaken` is called before
        that, and may raise. It `follows` an order whose chase must not have ended. `who` and `is_whole` are of its
        request. Raises OrderDenied, IntegrityError if the request id has a row already, and RuntimeError inside a
        transaction, which could take the row back.
        """
        if any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            raise RuntimeError("an order is placed inside a transaction: place it after the commit, the row must stand")
        # a duplicate of what is priced by us is told by its style, of anything else by the price that it goes at
        query = competing.query if draft.strategy else replace(competing.query, price=row.price)
        changed = risk.say(draft.changed) if draft.changed else ""
        for _ in range(MAX_COMMIT_CONFLICTS):
            now = self._now()
            if competing.query != query:
                competing = pretrade_context.load_competing_orders(query, now=now)
            facts = pretrade_context.with_current_exposure(draft.facts, competing)
            if against := denials(facts, checks):
                raise OrderDenied(against)
            with _not_sent_without_database():
                is_written = journal.insert_if_unchanged(
                    row, competing, at=now, by=by, who=who, is_whole=is_whole, changed=changed, follows=follows
                )
            if is_written:
                return row
            if follows and not TradeOrder.objects.filter(pk=follows, chase_at__isnull=False).exists():
                raise OrderDenied([Denial(DenialCode.CHASE_ENDED, gettext_noop("its chase was ended meanwhile"))])
            kill_switch.ensure_exists(now)
            competing = pretrade_context.load_competing_orders(query, now=self._now())
            if overtaken is not None:
                overtaken()
        raise OrderDenied(
            [Denial(DenialCode.RIVALS, gettext_noop("other orders came before it again and again: try once more"))]
        )

    def send(self, order: TradeOrder, grounds: Grounds) -> TradeOrder:
        """Send a committed order and record what became of it. Called once for each row."""
        request = OrderRequest(
            code=order.stock_code,
            side=order.side,
            market=Market(order.market),
            kind=OrderKind(order.order_kind),
            qty=order.qty,
            price=order.price,
            trigger=order.trigger_price,
            last_check=requests.new_order_check(order, grounds, self._now),
        )
        try:
            acceptance = self._place(order, request, grounds)
        except HeldBack as held:
            self._record_held_back(order, held)
        except (NotSent, Refused) as error:
            _record(journal.record_rejected, order, error, at=self._now())
            kill_switch.watch(self._now())
        except OutcomeUnknown as error:
            log.error("order %s: no answer, it may have arrived: %s", order.pk, error)
            _record(journal.record_unknown, order, error, at=self._now())
        else:
            _record(journal.record_accepted, order, acceptance, at=self._now(), evidence="reply")
            fills.replay(order)
        order.refresh_from_db()
        return order

    def _record_held_back(self, order: TradeOrder, held: HeldBack) -> None:
        """Record that the last check kept a committed order. One that another sender has taken is left to the list."""
        log.warning("order %s: it is not sent: %s", order.pk, held)
        order.refresh_from_db()
        if order.state is Status.SUBMITTING and held.code != requests.TAKEN:
            journal.record_rejected(order, held, at=self._now())

    def _place(self, order: TradeOrder, request: OrderRequest, grounds: Grounds) -> Acceptance:
        """Send an order; if its stock takes none at market, as a limit at the best opposite quote instead.

        That refusal is an answer: the first request is no order, and the second is the first of this row to count.
        """
        try:
            return self._broker.place(request)
        except NoMarketOrders as refusal:
            instead = self._at_best_opposite(order, request, grounds, refusal)
        return self._broker.place(instead)

    def _at_best_opposite(
        self, order: TradeOrder, request: OrderRequest, grounds: Grounds, refusal: Refused
    ) -> OrderRequest:
        """Record that a market order becomes a limit, and return that. Raises `refusal` if it cannot."""
        pretrade, quoted_at = PreTrade(self._broker, self._now), self._now()
        kind = sessions.limit_kind(sessions.legal_kinds(request.market, queries.today(quoted_at), quoted_at))
        if kind is None:
            raise refusal
        try:
            quote = self._broker.quote(request.code, request.market)
            instead = pretrade.at_best_opposite(request, quote, pretrade.stock_of(request.code), kind)
        except (BrokerError, OrderDenied) as error:
            raise refusal from error
        words = gettext_noop(
            "{code} takes no market orders: it goes as a limit at {price:,} won, the best opposite quote"
        )
        changed = Denial(DenialCode.KIND_CHANGED, words, {"code": request.code, "price": instead.price})
        with transaction.atomic():
            journal.update_fields(order, order_kind=kind.value, price=instead.price, quoted_at=quoted_at)
            journal.append_event(order, OrderEventKind.KIND_CHANGED, risk.say(changed), at=self._now())
        check = requests.new_order_check(order, replace(grounds, quoted_at=quoted_at), self._now)
        return replace(instead, last_check=check)


@contextmanager
def _not_sent_without_database() -> Iterator[None]:
    """Raise NotSent if the database does not take a row in time, or ends the session: without one nothing leaves."""
    try:
        yield
    except db_limits.AWAY as error:
        connection.close_if_unusable_or_obsolete()
        words = gettext("the database did not take the order in time, and nothing was sent: {error}")
        raise NotSent(words.format(error=str(error).partition("\n")[0])) from error


def _record(write: Callable[Words, object], *args: Words.args, **kwargs: Words.kwargs) -> None:
    """Record what the broker said, by a new connection if the old one was lost. It changes nothing if it is known."""
    for _ in range(RECORD_TRIES - 1):
        try:
            write(*args, **kwargs)
        except db_limits.AWAY:
            log.exception("an answer of the broker's cannot be recorded; it is tried again")
            connection.close_if_unusable_or_obsolete()
        else:
            return
    write(*args, **kwargs)


def next_attempt(order: TradeOrder) -> int:
    """Return the place of the next order in an order's family."""
    newest = order.family.aggregate(most=Max("attempt"))["most"]
    return int(newest or 0) + 1


def grounds_of(order: TradeOrder, *, follows: int | None = None) -> Grounds:
    """Return what a new order was judged by, as its last check wants it."""
    if order.quoted_at is None:
        raise ValueError(gettext("order {order} has no quote").format(order=order.pk))
    return Grounds(order.quoted_at, follows, requests.stop_of(order.request_id))
