"""Order books (호가) that somebody asked for: which ones, their newest levels, and a snapshot of each second.

A strategy asks with `keep`, for a while; the stream worker listens as far as registrations reach, after all that
holdings and the watch list need, and writes. Old snapshots go at night (`AEGIS_KEEP_BOOKS_DAYS`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from aegis.sessions import KST
from aegis.terms import Market
from market.codes import resolve
from market.models import BookSnapshot, KeptBook

KEEP = """
INSERT INTO kept_books (stock_code, venue, until)
SELECT code, %(venue)s, %(until)s FROM unnest(%(codes)s::text[]) AS code
ON CONFLICT (stock_code, venue) DO UPDATE SET until = greatest(kept_books.until, excluded.until)
"""
# levels are of one length for all books of a statement only by chance: each side travels as text
WRITE = """
INSERT INTO book_snapshots (time, stock_code, venue, ask_prices, ask_qtys, bid_prices, bid_qtys,
                            total_ask_qty, total_bid_qty, expected_price, expected_qty)
SELECT time, stock_code, venue, ask_prices::int8[], ask_qtys::int8[], bid_prices::int8[], bid_qtys::int8[],
       total_ask_qty, total_bid_qty, expected_price, expected_qty
FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
            %s::int8[], %s::int8[], %s::int8[], %s::int8[])
     AS row (time, stock_code, venue, ask_prices, ask_qtys, bid_prices, bid_qtys,
             total_ask_qty, total_bid_qty, expected_price, expected_qty)
ON CONFLICT (stock_code, venue, time) DO NOTHING
"""
NEWEST = """
SELECT time, stock_code, venue, ask_prices, ask_qtys, bid_prices, bid_qtys,
       total_ask_qty, total_bid_qty, expected_price, expected_qty
FROM book_snapshots WHERE stock_code = %s AND venue = %s AND time >= %s AND time < %s
ORDER BY time {order} LIMIT %s
"""
AT_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A book as it stood at `time`, best level first: won and shares; expected figures matter in auctions only."""

    time: datetime
    code: str
    market: Market
    ask_prices: tuple[int, ...]
    ask_qtys: tuple[int, ...]
    bid_prices: tuple[int, ...]
    bid_qtys: tuple[int, ...]
    total_ask_qty: int
    total_bid_qty: int
    expected_price: int
    expected_qty: int


def keep(codes: Iterable[str], *, until: datetime, market: Market = Market.KRX) -> None:
    """Have the books of these stocks listened to and kept `until` then; whoever asks for longer prevails.

    Raises ValueError if a text is neither a code nor the name of one stock.
    """
    stocks = sorted({resolve(code) for code in codes})
    with connection.cursor() as cursor:
        cursor.execute(KEEP, {"codes": stocks, "venue": market.value, "until": until})


def wanted(now: datetime) -> list[tuple[Market, str]]:
    """Return the books that somebody wants now, those asked for first at the head."""
    rows = KeptBook.objects.filter(until__gt=now).order_by("pk").values_list("venue", "stock_code")
    return [(Market(venue), code) for venue, code in rows]


def write(snapshots: Sequence[Snapshot]) -> None:
    """Write snapshots in one statement; a second one of the same moment is dropped. Raises DatabaseError."""
    if snapshots:
        columns = [list(column) for column in zip(*map(_row, snapshots), strict=True)]
        with connection.cursor() as cursor:
            cursor.execute(WRITE, columns)


def _row(book: Snapshot) -> tuple[object, ...]:
    levels = (book.ask_prices, book.ask_qtys, book.bid_prices, book.bid_qtys)
    texts = ("{" + ",".join(map(str, level)) + "}" for level in levels)
    totals = (book.total_ask_qty, book.total_bid_qty, book.expected_price, book.expected_qty)
    return (book.time, book.code, book.market.value, *texts, *totals)


def newest(code: str, *, now: datetime, market: Market = Market.KRX) -> Snapshot | None:
    """Return the newest snapshot of today, None where nobody asked for one or none came yet: look at its `time`."""
    midnight = now.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    return next(iter(_read("DESC", code, market, midnight, midnight + timedelta(days=1), 1)), None)


def between(code: str, since: datetime, until: datetime, *, market: Market = Market.KRX) -> list[Snapshot]:
    """Return the snapshots of `[since, until)`, the oldest first, 100,000 at most."""
    return _read("ASC", code, market, since, until, AT_MOST)


def _read(order: str, code: str, market: Market, since: datetime, until: datetime, most: int) -> list[Snapshot]:
    with connection.cursor() as cursor:
        cursor.execute(NEWEST.format(order=order), [code, market.value, since, until, most])
        rows = cursor.fetchall()
    return [
        Snapshot(
            time.astimezone(KST),
            stock,
            Market(venue),
            tuple(ask_prices),
            tuple(ask_qtys),
            tuple(bid_prices),
            tuple(bid_qtys),
            *totals,
        )
        for time, stock, venue, ask_prices, ask_qtys, bid_prices, bid_qtys, *totals in rows
    ]


def delete_before(before: datetime, at_most: int) -> int:
    """Delete snapshots of before then, and wishes that ended before; return how many."""
    ended = KeptBook.objects.filter(until__lt=before).delete()[0]
    old = BookSnapshot.objects.filter(time__lt=before).order_by("time").values_list("pk", flat=True)[:at_most]
    return ended + BookSnapshot.objects.filter(pk__in=list(old)).delete()[0]
