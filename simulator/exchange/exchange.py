"""The exchange and the broker's accounts: trades and their effects on orders and accounts.

Each change is written to the ledger first (`record`), then applied, then published (`publish`). Nothing here reads a
clock: each entry point takes the moment. `session_clock` moves time, `order_entry` accepts orders.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from aegis.fees import Cost, calc_fee
from aegis.sessions import Phase, phases_at
from aegis.terms import Market, OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.exchange.accounts import BrokerAccount
from simulator.exchange.calendar import next_trading_day, phases_on
from simulator.exchange.event_log import Ledger
from simulator.exchange.listings import STOCKS, ListedStock
from simulator.exchange.market_maker import MakerFill, Venue
from simulator.exchange.order_book import MAKER
from simulator.exchange.orders import Order, OrderStatus, Request
from simulator.exchange.state import World, order_to_payload
from simulator.exchange.trade_tape import Tape, TapeTrade
from simulator.faults.table import ORDER, Faults

VENUES = (Market.KRX, Market.NXT)


class OrderNoticeKind(StrEnum):
    """The subject of an order notice (체결통보)."""

    ACCEPTED = "accepted"  # 주문접수
    CONFIRMED = "confirmed"  # 정정, 취소 확인
    LAPSED = "lapsed"  # IOC/FOK: the rest is cancelled
    REFUSED = "refused"  # 거부
    FILLED = "filled"  # 체결


@dataclass(frozen=True, slots=True)
class OrderNotice:
    """A notice for the owner of an order. `order` is a copy, because the order itself changes later."""

    kind: OrderNoticeKind
    order: dict[str, Any]
    quantity: int
    price: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Printed:
    """Trades of one stock on one venue that happened together."""

    code: str
    market: Market
    trades: tuple[TapeTrade, ...]


@dataclass(frozen=True, slots=True)
class BookChanged:
    code: str
    market: Market


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """A halt or a volatility interruption (VI) started or ended, or the venue entered another phase."""

    code: str
    market: Market


News = OrderNotice | Printed | BookChanged | StatusChanged


class Exchange:
    """One market with its customers. All entry points are called from one thread."""

    def __init__(self, ledger: Ledger, *, branch: str = "06010", listed: Mapping[str, ListedStock] = STOCKS) -> None:
        self.ledger = ledger
        self.branch = branch
        self.listed = listed
        self.world = World()
        self.venues: dict[tuple[str, Market], Venue] = {}
        self.unified: dict[str, Tape] = {}
        self.market_time: datetime | None = None
        self.faults = Faults()
        self.lagging_accounts: dict[str, BrokerAccount] = {}  # account states that a lagging balance shows
        self.on_trades: Callable[[Venue, datetime], None] | None = None
        self._news: list[News] = []
        for event in ledger.replay():
            self.world.apply(event)

    # --- events and news

    def record(self, event: str, at: datetime | None = None, **details: Any) -> None:
        """Append an event to the ledger, then apply it to the world."""
        moment = at or self.market_time
        entry = {
            "event": event,
            "n": self.ledger.count,
            "at": moment.isoformat() if moment else "",
            **details,
        }
        self.ledger.append(entry)
        self.world.apply(entry)

    def publish(self, news: News) -> None:
        self._news.append(news)

    def take_news(self) -> list[News]:
        """Return the news since the last call, in order."""
        news, self._news = self._news, []
        return news

    def set_time(self, moment: datetime) -> None:
        """Bring the exchange to a moment. On a new date, unpublished news other than order notices is dropped.

        Otherwise late trades and books would look like the new day's.
        """
        if self.market_time is not None and moment.date() != self.market_time.date():
            self._news = [item for item in self._news if isinstance(item, OrderNotice)]
        self.market_time = moment

    def notify(self, kind: OrderNoticeKind, order: Order, at: datetime, *, quantity: int, price: int) -> None:
        self.publish(OrderNotice(kind, order_to_payload(order), quantity, price, at))

    # --- queries

    def stock(self, code: str) -> ListedStock:
        """Return a listed stock. Raises RequestRefused."""
        stock = self.listed.get(code)
        if stock is None:
            raise RequestRefused("unknown stock", code)
        return stock

    def venue(self, code: str, market: Market = Market.KRX) -> Venue:
        return self.venues[code, market]

    def venues_of(self, market: Market) -> list[Venue]:
        return [venue for (_, venue_market), venue in self.venues.items() if venue_market is market]

    def phases(self, market: Market, now: datetime) -> tuple[Phase, ...]:
        return phases_at(phases_on(now.date()), market, now)

    def account(self, number: str) -> BrokerAccount:
        """Return an account. An unknown account is opened."""
        if number not in self.world.accounts:
            self.record("account", account=number)
        return self.world.accounts[number]

    def shown_account(self, number: str) -> BrokerAccount:
        """Return an account as inquire-balance shows it: an older state while the `balance_lag` fault is active."""
        account = self.account(number)
        return self.lagging_accounts.get(number, BrokerAccount(number)) if self.faults.has("balance_lag") else account

    def link_account(self, number: str, key: str) -> None:
        """Record that an app key uses an account. The account's notices go to that key's HTS IDs."""
        self.account(number)
        if key not in self.world.account_keys.get(number, ()):
            self.record("link", account=number, key=key)

    def link_hts(self, hts_id: str, key: str) -> None:
        if key not in self.world.hts_keys.get(hts_id, ()):
            self.record("link", hts=hts_id, key=key)

    def price(self, code: str) -> int:
        """Return the last KRX price in won."""
        return self.venues[code, Market.KRX].tape.last

    def reserved_cash(self, number: str) -> int:
        """Return the cash reserved for resting buys, in won, commission included."""
        return sum(
            self._reserve(order, order.remaining * order.reserve_price)
            for order in self.world.open_orders(number)
            if order.side is Side.BUY
        )

    def amend_reserve(self, order: Order, quantity: int, price: int) -> int:
        """Return the change in a buy's reserved cash, in won, if `quantity` of it is amended to `price`."""
        before = order.remaining * order.reserve_price
        rest = (order.remaining - quantity) * order.reserve_price
        return self._reserve(order, rest) + self._reserve(order, quantity * price) - self._reserve(order, before)

    def orderable_cash(self, number: str) -> int:
        return self.account(number).cash_d2 - self.reserved_cash(number)

    def sellable(self, number: str, code: str) -> int:
        """Return how many held shares of a stock are not in open sell orders."""
        holding = self.account(number).holdings.get(code)
        open_sell_qty = sum(
            order.remaining
            for order in self.world.open_orders(number)
            if order.side is Side.SELL and order.code == code
        )
        return (holding.quantity if holding else 0) - open_sell_qty

    def holdings_value(self, number: str) -> int:
        return sum(h.quantity * self.price(h.code) for h in self.account(number).holdings.values())

    def total_asset(self, number: str, prices: Mapping[str, int] | None = None) -> int:
        """Return securities plus D+2 cash (총평가금액), in won, at `prices` or at the last prices."""
        account = self.account(number)
        if prices is None:
            return account.cash_d2 + self.holdings_value(number)
        return account.cash_d2 + sum(h.quantity * prices[h.code] for h in account.holdings.values())

    def cost_of(self, order: Order, amount: int) -> Cost:
        """Return commission and tax of an order, in won, after `amount` won of it are traded."""
        stock = STOCKS[order.code]
        return calc_fee(amount, order.venue, order.side, on=order.date, board=stock.board, instrument=stock.instrument)

    def _reserve(self, order: Order, amount: int) -> int:
        return amount + self.cost_of(order, amount).fee

    # --- fills and withdrawals

    def book_fills(self, venue: Venue, hits: Iterable[MakerFill]) -> None:
        """Book the customers' fills and publish the trades."""
        trades: dict[int, TapeTrade] = {}
        for hit in hits:
            trades[id(hit.trade)] = hit.trade
            for owner in (hit.buyer, hit.seller):
                if owner != MAKER:
                    self.fill(self.order_by_owner(owner), venue.market, hit.price, hit.quantity, hit.trade.at)
        if trades:
            self.publish(Printed(venue.stock.code, venue.market, tuple(trades.values())))
            if self.on_trades is not None:
                self.on_trades(venue, venue.changed_at or next(iter(trades.values())).at)

    def order_by_owner(self, owner: str) -> Order:
        day, number = owner.split("-")
        return self.world.orders[date(int(day[:4]), int(day[4:6]), int(day[6:])), int(number)]

    def fill(self, order: Order, market: Market, price: int, quantity: int, at: datetime) -> None:
        """Book a fill of an order that has already left the queue. The `crumbs` fault splits it into small fills."""
        crumbs = self.faults.take(ORDER, ("crumbs",), account=order.account, code=order.code)
        size = max(1, int(crumbs.parameters["shares"])) if crumbs else quantity
        while quantity > 0:
            self._book_fill(order, market, price, min(size, quantity), at)
            quantity -= size

    def _book_fill(self, order: Order, market: Market, price: int, quantity: int, at: datetime) -> None:
        cost = self.cost_of(order, order.amount + price * quantity)
        self.record(
            "fill",
            at,
            date=order.date.isoformat(),
            number=order.number,
            account=order.account,
            sequence=1 + len(self.world.executions.get(order.account, ())),
            quantity=quantity,
            price=price,
            fee=cost.fee - order.fee,
            tax=cost.tax - order.tax,
            time=f"{at:%H%M%S}",
            market=market,
            due=next_trading_day(self.world.today(), 2).isoformat(),
        )
        self.notify(OrderNoticeKind.FILLED, order, at, quantity=quantity, price=price)

    def withdraw(self, order: Order, quantity: int, status: OrderStatus, at: datetime, *, reason: str) -> None:
        """Withdraw `quantity` shares of an open order from the market. `status` is the reason as an order status."""
        self.remove_from_book(order, quantity)
        self.record(
            "cancel",
            at,
            date=order.date.isoformat(),
            number=order.number,
            account=order.account,
            quantity=quantity,
            status=status,
            reason=reason,
        )

    def remove_from_book(self, order: Order, quantity: int) -> None:
        venue = self.venues.get((order.code, order.venue))
        if venue is not None:
            venue.book.remove(order.side, order.book_price, order.key, quantity)

    def add_to_book(self, order: Order) -> None:
        """Put the rest of an order into its venue's queue."""
        self.venues[order.code, order.venue].book.rest(order.side, order.book_price, order.remaining, order.key)

    # --- reports

    def account_report(self, number: str) -> dict[str, Any]:
        """Return all data of an account, for tests and for the rehearsal's ledger check."""
        account = self.account(number)
        today = self.world.today()
        return {
            "account": number,
            "cash": {
                "deposit": account.deposit,
                "d1": account.cash_on(next_trading_day(today)),
                "d2": account.cash_d2,
                "orderable": self.orderable_cash(number),
                "total_asset": self.total_asset(number),
            },
            "holdings": [
                {
                    "code": holding.code,
                    "quantity": holding.quantity,
                    "average_price": str(holding.average),
                    "sellable": self.sellable(number, holding.code),
                    "bought_today": holding.bought_today,
                    "sold_today": holding.sold_today,
                    "price": self.price(holding.code),
                }
                for holding in account.holdings.values()
            ],
            "orders": [self._order_row(order) for order in self.world.orders_of(number)],
            "executions": [
                {
                    "date": f"{fill.date:%Y%m%d}",
                    "number": f"{fill.number:010d}",
                    "sequence": fill.sequence,
                    "quantity": fill.quantity,
                    "price": fill.price,
                    "time": fill.time,
                    "market": fill.market,
                }
                for fill in self.world.executions.get(number, ())
            ],
        }

    def _order_row(self, order: Order) -> dict[str, Any]:
        return {
            "date": f"{order.date:%Y%m%d}",
            "branch": order.branch,
            "number": f"{order.number:010d}",
            "original": f"{order.original:010d}" if order.original else "",
            "request": order.request,
            "code": order.code,
            "side": order.side,
            "market": order.market,
            "venue": order.venue,
            "kind": order.kind,
            "quantity": order.quantity,
            "price": order.price if order.kind in _SHOWN_PRICE else 0,
            "filled": order.filled,
            "amount": order.amount,
            "fee": order.fee,
            "tax": order.tax,
            "cancelled": order.cancelled,
            "rejected": order.rejected,
            "status": order.status,
            "time": order.time,
        }


_SHOWN_PRICE = frozenset(kind for kind in OrderKind if not kind.is_market)
__all__ = [
    "VENUES",
    "BookChanged",
    "Exchange",
    "News",
    "OrderNotice",
    "OrderNoticeKind",
    "Printed",
    "Request",
    "StatusChanged",
]
