"""The order desk: checks an order as the broker does, numbers it, and sends it to its venue."""

from dataclasses import dataclass, replace
from datetime import datetime

from aegis import ticks
from aegis.fees import calc_fee
from aegis.sessions import Matching, Phase, PhaseName, legal_kinds, phases_at
from aegis.terms import FOK_KINDS, PRICED, Instrument, Market, OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.exchange.calendar import is_trading_day, paper_phases_on, phases_on
from simulator.exchange.conditional_orders import MIDPOINT, OffBook
from simulator.exchange.exchange import VENUES, BookChanged, Exchange, OrderNoticeKind, Printed
from simulator.exchange.market_maker import Venue
from simulator.exchange.order_book import other
from simulator.exchange.orders import NewOrder, Order, OrderStatus, Request
from simulator.exchange.state import order_words
from simulator.faults.table import ORDER

BEST = frozenset(
    {
        OrderKind.BEST,
        OrderKind.BEST_IOC,
        OrderKind.BEST_FOK,
        OrderKind.GTP_BEST,
        OrderKind.AFTER_BEST,
        OrderKind.AFTER_BEST_IOC,
        OrderKind.AFTER_BEST_FOK,
    }
)
KRX_AFTER = frozenset(OrderKind(str(code)) for code in range(41, 48))
# what a single price in the middle of trading takes: protocol notes §13, venue notes on 00 and 01;
# UNVERIFIED: KRX's after-market, which knows neither, takes its plain limit
SINGLE_PRICE = frozenset({OrderKind.LIMIT, OrderKind.MARKET, OrderKind.AFTER_LIMIT})
OWN_BEST = frozenset({OrderKind.OWN_BEST, OrderKind.GTP_OWN_BEST, OrderKind.AFTER_OWN_BEST})


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What order-rvsecncl asks for. `quantity` counts only when `everything` is false."""

    account: str
    number: int
    is_cancel: bool
    kind: OrderKind
    quantity: int
    price: int
    everything: bool
    stop_price: int = 0
    market: Market | None = None  # None: wherever it is
    tag: str = ""
    is_ignored: bool = False  # it gets a number and nothing is done


class Desk:
    """Takes customers' orders for one exchange."""

    def __init__(self, exchange: Exchange, offbook: OffBook, *, is_paper: bool) -> None:
        self._exchange = exchange
        self._offbook = offbook
        self._phases_on = paper_phases_on if is_paper else phases_on

    # --- new orders

    def place(self, wanted: NewOrder, now: datetime) -> Order:
        """Accept an order and match it. Raises RequestRefused."""
        self._exchange.account(wanted.account)
        where = self._route(wanted, now)
        venue = self._exchange.venue(wanted.code, where)
        self._check(wanted, venue, now)
        price = self._price(wanted, venue)
        self._check_means(wanted, price, venue)
        order = self._number(wanted, where, price, now, original=0, request=Request.NEW)
        self._exchange.notify(OrderNoticeKind.ACCEPTED, order, now, quantity=order.quantity, price=wanted.price)
        if exchange_says_no := self._exchange.faults.take(
            ORDER, ("refused_later",), account=order.account, code=order.code
        ):
            self._reject(order, now, str(exchange_says_no.number))
        else:
            self._send(order, now)
        return order

    def _reject(self, order: Order, now: datetime, reason: str) -> None:
        """Let the exchange turn down what the broker accepted."""
        quantity = order.remaining
        self._exchange.record(
            "reject", now, date=order.date.isoformat(), number=order.number, quantity=quantity, reason=reason
        )
        self._exchange.notify(OrderNoticeKind.REFUSED, order, now, quantity=quantity, price=order.price)

    def _route(self, wanted: NewOrder, now: datetime) -> Market:
        """Return the venue an order goes to; SOR picks the better price. Raises RequestRefused."""
        stock = self._exchange.stock(wanted.code)
        if not is_trading_day(now.date()):
            raise RequestRefused("not a business day")
        if wanted.market is Market.NXT and not stock.on_nxt:
            raise RequestRefused("not on this venue")
        self._check_time(wanted, now)
        if wanted.market is not Market.SOR:
            return wanted.market
        phases = self._phases_on(now.date())
        open_venues = [
            market
            for market in (Market.KRX, Market.NXT)
            if (market is Market.KRX or stock.on_nxt)
            and self._matches_now(market, now)
            and (wanted.kind in legal_kinds(market, phases, now))
        ]
        if not open_venues:
            raise RequestRefused("after the close" if stock.on_nxt else "not on this venue")
        if len(open_venues) == 1 or wanted.kind.is_market:
            return open_venues[0]
        return min(open_venues, key=lambda market: self._rank(wanted, market))

    def _matches_now(self, market: Market, now: datetime) -> bool:
        return any(phase.matching is Matching.CONTINUOUS for phase in self._exchange.phases(market, now))

    def _rank(self, wanted: NewOrder, market: Market) -> int:
        best = self._exchange.venue(wanted.code, market).book.best(other(wanted.side))
        return (best if best is not None else 10**9) * wanted.side.sign

    def _check_time(self, wanted: NewOrder, now: datetime) -> None:
        phases = self._phases_on(now.date())
        if wanted.kind in legal_kinds(wanted.market, phases, now):
            return
        self._check_open(now, wanted.market)
        raise _wrong_kind(wanted, phases_at(phases, wanted.market, now))

    def _check_open(self, now: datetime, *markets: Market) -> None:
        """Refuse at an hour at which none of `markets` takes anything."""
        phases = [phase for phase in self._phases_on(now.date()) if phase.market in markets]
        if not any(phase.holds(now.time()) for phase in phases):
            is_over = now.time() >= max(phase.ends_at for phase in phases)
            raise RequestRefused("after the close" if is_over else "before the open")

    def _check(self, wanted: NewOrder, venue: Venue, now: datetime) -> None:
        """Refuse what no market would take: halted stocks, bad quantities, prices off the grid or the day."""
        if wanted.code in self._exchange.world.halted:
            raise RequestRefused("halted")
        if venue.is_auction and self._matches_now(venue.market, now) and wanted.kind not in SINGLE_PRICE:
            raise RequestRefused("kind not taken now", wanted.kind)  # a volatility interruption (VI)
        if wanted.quantity <= 0:
            raise RequestRefused("bad quantity")
        if wanted.kind.is_market and not venue.stock.takes_market:
            raise RequestRefused("no market orders")
        if wanted.kind in KRX_AFTER and venue.stock.instrument is not Instrument.STOCK:
            raise RequestRefused("kind not taken now", wanted.kind)  # no funds or notes in the after-market
        if wanted.kind in PRICED:
            self._check_price(wanted.price, venue)
        if wanted.kind is OrderKind.STOP_LIMIT:
            self._check_price(wanted.stop_price, venue)
        if wanted.kind is OrderKind.AFTER_HOURS_SINGLE:
            self._check_single_price(wanted.price, venue)

    def _check_price(self, price: int, venue: Venue) -> None:
        if price <= 0 or not ticks.is_on_tick(price, venue.stock.instrument):
            raise RequestRefused("bad tick")
        if not venue.lowest <= price <= venue.highest:
            raise RequestRefused("outside daily limits")

    def _check_single_price(self, price: int, venue: Venue) -> None:
        """In the after-hours single price (시간외 단일가) a price stays within 10 % of the close."""
        if abs(price - venue.closing_price) * 10 > venue.closing_price:
            raise RequestRefused("outside daily limits")

    def _price(self, wanted: NewOrder, venue: Venue) -> int:
        """Return the price in won at which an order stands in the book."""
        if wanted.kind in PRICED:
            return wanted.price
        worst = venue.highest if wanted.side is Side.BUY else venue.lowest
        if wanted.kind in BEST:
            return venue.book.best(other(wanted.side)) or venue.tape.last
        if wanted.kind in OWN_BEST:
            return venue.book.best(wanted.side) or venue.tape.last
        if wanted.kind in (OrderKind.PRE_OPEN_CLOSE, OrderKind.POST_CLOSE):
            return venue.base if wanted.kind is OrderKind.PRE_OPEN_CLOSE else venue.closing_price
        if wanted.kind in MIDPOINT:  # never worse than the touch it lies within
            return venue.book.best(other(wanted.side)) or worst
        return worst

    def _check_means(self, wanted: NewOrder, price: int, venue: Venue) -> None:
        """Refuse what the account cannot pay or has not got. An order without a price counts at the upper limit."""
        exchange = self._exchange
        if wanted.side is Side.SELL:
            if wanted.quantity > exchange.sellable(wanted.account, wanted.code):
                raise RequestRefused("shares short")
            return
        checked_at = price if wanted.kind in PRICED else venue.highest
        amount = wanted.quantity * checked_at
        fee = calc_fee(amount, venue.market, Side.BUY, on=exchange.world.today()).fee
        if amount + fee > exchange.orderable_cash(wanted.account):
            raise RequestRefused("cash short")

    def _number(
        self, wanted: NewOrder, where: Market, price: int, now: datetime, *, original: int, request: Request
    ) -> Order:
        exchange = self._exchange
        order = Order(
            date=exchange.world.today(),
            number=exchange.world.next_number,
            original=original,
            request=request,
            branch=exchange.branch,
            account=wanted.account,
            code=wanted.code,
            side=wanted.side,
            market=wanted.market,
            venue=where,
            kind=wanted.kind,
            quantity=wanted.quantity,
            price=price,
            stop_price=wanted.stop_price,
            time=f"{now:%H%M%S}",
            book_price=price,
            reserve_price=price if wanted.side is Side.BUY else 0,
            status=OrderStatus.DONE if request is Request.CANCEL else OrderStatus.OPEN,
        )
        exchange.record("order", now, order=order_words(order), **({"tag": wanted.tag} if wanted.tag else {}))
        return exchange.world.orders[order.date, order.number]

    def _send(self, order: Order, now: datetime) -> None:
        """Let a numbered order meet its venue."""
        exchange = self._exchange
        venue = exchange.venue(order.code, order.venue)
        if self._offbook.takes(order, venue):
            self._offbook.send(order, venue, now)
            if order.remaining and order.is_open and order.kind.is_immediate:
                self._lapse(order, now)
        elif venue.is_auction:
            exchange.rest(order)
        else:
            self._match(order, venue, now)
        exchange.tell(BookChanged(order.code, order.venue))

    def _match(self, order: Order, venue: Venue, now: datetime) -> None:
        exchange = self._exchange
        killed = order.kind in FOK_KINDS and venue.book.available(order.side, order.price) < order.remaining
        if not killed:
            exchange.book_hits(venue, venue.execute(order.side, order.price, order.remaining, order.key, now))
        if not order.remaining:
            return
        if order.kind.is_immediate:
            self._lapse(order, now)
            return
        exchange.rest(order)

    def _lapse(self, order: Order, now: datetime) -> None:
        """Cancel what an immediate order (IOC, FOK) did not get."""
        left = order.remaining
        self._exchange.withdraw(order, left, OrderStatus.CANCELLED, now, reason="immediate")
        self._exchange.notify(OrderNoticeKind.LAPSED, order, now, quantity=left, price=0)

    # --- amending and cancelling

    def change(self, wanted: ChangeRequest, now: datetime) -> Order:
        """Cancel or amend what is left of an order; return the request's own line. Raises RequestRefused."""
        if not is_trading_day(now.date()):
            raise RequestRefused("not a business day")
        self._check_open(now, *VENUES)
        order = self._find(wanted)
        self._check_open(now, order.venue)
        if not order.is_open or not order.remaining:
            raise RequestRefused("nothing left")
        if self._exchange.faults.take(ORDER, ("overtaken",), account=order.account, code=order.code):
            self._overtake(order, now)
            raise RequestRefused("nothing left")
        quantity = order.remaining if wanted.everything else wanted.quantity
        if quantity <= 0:
            raise RequestRefused("bad quantity")
        if quantity > order.remaining:
            raise RequestRefused("nothing left")
        if wanted.is_ignored:
            return self._ignore(order, wanted, now)
        act = self._cancel if wanted.is_cancel else self._amend
        return act(order, quantity, wanted, now)

    def _overtake(self, order: Order, now: datetime) -> None:
        """Fill an order just before its cancel is looked at."""
        exchange, quantity = self._exchange, order.remaining
        venue = exchange.venue(order.code, order.venue)
        exchange.unrest(order, quantity)
        trade = venue.print(now, order.price, quantity, other(order.side))
        exchange.fill(order, order.venue, order.price, quantity, now)
        exchange.tell(Printed(order.code, order.venue, (trade,)))

    def _find(self, wanted: ChangeRequest) -> Order:
        order = self._exchange.world.orders.get((self._exchange.world.today(), wanted.number))
        if order is None or order.account != wanted.account or order.request is Request.CANCEL:
            raise RequestRefused("no such order")
        if wanted.market is not None and wanted.market is not order.market:
            raise RequestRefused("no such order")  # a cancel names the venue its order went to
        return order

    def _cancel(self, order: Order, quantity: int, wanted: ChangeRequest, now: datetime) -> Order:
        line = self._number(
            self._as_request(order, order.kind, quantity, 0, wanted.tag),
            order.venue,
            0,
            now,
            original=order.number,
            request=Request.CANCEL,
        )
        self._exchange.withdraw(order, quantity, OrderStatus.CANCELLED, now, reason="cancel")
        self._exchange.notify(OrderNoticeKind.CONFIRMED, line, now, quantity=quantity, price=0)
        self._exchange.tell(BookChanged(order.code, order.venue))
        return line

    def _amend(self, order: Order, quantity: int, wanted: ChangeRequest, now: datetime) -> Order:
        exchange = self._exchange
        venue = exchange.venue(order.code, order.venue)
        request = self._as_request(order, wanted.kind, quantity, wanted.price, wanted.tag)
        self._check_time(request, now)
        self._check(request, venue, now)
        price = self._price(request, venue)
        more = exchange.amend_reserve(order, quantity, price) if order.side is Side.BUY else 0
        if more > 0 and more > exchange.orderable_cash(order.account):
            raise RequestRefused("cash short")
        line = self._number(request, order.venue, price, now, original=order.number, request=Request.AMEND)
        exchange.withdraw(order, quantity, OrderStatus.REPLACED, now, reason="amend")
        exchange.notify(OrderNoticeKind.CONFIRMED, line, now, quantity=quantity, price=wanted.price)
        self._send(line, now)
        return line

    def _ignore(self, order: Order, wanted: ChangeRequest, now: datetime) -> Order:
        """Return the line that a request would have got. Its number is used up, the line is not listed."""
        number = self._exchange.world.next_number
        self._exchange.record("ignored", now, account=order.account, number=number, original=order.number)
        request = Request.CANCEL if wanted.is_cancel else Request.AMEND
        return replace(order, number=number, original=order.number, request=request, time=f"{now:%H%M%S}")

    def _as_request(self, order: Order, kind: OrderKind, quantity: int, price: int, tag: str) -> NewOrder:
        return NewOrder(
            account=order.account,
            code=order.code,
            side=order.side,
            market=order.market,
            kind=kind,
            quantity=quantity,
            price=price,
            stop_price=order.stop_price,
            tag=tag,
        )


_PHASE_WORDS = {
    PhaseName.PRE_MARKET: "프리마켓",
    PhaseName.REGULAR: "메인마켓",
    PhaseName.AFTER_AUCTION: "애프터마켓",
    PhaseName.AFTER_MARKET: "애프터마켓",
}


def _wrong_kind(wanted: NewOrder, current: tuple[Phase, ...]) -> RequestRefused:
    """Return the refusal for an order kind that the venue does not take at this moment."""
    if wanted.market is Market.NXT:
        return RequestRefused(
            "kind not taken on NXT", next((_PHASE_WORDS.get(phase.name, "") for phase in current), "")
        )
    return RequestRefused("kind not taken now", wanted.kind)
