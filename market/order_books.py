"""Order books (호가) on request: the requests, and a snapshot of each requested book per second.

A strategy requests books with `keep`, until a given time. The stream worker subscribes to them with the registrations
that holdings and the watch list leave, and stores the snapshots. Old snapshots are deleted at night
(`AEGIS_KEEP_BOOKS_DAYS`).
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
# books of one statement may differ in their number of levels, so each side is sent as text
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
    """A book at `time`, best level first, in won and shares. The expected figures matter in auctions only."""

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


def request_books(codes: Iterable[str], *, until: datetime, market: Market = Market.KRX) -> None:
    """Request that the books of these stocks are received and stored `until` then; the longest request counts.

    Raises ValueError if a text is neither a code nor the name of exactly one stock.
    """
    stocks = sorted({resolve(code) for code in codes})
    with connection.cursor() as cursor:
        cursor.execute(KEEP, {"codes": stocks, "venue": market.value, "until": until})


def requested_books(now: datetime) -> list[tuple[Market, str]]:
    """Return the books that are requested now, in the order of the requests."""
    rows = KeptBook.objects.filter(until__gt=now).order_by("pk").values_list("venue", "stock_code")
    return [(Market(venue), code) for venue, code in rows]


def write(snapshots: Sequence[Snapshot]) -> None:
    """Write snapshots in one statement; a second one for the same time is dropped. Raises DatabaseError."""
    if snapshots:
        columns = [list(column) for column in zip(*map(_row, snapshots), strict=True)]
        with connection.cursor() as cursor:
            cursor.execute(WRITE, columns)


def _row(book: Snapshot) -> tuple[object, ...]:
    levels = (book.ask_prices, book.ask_qtys, book.bid_prices, book.bid_qtys)
    texts = ("{" + ",".join(map(str, level)) + "}" for level in levels)
    totals = (book.total_ask_qty, book.total_bid_qty, book.expected_price, book.expected_qty)
    return (book.time, book.code, book.market.value, *texts, *totals)


def newest_book(code: str, *, now: datetime, market: Market = Market.KRX) -> Snapshot | None:
    """Return the newest snapshot of today, None if there is none. It may be old: check its `time`."""
    midnight = now.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    return next(iter(_read("DESC", code, market, midnight, midnight + timedelta(days=1), 1)), None)


def between(code: str, since: datetime, until: datetime, *, market: Market = Market.KRX) -> list[Snapshot]:
    """Return the snapshots of `[since, until)`, the oldest first, at most 100,000."""
    return _read("ASC", code, market, since, until, AT_MOST)


def _read(order: str, code: str, market: Market, since: datetime, until: datetime, limit: int) -> list[Snapshot]:
    with connection.cursor() as cursor:
        cursor.execute(NEWEST.format(order=order), [code, market.value, since, until, limit])
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
    """Delete at most `at_most` snapshots older than `before`, and requests that ended earlier; return how many."""
    ended_requests = KeptBook.objects.filter(until__lt=before).delete()[0]
    old_snapshots = BookSnapshot.objects.filter(time__lt=before).order_by("time").values_list("pk", flat=True)[:at_most]
    return ended_requests + BookSnapshot.objects.filter(pk__in=list(old_snapshots)).delete()[0]
