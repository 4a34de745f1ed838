"""Order entry: checks an order as the broker does, numbers it, and sends it to its venue."""

from dataclasses import dataclass, replace
from datetime import datetime

from aegis import ticks
from aegis.fees import calc_fee
from aegis.sessions import Matching, Phase, PhaseName, legal_kinds, phases_at
from aegis.terms import FOK_KINDS, PRICED, Instrument, Market, OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.exchange.calendar import is_trading_day, paper_phases_on, phases_on
from simulator.exchange.conditional_orders import MIDPOINT, OffBookOrders
from simulator.exchange.exchange import VENUES, BookChanged, Exchange, OrderNoticeKind, Printed
from simulator.exchange.market_maker import Venue
from simulator.exchange.order_book import other
from simulator.exchange.orders import KRX_AFTER, NewOrder, Order, OrderStatus, Request
from simulator.exchange.state import order_to_payload
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
# kinds that an auction during continuous trading takes: protocol notes §13, venue notes on 00 and 01.
# UNVERIFIED: KRX's after-market, which has neither kind, takes its plain limit
SINGLE_PRICE = frozenset({OrderKind.LIMIT, OrderKind.MARKET, OrderKind.AFTER_LIMIT})
OWN_BEST = frozenset({OrderKind.OWN_BEST, OrderKind.GTP_OWN_BEST, OrderKind.AFTER_OWN_BEST})


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """The parameters of order-rvsecncl. `quantity` counts only if `is_whole_rest` is false; `price` is in won."""

    account: str
    number: int
    is_cancel: bool
    kind: OrderKind
    quantity: int
    price: int
    is_whole_rest: bool
    stop_price: int = 0
    market: Market | None = None  # None: any market
    tag: str = ""
    is_ignored: bool = False  # fault: the request gets a number but has no effect


class OrderEntry:
    """Accepts customers' orders for one exchange."""

    def __init__(self, exchange: Exchange, offbook: OffBookOrders, *, is_paper: bool) -> None:
        self._exchange = exchange
        self._offbook = offbook
        self._phases_on = paper_phases_on if is_paper else phases_on

    # --- new orders

    def place(self, new_order: NewOrder, now: datetime) -> Order:
        """Accept an order and match it. Raises RequestRefused."""
        self._exchange.account(new_order.account)
        market = self._route(new_order, now)
        venue = self._exchange.venue(new_order.code, market)
        self._check(new_order, venue, now)
        price = self._price(new_order, venue)
        self._check_funds(new_order, price, venue)
        order = self._number(new_order, market, price, now, original=0, request=Request.NEW)
        self._exchange.notify(OrderNoticeKind.ACCEPTED, order, now, quantity=order.quantity, price=new_order.price)
        if refusal := self._exchange.faults.take(ORDER, ("refused_later",), account=order.account, code=order.code):
            self._reject(order, now, str(refusal.number))
        else:
            self._send(order, now)
        return order

    def _reject(self, order: Order, now: datetime, reason: str) -> None:
        """Reject an order at the exchange after the broker accepted it."""
        quantity = order.remaining
        self._exchange.record(
            "reject", now, date=order.date.isoformat(), number=order.number, quantity=quantity, reason=reason
        )
        self._exchange.notify(OrderNoticeKind.REFUSED, order, now, quantity=quantity, price=order.price)

    def _route(self, new_order: NewOrder, now: datetime) -> Market:
        """Return the venue of an order. SOR chooses the better price. Raises RequestRefused."""
        stock = self._exchange.stock(new_order.code)
        if not is_trading_day(now.date()):
            raise RequestRefused("not a business day")
        if new_order.market is Market.NXT and not stock.on_nxt:
            raise RequestRefused("not on this venue")
        self._check_time(new_order, now)
        if new_order.market is not Market.SOR:
            return new_order.market
        phases = self._phases_on(now.date())
        open_venues = [
            market
            for market in (Market.KRX, Market.NXT)
            if (market is Market.KRX or stock.on_nxt)
            and self._matches_now(market, now)
            and (new_order.kind in legal_kinds(market, phases, now))
        ]
        if not open_venues:
            raise RequestRefused("after the close" if stock.on_nxt else "not on this venue")
        if len(open_venues) == 1 or new_order.kind.is_market:
            return open_venues[0]
        return min(open_venues, key=lambda market: self._rank(new_order, market))

    def _matches_now(self, market: Market, now: datetime) -> bool:
        return any(phase.matching is Matching.CONTINUOUS for phase in self._exchange.phases(market, now))

    def _rank(self, new_order: NewOrder, market: Market) -> int:
        best = self._exchange.venue(new_order.code, market).book.best(other(new_order.side))
        return (best if best is not None else 10**9) * new_order.side.sign

    def _check_time(self, new_order: NewOrder, now: datetime) -> None:
        phases = self._phases_on(now.date())
        if new_order.kind in legal_kinds(new_order.market, phases, now):
            return
        self._check_open(now, new_order.market)
        raise _wrong_kind(new_order, phases_at(phases, new_order.market, now))

    def _check_open(self, now: datetime, *markets: Market) -> None:
        """Raise RequestRefused if none of `markets` takes orders at this hour."""
        phases = [phase for phase in self._phases_on(now.date()) if phase.market in markets]
        if not any(phase.holds(now.time()) for phase in phases):
            is_over = now.time() >= max(phase.ends_at for phase in phases)
            raise RequestRefused("after the close" if is_over else "before the open")

    def _check(self, new_order: NewOrder, venue: Venue, now: datetime) -> None:
        """Raise RequestRefused for halted stocks, kinds not taken now, bad quantities and bad prices."""
        if new_order.code in self._exchange.world.halted:
            raise RequestRefused("halted")
        if venue.is_auction and self._matches_now(venue.market, now) and new_order.kind not in SINGLE_PRICE:
            raise RequestRefused("kind not taken now", new_order.kind)  # a volatility interruption (VI)
        if new_order.quantity <= 0:
            raise RequestRefused("bad quantity")
        if new_order.kind.is_market and not venue.stock.takes_market:
            raise RequestRefused("no market orders")
        if new_order.kind in KRX_AFTER and venue.stock.instrument is not Instrument.STOCK:
            raise RequestRefused("kind not taken now", new_order.kind)  # no funds or notes in the after-market
        if new_order.kind in PRICED:
            self._check_price(new_order.price, venue)
        if new_order.kind is OrderKind.STOP_LIMIT:
            self._check_price(new_order.stop_price, venue)
        if new_order.kind is OrderKind.AFTER_HOURS_SINGLE:
            self._check_single_price(new_order.price, venue)

    def _check_price(self, price: int, venue: Venue) -> None:
        if price <= 0 or not ticks.is_on_tick(price, venue.stock.instrument):
            raise RequestRefused("bad tick")
        if not venue.lowest <= price <= venue.highest:
            raise RequestRefused("outside daily limits")

    def _check_single_price(self, price: int, venue: Venue) -> None:
        """Raise RequestRefused for an after-hours single price (시간외 단일가) beyond 10 % of the close."""
        if abs(price - venue.closing_price) * 10 > venue.closing_price:
            raise RequestRefused("outside daily limits")

    def _price(self, new_order: NewOrder, venue: Venue) -> int:
        """Return an order's price in the book, in won."""
        if new_order.kind in PRICED:
            return new_order.price
        worst = venue.highest if new_order.side is Side.BUY else venue.lowest
        if new_order.kind in BEST:
            return venue.book.best(other(new_order.side)) or venue.tape.last
        if new_order.kind in OWN_BEST:
            return venue.book.best(new_order.side) or venue.tape.last
        if new_order.kind in (OrderKind.PRE_OPEN_CLOSE, OrderKind.POST_CLOSE):
            return venue.base if new_order.kind is OrderKind.PRE_OPEN_CLOSE else venue.closing_price
        if new_order.kind in MIDPOINT:  # never worse than the opposite best price
            return venue.book.best(other(new_order.side)) or worst
        return worst

    def _check_funds(self, new_order: NewOrder, price: int, venue: Venue) -> None:
        """Raise RequestRefused if cash or shares are insufficient. Unpriced buys are checked at the upper limit."""
        exchange = self._exchange
        if new_order.side is Side.SELL:
            if new_order.quantity > exchange.sellable(new_order.account, new_order.code):
                raise RequestRefused("shares short")
            return
        check_price = price if new_order.kind in PRICED else venue.highest
        amount = new_order.quantity * check_price
        fee = calc_fee(amount, venue.market, Side.BUY, on=exchange.world.today()).fee
        if amount + fee > exchange.orderable_cash(new_order.account):
            raise RequestRefused("cash short")

    def _number(
        self, new_order: NewOrder, venue: Market, price: int, now: datetime, *, original: int, request: Request
    ) -> Order:
        exchange = self._exchange
        order = Order(
            date=exchange.world.today(),
            number=exchange.world.next_number,
            original=original,
            request=request,
            branch=exchange.branch,
            account=new_order.account,
            code=new_order.code,
            side=new_order.side,
            market=new_order.market,
            venue=venue,
            kind=new_order.kind,
            quantity=new_order.quantity,
            price=price,
            stop_price=new_order.stop_price,
            time=f"{now:%H%M%S}",
            book_price=price,
            reserve_price=price if new_order.side is Side.BUY else 0,
            status=OrderStatus.DONE if request is Request.CANCEL else OrderStatus.OPEN,
        )
        exchange.record(
            "order", now, order=order_to_payload(order), **({"tag": new_order.tag} if new_order.tag else {})
        )
        return exchange.world.orders[order.date, order.number]

    def _send(self, order: Order, now: datetime) -> None:
        """Send a numbered order to its venue."""
        exchange = self._exchange
        venue = exchange.venue(order.code, order.venue)
        if self._offbook.is_off_book(order, venue):
            self._offbook.execute(order, venue, now)
            if order.remaining and order.is_open and order.kind.is_immediate:
                self._lapse(order, now)
        elif venue.is_auction:
            exchange.add_to_book(order)
        else:
            self._match(order, venue, now)
        exchange.publish(BookChanged(order.code, order.venue))

    def _match(self, order: Order, venue: Venue, now: datetime) -> None:
        exchange = self._exchange
        is_killed = order.kind in FOK_KINDS and venue.book.available(order.side, order.price) < order.remaining
        if not is_killed:
            exchange.book_fills(venue, venue.execute(order.side, order.price, order.remaining, order.key, now))
        if not order.remaining:
            return
        if order.kind.is_immediate:
            self._lapse(order, now)
            return
        exchange.add_to_book(order)

    def _lapse(self, order: Order, now: datetime) -> None:
        """Cancel the unfilled rest of an immediate order (IOC, FOK)."""
        quantity = order.remaining
        self._exchange.withdraw(order, quantity, OrderStatus.CANCELLED, now, reason="immediate")
        self._exchange.notify(OrderNoticeKind.LAPSED, order, now, quantity=quantity, price=0)

    # --- amending and cancelling

    def change(self, change_request: ChangeRequest, now: datetime) -> Order:
        """Cancel or amend the rest of an order; return the request's own order row. Raises RequestRefused."""
        if not is_trading_day(now.date()):
            raise RequestRefused("not a business day")
        self._check_open(now, *VENUES)
        order = self._find(change_request)
        self._check_open(now, order.venue)
        if not order.is_open or not order.remaining:
            raise RequestRefused("nothing left")
        if self._exchange.faults.take(ORDER, ("overtaken",), account=order.account, code=order.code):
            self._overtake(order, now)
            raise RequestRefused("nothing left")
        quantity = order.remaining if change_request.is_whole_rest else change_request.quantity
        if quantity <= 0:
            raise RequestRefused("bad quantity")
        if quantity > order.remaining:
            raise RequestRefused("nothing left")
        if change_request.is_ignored:
            return self._ignore(order, change_request, now)
        apply_change = self._cancel if change_request.is_cancel else self._amend
        return apply_change(order, quantity, change_request, now)

    def _overtake(self, order: Order, now: datetime) -> None:
        """Fill an order just before its cancel is processed."""
        exchange, quantity = self._exchange, order.remaining
        venue = exchange.venue(order.code, order.venue)
        exchange.remove_from_book(order, quantity)
        trade = venue.add_trade(now, order.price, quantity, other(order.side))
        exchange.fill(order, order.venue, order.price, quantity, now)
        exchange.publish(Printed(order.code, order.venue, (trade,)))

    def _find(self, change_request: ChangeRequest) -> Order:
        order = self._exchange.world.orders.get((self._exchange.world.today(), change_request.number))
        if order is None or order.account != change_request.account or order.request is Request.CANCEL:
            raise RequestRefused("no such order")
        if change_request.market is not None and change_request.market is not order.market:
            raise RequestRefused("no such order")  # a cancel names the venue its order went to
        return order

    def _cancel(self, order: Order, quantity: int, change_request: ChangeRequest, now: datetime) -> Order:
        cancel_order = self._number(
            self._to_new_order(order, order.kind, quantity, 0, change_request.tag),
            order.venue,
            0,
            now,
            original=order.number,
            request=Request.CANCEL,
        )
        self._exchange.withdraw(order, quantity, OrderStatus.CANCELLED, now, reason="cancel")
        self._exchange.notify(OrderNoticeKind.CONFIRMED, cancel_order, now, quantity=quantity, price=0)
        self._exchange.publish(BookChanged(order.code, order.venue))
        return cancel_order

    def _amend(self, order: Order, quantity: int, change_request: ChangeRequest, now: datetime) -> Order:
        exchange = self._exchange
        venue = exchange.venue(order.code, order.venue)
        new_order = self._to_new_order(order, change_request.kind, quantity, change_request.price, change_request.tag)
        self._check_time(new_order, now)
        self._check(new_order, venue, now)
        price = self._price(new_order, venue)
        extra_reserve = exchange.amend_reserve(order, quantity, price) if order.side is Side.BUY else 0
        if extra_reserve > 0 and extra_reserve > exchange.orderable_cash(order.account):
            raise RequestRefused("cash short")
        amend_order = self._number(new_order, order.venue, price, now, original=order.number, request=Request.AMEND)
        exchange.withdraw(order, quantity, OrderStatus.REPLACED, now, reason="amend")
        exchange.notify(OrderNoticeKind.CONFIRMED, amend_order, now, quantity=quantity, price=change_request.price)
        self._send(amend_order, now)
        return amend_order

    def _ignore(self, order: Order, change_request: ChangeRequest, now: datetime) -> Order:
        """Return the row that a request would have got. Its number is used up, but the row is not listed."""
        number = self._exchange.world.next_number
        self._exchange.record("ignored", now, account=order.account, number=number, original=order.number)
        request = Request.CANCEL if change_request.is_cancel else Request.AMEND
        return replace(order, number=number, original=order.number, request=request, time=f"{now:%H%M%S}")

    def _to_new_order(self, order: Order, kind: OrderKind, quantity: int, price: int, tag: str) -> NewOrder:
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


_PHASE_LABELS = {
    PhaseName.PRE_MARKET: "프리마켓",
    PhaseName.REGULAR: "메인마켓",
    PhaseName.AFTER_AUCTION: "애프터마켓",
    PhaseName.AFTER_MARKET: "애프터마켓",
}


def _wrong_kind(new_order: NewOrder, current: tuple[Phase, ...]) -> RequestRefused:
    """Return the refusal for an order kind that the venue does not take at this moment."""
    if new_order.market is Market.NXT:
        return RequestRefused(
            "kind not taken on NXT", next((_PHASE_LABELS.get(phase.name, "") for phase in current), "")
        )
    return RequestRefused("kind not taken now", new_order.kind)
