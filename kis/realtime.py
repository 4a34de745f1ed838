"""The table of the realtime feeds that are read: the TR id and the reader of its records.

The columns are in `kis.schema`, which also has those of feeds that are not read. Records may grow at the end without
notice: the known columns are read, and a width that is new raises a drift alarm. A name of the AEGIS specification that
the broker does not have stands for the feed with the same data (`ALIASES`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from aegis.broker import Trade
from aegis.terms import Market
from kis.codec import Data, notices
from kis.schema import CONVERTERS, LAYOUTS, index_of, widths


@dataclass(slots=True)
class BookTick:
    """The order book (호가), the best of ten levels first, in won and shares.

    The expected price and quantity have a meaning in auctions only.
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
class ProgramTrading:
    """Program trading of one stock (프로그램매매), in shares and won since the open, not split by arbitrage."""

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
    """A change of a stock's state (장운영정보): halts and volatility interruptions (VI)."""

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
    """A trade of an index future, in points. `basis` is the market basis: the future minus the index."""

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


@dataclass(frozen=True, slots=True)
class RealtimeFeed:
    """One realtime TR: the reader of its records, and whether paper trading has it."""

    tr_id: str
    read: Callable[[Data], Sequence[Any]]
    on_paper: bool = False


Reader = Callable[[Data], Sequence[Any]]


def typed(kind: type, tr_id: str) -> Reader:
    """Return a reader that builds a `kind` from each record. Each field of `kind` has the name of its column."""
    indexed = [(at, LAYOUTS[tr_id][0][at]) for at in (index_of(tr_id, field.name) for field in fields(kind))]
    converters = [(at, CONVERTERS[column.unit]) for at, column in indexed]
    known_widths = widths(tr_id)

    def read(data: Data) -> list[Any]:
        return [kind(*[convert(record[at]) for at, convert in converters]) for record in data.records(known_widths)]

    return read


# columns 0 to 14 of a trade are parsed; the rest stays unparsed text, for callers that need it
_TRADE_CUTS = 15


def trades_on(market: Market, tr_id: str) -> Reader:
    """Return the reader of one venue's trades.

    This is the busiest path: nearly every frame has one record, and only the required columns of it are split.
    """
    known_widths = widths(tr_id)

    def read(data: Data) -> list[Trade]:
        if data.count != 1:
            return [trade for record in data.split(known_widths) for trade in read(record)]
        code, hhmmss, price, _, _, _, _, _, _, _, ask, bid, qty, volume, value, rest = data.body.split("^", _TRADE_CUTS)
        width = rest.count("^") + _TRADE_CUTS + 1
        if width not in known_widths:
            data.check_width(width, known_widths)
        return [Trade(code, hhmmss, int(price), int(qty), int(volume), int(value), market, rest, (ask, bid))]

    return read


_DATE_IN_REST = index_of("H0STCNT0", "trade_date") - _TRADE_CUTS


def trade_date(trade: Trade) -> str:
    """Return the day of a trade (영업일자) as eight digits, empty if its frame has no such column."""
    columns = trade.rest.split("^", _DATE_IN_REST + 1)
    return columns[_DATE_IN_REST] if len(columns) > _DATE_IN_REST else ""


def books_on(market: Market, tr_id: str) -> Reader:
    """Return the reader of one venue's order books."""
    known_widths = widths(tr_id)

    def read(data: Data) -> list[BookTick]:
        return [_book(record, market) for record in data.records(known_widths)]

    return read


def _book(v: list[str], market: Market) -> BookTick:
    # prices and quantities of both sides, totals, totals after hours, expected price and quantity
    values = list(map(int, v[3:49]))
    ask_prices, bid_prices, ask_qtys, bid_qtys = (tuple(values[start : start + 10]) for start in range(0, 40, 10))
    total_ask_qty, total_bid_qty, _, _, expected_price, expected_qty = values[40:]
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


def _typed(tr_id: str, kind: type) -> RealtimeFeed:
    return RealtimeFeed(tr_id, typed(kind, tr_id))


_ROWS: tuple[RealtimeFeed, ...] = (
    RealtimeFeed("H0STCNI0", notices),
    RealtimeFeed("H0STCNI9", notices, on_paper=True),
    RealtimeFeed("H0STCNT0", trades_on(Market.KRX, "H0STCNT0"), on_paper=True),
    RealtimeFeed("H0NXCNT0", trades_on(Market.NXT, "H0NXCNT0")),
    RealtimeFeed("H0UNCNT0", trades_on(Market.SOR, "H0UNCNT0")),
    RealtimeFeed("H0STASP0", books_on(Market.KRX, "H0STASP0"), on_paper=True),
    RealtimeFeed("H0NXASP0", books_on(Market.NXT, "H0NXASP0")),
    RealtimeFeed("H0UNASP0", books_on(Market.SOR, "H0UNASP0")),
    *(_typed(tr_id, StockState) for tr_id in ("H0STMKO0", "H0NXMKO0", "H0UNMKO0")),
    _typed("H0STPGM0", ProgramTrading),
    _typed("H0UPCNT0", IndexTick),
    _typed("H0IFCNT0", FuturesTick),
)
FEEDS: Mapping[str, RealtimeFeed] = MappingProxyType({feed.tr_id: feed for feed in _ROWS})
_READERS = {feed.tr_id: feed.read for feed in _ROWS}

# names of the AEGIS specification (appendix) that the broker does not have, and the feeds with the same data
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "H0STCTI0": "H0STCNT0",  # execution strength is a column of the trades
        "H1VI": "H0STMKO0",  # VI is part of the stock's state, which is registered per stock
    }
)


def feed_of(name: str) -> RealtimeFeed:
    """Return the feed of a TR id or of an alias. Raises KeyError, which lists the known names."""
    try:
        return FEEDS[ALIASES.get(name, name)]
    except KeyError:
        raise KeyError(f"no feed is called {name}: known are {', '.join([*FEEDS, *ALIASES])}") from None


def read_records(data: Data) -> Sequence[Any]:
    """Return the records of a data frame as typed values. Raises BadFrame."""
    try:
        reader = _READERS[data.tr_id]
    except KeyError:
        raise data.error("no reader for it") from None
    try:
        return reader(data)
    except (ValueError, KeyError, IndexError) as error:
        raise data.error(repr(error)) from error
