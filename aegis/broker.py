"""The port: what any broker must offer us, and the three ways it may fail.

    BrokerError
    ├── NotSent         the request surely never reached the broker: nothing happened, try again
    │   └── HeldBack        because the last check before sending forbade it
    ├── Refused         the broker read it and said no: final, with its code and words
    │   ├── NoMarketOrders  because the stock takes no order at market; a limit may go
    │   └── NoSuchStock     because it knows no such stock there: so it will say again
    └── OutcomeUnknown  sent, and no readable answer: it may have happened; look, never resend
        └── PartlyRead  a whole list came, but for some of its lines, which nobody here can read

Amounts are whole won, quantities shares, moments aware and in Korean time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from aegis.sessions import KST
from aegis.terms import Board, Instrument, Market, OrderKind, Side
from aegis.ticks import QuotedTick


class BrokerError(Exception):
    """A call that brought no value. `code` is the broker's own, empty where it gave none."""

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
    """The last check before sending forbade the request: what it was judged by has changed."""


class Refused(BrokerError):
    """The broker read the request and refused it."""


class NoMarketOrders(Refused):
    """The stock takes no order at market."""


class NoSuchStock(Refused):
    """The broker knows no such stock, or not on that venue."""


class OutcomeUnknown(BrokerError):
    """The request went out and its fate is not known."""


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
    """A line of the broker's list of every stock. It does not tell whether NXT trades it."""

    code: str
    name: str
    board: Board
    instrument: Instrument
    sector: str
    is_halted: bool
    standard_code: str = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """The last price of a stock and what bounds it today, in won. `in_vi`: a volatility interruption holds it (VI).

    `tick` is the tick at `price` (호가단위), 0 if the broker does not tell it. `volume` is the venue's running total of
    shares today (누적 거래량).
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

    @property
    def quoted_tick(self) -> QuotedTick:
        return QuotedTick(self.price, self.tick)


@dataclass(frozen=True, slots=True)
class Level:
    price: int
    qty: int


@dataclass(frozen=True, slots=True)
class Book:
    """The order book, best level first; a side may be empty.

    `expected_price` is what an auction would match at now (예상체결가), in won; 0 if the broker does not tell it.
    """

    code: str
    market: Market
    asks: tuple[Level, ...]
    bids: tuple[Level, ...]
    expected_price: int = 0

    def best_opposite(self, side: Side) -> int | None:
        """Return the price a `side` order would meet first: ask 1 for a buy, bid 1 for a sale."""
        levels = self.asks if side is Side.BUY else self.bids
        return levels[0].price if levels else None


@dataclass(frozen=True, slots=True)
class Orderable:
    """What may be bought without credit (미수없는매수): won and shares."""

    cash: int
    qty: int


LastCheck = Callable[[], None]


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One order as it goes to the broker. `price` is 0 for kinds that name none, `trigger` for all but stop-limits.

    `last_check` is called in the last step before bytes are written, each time they are; it raises HeldBack if the
    order must not leave any more.
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
    """What is needed to name an order to the broker again. `last_check` as in OrderRequest: of a cancel or an amend."""

    order_date: date
    branch: str
    order_no: str
    market: Market
    kind: OrderKind
    last_check: LastCheck | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that the broker can still cancel, and how many shares of it."""

    placed: BrokerOrderRef
    code: str
    side: Side
    qty: int


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """An order as the broker's list of the day tells it (주식일별주문체결조회)."""

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
    is_cancel: bool  # the line of a cancel itself, which is no order to fill

    @property
    def stamped_at(self) -> datetime:
        """When the broker took it, by its own clock, in whole seconds."""
        return datetime.combine(self.order_date, self.placed_at, KST)

    @property
    def is_amend(self) -> bool:
        """Whether this order came of amending another, `original_no`."""
        return bool(self.original_no) and not self.is_cancel


@dataclass(frozen=True, slots=True)
class UnparsedLine:
    """An order in the broker's list that cannot be read: its number, empty where not even that can, and why."""

    order_no: str
    why: str

    def __str__(self) -> str:
        return f"{self.order_no or '?'}: {self.why}"


class PartialResponse(OutcomeUnknown):
    """All pages of a list of orders came, but not every line can be read: `read` holds those that can.

    What is not among them may be there all the same.
    """

    def __init__(self, read: Sequence[Any], unread: Sequence[UnparsedLine], *, call: str = "") -> None:
        super().__init__("; ".join(map(str, unread)), call=call)
        self.read = read
        self.unread = unread


@dataclass(frozen=True, slots=True)
class Holding:
    """A line of the balance. A share sold to zero stays until it is settled, two days on."""

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
    """The account as a whole. `asked_at` is the moment before the question left."""

    asked_at: datetime
    holdings: tuple[Holding, ...]
    deposit: int
    deposit_d1: int
    deposit_d2: int
    valuation: int
    total_asset: int
    total_asset_yesterday: int


@dataclass(frozen=True, slots=True)
class UnreadHolding:
    """A share of the balance with a line that cannot be read, as one of fractions, and why."""

    code: str
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name or '?'} ({self.code}): {self.why}"


@dataclass(frozen=True, slots=True)
class PartlyReadBalance(Balance):
    """A balance with lines that cannot be read. They are not among the holdings; the totals are of all."""

    unread: tuple[UnreadHolding, ...]

    @classmethod
    def of(cls, balance: Balance, unread: Sequence[UnreadHolding]) -> "PartlyReadBalance":
        known = {each.name: getattr(balance, each.name) for each in fields(balance)}
        return cls(**known, unread=tuple(unread))


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
    """One minute of a stock as the broker's chart has it (분봉); a minute without a trade repeats the price before.

    `day_value` is the won traded that day up to the minute's end. There is no count of trades.
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
    """An index future and its index, in points."""

    code: str
    points: Decimal
    kospi200: Decimal


@dataclass(frozen=True, slots=True)
class FuturesPositions:
    """Contracts of KOSPI200 futures bought less sold since the open (투자자별 순매수)."""

    foreign: int
    institution: int
    individual: int


@dataclass(frozen=True, slots=True)
class InvestorFlow:
    """Won of a board's shares bought less sold since the open (투자자별 순매수 대금)."""

    foreign: int
    institution: int
    individual: int


@dataclass(frozen=True, slots=True)
class ProgramTrades:
    """Shares and won of one stock that programs sold and bought since the open (프로그램매매), as of `at`."""

    code: str
    market: Market
    at: time
    sold_qty: int
    bought_qty: int
    sold_won: int
    bought_won: int


@dataclass(frozen=True, slots=True)
class Interruption:
    """A volatility interruption (VI): what set it off, in won, and when. `ended_at` is None while it lasts.

    `standard_price` is the price it is measured against; a stock may have both kinds at once.
    """

    code: str
    name: str
    day: date
    began_at: time
    ended_at: time | None
    is_static: bool
    is_dynamic: bool
    price: int
    standard_price: int
    count: int


@dataclass(frozen=True, slots=True)
class CalendarDay:
    day: date
    is_open: bool


class NoticeKind(StrEnum):
    """What a notice about our own order (체결통보) says. Only FILLED is a fill."""

    ACCEPTED = "ACCEPTED"  # 접수
    AMENDED = "AMENDED"  # 정정 확인
    CANCELLED = "CANCELLED"  # 취소 확인
    REMAINDER_CANCELLED = "REMAINDER_CANCELLED"  # IOC/FOK
    REFUSED = "REFUSED"  # 거부
    FILLED = "FILLED"  # 체결


@dataclass(slots=True)
class Notice:
    """One notice. `qty` and `price` are of this fill alone; of the order in every other kind.

    There is no fill number and no running total on the wire. `original_no` names the order that a
    cancel or an amend was about, else it is empty. `text` is the record as decrypted.
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

    `hhmmss` is the time of day as six digits; `rest` holds what the broker prints after those figures, and
    `quotes` the best ask and bid as it prints them, unread. Not frozen: thousands are made each second.
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
    """What the floors above ask of a broker. Every method may raise any BrokerError."""

    def place(self, request: OrderRequest) -> Acceptance:
        """Send one order. OutcomeUnknown means it may exist."""

    def cancel(self, placed: BrokerOrderRef) -> Acceptance:
        """Cancel all that is left of an order; the receipt numbers the cancel itself."""

    def cancel_part(self, placed: BrokerOrderRef, qty: int) -> Acceptance:
        """Cancel `qty` shares of an order; the rest stays where it is, under its number."""

    def amend(self, placed: BrokerOrderRef, *, price: int, qty: int | None) -> Acceptance:
        """Amend a limit order (정정) to `price` won: `qty` shares of it, None for all that is left, whatever fills.

        The receipt numbers the new order. OutcomeUnknown means it may have happened.
        """

    def stock(self, code: str) -> StockInfo: ...

    def listings(self) -> Sequence[Listing]:
        """Every stock of KOSPI and KOSDAQ, as the broker's files of the day list them."""

    def quote(self, code: str, market: Market) -> Quote: ...

    def book(self, code: str, market: Market) -> Book: ...

    def orderable(self, code: str, kind: OrderKind, price: int) -> Orderable: ...

    def sellable_qty(self, code: str) -> int: ...

    def balance(self) -> Balance:
        """The whole account; a PartlyReadBalance if the line of a share cannot be read."""

    def orders(self, first: date, last: date) -> Sequence[OrderRecord]:
        """Every order of these days on every venue: complete pages, or an error; PartlyRead has what can be read."""

    def open_orders(self) -> Sequence[OpenOrder]:
        """What can still be cancelled, on every venue, whoever ordered it; PartlyRead has what can be read."""

    def daily_prices(self, code: str) -> Sequence[DayPrice]:
        """The last thirty days, newest first, unadjusted."""

    def calendar(self, first: date) -> Sequence[CalendarDay]: ...

    def daily_chart(self, code: str, first: date, last: date, *, adjusted: bool = True) -> Sequence[DayPrice]:
        """The newest hundred days of a stock in `[first, last]`, newest first.

        `adjusted` for splits and issues since (수정주가), or as they were traded.
        """

    def daily_history(self, code: str, first: date, last: date, *, adjusted: bool = True) -> Sequence[DayPrice]:
        """Every day of a stock in `[first, last]`, newest first: all pages of its daily chart, or an error."""

    def minutes(self, code: str, market: Market, last: datetime) -> Sequence[ChartMinute]:
        """The minutes of a stock's day up to the one `last` lies in, newest first; as many as one page holds."""

    def index(self, code: str) -> Decimal:
        """An index in points, as 0001 KOSPI, 1001 KOSDAQ, 2001 KOSPI200."""

    def near_future(self) -> str:
        """The code of the KOSPI200 future that expires next (근월물)."""

    def future(self, code: str) -> FutureQuote: ...

    def futures_positions(self) -> FuturesPositions: ...

    def investors(self, board: Board) -> InvestorFlow:
        """Who buys KOSPI or KOSDAQ today."""

    def program_trades(self, code: str, market: Market) -> ProgramTrades | None:
        """What programs did with a stock today; None before the first trade."""

    def interruptions(self, day: date) -> Sequence[Interruption]:
        """The newest thirty volatility interruptions of a day, newest first."""
