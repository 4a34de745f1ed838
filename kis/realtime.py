"""Every realtime feed as one row: its id, how wide its records are known to be, and what they say.

What stands in which column is `kis.columns`. Records may grow at the end without notice: what is known is
read, and a width that was never seen raises a drift alarm. Names of the user's own list that the broker
does not have are served by the feed that carries the same data.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from aegis.broker import Trade
from aegis.terms import Market
from kis.codec import Data, notices
from kis.columns import CONVERTERS, LAYOUTS, Layout, index_of, number, text, whole, widths


class KeyKind(StrEnum):
    """What a registration names."""

    STOCK = "STOCK"
    HTS_ID = "HTS_ID"
    INDEX = "INDEX"
    FUTURE = "FUTURE"
    OVERSEAS = "OVERSEAS"


@dataclass(slots=True)
class BookTick:
    """The order book (호가), best level first, in won and shares: ten levels, nine after hours.

    Expected figures matter in auctions only.
    """

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


@dataclass(slots=True)
class IndexProgram:
    """Program trading of a market, thousand shares and million won net bought: arbitrage, other, and both."""

    code: str
    hhmmss: str
    arbitrage_net_qty: int | None
    arbitrage_net_value: int | None
    other_net_qty: int | None
    other_net_value: int | None
    whole_net_qty: int | None
    whole_net_value: int | None


@dataclass(slots=True)
class Members:
    """The five members (회원사) that sold and bought most, and the foreign ones together; shares since the open."""

    code: str
    sellers: tuple[tuple[str, int], ...]
    buyers: tuple[tuple[str, int], ...]
    foreign_sold_qty: int | None
    foreign_bought_qty: int | None
    foreign_net_qty: int | None


@dataclass(slots=True)
class FuturesBook:
    """The order book of an index future, best of five levels first: points and contracts."""

    code: str
    hhmmss: str
    asks: tuple[tuple[Decimal, int], ...]
    bids: tuple[tuple[Decimal, int], ...]
    total_ask_qty: int | None
    total_bid_qty: int | None


@dataclass(slots=True)
class OtherNotice:
    """A notice of an order for futures or shares abroad, which we do not trade: the broker's flags as they are.

    `filled` 2 is a fill; `price` in points, or in the market's own currency.
    """

    account: str
    order_no: str
    original_no: str
    side: str
    code: str
    qty: int | None
    price: Decimal | None
    hhmmss: str
    refused: str
    filled: str
    accepted: str


@dataclass(frozen=True, slots=True)
class RealtimeFeed:
    """One realtime TR: what a registration names, its reader, and whether paper trading has it."""

    tr_id: str
    key: KeyKind
    read: Callable[[Data], Sequence[Any]]
    on_paper: bool = False

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """What stands in the columns of each known width, the narrowest first."""
        return LAYOUTS[self.tr_id]

    def table(self, data: Data) -> list[dict[str, Any]]:
        """Return every known column of every record by our name, typed. Raises BadFrame."""
        return [_named(self.layouts, record, data) for record in data.records(tuple(map(len, self.layouts)))]


def _named(layouts: Sequence[Layout], record: list[str], data: Data) -> dict[str, Any]:
    # the widest layout that the record fills: what it has beyond that is not known
    layout = max((each for each in layouts if len(each) <= len(record)), key=len)
    try:
        return {column.name: column.read(value) for column, value in zip(layout, record, strict=False)}
    except ValueError as error:
        raise data.bad(str(error)) from error


Reader = Callable[[Data], Sequence[Any]]


def typed(kind: type, tr_id: str) -> Reader:
    """Return a reader that makes a `kind` of each record: each of its fields is the column of that name."""
    places = [(at, LAYOUTS[tr_id][0][at]) for at in (index_of(tr_id, each.name) for each in fields(kind))]
    columns = [(at, CONVERTERS[column.unit]) for at, column in places]
    known = widths(tr_id)

    def read(data: Data) -> list[Any]:
        return [kind(*[convert(record[at]) for at, convert in columns]) for record in data.records(known)]

    return read


# columns 0 to 14 are cut out of a trade; the rest stays as it came, for whoever asks
_TRADE_CUTS = 15


def trades_on(market: Market, tr_id: str) -> Reader:
    """Return the reader of one venue's trades.

    The busiest path of all: nearly every frame has one record, and no more of it is cut up than is read.
    """
    known = widths(tr_id)

    def read(data: Data) -> list[Trade]:
        if data.count != 1:
            return [trade for record in data.split(known) for trade in read(record)]
        code, hhmmss, price, _, _, _, _, _, _, _, ask, bid, qty, volume, value, rest = data.body.split("^", _TRADE_CUTS)
        width = rest.count("^") + _TRADE_CUTS + 1
        if width not in known:
            data.check(width, known)
        return [Trade(code, hhmmss, int(price), int(qty), int(volume), int(value), market, rest, (ask, bid))]

    return read


_DATE_IN_REST = index_of("H0STCNT0", "trade_date") - _TRADE_CUTS


def trade_date(trade: Trade) -> str:
    """Return the day of a trade (영업일자) as eight digits, empty if its frame does not tell it."""
    columns = trade.rest.split("^", _DATE_IN_REST + 1)
    return columns[_DATE_IN_REST] if len(columns) > _DATE_IN_REST else ""


def books_on(market: Market, tr_id: str, levels: int = 10) -> Reader:
    """Return the reader of one venue's order books."""
    known = widths(tr_id)

    def read(data: Data) -> list[BookTick]:
        return [_book(record, market, levels) for record in data.records(known)]

    return read


def _book(v: list[str], market: Market, levels: int) -> BookTick:
    # prices and quantities of both sides, totals, totals after hours, expected price and quantity
    n = list(map(int, v[3 : 9 + 4 * levels]))
    ask_prices, bid_prices, ask_qtys, bid_qtys = (tuple(n[side * levels : (side + 1) * levels]) for side in range(4))
    total_ask_qty, total_bid_qty, _, _, expected_price, expected_qty = n[4 * levels :]
    return BookTick(
        code=v[0],
        hhmmss=v[1],
        market=market,
        ask_prices=ask_prices,
        bid_prices=bid_prices,
        ask_qtys=ask_qtys,
        bid_qtys=bid_qtys,
        total_ask_qty=total_ask_qty,
        total_bid_qty=total_bid_qty,
        expected_price=expected_price,
        expected_qty=expected_qty,
    )


def overseas_books(data: Data) -> list[OverseasBook]:
    return [_overseas_book(record) for record in data.records(widths(data.tr_id))]


def _overseas_book(v: list[str]) -> OverseasBook:
    # eleven columns of head, then six a level
    starts = range(11, min(len(v), 11 + 10 * 6), 6)
    return OverseasBook(
        key=v[0],
        symbol=v[1],
        local_hhmmss=v[4],
        bids=_levels(v, ((at, at + 2) for at in starts)),
        asks=_levels(v, ((at + 1, at + 3) for at in starts)),
    )


def futures_books(data: Data) -> list[FuturesBook]:
    return [_futures_book(record) for record in data.records(widths(data.tr_id))]


def _futures_book(v: list[str]) -> FuturesBook:
    return FuturesBook(
        code=v[0],
        hhmmss=v[1],
        asks=_levels(v, ((2 + n, 22 + n) for n in range(5))),
        bids=_levels(v, ((7 + n, 27 + n) for n in range(5))),
        total_ask_qty=whole(v[34]),
        total_bid_qty=whole(v[35]),
    )


def _levels(v: list[str], places: Iterable[tuple[int, int]]) -> tuple[tuple[Decimal, int], ...]:
    """Return price and quantity of each level that has a price."""
    levels = ((number(v[price]), whole(v[qty])) for price, qty in places)
    return tuple((price, qty or 0) for price, qty in levels if price)


def members(data: Data) -> list[Members]:
    return [_members(record) for record in data.records(widths(data.tr_id))]


def _members(v: list[str]) -> Members:
    return Members(
        code=v[0],
        sellers=tuple((text(v[1 + n]), whole(v[11 + n]) or 0) for n in range(5)),
        buyers=tuple((text(v[6 + n]), whole(v[16 + n]) or 0) for n in range(5)),
        foreign_sold_qty=whole(v[61]),
        foreign_bought_qty=whole(v[62]),
        foreign_net_qty=whole(v[65]),
    )


_STOCK, _INDEX, _FUTURE, _ABROAD, _OWN = (
    KeyKind.STOCK,
    KeyKind.INDEX,
    KeyKind.FUTURE,
    KeyKind.OVERSEAS,
    KeyKind.HTS_ID,
)


def _typed(tr_id: str, key: KeyKind, kind: type, *, on_paper: bool = False) -> RealtimeFeed:
    return RealtimeFeed(tr_id, key, typed(kind, tr_id), on_paper)


_ROWS: tuple[RealtimeFeed, ...] = (
    RealtimeFeed("H0STCNI0", _OWN, notices),
    RealtimeFeed("H0STCNI9", _OWN, notices, on_paper=True),
    RealtimeFeed("H0STCNT0", _STOCK, trades_on(Market.KRX, "H0STCNT0"), on_paper=True),
    RealtimeFeed("H0NXCNT0", _STOCK, trades_on(Market.NXT, "H0NXCNT0")),
    RealtimeFeed("H0UNCNT0", _STOCK, trades_on(Market.SOR, "H0UNCNT0")),
    RealtimeFeed("H0STASP0", _STOCK, books_on(Market.KRX, "H0STASP0"), on_paper=True),
    RealtimeFeed("H0NXASP0", _STOCK, books_on(Market.NXT, "H0NXASP0")),
    RealtimeFeed("H0UNASP0", _STOCK, books_on(Market.SOR, "H0UNASP0")),
    *(_typed(tr_id, _STOCK, ExpectedPrice) for tr_id in ("H0STANC0", "H0NXANC0", "H0UNANC0", "H0STOAC0")),
    # after hours at a single price, until 2026-09-11
    RealtimeFeed("H0STOUP0", _STOCK, trades_on(Market.KRX, "H0STOUP0")),
    RealtimeFeed("H0STOAA0", _STOCK, books_on(Market.KRX, "H0STOAA0", levels=9)),
    *(_typed(tr_id, _STOCK, ProgramTrading) for tr_id in ("H0STPGM0", "H0NXPGM0", "H0UNPGM0")),
    *(_typed(tr_id, _STOCK, StockState) for tr_id in ("H0STMKO0", "H0NXMKO0", "H0UNMKO0")),
    *(RealtimeFeed(tr_id, _STOCK, members) for tr_id in ("H0STMBC0", "H0NXMBC0", "H0UNMBC0")),
    _typed("H0STNAV0", _STOCK, NetAssetValue),
    _typed("H0UPCNT0", _INDEX, IndexTick),
    _typed("H0UPANC0", _INDEX, IndexTick),
    _typed("H0UPPGM0", _INDEX, IndexProgram),
    _typed("H0IFCNT0", _FUTURE, FuturesTick),
    RealtimeFeed("H0IFASP0", _FUTURE, futures_books),
    _typed("H0MFCNT0", _FUTURE, FuturesTick),
    RealtimeFeed("H0MFASP0", _FUTURE, futures_books),
    _typed("H0IFCNI0", _OWN, OtherNotice),
    _typed("H0IFCNI9", _OWN, OtherNotice, on_paper=True),
    _typed("H0GSCNI0", _OWN, OtherNotice),
    _typed("H0GSCNI9", _OWN, OtherNotice, on_paper=True),
    _typed("HDFSCNT0", _ABROAD, OverseasTrade),
    RealtimeFeed("HDFSASP0", _ABROAD, overseas_books),
    RealtimeFeed("HDFSASP1", _ABROAD, overseas_books),
)
FEEDS: Mapping[str, RealtimeFeed] = MappingProxyType({feed.tr_id: feed for feed in _ROWS})
_READERS = {feed.tr_id: feed.read for feed in _ROWS}
TRADE_IDS = frozenset({"H0STCNT0", "H0NXCNT0", "H0UNCNT0"})

# names of the user's list (spec, appendix) that the broker does not have, and who carries the same
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "H0STCTI0": "H0STCNT0",  # execution strength is a column of the trades
        "H1VI": "H0STMKO0",  # VI comes with the stock's state, registered stock by stock
        "H0STNV": "H0STANC0",  # expected price
    }
)


def feed_of(name: str) -> RealtimeFeed:
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
        raise data.bad("no reader for it") from None
    try:
        return reader(data)
    except (ValueError, KeyError, IndexError) as error:
        raise data.bad(repr(error)) from error
