"""The sale of a triggered stop: one step at a time, until no guarded share is held.

A step asks the broker for the sellable quantity, a quote and the order book, and places one order. A later step cancels
that order and places the next. It needs the broker's reply to the cancel, not the order list: the broker locks the
shares of an open sale, so no more can be sold than is held, even if the outcome of an earlier order is unknown.
`aegis.stop_sale` prices the steps. Each generation has one `request_id`, so it never has more than one order.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, Sum
from django.utils.translation import gettext

from aegis import sessions, stop_sale
from aegis.broker import Book, Broker, BrokerError, NotSent, OrderRequest, OutcomeUnknown, Quote, Refused
from aegis.chase import AUCTION_RESULT_AFTER
from aegis.denials import DenialCode, gettext_noop
from aegis.lifecycle import OPEN, UNANSWERED, Status
from aegis.order_events import StopEventKind
from aegis.pricing import strategies
from aegis.requests import CANCEL_PATIENCE, LIVE, EndCause, RequestedBy, RequestKind, RequestState
from aegis.risk import (
    RiskCheck,
    check_daily_limits,
    check_halt,
    check_quantity,
    check_self_cross,
    check_tick,
    check_trading_state,
    check_venue,
    denials,
)
from aegis.sessions import KST, Phase, PhaseName
from aegis.stop_sale import SaleMarket, SalePlan, SaleStep, StepKind
from aegis.stops import StopKind
from aegis.terms import Instrument, Market, OrderKind, Side
from market import queries
from market.models import Stock
from orders import journal, requests, risk, stop_facts
from orders.cancel import Canceller
from orders.intents import NO_CHASE, OrderDenied, offsets
from orders.models import STOP_ID, StopRule, TradeOrder
from orders.pretrade import PreTrade, PricedOrder, risk_inputs
from orders.pretrade_context import PreTradeContext
from orders.requests import Grounds
from orders.stop_facts import OPPOSITE_PATIENCE, SaleFacts
from orders.stop_rows import SELLING, State, append_stop_event, move, move_generation
from orders.submit import Submitter
from portfolio.models import PortfolioEvent
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

# the broker needs this long to release the shares of a cancelled order
RELEASED_AFTER = timedelta(seconds=1)
CHECK_AGAIN_AFTER = timedelta(seconds=2)
PAUSE = timedelta(seconds=5)
# the pause between two tries grows while the reason lasts, up to this
PAUSE_MAX = timedelta(seconds=60)
# an order that is still SUBMITTING after this has lost its sender
IN_TRANSIT_MAX = timedelta(seconds=5)
# a balance may lack shares for a moment without a trade: only after this do they count as gone
GONE_AFTER = timedelta(minutes=10)
# after this many refusals in a row the operator is notified; the stop continues, at longer intervals
REFUSALS_REPORTED = 5

# the checks that may hold back a stop's sale: what the exchange would refuse, the trading state, and our own buys. The
# circuit breaker is not among them: the quote says if this stock is halted, and a breaker of another market, or an old
# code, must not delay a stop
SALE_CHECKS: tuple[RiskCheck, ...] = (
    check_quantity,
    check_trading_state,
    check_venue,
    check_self_cross,
    check_tick,
    check_daily_limits,
    check_halt,
)
SALE_COMMIT_CHECKS: tuple[RiskCheck, ...] = (check_trading_state, check_self_cross)
_MAIN_SESSION = (PhaseName.OPENING_AUCTION, PhaseName.REGULAR, PhaseName.CLOSING_AUCTION)
_EXTERNAL = (EndCause.EXTERNAL_CANCEL, EndCause.EXTERNAL_AMEND)
_AUTOMATIC = (RequestedBy.STOP, RequestedBy.CHASE)
_TOOK_EFFECT = (RequestState.ACKNOWLEDGED, RequestState.CONFIRMED)


class CannotSellNow(Exception):
    """The sale cannot continue now. `until` is when to try again, None for the usual pause."""

    def __init__(self, why: str, until: datetime | None = None) -> None:
        super().__init__(why)
        self.until = until


class StepOutdated(Exception):
    """Another stop of the same entry order has ordered a sale since this step began: restart the step."""


@dataclass(frozen=True, slots=True)
class SaleSession:
    """The venue where the stock of a stop can be sold now, with its phases and legal order kinds."""

    venue: Market
    phases: tuple[Phase, ...]
    legal: frozenset[OrderKind]
    is_main: bool
    auction: Phase | None


class StopSale:
    """One step of one stop's sale, under its claim."""

    def __init__(self, row: StopRule, broker: Broker, now: Callable[[], datetime]) -> None:
        self._row = row
        self._broker = broker
        self._now = now

    def run(self) -> None:
        try:
            if self._row.state == State.TRIGGERED:
                self._sell()
            elif self._row.state == State.ORDERED:
                self._follow()
        except CannotSellNow as waits:
            self._wait(str(waits), waits.until)
        except OrderDenied as denied:
            self._wait(risk.denial_texts(denied.reasons))
        except BrokerError as error:
            # the end of an outage is not announced: try again soon, so that the stop sells within seconds of it
            self._wait(risk.error_text(error), self._now() + CHECK_AGAIN_AFTER)

    # --- placing the next order

    def _sell(self) -> None:
        row = self._row
        # an order of a worker that died before it recorded the order in this row
        if order_pk := self._facts.context.existing_order:
            return self._record_order(TradeOrder.objects.get(pk=order_pk), look_after=timedelta(0))
        if self._facts.may_be_changed and (changed := changed_by_others(row)):
            return self._hold(changed)
        is_all = row.quantity is None and self._facts.context.competing.held_qty > 0
        guarded = None if is_all else self._guarded()
        if guarded == 0:
            return self._end()
        if self._facts.has_others and (other := selling_for(row)):
            raise CannotSellNow(gettext("stop {other} sells these shares").format(other=f"#{other.pk}"))
        session = self._session()
        if StopKind(row.kind).falls and self._facts.has_own_sales and self._release_own_sales():
            return self._again_at(RELEASED_AFTER)
        sellable = self._broker.sellable_qty(row.stock_code)
        qty = sellable if guarded is None else min(guarded, sellable)
        self._report_locked(guarded, sellable)
        if qty == 0:
            why = gettext("the broker lets no share be sold: open orders may hold them")
            raise CannotSellNow(why, self._later(why))
        order = self._place(qty, session)
        return self._record_order(order) if order else None

    def _guarded(self) -> int | None:
        """Return the guarded shares as `guarded_qty` does.

        If open orders may still sell them, our own sales that this sale precedes are cancelled. Raises CannotSellNow
        and BrokerError.
        """
        row = self._row
        try:
            return guarded_qty(row, self._now())
        except CannotSellNow:
            if StopKind(row.kind).falls and self._facts.has_own_sales and selling_for(row) is None:
                self._session()
                self._release_own_sales()
            raise

    def _session(self) -> SaleSession:
        """Return where the stock can be sold now.

        Raises CannotSellNow, before any call to the broker, while trading is halted or no venue is open; also if no
        open venue takes a sale of the stock.
        """
        self._check_trading_state()
        now, phases = self._now(), self._facts.context.phases
        is_any_open = any(sessions.is_market_open(venue, phases, now) for venue in Market)
        session = session_of(self._stock, phases, now, avoid=self._avoided) if is_any_open else None
        if session is None:
            raise CannotSellNow(gettext("no venue takes a sale of it now"), next_start(now))
        return session

    def _check_trading_state(self) -> None:
        """Raise CannotSellNow while trading is halted: a stop sends nothing then, not even a cancel."""
        if Side.SELL not in self._facts.context.competing.state.allowed_sides:
            raise CannotSellNow(gettext("trading is halted: resume it before ordering"))

    @cached_property
    def _facts(self) -> SaleFacts:
        """The state of our tables when this step began; the last check before sending detects later changes."""
        return stop_facts.load_facts(self._row, strategy_name(self._row), self._now())

    @cached_property
    def _stock(self) -> Stock:
        """The stock, from the broker if our tables lack its details. Raises BrokerError.

        If the broker does not know it, the stock list is enough: the held shares are sold on KRX.
        """
        if self._facts.context.stock:
            return self._facts.context.stock
        try:
            return PreTrade(self._broker, self._now).new_stock(self._row.stock_code)
        except OrderDenied:
            code, name = self._row.stock_code, self._row.stock_name
            stock = queries.get_stock(code) or Stock(code=code, name=name, instrument=Instrument.STOCK)
            stock.trades_on_nxt = False
            return stock

    def _place(self, qty: int, session: SaleSession) -> TradeOrder | None:
        """Price and send the order of this step.

        None if a second reading of the lower limit is needed first, or if `_commit` returns None.
        """
        row = self._row
        quoted_at = self._now()
        quote = self._quote(session.venue)
        book = self._broker.book(row.stock_code, session.venue)
        stock = self._stock
        sale = self._market(quote, book, stock, session)
        if self._awaits_second_reading(sale):
            return None
        step = stop_sale.next_order(row.step, plan_of(row), sale)
        if step is None:
            raise CannotSellNow(gettext("no venue takes a sale of it now"))
        self._note_auction(is_auction=sale.is_auction)
        order = self._commit(qty, step, session, stock, quote, book, quoted_at)
        if order is not None:
            self._report_step(step, order, quote)
        return order

    def _quote(self, venue: Market) -> Quote:
        """Return the quote of a venue, in won. A venue that refuses it, or halts the stock, is avoided from then on.

        Raises CannotSellNow if the stock is halted, and BrokerError.
        """
        try:
            quote = self._broker.quote(self._row.stock_code, venue)
        except Refused:
            self._avoid(venue)
            raise
        if quote.is_halted:
            self._avoid(venue)
            why = gettext("the stock is halted by the exchange")
            raise CannotSellNow(why, self._later(why))
        return quote

    def _avoid(self, venue: Market) -> None:
        """Prefer another venue for the rest of the day, if one takes a sale."""
        row = self._row
        row.poll_state = row.poll_state | {"avoid": {"venue": venue.value, "day": self._today.isoformat()}}
        move_generation(row, poll_state=row.poll_state)

    @property
    def _avoided(self) -> Market | None:
        avoid = self._row.poll_state.get("avoid", {})
        return Market(avoid["venue"]) if avoid.get("day") == self._today.isoformat() else None

    @property
    def _today(self) -> date:
        return self._now().astimezone(KST).date()

    def _market(self, quote: Quote, book: Book, stock: Stock, session: SaleSession) -> SaleMarket:
        believed = self._believed(quote) if not session.is_main else quote.price
        current = stop_sale.current_price(quote, book, believed, is_main_session=session.is_main)
        return SaleMarket(
            quote,
            book,
            current,
            session.legal,
            Instrument(stock.instrument),
            is_auction=session.auction is not None or quote.in_vi,
            is_locked=self._row.locked_since is not None,
        )

    def _believed(self, quote: Quote) -> int:
        """Return the price that two trades have reached since the trigger, in won; store the quote's evidence."""
        row, now = self._row, self._now().timestamp()
        stored = stop_sale.ConfirmedPrice(**row.poll_state.get("sale", {"price": row.trigger_price}))
        updated = stored.after(quote, now)
        if updated != stored:
            row.poll_state = row.poll_state | {"sale": asdict(updated)}
            move_generation(row, poll_state=row.poll_state)
        return updated.price

    def _awaits_second_reading(self, sale: SaleMarket) -> bool:
        """Whether a locked lower limit must be read a second time before this step acts on it.

        Records the first reading, and clears it once the limit is not locked any more.
        """
        row = self._row
        is_locked = stop_sale.is_locked(sale)
        if is_locked and row.locked_since is None and sale.current > sale.quote.lower_limit:
            move_generation(row, locked_since=self._now(), try_at=self._now() + stop_sale.LOCKED_READING_AFTER)
            return True
        if is_locked is not (row.locked_since is not None):
            row.locked_since = self._now() if is_locked else None
            move_generation(row, locked_since=row.locked_since)
        return False

    def _commit(
        self,
        qty: int,
        step: SaleStep,
        session: SaleSession,
        stock: Stock,
        quote: Quote,
        book: Book,
        quoted_at: datetime,
    ) -> TradeOrder | None:
        """Commit and send one order of `qty` shares.

        None if own buys are cancelled first, or if the step must be restarted. Raises OrderDenied.
        """
        row = self._row
        request = OrderRequest(row.stock_code, Side.SELL, session.venue, step.kind, qty, step.price)
        context = self._facts.context
        inputs = replace(
            risk_inputs(request, stock, context, is_child_order=True),
            quote=quote,
            best_opposite=book.best_opposite(Side.SELL),
            may_cross=frozenset(self._facts.may_cross),
        )
        reasons = denials(inputs, SALE_CHECKS)
        if [reason.code for reason in reasons] == [DenialCode.SELF_CROSS]:
            self._clear_opposite()
            return None
        if reasons:
            raise OrderDenied(reasons)
        draft = PricedOrder(request, stock, quote, quoted_at, strategy_name(row), NO_CHASE, 0, inputs)
        return self._send(draft, context)

    def _send(self, draft: PricedOrder, context: PreTradeContext) -> TradeOrder | None:
        submit = Submitter(self._broker, self._now)
        order = submit.row(draft, self._row.request_id)
        try:
            order = submit.commit(
                draft,
                order,
                context.competing,
                by=RequestedBy.STOP,
                checks=SALE_COMMIT_CHECKS,
                on_conflict=self._check_family,
            )
        except IntegrityError:
            return TradeOrder.objects.filter(request_id=self._row.request_id).first()
        except StepOutdated:
            self._again_at(timedelta(0))
            return None
        except OrderDenied as denied:
            if [reason.code for reason in denied.reasons] != [DenialCode.SELF_CROSS]:
                raise
            self._clear_opposite()
            return None
        grounds = replace(requests.grounds_of(order), changed_by_others=self._facts.changed_by_others)
        return submit.send(order, grounds)

    def _check_family(self) -> None:
        """Raise StepOutdated if an order for a stop that guards the same shares was committed since this step began.

        The ids of our orders grow in the order of their commits.
        """
        row = self._row
        if row.entry_id is None or row.quantity is None:
            return
        newer = TradeOrder.objects.filter(pk__gt=self._facts.newest_order, stock_code=row.stock_code)
        request_ids = newer.filter(request_id__startswith=STOP_ID).values_list("request_id", flat=True)
        others = {stop for stop, _ in filter(None, map(requests.stop_of, request_ids))} - {row.pk}
        if others and any(stop.pk in others and not is_alike(row, stop) for stop in stops_of_entry(row)):
            raise StepOutdated

    # --- orders that block the sale

    def _release_own_sales(self) -> bool:
        """Cancel our own open sales of the stock, such as a take profit; return whether a cancel was requested now.

        A cancel without a reply is requested again after `CANCEL_PATIENCE`. Otherwise the sale does not wait for it: it
        sells the quantity that the broker reports as sellable. Raises BrokerError.
        """
        now, row = self._now(), self._row
        sales = TradeOrder.objects.filter(
            stock_code=row.stock_code,
            order_type=Side.SELL,
            origin=TradeOrder.Origin.AEGIS,
            order_date=self._today,
            status__in=OPEN,
        )
        for other in beside(row):
            sales = sales.exclude(request_id__startswith=other.request_prefix)
        is_requested = False
        for order in (sale for sale in sales if not _is_released(sale)):
            if order.cancel_sent_at is None or now - order.cancel_sent_at >= CANCEL_PATIENCE:
                self._cancel(order)
                is_requested = True
        return is_requested

    def _cancel(self, order: TradeOrder) -> bool:
        """Request the cancel of one order; return whether the broker acknowledged it.

        Raises NotSent, and HeldBack if trading was halted or the stop disarmed meanwhile: then nothing is sent.
        """
        row, now = self._row, self._now()
        grounds = Grounds(now, stop=(row.pk, row.generation), skip=requests.SKIPPED_FOR_STOP_CANCEL)
        try:
            request = Canceller(self._broker, self._now).cancel(order, by=RequestedBy.STOP, grounds=grounds)
        except Refused as refusal:
            # no share is open any more, or the order was changed externally: the order list says which
            log.info("order %s: cancel refused, the list will say why: %s", order.pk, refusal)
            return False
        return request.state == RequestState.ACKNOWLEDGED

    def _report_locked(self, guarded: int | None, sellable: int) -> None:
        """Report guarded shares that the broker does not report as sellable, once per trigger and numbers."""
        row = self._row
        qty = guarded if guarded is not None else self._facts.context.competing.held_qty
        missing = max(0, qty - sellable)
        if not missing:
            return
        template = gettext_noop("{missing:,} of {wanted:,} shares cannot be sold now: open orders may hold them")
        detail = gettext(template).format(missing=missing, wanted=qty)
        reported = row.events.filter(kind=StopEventKind.LOCKED, detail=detail)
        if row.triggered_at:
            reported = reported.filter(at__gte=row.triggered_at)
        if not reported.exists():
            append_stop_event(row, StopEventKind.LOCKED, detail, at=self._now())

    def _clear_opposite(self) -> None:
        """Cancel the buys that the sale could trade against, external orders included; report it, and try again."""
        row = self._row
        buys = TradeOrder.objects.filter(
            stock_code=row.stock_code, order_type=Side.BUY, status__in=OPEN, order_date=self._today
        )
        for order in buys.exclude(order_no=None):
            if order.cancel_requested_at is None:
                self._cancel(order)
        names, now = ", ".join(f"#{pk}" for pk in buys.values_list("pk", flat=True)), self._now()
        with transaction.atomic():
            detail = gettext("{orders}: own buys are cancelled first").format(orders=names)
            append_stop_event(row, StopEventKind.OPPOSITE, detail, at=now)
            move_generation(row, try_at=now + OPPOSITE_PATIENCE)

    # --- following an order

    def _record_order(self, order: TradeOrder, look_after: timedelta = CHECK_AGAIN_AFTER) -> None:
        """Record the order of this generation."""
        now = self._now()
        fields = {"state": State.ORDERED, "order": order, "try_at": now + look_after, "note": ""}
        with transaction.atomic():
            if not move_generation(self._row, at=now, **fields):
                return
            detail = f"#{order.pk} {order.qty:,} @ {order.price:,} {order.status}"
            append_stop_event(self._row, StopEventKind.ORDERED, detail, at=now)

    def _follow(self) -> None:
        """Check the order of this generation: wait, take the next step, or continue with the next order."""
        row, now = self._row, self._now()
        assert row.order_id is not None
        order = TradeOrder.objects.get(pk=row.order_id)
        if order.state is Status.FILLED:
            return self._next_generation("", step=0)
        if was_changed_by_others(order):
            return self._hold(order)
        if order.is_open:
            return self._follow_open(order)
        if order.state is Status.SUBMITTING:
            is_on_its_way = now - order.created_at < IN_TRANSIT_MAX
            return self._again_at(CHECK_AGAIN_AFTER) if is_on_its_way else give_up_sender(order, now)
        if order.state is Status.UNKNOWN:
            return self._next_generation(gettext("its outcome is not known yet"), step=row.step)
        if order.state is Status.CANCELLED and not order.end_cause and _awaits_explanation(order, now):
            return self._again_at(CHECK_AGAIN_AFTER)
        if order.state is Status.REJECTED and not order.never_arrived:
            return self._after_refusal(order)
        is_over = order.state is Status.EXPIRED or order.end_cause == EndCause.SESSION_END
        return self._next_generation(order.refusal or str(order.get_status_display()), step=0 if is_over else row.step)

    def _follow_open(self, order: TradeOrder) -> None:
        row, now = self._row, self._now()
        if order.is_cancel_requested:
            return self._follow_cancel(order)
        remaining = order.created_at + wait_of(row) - now
        # an order with a creation time in the future was placed before the clock was set back
        if timedelta(0) < remaining <= wait_of(row) + CHECK_AGAIN_AFTER:
            return self._again_at(min(CHECK_AGAIN_AFTER, remaining))
        session = self._session()
        # quote the venue of the next order: this order's own venue may have no price of the stock any more
        quote = self._quote(session.venue)
        phase = sessions.auction_at(session.phases, Market(order.market), now)
        is_auction = quote.in_vi or phase is not None
        if row.auction_since is not None and not is_auction:
            self._note_auction(is_auction=False)
            return self._again_at(AUCTION_RESULT_AFTER)
        self._note_auction(is_auction=is_auction)
        if is_auction and (_is_market(order) or order.created_at >= self._auction_since(phase)):
            return self._again_at(self._auction_left(phase))
        return self._replace(order, quote, session)

    def _replace(self, order: TradeOrder, quote: Quote, session: SaleSession) -> None:
        """Cancel the order for the next step, unless that would not sell sooner."""
        row = self._row
        book = self._broker.book(row.stock_code, session.venue)
        sale = self._market(quote, book, self._stock, session)
        if self._awaits_second_reading(sale):
            return None
        is_other_venue = session.venue is not Market(order.market)
        step = stop_sale.next_order(row.step + 1, plan_of(row), sale)
        resting = SaleStep(StepKind.LIMIT, OrderKind(order.order_kind), order.price)
        keeps_place = stop_sale.keeps_its_place(resting, step, has_bids=bool(book.bids)) if step else True
        if step is None or (keeps_place and not is_other_venue):
            return self._again_at(min(wait_of(row), PAUSE_MAX))
        if self._cancel(order):
            return self._next_generation("", step=row.step + 1, pause=RELEASED_AFTER)
        return self._again_at(RELEASED_AFTER)

    def _follow_cancel(self, order: TradeOrder) -> None:
        """Continue once the broker has acknowledged our cancel; a cancel whose reply was lost is sent again."""
        if _is_released(order):
            return self._next_generation("", step=self._row.step + 1)
        self._check_trading_state()
        sent_at = order.cancel_sent_at
        is_recent = sent_at is not None and self._now() - sent_at < CANCEL_PATIENCE
        if not is_recent and not _is_refused(order):
            self._cancel(order)
        elif not _is_refused(order) and self._broker.sellable_qty(self._row.stock_code):
            # the reply was lost, but the broker has released the shares
            return self._next_generation("", step=self._row.step + 1)
        return self._again_at(RELEASED_AFTER)

    def _auction_since(self, auction: Phase | None) -> datetime:
        """Return when the venue's auction began, or when the VI was first recorded."""
        if auction is not None:
            return datetime.combine(self._now().astimezone(KST), auction.starts_at, KST)
        return self._row.auction_since or self._now()

    def _auction_left(self, auction: Phase | None) -> timedelta:
        now = self._now()
        if auction is None:
            return CHECK_AGAIN_AFTER
        ends_at = datetime.combine(now.astimezone(KST), auction.ends_at, KST)
        return ends_at + AUCTION_RESULT_AFTER - now

    def _note_auction(self, *, is_auction: bool) -> None:
        row = self._row
        if is_auction is (row.auction_since is not None):
            return
        row.auction_since = self._now() if is_auction else None
        move_generation(row, auction_since=row.auction_since)

    # --- outcomes

    def _after_refusal(self, order: TradeOrder) -> None:
        """Continue after a refusal; the interval doubles, and the operator is notified after several in a row."""
        self._avoid(Market(order.market))
        row, now = self._row, self._now()
        count = row.refusals + 1
        pause = min(PAUSE * 2 ** min(count - 1, 4), PAUSE_MAX)
        why = order.refusal or gettext("the exchange refused it")
        self._next_generation(why, step=row.step, pause=pause, refusals=count)
        if count == REFUSALS_REPORTED:
            template = gettext("refused {count} times in a row, last: {why}. It is tried again; look at the stock")
            append_stop_event(row, StopEventKind.REFUSED, template.format(count=count, why=why), at=now)

    def _next_generation(self, why: str, *, step: int, pause: timedelta = timedelta(0), refusals: int = 0) -> None:
        """Continue with the next order. `why` is reported unless it is empty: the last order did not end as planned."""
        row, now = self._row, self._now()
        fields = {
            "state": State.TRIGGERED,
            "order": None,
            "generation": row.generation + 1,
            "step": step,
            "refusals": refusals,
            "try_at": now + pause,
            "note": why[:300],
        }
        with transaction.atomic():
            if move_generation(row, at=now, **fields) and why:
                append_stop_event(row, StopEventKind.AGAIN, why, at=now)

    def _hold(self, order: TradeOrder) -> None:
        """Hold the stop after its order was changed, but not by itself: it sells nothing until a person arms it again.

        The other falling stops of the stock are held too, except those that sell beside it.
        """
        row, now = self._row, self._now()
        unguarded = held_qty(row.stock_code)
        template = gettext_noop(
            "its order {order} was cancelled or amended, but not by the stop: {left:,} shares are not guarded. "
            "Arm the stop again to continue"
        )
        message = gettext(template).format(order=f"#{order.pk}", left=unguarded)
        fields = {"state": State.HELD_EXTERNALLY, "try_at": None, "note": message[:300]}
        with transaction.atomic():
            if not move_generation(row, at=now, **fields):
                return
            append_stop_event(row, StopEventKind.HELD_EXTERNALLY, message, at=now)
            # the other stops waited for this sale, so its order was also theirs
            excluded = [row.pk, *(stop.pk for stop in beside(row))]
            for other in StopRule.objects.filter(stock_code=row.stock_code, state__in=SELLING).exclude(pk__in=excluded):
                if StopKind(other.kind).falls and move_generation(other, at=now, **fields):
                    append_stop_event(other, StopEventKind.HELD_EXTERNALLY, message, at=now)

    def _end(self) -> None:
        row, now = self._row, self._now()
        qty = sold_qty(row)
        message = gettext("{qty:,} shares sold").format(qty=qty) if qty else gettext("nothing is held any more")
        with transaction.atomic():
            if move(row, SELLING, at=now, state=State.DONE, try_at=None, note=message[:300]):
                append_stop_event(row, StopEventKind.DONE, message, at=now)

    def _wait(self, why: str, until: datetime | None = None) -> None:
        """Try again at `until`, or after a short pause; a reason other than the last one is reported."""
        row, now = self._row, self._now()
        with transaction.atomic():
            if move_generation(row, try_at=until or now + PAUSE, note=why[:300]) and row.note != why[:300]:
                append_stop_event(row, StopEventKind.WAITS, why, at=now)
        log.warning("stop %s: not sold yet: %s", row.pk, why)

    def _again_at(self, after: timedelta) -> None:
        move_generation(self._row, try_at=self._now() + after)

    def _later(self, why: str) -> datetime:
        """Return when to try again while the broker blocks the sale: the longer the block lasts, the later.

        `why` is the reason of the block; time spent waiting for another reason does not count.
        """
        row, now = self._row, self._now()
        newest = row.events.filter(kind=StopEventKind.WAITS, at__gte=row.state_at).order_by("-id").first()
        waited = now - newest.at if newest and newest.detail == why[:300] else timedelta(0)
        return now + min(max(PAUSE, waited / 4), PAUSE_MAX)

    def _report_step(self, step: SaleStep, order: TradeOrder, quote: Quote) -> None:
        if step.step in (StepKind.NO_BID, StepKind.LOWER_LIMIT):
            template = gettext_noop("no bids: it waits at {price:,} won, the last trade was at {last:,} won")
            detail = gettext(template).format(price=order.price, last=quote.price)
            append_stop_event(self._row, step.step.value, detail, at=self._now())


# --- facts about a stop ----------------------------------------------------------------------------------------------


def plan_of(row: StopRule) -> SalePlan:
    """Return how the sale of a stop lowers its price from step to step, by the settings."""
    return SalePlan(
        strategies(offsets())[strategy_name(row)],
        limit_steps=max(1, settings.MAX_RETRY_COUNT),
        step_ticks=settings.RETRY_OFFSET_ADJUST,
        max_percent=settings.MAX_OFFSET_PERCENT,
    )


def strategy_name(row: StopRule) -> str:
    return "sell_stop" if StopKind(row.kind).falls else "sell_profit"


def wait_of(row: StopRule) -> timedelta:
    """Return how long each step waits for a fill: falling stops are urgent, and have a setting of their own."""
    falls = StopKind(row.kind).falls
    return timedelta(seconds=settings.STOP_WAIT_SECONDS if falls else settings.UNFILLED_WAIT_SECONDS)


def session_of(
    stock: Stock, phases: tuple[Phase, ...], now: datetime, *, avoid: Market | None = None
) -> SaleSession | None:
    """Return where a stock can be sold at `now`, None if no venue takes a limit or a market order of it.

    The venue to `avoid` is tried last.
    """
    preferred = sessions.get_available_market(phases, now)
    venues = [preferred] if preferred else []
    venues += [market for market in (Market.KRX, Market.NXT) if market not in venues]
    for venue in sorted(venues, key=lambda market: market is avoid):
        if venue is Market.NXT and not stock.trades_on_nxt:
            continue
        current = sessions.phases_at(phases, venue, now)
        is_evening = venue is Market.KRX and any(phase.name is PhaseName.AFTER_MARKET for phase in current)
        if is_evening and Instrument(stock.instrument) is not Instrument.STOCK:
            continue
        legal = sessions.legal_kinds(venue, phases, now)
        if OrderKind.MARKET in legal or sessions.limit_kind(legal):
            is_main = venue is Market.KRX and any(phase.name in _MAIN_SESSION for phase in current)
            return SaleSession(venue, phases, legal, is_main, sessions.auction_at(phases, venue, now))
    return None


def next_start(now: datetime) -> datetime:
    """Return when the next phase of any venue begins today, at most `PAUSE_MAX` from now."""
    local = now.astimezone(KST)
    starts = [datetime.combine(local, phase.starts_at, KST) for phase in queries.today(now)]
    return min([start for start in starts if start > now] + [now + PAUSE_MAX])


def held_qty(code: str) -> int:
    holding = PortfolioService().get_holding(code)
    return holding.quantity if holding else 0


def sold_qty(row: StopRule) -> int:
    """Return the number of shares that the orders of this sale have sold."""
    return row.sales.aggregate(sum=Sum("filled_qty"))["sum"] or 0


def guarded_qty(row: StopRule, now: datetime) -> int | None:
    """Return the number of guarded shares that are not sold yet; None for all that can be sold.

    For a fixed quantity, shares that an order of unknown outcome may have sold count as sold until the order list
    settles it. Raises CannotSellNow if no share remains by that count.
    """
    holding = held_qty(row.stock_code)
    if not holding and not _may_come_back(row.stock_code, now):
        return 0
    if row.quantity is None:
        return None
    family = stops_of_entry(row)
    sales = family_sales(row, family)
    unsold = unsold_qty(row, {stop: sum(sale.filled_qty for sale in sales[stop.pk]) for stop in family})
    if unsold <= 0 or unsold >= holding:
        return max(0, unsold)
    # a reply to a cancel has no number of shares: until the order list has it, the order may have been filled
    unsold = unsold_qty(row, {stop: sum(map(_maybe_sold, sales[stop.pk])) for stop in family})
    if unsold <= 0:
        raise CannotSellNow(gettext("an earlier order of it has no known outcome yet"), now + CHECK_AGAIN_AFTER)
    return unsold


def unsold_qty(row: StopRule, sold: dict[StopRule, int]) -> int:
    """Return the unsold rest of a stop's fixed quantity, in shares; `sold` has the sold shares by stop of its family.

    The stops of one kind together guard all shares that the entry bought, so shares that any stop of the family sold
    reduce the rest of each kind.
    """
    alike = [stop for stop in sold if stop == row or is_alike(row, stop)]
    guarded = sum(sold[stop] if stop.state == State.DISARMED else stop.quantity or 0 for stop in alike)
    return min((row.quantity or 0) - sold[row], guarded - sum(sold.values()))


def stops_of_entry(row: StopRule) -> list[StopRule]:
    """Return a stop and the other stops that the same entry order armed."""
    if row.entry_id is None:
        return [row]
    return [row, *StopRule.objects.filter(entry_id=row.entry_id).exclude(pk=row.pk)]


def is_alike(row: StopRule, other: StopRule) -> bool:
    """Whether the same entry stop of one order armed both rows, at different fills: they guard different shares.

    A person may have edited the limit of one of them, so limits are compared only if the entry has several stops of
    that kind.
    """
    if row.entry_id is None or row.entry_id != other.entry_id or row.kind != other.kind:
        return False
    entry_stops = row.entry.entry_stops if row.entry else []
    is_only_one = sum(stop["kind"] == row.kind for stop in entry_stops) <= 1
    return is_only_one or (row.unit, row.value) == (other.unit, other.value)


def family_sales(row: StopRule, family: list[StopRule]) -> dict[int, list[TradeOrder]]:
    """Return the orders of the sales of a stop and its family, by the stop's id."""
    if row.entry_id is None:
        return {row.pk: list(row.sales)}
    query = Q()
    for stop in family:
        query |= Q(request_id__startswith=stop.request_prefix)
    sales: dict[int, list[TradeOrder]] = {stop.pk: [] for stop in family}
    for order in TradeOrder.objects.filter(query):
        stop_pk, _ = requests.stop_of(order.request_id) or (row.pk, 0)
        sales[stop_pk].append(order)
    return sales


def _maybe_sold(order: TradeOrder) -> int:
    """Return the number of shares that an order has sold, or may still sell."""
    is_settled = order.state not in (*OPEN, *UNANSWERED)
    return order.filled_qty if is_settled else order.filled_qty + order.open_qty


def is_gone(code: str, now: datetime) -> bool:
    """Whether no share is held. Shares that a balance lacks without a trade count as held for `GONE_AFTER`."""
    return not held_qty(code) and not _may_come_back(code, now)


def _may_come_back(code: str, now: datetime) -> bool:
    """Whether a balance lacks the shares since less than `GONE_AFTER` without a trade: the next may show them again."""
    return PortfolioEvent.objects.filter(stock_code=code, qty_after=0, at__gt=now - GONE_AFTER).exists()


@transaction.atomic
def give_up_sender(order: TradeOrder, now: datetime) -> None:
    """Record the outcome of an order whose sender was killed: it was never sent, or its outcome is unknown."""
    row = journal.locked(order.pk)
    if row.state is not Status.SUBMITTING:
        return
    why = gettext("its sender did not come back")
    if row.sent_at is None:
        journal.record_rejected(row, NotSent(why), at=now)
    else:
        journal.record_unknown(row, OutcomeUnknown(why), at=now)


def selling_for(row: StopRule) -> StopRule | None:
    """Return the other stop whose sale covers the shares of this one, None if there is none.

    A falling stop precedes a rising one, a stop of the whole holding precedes one of a fixed quantity, an older stop
    precedes a newer one. Falling stops of fixed quantities sell beside each other.
    """
    others = StopRule.objects.filter(stock_code=row.stock_code, state__in=SELLING).exclude(pk=row.pk)
    beside_pks = {stop.pk for stop in beside(row)}
    ahead = [stop for stop in others if _precedence(stop) < _precedence(row) and stop.pk not in beside_pks]
    return min(ahead, key=_precedence, default=None)


def beside(row: StopRule) -> list[StopRule]:
    """Return the falling stops of fixed quantities that sell beside this one, each with its own orders."""
    if row.quantity is None or not StopKind(row.kind).falls:
        return []
    others = StopRule.objects.filter(stock_code=row.stock_code, state__in=SELLING, quantity__isnull=False)
    others = others.exclude(pk=row.pk)
    falling = [stop for stop in others if StopKind(stop.kind).falls]
    # stops of the same entry guard the same shares, unless the same entry stop armed them at different fills
    return [stop for stop in falling if row.entry_id is None or stop.entry_id != row.entry_id or is_alike(row, stop)]


def _precedence(row: StopRule) -> tuple[bool, bool, int]:
    return (not StopKind(row.kind).falls, row.quantity is not None, row.pk)


def was_changed_by_others(order: TradeOrder) -> bool:
    """Whether an order was certainly cancelled or amended, but not by a stop or a chase: externally or by a person.

    After one of our own cancels without a reply, a cancel in the order list may be that one: it does not hold the stop.
    """
    changes = requests.all_changes(order)
    if any(change.requested_by not in _AUTOMATIC and change.state in _TOOK_EFFECT for change in changes):
        return True
    if order.end_cause == EndCause.EXTERNAL_AMEND:  # AEGIS never amends a stop's order
        return True
    if any(change.state in (RequestState.UNKNOWN, RequestState.SENT, RequestState.LAPSED) for change in changes):
        return False
    if order.end_cause in _EXTERNAL:
        return True
    if any(change.state in LIVE for change in changes):
        return False
    # an earlier cancel took the shares that were neither filled nor taken by our cancel
    if order.end_cause == EndCause.OWN_CANCEL:
        return order.open_qty > requests.confirmed_qty(changes)
    return order.is_open and order.withdrawn_qty > requests.confirmed_qty(changes)


def changed_by_others(row: StopRule) -> TradeOrder | None:
    """Return an order of this sale that was changed by others (`was_changed_by_others`) since the stop was armed."""
    ended = Q(end_cause__in=[*_EXTERNAL, EndCause.OWN_CANCEL])
    orders = row.sales.filter(ended | Q(withdrawn_qty__gt=0) | Q(cancel_requested_at__isnull=False))
    return next((order for order in orders.filter(created_at__gte=row.armed_at) if was_changed_by_others(order)), None)


def _is_refused(order: TradeOrder) -> bool:
    """Whether a cancel of ours was refused: no share is open, or the order was changed; the order list says which."""
    return order.requests.filter(state=RequestState.REJECTED, kind=RequestKind.CANCEL).exists()


def _is_released(order: TradeOrder) -> bool:
    """Whether the broker acknowledged a cancel of the whole open quantity of an order: its shares are released."""
    return order.requests.filter(kind=RequestKind.CANCEL, is_whole=True, state__in=_TOOK_EFFECT).exists()


def _awaits_explanation(order: TradeOrder, now: datetime) -> bool:
    """Whether the order list may still say what ended a cancelled order; unless an acknowledged cancel of ours did."""
    return not _is_released(order) and now - order.status_at < GONE_AFTER


def _is_market(order: TradeOrder) -> bool:
    return OrderKind(order.order_kind).is_market
