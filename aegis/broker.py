"""The port that any broker must implement, and the three ways in which a call may fail.

    BrokerError
    ├── NotSent         the request provably never reached the broker: nothing happened, it may be sent again
    │   └── HeldBack        the last check before sending stopped it
    ├── Refused         the broker read the request and refused it: final, with its code and message
    │   ├── NoMarketOrders  the stock takes no market orders; a limit order may pass
    │   └── NoSuchStock     the broker does not know the stock on that venue; permanent
    └── OutcomeUnknown  sent, and no readable reply: it may have happened; check, never resend
        └── PartialResponse  all pages of a list arrived, but some of its lines cannot be parsed

Amounts are whole won, quantities shares, datetimes aware and in Korean time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from aegis.sessions import KST
from aegis.terms import Board, Instrument, Market, OrderKind, Side


class BrokerError(Exception):
    """A failed call. `code` is the broker's error code, empty if it gave none."""

    def __init__(self, message: str, *, code: str = "", call: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.call = call

    def __str__(self) -> str:
        return " ".join(part for part in (self.call, self.code, self.message) if part)


class NotSent(BrokerError):
    """Nothing reached the broker."""


class HeldBack(NotSent):
    """The last check before sending stopped the request: the data it was checked against has changed."""


class Refused(BrokerError):
    """The broker read the request and refused it."""


class NoMarketOrders(Refused):
    """The stock takes no market orders."""


class NoSuchStock(Refused):
    """The broker does not know the stock, or not on that venue."""


class OutcomeUnknown(BrokerError):
    """The request was sent and its outcome is not known."""


@dataclass(frozen=True, slots=True)
class StockInfo:
    """A row of the stock master."""

    code: str
    name: str
    board: Board
    instrument: Instrument
    sector: str
    trades_on_nxt: bool
    is_halted: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A line of the broker's list of every stock. It does not include whether the stock trades on NXT."""

    code: str
    name: str
    board: Board
    instrument: Instrument
    sector: str
    is_halted: bool
    standard_code: str = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """The last price of a stock and its limits of today, in won. `in_vi`: it is in a volatility interruption (VI).

    `tick` is the tick at `price` (호가단위), 0 if the broker does not report it. `volume` is the venue's running total
    of shares today (누적 거래량).
    """

    code: str
    market: Market
    price: int
    base_price: int
    upper_limit: int
    lower_limit: int
    is_halted: bool
    in_vi: bool = False
    tick: int = 0
    volume: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    price: int
    qty: int


@dataclass(frozen=True, slots=True)
class Book:
    """The order book, best level first; a side may be empty.

    `expected_price` is the price at which an auction would match now (예상체결가), in won; 0 if it is not reported.
    """

    code: str
    market: Market
    asks: tuple[Level, ...]
    bids: tuple[Level, ...]
    expected_price: int = 0

    def best_opposite(self, side: Side) -> int | None:
        """Return the first price, in won, that a `side` order meets: ask 1 for a buy, bid 1 for a sale, else None."""
        levels = self.asks if side is Side.BUY else self.bids
        return levels[0].price if levels else None


@dataclass(frozen=True, slots=True)
class Orderable:
    """The won and shares that can be bought without credit (미수없는매수)."""

    cash: int
    qty: int


LastCheck = Callable[[], None]


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One order as it is sent to the broker. `price` is 0 for kinds without a price, `trigger` for all but stop-limits.

    `last_check` is called just before bytes are written, each time they are; it raises HeldBack if the order must no
    longer be sent.
    """

    code: str
    side: Side
    market: Market
    kind: OrderKind
    qty: int
    price: int
    trigger: int = 0
    last_check: LastCheck | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The broker's receipt: the order exists; nothing is filled yet."""

    branch: str
    order_no: str
    accepted_at: time


@dataclass(frozen=True, slots=True)
class BrokerOrderRef:
    """The broker's identification of an order, for a cancel or an amend. `last_check` is as in OrderRequest."""

    order_date: date
    branch: str
    order_no: str
    market: Market
    kind: OrderKind
    last_check: LastCheck | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that the broker can still cancel. `qty` is how many of its shares."""

    placed: BrokerOrderRef
    code: str
    side: Side
    qty: int


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """A line of the broker's order list of the day (주식일별주문체결조회)."""

    order_date: date
    branch: str
    order_no: str
    original_no: str
    code: str
    name: str
    side: Side
    kind: OrderKind
    market: Market
    qty: int
    price: int
    placed_at: time
    filled_qty: int
    filled_amount: int
    open_qty: int
    cancelled_qty: int
    rejected_qty: int
    is_cancelled: bool
    is_cancel: bool  # the line is a cancel, not an order that can fill

    @property
    def stamped_at(self) -> datetime:
        """When the broker accepted it, by the broker's clock, in whole seconds."""
        return datetime.combine(self.order_date, self.placed_at, KST)

    @property
    def is_amend(self) -> bool:
        """Whether this order results from an amend of another, `original_no`."""
        return bool(self.original_no) and not self.is_cancel


@dataclass(frozen=True, slots=True)
class UnparsedLine:
    """A line of the broker's order list that cannot be parsed: why, and its number, empty if that is unreadable too."""

    order_no: str
    why: str

    def __str__(self) -> str:
        return f"{self.order_no or '?'}: {self.why}"


class PartialResponse(OutcomeUnknown):
    """All pages of a list of orders arrived, but some lines cannot be parsed: `read` has the parsed ones.

    An order that is missing from `read` may still exist.
    """

    def __init__(self, read: Sequence[Any], unread: Sequence[UnparsedLine], *, call: str = "") -> None:
        super().__init__("; ".join(map(str, unread)), call=call)
        self.read = read
        self.unread = unread


@dataclass(frozen=True, slots=True)
class Holding:
    """A line of the balance. A stock that was sold completely stays until settlement, two trading days later."""

    code: str
    name: str
    qty: int
    sellable_qty: int
    average_price: Decimal
    price: int
    profit: int
    profit_rate: Decimal
    bought_today: int
    sold_today: int


@dataclass(frozen=True, slots=True)
class Balance:
    """The whole account. `asked_at` is the time just before the request was sent."""

    asked_at: datetime
    holdings: tuple[Holding, ...]
    deposit: int
    deposit_d1: int
    deposit_d2: int
    valuation: int
    total_asset: int
    total_asset_yesterday: int


@dataclass(frozen=True, slots=True)
class UnparsedHolding:
    """A stock whose line of the balance cannot be parsed, as one with fractional shares, and why."""

    code: str
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name or '?'} ({self.code}): {self.why}"


@dataclass(frozen=True, slots=True)
class PartialBalance(Balance):
    """A balance with lines that cannot be parsed. They are not in `holdings`, but the totals include them."""

    unread: tuple[UnparsedHolding, ...]

    @classmethod
    def of(cls, balance: Balance, unread: Sequence[UnparsedHolding]) -> "PartialBalance":
        values = {attr.name: getattr(balance, attr.name) for attr in fields(balance)}
        return cls(**values, unread=tuple(unread))


@dataclass(frozen=True, slots=True)
class DayPrice:
    day: date
    open: int
    high: int
    low: int
    close: int
    volume: int


@dataclass(frozen=True, slots=True)
class ChartMinute:
    """One minute of the broker's chart of a stock (분봉). A minute without a trade repeats the previous price.

    `day_value` is the won traded on the day up to the end of the minute. The chart has no count of trades.
    """

    at: datetime
    open: int
    high: int
    low: int
    close: int
    volume: int
    day_value: int


@dataclass(frozen=True, slots=True)
class FutureQuote:
    """The price of an index future and the value of its index, in points."""

    code: str
    points: Decimal
    kospi200: Decimal


@dataclass(frozen=True, slots=True)
class FuturesPositions:
    """KOSPI200 futures contracts bought minus sold since the open, by investor group (투자자별 순매수)."""

    foreign: int
    institution: int
    individual: int


@dataclass(frozen=True, slots=True)
class CalendarDay:
    day: date
    is_open: bool


class NoticeKind(StrEnum):
    """What a notice about our own order (체결통보) reports. Only FILLED is a fill."""

    ACCEPTED = "ACCEPTED"  # 접수
    AMENDED = "AMENDED"  # 정정 확인
    CANCELLED = "CANCELLED"  # 취소 확인
    REMAINDER_CANCELLED = "REMAINDER_CANCELLED"  # IOC/FOK
    REFUSED = "REFUSED"  # 거부
    FILLED = "FILLED"  # 체결


@dataclass(slots=True)
class Notice:
    """One notice. `qty` and `price` are those of this fill alone, in every other kind those of the order.

    The record has no fill number and no running total. `original_no` is the number of the order that a
    cancel or an amend refers to, else empty. `text` is the decrypted record.
    """

    kind: NoticeKind
    account: str
    order_no: str
    original_no: str
    code: str
    side: Side
    qty: int
    price: int
    at: time
    market: Market
    branch: str
    order_qty: int
    text: str = field(repr=False)


@dataclass(slots=True)
class Trade:
    """One trade of the market (체결가): won, shares, and the day's running totals of shares and won.

    `hhmmss` is the time of day as six digits. `rest` has the record's remaining text, and `quotes` the best ask and bid
    as unparsed text. Not frozen: thousands are created per second.
    """

    code: str
    hhmmss: str
    price: int
    qty: int
    volume: int
    value: int
    market: Market
    rest: str = field(default="", repr=False)
    quotes: tuple[str, str] = field(default=("", ""), repr=False, compare=False)

    @property
    def ask(self) -> int:
        """The best ask after this trade, in won; 0 if there is none."""
        return _won(self.quotes[0])

    @property
    def bid(self) -> int:
        """The best bid after this trade, in won; 0 if there is none."""
        return _won(self.quotes[1])


def _won(text: str) -> int:
    return int(text) if text.isdecimal() else 0


class Broker(Protocol):
    """The operations that the packages above need of a broker. Every method may raise any BrokerError."""

    def place(self, request: OrderRequest) -> Acceptance:
        """Send one order. OutcomeUnknown: the order may exist."""

    def cancel(self, placed: BrokerOrderRef) -> Acceptance:
        """Cancel all open shares of an order. The receipt has the number of the cancel itself."""

    def cancel_part(self, placed: BrokerOrderRef, qty: int) -> Acceptance:
        """Cancel `qty` shares of an order. The rest stays open under the same number."""

    def amend(self, placed: BrokerOrderRef, *, price: int, qty: int | None) -> Acceptance:
        """Amend a limit order (정정) to `price` won: `qty` shares of it, None for all that are open on arrival.

        The receipt has the number of the new order. OutcomeUnknown: the amend may have happened.
        """

    def stock(self, code: str) -> StockInfo: ...

    def listings(self) -> Sequence[Listing]:
        """Return every stock of KOSPI and KOSDAQ by the broker's files of the day."""

    def quote(self, code: str, market: Market) -> Quote: ...

    def book(self, code: str, market: Market) -> Book: ...

    def orderable(self, code: str, kind: OrderKind, price: int) -> Orderable: ...

    def sellable_qty(self, code: str) -> int: ...

    def balance(self) -> Balance:
        """Return the whole account: a PartialBalance if the line of a stock cannot be parsed."""

    def orders(self, first: date, last: date) -> Sequence[OrderRecord]:
        """Return every order of these days on every venue. Raises PartialResponse if some lines cannot be parsed."""

    def open_orders(self) -> Sequence[OpenOrder]:
        """Return every order that can still be cancelled, on every venue, external ones too.

        Raises PartialResponse if some lines cannot be parsed.
        """

    def calendar(self, first: date) -> Sequence[CalendarDay]: ...

    def daily_chart(self, code: str, first: date, last: date, *, adjusted: bool = True) -> Sequence[DayPrice]:
        """Return the newest hundred days of a stock in `[first, last]`, newest first.

        `adjusted`: for later splits and issues (수정주가); else as traded.
        """

    def minutes(self, code: str, market: Market, last: datetime) -> Sequence[ChartMinute]:
        """Return one page of the minutes of a stock's day, newest first, up to the minute that contains `last`."""

    def index(self, code: str) -> Decimal:
        """Return an index in points. Codes: 0001 KOSPI, 1001 KOSDAQ, 2001 KOSPI200."""

    def near_future(self) -> str:
        """Return the code of the KOSPI200 future that expires next (근월물)."""

    def future(self, code: str) -> FutureQuote: ...

    def futures_positions(self) -> FuturesPositions: ...
