"""OrderService: guard, price, commit, send, record; and cancel.

The one exception to "nobody asks the broker": just before an order it asks for the quote and for
orderable cash or shares (spec §0.2). The row is committed before the request leaves, and a request
whose answer was lost is never sent again.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time
from decimal import Decimal
from time import monotonic, sleep

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils.translation import gettext

from aegis import pricing, sessions
from aegis.broker import (
    Acceptance,
    Book,
    Broker,
    BrokerError,
    NoMarketOrders,
    NotSent,
    OpenOrder,
    OrderRequest,
    OutcomeUnknown,
    PartlyRead,
    Placed,
    Quote,
    Refused,
)
from aegis.chase import Plan, goes_to_market
from aegis.guards import CROWDED, Facts, Reason, check_frozen, check_words, gettext_noop, reasons
from aegis.lifecycle import OPEN, Status
from aegis.pricing import NoQuote, Strategy
from aegis.quality import market_average
from aegis.sessions import KST, Phase
from aegis.terms import Instrument, Market, OrderKind, Side
from aegis.ticks import step
from market import collector
from market import service as market
from market.models import Stock
from orders import fills, ground, guards, journal, reconcile, switch
from orders.ground import Crowd, Ground, Question
from orders.models import STOP_ID, TradeOrder
from portfolio.fetcher import KISFetcher

log = logging.getLogger(__name__)

# an order is given up that so many others overtake, one by one, in the moment in which it is committed
MOST_RIVALS = 100
# how long the emergency brake waits for the answers of orders on their way
BRAKE_PATIENCE_SECONDS = 3.0


class OrderDenied(Exception):
    """AEGIS itself will not send this order; `reasons` says why, one by one."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__("; ".join(str(reason) for reason in reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True)
class Intent:
    """What a caller wants: shares of a stock, priced by a `strategy`, by a `price`, or at market (neither).

    `market` None lets the hour choose the venue, `kind` None the order code; a kind asked for by name goes as
    it is or not at all, but for a market order. `trigger` is the condition price, in won, of a stop-limit
    order. The same `request_id` again returns the same order. `plan` None leaves orders with a price or a kind
    of their own and market orders alone, and chases every other by the settings.
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

    @property
    def names_price(self) -> bool:
        return bool(self.strategy) or self.price is not None

    @property
    def is_at_market(self) -> bool:
        return not self.names_price and self.kind in (None, OrderKind.MARKET)


@dataclass(slots=True)
class Swept:
    """What became of everything that was open, by order number.

    `failed` says why, `left` were placed by hand; `unseen` is why the broker did not tell what
    else there is, or not all of it.
    """

    cancelled: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """An order ready to be committed: what would be sent, and what it was priced and judged against.

    `changed` says why it goes as another kind than was asked for, where it does.
    """

    request: OrderRequest
    stock: Stock
    quote: Quote
    strategy: str
    plan: Plan
    cost_won: int
    facts: Facts
    changed: Reason | None = None
    arrival_market: Decimal | None = None


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


def _nearer(order: TradeOrder, retry: int) -> int:
    """Return how many ticks nearer than the first order the re-order in place `retry` is."""
    return retry * order.step_ticks


NO_CHASE = Plan(wait_seconds=0, max_retries=0, step_ticks=0, market_after=False)


def _plan(intent: Intent, request: OrderRequest) -> Plan:
    """Return how an order is chased. Nothing is nearer than a market order; a kind asked for by name is meant so."""
    if intent.plan is not None:
        return intent.plan
    by_name = intent.kind not in (None, OrderKind.MARKET)
    return NO_CHASE if intent.price is not None or by_name or request.kind.is_market else default_plan()


def _held_back(request: OrderRequest, quote: Quote) -> int:
    """Return the won that the broker holds back for an order: without a price it reckons with the upper limit."""
    return request.qty * (request.price if request.kind.is_priced else quote.upper_limit)


def _changed(intent: Intent, request: OrderRequest) -> Reason | None:
    """Return why a market order goes as a limit, None where it goes as it was asked for."""
    if not intent.is_at_market or request.kind.is_market:
        return None
    words = gettext_noop(
        "{market} takes no market order now: it goes as a limit at {price:,} won, the best opposite quote"
    )
    return Reason("KIND_CHANGED", words, {"market": request.market, "price": request.price})


def _distinct(found: Sequence[Reason]) -> list[Reason]:
    """Return reasons without those that come twice; the later figures stand."""
    return list({reason.code: reason for reason in found}.values())


def _may_be_ours(found: OpenOrder) -> bool:
    """Whether an open order that no row claims may be one of ours whose answer was lost: the brake takes no chances."""
    unanswered = TradeOrder.objects.filter(status__in=[Status.SUBMITTING, Status.UNKNOWN])
    return unanswered.filter(stock_code=found.code, order_type=found.side).exists()


def _same(order: TradeOrder, intent: Intent) -> TradeOrder:
    """Return the order that a request has already. Raises OrderDenied where that was for something else.

    Shares and price may differ: who asks again after a crash reckons with less cash.
    """
    if (order.stock_code, order.order_type) == (intent.code, intent.side):
        return order
    words = gettext_noop("request id {request_id} is order {order}, {side} {code}: take a new one for each new order")
    figures = {"request_id": order.request_id, "order": f"#{order.pk}", "side": order.order_type}
    raise OrderDenied([Reason("REQUEST_TAKEN", words, {**figures, "code": order.stock_code})])


class OrderService:
    """Places and cancels orders with one broker, by one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    def place(self, intent: Intent) -> TradeOrder:
        """Place an order and return its row, whatever became of it at the broker.

        Raises OrderDenied where AEGIS will not send it, and another BrokerError where the broker could not
        be asked beforehand; in both cases there is no row but one that has the request id for something else.
        """
        found = self._ground(intent)
        if found.known is not None:
            return _same(TradeOrder.objects.get(pk=found.known), intent)
        try:
            found = self._firm(found, intent)
            draft = self._draft(intent, found)
            order = self._commit(draft, self._row(draft, intent.request_id), found.crowd)
        except (IntegrityError, OrderDenied):
            known = TradeOrder.objects.filter(request_id=intent.request_id).first()
            if known is None:
                raise
            return _same(known, intent)  # a moment sooner
        return self.send(order)

    def draft(self, intent: Intent) -> Draft:
        """Judge and price an intent without committing or sending it. Raises OrderDenied or a BrokerError."""
        return self._draft(intent, self._ground(intent))

    def _draft(self, intent: Intent, found: Ground) -> Draft:
        stock = found.stock or self._new_stock(intent.code)
        venue = self._venue(intent, stock, found.phases)
        facts = self._facts(self._unpriced(intent, venue, found.phases), stock, intent, found)
        standing = reasons(facts)
        if intent.kind and (wrong := check_words(intent.kind, names_price=intent.names_price)):
            raise OrderDenied([wrong, *standing])
        try:
            quote = self._broker.quote(intent.code, venue)
            request, book = self._priced(intent, venue, stock, quote, found.phases)
            draft = self._judged(request, stock, quote, intent, facts)
        except OrderDenied as denied:
            raise OrderDenied(_distinct([*standing, *denied.reasons])) from denied
        except BrokerError as error:
            if standing:
                raise OrderDenied(standing) from error
            raise
        return replace(draft, arrival_market=market_average(book, intent.side, intent.qty) if book else None)

    def send(self, order: TradeOrder) -> TradeOrder:
        """Send a committed order and record what became of it. Called once for each row."""
        if not journal.leaves(order, at=self._now()):
            return self._held_back(order)
        request = OrderRequest(
            code=order.stock_code,
            side=order.side,
            market=Market(order.market),
            kind=OrderKind(order.order_kind),
            qty=order.qty,
            price=order.price,
            trigger=order.trigger_price,
        )
        try:
            acceptance = self._at_broker(order, request)
        except (NotSent, Refused) as error:
            journal.refused(order, error, at=self._now())
            switch.watch(self._now())
        except OutcomeUnknown as error:
            log.error("order %s: no answer, it may have arrived: %s", order.pk, error)
            journal.unanswered(order, error, at=self._now())
        else:
            journal.accepted(order, acceptance, at=self._now(), evidence="reply")
            fills.replay(order)
        order.refresh_from_db()
        return order

    def _held_back(self, order: TradeOrder) -> TradeOrder:
        """Say why a committed order stays: the switch went down, or its sender slept, or it was resolved meanwhile."""
        order.refresh_from_db()
        is_waiting = order.state is Status.SUBMITTING and order.sent_at is None
        if is_waiting and (reason := guards.may_send(order)):
            journal.denied(order, guards.say(reason), at=self._now())
            return order
        log.error("order %s: its sender came too late, it is not sent; it is %s", order.pk, order.status)
        if is_waiting:
            journal.refused(order, NotSent(gettext("its sender came too late")), at=self._now())
        return order

    def cancel(self, order: TradeOrder, *, goes_on: bool = False) -> TradeOrder:
        """Ask the broker to cancel what is left. The broker's list, not the reply, says what was left.

        Nothing of it is ordered anew, unless its chase `goes_on`, which cancels for that alone. Raises Refused where
        nothing is left to cancel, NotSent where the broker was not reached, and ValueError for an order without a
        number. A lost answer is no error: the order is looked up.
        """
        placed = order.placed
        now = self._now()
        ended = {} if goes_on else {"chase_at": None}
        journal.note(order, cancel_sent_at=now, look_wanted=True, **ended)
        journal.write(order, "CANCEL_SENT", at=now)
        try:
            acceptance = self._broker.cancel(placed)
        except OutcomeUnknown as error:
            journal.write(order, "CANCEL_UNKNOWN", str(error), at=self._now())
        except BrokerError as error:
            journal.write(order, "CANCEL_REFUSED", str(error), at=self._now())
            raise
        else:
            journal.write(order, "CANCEL_TAKEN", acceptance.order_no, at=self._now())
        return order

    def cancel_all(self, *, external: bool = False, code: str | None = None) -> Swept:
        """Cancel what our rows know to be open, then whatever else the broker holds open on any venue.

        It goes on where one fails, and says so. Orders placed by hand are left alone unless `external`.
        """
        swept = Swept()
        self._end_chases(code)
        self._sweep_ours(swept, external=external, code=code)
        for order in self._unanswered(code):
            swept.failed[str(order)] = gettext("its answer is not there yet: look again in a minute")
        self._end_chases(code)
        self._sweep_ours(swept, external=external, code=code)
        try:
            still_open = self._broker.open_orders()
        except PartlyRead as error:
            still_open, swept.unseen = error.read, guards.say_error(error)
        except BrokerError as error:
            swept.unseen = guards.say_error(error)
            return swept
        for each in still_open:
            placed = each.placed
            if placed.order_no in swept.cancelled or placed.order_no in swept.failed or code not in (None, each.code):
                continue
            same = TradeOrder.objects.filter(order_date=placed.order_date, order_no=placed.order_no)
            order = same.filter(stock_code=each.code, order_type=each.side).first()
            ours = _may_be_ours(each) if order is None else order.origin == TradeOrder.Origin.AEGIS
            if external or ours:
                self._sweep_one(placed, order, swept)
            else:
                swept.left.append(placed.order_no)
        return swept

    def _sweep_ours(self, swept: Swept, *, external: bool, code: str | None) -> None:
        mine = TradeOrder.objects.filter(status__in=OPEN).exclude(order_no=None).order_by("-id")
        for order in mine.filter(stock_code=code) if code else mine:
            is_new = order.order_no not in swept.failed and order.order_no not in swept.cancelled
            if is_new and (external or order.origin == TradeOrder.Origin.AEGIS):
                self._sweep_one(order.placed, order, swept)

    def _unanswered(self, code: str | None) -> Sequence[TradeOrder]:
        """Wait a moment for the answers of orders on their way; return those that have none by then."""
        on_its_way = TradeOrder.objects.filter(
            status=Status.SUBMITTING, created_at__gt=self._now() - journal.SEND_WITHIN
        )
        gives_up_at = monotonic() + BRAKE_PATIENCE_SECONDS
        while left := list(on_its_way.filter(stock_code=code) if code else on_its_way.all()):
            if monotonic() > gives_up_at:
                break
            sleep(0.05)
        return left

    def _end_chases(self, code: str | None) -> None:
        """End the chases that stand between a cancel and its re-order: no open order is there to sweep."""
        between = TradeOrder.objects.exclude(chase_at=None).exclude(status__in=OPEN)
        for order in between.filter(stock_code=code) if code else between:
            self.end_chase(order, gettext("everything is cancelled"))

    @transaction.atomic
    def end_chase(self, order: TradeOrder, why: str) -> None:
        """End an order's chase, by somebody's will: nothing of it is ordered anew, not even what is being committed.

        A chase that ended by itself says why in its note; this one has none, and a stop does not go on from there.
        """
        journal.note(order, chase_at=None, chase_note="")
        journal.write(order, "CHASE_ENDED", why, at=self._now())
        switch.overtake()

    def _sweep_one(self, placed: Placed, order: TradeOrder | None, swept: Swept) -> None:
        try:
            if order is None:
                self._broker.cancel(placed)
            else:
                self.cancel(order)
        except BrokerError as error:
            swept.failed[placed.order_no] = guards.say_error(error)
        else:
            swept.cancelled.append(placed.order_no)

    def decide(self, order: TradeOrder, order_no: str | None, *, by: str) -> TradeOrder:
        """Settle by a person's word an order whose outcome stayed unknown.

        It is the broker's order `order_no`, one of its candidates; or, with None, it never arrived. Raises
        ValueError where it is not UNKNOWN any more, or the number is no candidate.
        """
        evidence = f"decided by {by}"
        if order.state is not Status.UNKNOWN:
            raise ValueError(f"order {order.pk} is {order.status}: only an UNKNOWN order is left to decide")
        if order_no is None:
            journal.absent(order, evidence, at=self._now())
            return order
        known = {each["order_no"]: each for each in order.candidates}
        if order_no not in known:
            raise ValueError(
                f"order number {order_no} is no candidate of order {order.pk}: {', '.join(known) or 'none'}"
            )
        placed_at = time.fromisoformat(known[order_no]["placed_at"])
        acceptance = Acceptance(known[order_no]["branch"], order_no, placed_at)
        try:
            with transaction.atomic():
                journal.accepted(order, acceptance, at=self._now(), evidence=evidence)
        except IntegrityError as error:
            raise ValueError(f"order number {order_no} belongs to another order of ours by now") from error
        journal.note(order, look_wanted=True)
        fills.replay(order)
        order.refresh_from_db()
        return order

    def chase_now(self, order: TradeOrder) -> None:
        """Let an order's chase take its next step at once, by the settings where it had no plan of its own."""
        plan = order.plan if order.wait_seconds else default_plan()
        journal.note(
            order,
            chase_at=self._now(),
            chase_note="",
            wait_seconds=plan.wait_seconds,
            max_retries=plan.max_retries,
            step_ticks=plan.step_ticks,
            market_after=plan.market_after,
        )
        journal.write(order, "CHASE_WANTED", at=self._now())

    def prospect(self, order: TradeOrder, retry: int) -> Quote:
        """Ask for a fresh quote and judge whether the chase's next re-order could go at all, before the cancel.

        Raises OrderDenied where it would leave the band round the price at arrival, or where another order of
        the stock freezes it, and BrokerError.
        """
        intent = self._chase_intent(order, order.open_qty, retry)
        found = self._ground(intent, order.root_pk)
        stock = found.stock or self._new_stock(order.stock_code)
        request, quote = self._nearer(order, intent, stock, found.phases, retry)
        if frozen := check_frozen(self._facts(request, stock, intent, found, is_errand=True)):
            raise OrderDenied([frozen])
        return quote

    def retry(self, order: TradeOrder, qty: int, retry: int) -> TradeOrder:
        """Send the chase's re-order of `qty` shares, priced by a fresh quote; `retry` is its place in the plan.

        Raises OrderDenied or BrokerError, with no row left behind; IntegrityError where another worker
        has already committed this re-order.
        """
        intent = self._chase_intent(order, qty, retry)
        found = self._firm(self._ground(intent, order.root_pk), intent, order.root_pk)
        stock = found.stock or self._new_stock(order.stock_code)
        request, quote = self._nearer(order, intent, stock, found.phases, retry)
        facts = self._facts(request, stock, intent, found, is_errand=True)
        draft = self._judged(request, stock, quote, intent, facts)
        row = self._row(draft, intent.request_id)
        row.root_id, row.attempt = order.root_pk, order.attempt + 1
        row.strategy, row.arrival_price = order.strategy, order.arrival_price
        return self.send(self._commit(draft, row, found.crowd, follows=order.pk))

    def _nearer(
        self, order: TradeOrder, intent: Intent, stock: Stock, phases: tuple[Phase, ...], retry: int
    ) -> tuple[OrderRequest, Quote]:
        """Return a chase's re-order, so many steps nearer, and the fresh quote that prices it."""
        venue = Market(order.market)
        quote = self._broker.quote(order.stock_code, venue)
        request, _book = self._priced(intent, venue, stock, quote, phases, nearer=_nearer(order, retry))
        self._in_band(order, request, quote)
        return request, quote

    def _ground(self, intent: Intent, family: int | None = None) -> Ground:
        question = Question(
            intent.code, intent.side, intent.qty, intent.price or 0, intent.strategy, intent.request_id, family
        )
        return ground.survey(question, now=self._now())

    def _firm(self, found: Ground, intent: Intent, family: int | None = None) -> Ground:
        """See what the broker holds of ours before anything new goes, where nobody has just looked.

        Raises NotSent where the broker is out of reach, and OrderDenied where it does not tell.
        """
        if found.crowd.reconciled:
            return found
        try:
            reconcile.reconcile(self._broker, self._now)
        except (Refused, OutcomeUnknown) as error:
            words = gettext_noop("the broker's list of orders could not be read, and nothing goes before that: {error}")
            raise OrderDenied([Reason("NOT_RECONCILED", words, {"error": error})]) from error
        return self._ground(intent, family)

    def _in_band(self, order: TradeOrder, request: OrderRequest, quote: Quote) -> None:
        """Hold a re-order to the price at arrival: a chase follows a market, it does not run after one."""
        price = request.price if request.kind.is_priced else quote.price
        if order.arrival_price and pricing.beyond_band(order.arrival_price, price, settings.MAX_OFFSET_PERCENT):
            words = gettext_noop("{price:,} won is more than {percent:g}% away from the {arrival:,} won at arrival")
            figures = {"price": price, "percent": settings.MAX_OFFSET_PERCENT, "arrival": order.arrival_price}
            raise OrderDenied([Reason("BAND", words, figures)])

    def _chase_intent(self, order: TradeOrder, qty: int, retry: int) -> Intent:
        plan = order.plan
        at_market = goes_to_market(retry, plan)
        return Intent(
            code=order.stock_code,
            side=order.side,
            qty=qty,
            strategy="" if at_market else order.strategy,
            price=None if at_market or order.strategy else self._stepped(order, plan),
            market=Market(order.market),
            request_id=f"chase:{order.root_pk}:{order.attempt + 1}",
            plan=plan,
        )

    def _stepped(self, order: TradeOrder, plan: Plan) -> int:
        """Return the next price of an order that had a price of its own."""
        instrument = Instrument(self._stock(order.stock_code).instrument)
        return step(order.price, plan.step_ticks * order.side.sign, instrument)

    def _stock(self, code: str) -> Stock:
        return market.get_stock(code) or self._new_stock(code)

    def _new_stock(self, code: str) -> Stock:
        """Ask for a stock that the master does not know. Raises OrderDenied where there is none, and BrokerError."""
        try:
            return collector.sync_stock(self._broker, code, now=self._now())
        except Refused as refusal:
            words = gettext_noop("there is no stock with the code {code}")
            raise OrderDenied([Reason("UNKNOWN_STOCK", words, {"code": code})]) from refusal

    def _venue(self, intent: Intent, stock: Stock, phases: tuple[Phase, ...]) -> Market:
        if intent.market is not None:
            return intent.market
        available = sessions.get_available_market(phases, self._now())
        if available is Market.NXT and not stock.trades_on_nxt:
            return Market.KRX
        return available or Market.KRX

    def _unpriced(self, intent: Intent, venue: Market, phases: tuple[Phase, ...]) -> OrderRequest:
        legal = sessions.legal_kinds(venue, phases, self._now())
        kind = sessions.kind_for(intent.kind, legal, names_price=intent.names_price)
        return OrderRequest(
            intent.code, intent.side, venue, kind, intent.qty, intent.price or 0, trigger=intent.trigger
        )

    def _priced(
        self,
        intent: Intent,
        venue: Market,
        stock: Stock,
        quote: Quote,
        phases: tuple[Phase, ...],
        *,
        nearer: int = 0,
    ) -> tuple[OrderRequest, Book | None]:
        """Return the order with its price, and the book where that had to be asked for."""
        request = self._unpriced(intent, venue, phases)
        if intent.price is not None or not request.kind.is_priced:
            return request, None
        strategy = self._strategy(intent)
        if strategy is None:
            # a market order that the venue does not take: nothing is nearer than the best opposite quote
            strategy, nearer = pricing.at_market(intent.side), 0
        book = self._broker.book(intent.code, venue) if strategy.anchor is pricing.Anchor.OPPOSITE else None
        return replace(request, price=self._price(strategy, quote, book, stock, nearer)), book

    def _price(self, strategy: Strategy, quote: Quote, book: Book | None, stock: Stock, nearer: int = 0) -> int:
        try:
            return pricing.limit_price(
                strategy,
                quote,
                book,
                Instrument(stock.instrument),
                nearer=nearer,
                max_percent=settings.MAX_OFFSET_PERCENT,
            )
        except NoQuote as error:
            words = gettext_noop("{code} has no quote on the other side of the book")
            raise OrderDenied([Reason("NO_QUOTE", words, {"code": quote.code})]) from error

    def _strategy(self, intent: Intent) -> Strategy | None:
        if not intent.strategy:
            return None
        known = {name: each for name, each in pricing.strategies(offsets()).items() if each.side is intent.side}
        if intent.strategy not in known:
            words = gettext_noop("strategy {name} is unknown for this side: use one of {known}")
            figures = {"name": intent.strategy, "known": ", ".join(known)}
            raise OrderDenied([Reason("STRATEGY", words, figures)])
        return known[intent.strategy]

    def _judged(self, request: OrderRequest, stock: Stock, quote: Quote, intent: Intent, facts: Facts) -> Draft:
        """Hold a priced order against every guard; `facts` are those of before. Raises OrderDenied, BrokerError."""
        cost = _held_back(request, quote)
        facts = replace(facts, request=request, is_priced=True, quote=quote, cost_won=cost)
        try:
            facts = replace(facts, **self._live(facts))
        except BrokerError as error:
            if against := reasons(facts):
                raise OrderDenied(against) from error
            raise
        if against := reasons(facts):
            raise OrderDenied(against)
        return Draft(
            request, stock, quote, intent.strategy, _plan(intent, request), cost, facts, _changed(intent, request)
        )

    def _facts(
        self, request: OrderRequest, stock: Stock, intent: Intent, found: Ground, *, is_errand: bool = False
    ) -> Facts:
        is_priced, is_errand = intent.price is not None, is_errand or intent.request_id.startswith(STOP_ID)
        return ground.facts(request, stock, found, now=self._now(), is_errand=is_errand, is_priced=is_priced)

    def _live(self, facts: Facts) -> dict[str, int | None]:
        """Ask the broker for cash or shares; and for the account, where it was never seen and is to be weighed."""
        request = facts.request
        if request.side is Side.SELL:
            return {"sellable_qty": self._broker.sellable_qty(request.code)}
        orderable = self._broker.orderable(request.code, request.kind, request.price)
        live: dict[str, int | None] = {"orderable_cash": orderable.cash, "orderable_qty": orderable.qty}
        if facts.limits.position_percent and facts.total_asset is None:
            KISFetcher(self._broker, self._now).sync_portfolio()
            live |= guards.position(request.code)
        return live

    def _commit(self, draft: Draft, row: TradeOrder, crowd: Crowd, *, follows: int | None = None) -> TradeOrder:
        """Commit an order that is about to leave, judged beside every intent that was committed before it.

        Where others came between since `crowd` was seen it is judged once more, so that two twins cannot both be
        first. It `follows` an order whose chase must not have ended. Raises OrderDenied, IntegrityError where the
        request has a row already, and RuntimeError inside a transaction, which could take the row back.
        """
        if any(not block._from_testcase for block in connection.atomic_blocks):
            raise RuntimeError("an order is placed inside a transaction: place it after the commit, the row must stand")
        # a twin of what is priced by us is told by its strategy, of anything else by the price that it goes at
        question = crowd.question if draft.strategy else replace(crowd.question, price=row.price)
        changed = guards.say(draft.changed) if draft.changed else ""
        for _ in range(MOST_RIVALS):
            now = self._now()
            if crowd.question != question:
                crowd = ground.crowd(question, now=now)
            facts = ground.beside(draft.facts, crowd)
            if against := reasons(facts, CROWDED):
                raise OrderDenied(against)
            if journal.commit(row, crowd, at=now, changed=changed, follows=follows):
                return row
            if follows and not TradeOrder.objects.filter(pk=follows, chase_at__isnull=False).exists():
                raise OrderDenied([Reason("CHASE_ENDED", gettext_noop("its chase was ended meanwhile"))])
            switch.make(now)
            crowd = ground.crowd(question, now=self._now())
        raise OrderDenied(
            [Reason("RIVALS", gettext_noop("other orders came before it again and again: try once more"))]
        )

    def _at_broker(self, order: TradeOrder, request: OrderRequest) -> Acceptance:
        """Send an order; where its stock takes none at market, as a limit at the best opposite quote instead.

        That refusal is an answer: the first request is no order, and the second is the first of this row to count.
        """
        try:
            return self._broker.place(request)
        except NoMarketOrders as refusal:
            instead = self._at_best_opposite(order, request, refusal)
        return self._broker.place(instead)

    def _at_best_opposite(self, order: TradeOrder, request: OrderRequest, refusal: Refused) -> OrderRequest:
        """Write down that a market order becomes a limit, and return that. Raises `refusal` where it cannot."""
        try:
            quote = self._broker.quote(request.code, request.market)
            book = self._broker.book(request.code, request.market)
            price = self._price(pricing.at_market(request.side), quote, book, self._stock(request.code))
        except (BrokerError, OrderDenied) as error:
            raise refusal from error
        kind = sessions.limit_kind(sessions.legal_kinds(request.market, market.today(self._now()), self._now()))
        late = self._now() - order.created_at >= journal.SEND_WITHIN
        if kind is None or late or guards.may_send(order):
            raise refusal
        words = gettext_noop(
            "{code} takes no market orders: it goes as a limit at {price:,} won, the best opposite quote"
        )
        changed = Reason("KIND_CHANGED", words, {"code": request.code, "price": price})
        with transaction.atomic():
            journal.note(order, order_kind=kind.value, price=price)
            journal.write(order, "KIND_CHANGED", guards.say(changed), at=self._now())
        return replace(request, kind=kind, price=price)

    def _row(self, draft: Draft, request_id: str) -> TradeOrder:
        request, plan = draft.request, draft.plan
        return TradeOrder(
            request_id=request_id,
            stock_code=request.code,
            stock_name=draft.stock.name,
            order_type=request.side,
            market=request.market,
            order_kind=request.kind,
            strategy=draft.strategy,
            qty=request.qty,
            price=request.price if request.kind.is_priced else 0,
            trigger_price=request.trigger,
            arrival_price=draft.quote.price,
            arrival_market=draft.arrival_market,
            order_date=self._now().astimezone(KST).date(),
            wait_seconds=plan.wait_seconds,
            max_retries=plan.max_retries,
            step_ticks=plan.step_ticks,
            market_after=plan.market_after,
        )
