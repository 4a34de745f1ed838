"""Every realtime feed as one row: its id, how wide its records are known to be, and what they say.

Column positions are those of the broker's own samples and workbook (2026-06, 2026-09), held against
recorded frames. Records may grow at the end without notice: what is known is read, and a width that
was never seen raises a drift alarm. Names of the user's own list that the broker does not have are
served by the feed that carries the same data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from aegis.broker import Trade
from aegis.terms import Market
from kis.codec import BadFrame, Data, notices

NOTHING = ("", "(null)")
BOOK_LEVELS = 10


class KeyKind(StrEnum):
    """What a registration names."""

    STOCK = "STOCK"
    HTS_ID = "HTS_ID"
    INDEX = "INDEX"
    FUTURE = "FUTURE"
    OVERSEAS = "OVERSEAS"


@dataclass(slots=True)
class BookTick:
    """The order book (호가), best level first, in won and shares. Expected figures matter in auctions only."""

    code: str
    hhmmss: str
    market: Market
    ask_prices: tuple[int, ...]
    bid_prices: tuple[int, ...]
    ask_qtys: tuple[int, ...]
    bid_qtys: tuple[int, ...]
    total_ask_qty: int
    total_bid_qty: int
    expected_price: int
    expected_qty: int


@dataclass(slots=True)
class ExpectedPrice:
    """What an auction would trade at now (예상체결)."""

    code: str
    hhmmss: str
    price: int | None
    qty: int | None


@dataclass(slots=True)
class ProgramTrading:
    """Program trading of one stock (프로그램매매), shares and won since the open; no split by arbitrage."""

    code: str
    hhmmss: str
    sold_qty: int | None
    sold_won: int | None
    bought_qty: int | None
    bought_won: int | None
    net_qty: int | None
    net_won: int | None


@dataclass(slots=True)
class StockState:
    """A stock's state as it changes (장운영정보): halts and volatility interruptions (VI)."""

    code: str
    is_halted: bool
    reason: str
    phase_code: str
    expected_phase_code: str
    state_code: str
    in_vi: bool


@dataclass(slots=True)
class IndexTick:
    """An index (업종 지수) in points; volume in thousand shares, value in million won."""

    code: str
    hhmmss: str
    points: Decimal | None
    change: Decimal | None
    change_pct: Decimal | None
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    volume: int | None
    value: int | None


@dataclass(slots=True)
class FuturesTick:
    """A trade of an index future, in points. `basis` is the market's: future less index."""

    code: str
    hhmmss: str
    points: Decimal | None
    qty: int | None
    volume: int | None
    theoretical: Decimal | None
    basis: Decimal | None
    open_interest: int | None
    ask: Decimal | None
    bid: Decimal | None


@dataclass(slots=True)
class OverseasTrade:
    """A trade abroad, in the market's own currency and its local time."""

    key: str
    symbol: str
    local_date: str
    local_hhmmss: str
    price: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    qty: int | None
    volume: int | None
    strength: Decimal | None


@dataclass(slots=True)
class OverseasBook:
    """The order book abroad, best level first."""

    key: str
    symbol: str
    local_hhmmss: str
    bids: tuple[tuple[Decimal, int], ...]
    asks: tuple[tuple[Decimal, int], ...]


@dataclass(slots=True)
class NetAssetValue:
    """What an exchange-traded fund's shares are worth (NAV), in won."""

    code: str
    nav: Decimal | None


@dataclass(frozen=True, slots=True)
class Feed:
    """One realtime TR. Its reader knows the record widths seen so far, the least of them first."""

    tr_id: str
    key: KeyKind
    read: Callable[[Data], Sequence[Any]]
    on_paper: bool = False


def text(value: str) -> str:
    return "" if value in NOTHING else value


def whole(value: str) -> int | None:
    """Return a whole number, None where the broker has none to tell."""
    return None if value in NOTHING else int(value)


def number(value: str) -> Decimal | None:
    if value in NOTHING:
        return None
    try:
        return Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a number") from None


def flag(value: str) -> bool:
    return value == "Y"


Column = tuple[int, Callable[[str], Any]]
Widths = tuple[int, ...]
Reader = Callable[[Data], Sequence[Any]]


def table(kind: type, widths: Widths, *columns: Column) -> Reader:
    """Return a reader that makes a `kind` of these columns of each record."""

    def read(data: Data) -> list[Any]:
        return [kind(*[convert(record[at]) for at, convert in columns]) for record in data.records(widths)]

    return read


# columns 0 to 14 are cut out of a trade; the rest stays as it came, for whoever asks
_TRADE_CUTS = 15


def trades_on(market: Market, widths: Widths) -> Reader:
    """Return the reader of one venue's trades.

    The busiest path of all: nearly every frame has one record, and no more of it is cut up than is read.
    """

    def read(data: Data) -> list[Trade]:
        if data.count != 1:
            return [trade for record in data.split(widths) for trade in read(record)]
        code, hhmmss, price, _, _, _, _, _, _, _, _, _, qty, volume, value, rest = data.body.split("^", _TRADE_CUTS)
        width = rest.count("^") + _TRADE_CUTS + 1
        if width not in widths:
            data.check(width, widths)
        return [Trade(code, hhmmss, int(price), int(qty), int(volume), int(value), market, rest)]

    return read


def books_on(market: Market, widths: Widths) -> Reader:
    """Return the reader of one venue's order books."""

    def read(data: Data) -> list[BookTick]:
        return [_book(record, market) for record in data.records(widths)]

    return read


def _book(v: list[str], market: Market) -> BookTick:
    n = list(map(int, v[3:49]))
    return BookTick(
        code=v[0],
        hhmmss=v[1],
        market=market,
        ask_prices=tuple(n[0:10]),
        bid_prices=tuple(n[10:20]),
        ask_qtys=tuple(n[20:30]),
        bid_qtys=tuple(n[30:40]),
        total_ask_qty=n[40],
        total_bid_qty=n[41],
        expected_price=n[44],
        expected_qty=n[45],
    )


def overseas_books(data: Data) -> list[OverseasBook]:
    return [_overseas_book(record) for record in data.records((71,))]


def _overseas_book(v: list[str]) -> OverseasBook:
    starts = range(11, 11 + BOOK_LEVELS * 6, 6)
    bids = ((number(v[at]), whole(v[at + 2])) for at in starts)
    asks = ((number(v[at + 1]), whole(v[at + 3])) for at in starts)
    return OverseasBook(
        key=v[0],
        symbol=v[1],
        local_hhmmss=v[4],
        bids=tuple((price, qty or 0) for price, qty in bids if price),
        asks=tuple((price, qty or 0) for price, qty in asks if price),
    )


_expected = table(ExpectedPrice, (45, 46, 47), (0, text), (1, text), (2, whole), (12, whole))
_program = table(
    ProgramTrading, (11,), (0, text), (1, text), (2, whole), (3, whole), (4, whole), (5, whole), (6, whole), (7, whole)
)
# the table of the unified feed forgets the stock code, the wire does not: all three read alike
_state = table(StockState, (10, 11), (0, text), (1, flag), (2, text), (3, text), (4, text), (7, text), (8, flag))
_index = table(
    IndexTick,
    (30,),
    (0, text),
    (1, text),
    (2, number),
    (4, number),
    (9, number),
    (10, number),
    (11, number),
    (12, number),
    (5, whole),
    (6, whole),
)
_future = table(
    FuturesTick,
    (49, 50),
    (0, text),
    (1, text),
    (5, number),
    (9, whole),
    (10, whole),
    (12, number),
    (13, number),
    (18, whole),
    (34, number),
    (35, number),
)
_overseas_trade = table(
    OverseasTrade,
    (26,),
    (0, text),
    (1, text),
    (4, text),
    (5, text),
    (11, number),
    (15, number),
    (16, number),
    (19, whole),
    (20, whole),
    (24, number),
)
_nav = table(NetAssetValue, (8,), (0, text), (1, number))

_STOCK = KeyKind.STOCK
_ROWS: tuple[Feed, ...] = (
    Feed("H0STCNI0", KeyKind.HTS_ID, notices),
    Feed("H0STCNI9", KeyKind.HTS_ID, notices, on_paper=True),
    Feed("H0STCNT0", _STOCK, trades_on(Market.KRX, (46, 47)), on_paper=True),
    Feed("H0NXCNT0", _STOCK, trades_on(Market.NXT, (46, 47))),
    Feed("H0UNCNT0", _STOCK, trades_on(Market.SOR, (46, 47))),
    Feed("H0STASP0", _STOCK, books_on(Market.KRX, (59, 62, 63)), on_paper=True),
    Feed("H0NXASP0", _STOCK, books_on(Market.NXT, (62, 65, 66))),
    Feed("H0UNASP0", _STOCK, books_on(Market.SOR, (65, 66))),
    Feed("H0STANC0", _STOCK, _expected),
    Feed("H0NXANC0", _STOCK, _expected),
    Feed("H0UNANC0", _STOCK, _expected),
    Feed("H0STPGM0", _STOCK, _program),
    Feed("H0NXPGM0", _STOCK, _program),
    Feed("H0UNPGM0", _STOCK, _program),
    Feed("H0STMKO0", _STOCK, _state),
    Feed("H0NXMKO0", _STOCK, _state),
    Feed("H0UNMKO0", _STOCK, _state),
    Feed("H0STNAV0", _STOCK, _nav),
    Feed("H0UPCNT0", KeyKind.INDEX, _index),
    Feed("H0UPANC0", KeyKind.INDEX, _index),
    Feed("H0IFCNT0", KeyKind.FUTURE, _future),
    Feed("H0MFCNT0", KeyKind.FUTURE, _future),
    Feed("HDFSCNT0", KeyKind.OVERSEAS, _overseas_trade),
    Feed("HDFSASP0", KeyKind.OVERSEAS, overseas_books),
)
FEEDS: Mapping[str, Feed] = {feed.tr_id: feed for feed in _ROWS}
_READERS = {feed.tr_id: feed.read for feed in _ROWS}
TRADE_IDS = frozenset({"H0STCNT0", "H0NXCNT0", "H0UNCNT0"})

# names of the user's list (spec, appendix) that the broker does not have, and who carries the same
ALIASES: Mapping[str, str] = {
    "H0STCTI0": "H0STCNT0",  # execution strength is a column of the trades
    "H1VI": "H0STMKO0",  # VI comes with the stock's state, registered stock by stock
    "H0STNV": "H0STANC0",  # expected price
}


def feed_of(name: str) -> Feed:
    """Return the feed of a TR id or of a name of the user's list. Raises KeyError with what is known."""
    try:
        return FEEDS[ALIASES.get(name, name)]
    except KeyError:
        raise KeyError(f"no feed is called {name}: known are {', '.join([*FEEDS, *ALIASES])}") from None


def read(data: Data) -> Sequence[Any]:
    """Return what a data frame says, as typed values. Raises BadFrame."""
    try:
        reader = _READERS[data.tr_id]
    except KeyError:
        raise BadFrame(f"no reader for {data.tr_id}", data.body) from None
    try:
        return reader(data)
    except (ValueError, KeyError, IndexError) as error:
        raise BadFrame(f"{data.tr_id}: {error!r}", data.body) from error
