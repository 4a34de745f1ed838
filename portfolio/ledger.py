"""The only writer of the portfolio: takes over a balance, counts a fill, marks a price."""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from django.db import connection, transaction

from aegis import positions
from aegis.broker import Balance, Holding, PartlyReadBalance, UnreadHolding
from aegis.positions import PositionCounts
from aegis.sessions import KST
from aegis.terms import Side
from infra import sql
from portfolio.models import AccountSnapshot, Portfolio, PortfolioEvent, PriceSource

log = logging.getLogger(__name__)

# no balance is on its way for longer
OVERTAKEN_WITHIN = timedelta(minutes=10)
# a balance that contradicts our fills for longer than this is believed after all
LAG_PATIENCE = timedelta(minutes=10)


@transaction.atomic
def replace(balance: Balance, *, now: datetime) -> AccountSnapshot:
    """Take over a balance: every holding, and a snapshot of the cash.

    A line on which the broker has not yet counted fills that we have is left as it is, and so is one that cannot be
    read. Of a balance that one asked for later has overtaken nothing is taken: that one's snapshot is returned.
    """
    day = balance.asked_at.astimezone(KST).date()
    locked = Portfolio.objects.select_for_update().order_by("stock_code").defer("synced_at", "updated_at")
    rows = {row.stock_code: row for row in locked}
    # under the lock: whoever had it before has written his snapshot
    if newer := _newer(balance.asked_at, now=now):
        log.info("the balance asked for at %s was overtaken by that of %s", balance.asked_at, newer.asked_at)
        return newer
    taken = [
        _taken(rows.pop(holding.code, None), holding, asked_at=balance.asked_at, now=now)
        for holding in balance.holdings
    ]
    _write([row for row in taken if row is not None], now=now)
    unread = balance.unread if isinstance(balance, PartlyReadBalance) else ()
    for line in unread:
        _leave(rows.pop(line.code, None), line)
    gone = [row.pk for row in rows.values() if _is_gone(row, day=day, now=now)]
    if gone:
        Portfolio.objects.filter(pk__in=gone).delete()
    return AccountSnapshot.objects.create(
        timestamp=now,
        asked_at=balance.asked_at,
        deposit=balance.deposit,
        deposit_d1=balance.deposit_d1,
        deposit_d2=balance.deposit_d2,
        valuation=balance.valuation,
        total_asset=balance.total_asset,
        # what came in or went out by transfer counts as profit here: the balance does not tell it apart
        net_profit_today=balance.total_asset - balance.total_asset_yesterday if balance.total_asset_yesterday else 0,
        left_out=[str(line) for line in unread],
    )


def _newer(asked_at: datetime, *, now: datetime) -> AccountSnapshot | None:
    """Return the snapshot of a balance asked for later. One from the future is of a clock that was set back."""
    lately = AccountSnapshot.objects.filter(timestamp__gt=now - OVERTAKEN_WITHIN, timestamp__lte=now)
    return lately.filter(asked_at__gt=asked_at, asked_at__lte=now).order_by("-asked_at").first()


# the last of each Korean day stays: the curve of the account is made of them
_THIN = """
DELETE FROM account_snapshots WHERE id IN (
    SELECT id FROM account_snapshots AS old
    WHERE timestamp < %s AND EXISTS (
        SELECT FROM account_snapshots AS later
        WHERE (later.timestamp, later.id) > (old.timestamp, old.id)
          AND later.timestamp < (date_trunc('day', old.timestamp AT TIME ZONE 'Asia/Seoul') + interval '1 day')
                                AT TIME ZONE 'Asia/Seoul')
    ORDER BY timestamp LIMIT %s)
"""


def thin_snapshots(before: datetime, at_most: int) -> int:
    """Leave of the snapshots of before then the last of each day; return how many are gone."""
    with connection.cursor() as cursor:
        cursor.execute(_THIN, [before, at_most])
        return int(cursor.rowcount)


def _taken(row: Portfolio | None, holding: Holding, *, asked_at: datetime, now: datetime) -> Portfolio | None:
    """Return a holding's row as the balance has it, to be written; None where it is left as it is."""
    day, line = asked_at.astimezone(KST).date(), None
    if row is None:
        row = Portfolio(stock_code=holding.code, counted_on=day)
    elif _lags(row, line := row.line, holding, day=day, now=now):
        return None
    else:
        _note_change(row, line, holding, day=day, now=now)
    # the balance is of a moment between the two: neither yesterday's end nor today's first trades
    is_before_trading = positions.is_before_trading(asked_at) and positions.is_before_trading(now)
    row.line = positions.position_after_balance(line, day, holding, is_before_trading=is_before_trading)
    row.last_avg_price = row.avg_price or row.last_avg_price
    row.stock_name = holding.name or row.stock_name
    # the feed may have told a newer one meanwhile; a price from the future is of a rehearsal whose clock was set back
    is_newest = row.priced_at is None or not asked_at < row.priced_at <= now
    if holding.price and is_newest:
        row.current_price, row.priced_at, row.price_source = holding.price, asked_at, PriceSource.BALANCE
    # a line without a price is no share without a value: until one is told, it is worth what it cost
    row.current_price = row.current_price or round(row.avg_price)
    row.profit_rate = positions.profit_rate_pct(row.avg_price, row.current_price)
    row.balance_won = _counted_won(row, holding)
    row.lags_since = None
    row.synced_at = row.updated_at = now
    return row


def _leave(row: Portfolio | None, line: UnreadHolding) -> None:
    """Leave a holding as it is whose line cannot be read: the balance counts it, nobody knows for how much."""
    log.warning("left out of the balance: %s", line)
    if row is None:
        return
    row.balance_won, row.uncounted = row.quantity * row.current_price, []
    row.save(update_fields=["balance_won", "uncounted"])


def _is_gone(row: Portfolio, *, day: date, now: datetime) -> bool:
    """Whether a holding that the balance no longer lists is no more."""
    gone = Holding(row.stock_code, row.stock_name, 0, 0, Decimal(0), row.current_price, 0, Decimal(0), 0, 0)
    if _lags(row, row.line, gone, day=day, now=now):
        return False
    _note_change(row, row.line, gone, day=day, now=now)
    return True


# What a balance sets of a holding, and how PostgreSQL calls it: one statement writes them all, told as JSON,
# which psycopg sends faster than an array a column.
_TAKEN = {
    "id": "int8",
    "stock_name": "text",
    "quantity": "int8",
    "avg_price": "numeric",
    "last_avg_price": "numeric",
    "current_price": "int8",
    "price_source": "text",
    "priced_at": "timestamptz",
    "profit_rate": "numeric",
    "counted_on": "date",
    "broker_bought": "int8",
    "broker_sold": "int8",
    "our_bought": "int8",
    "our_sold": "int8",
    "balance_won": "int8",
}
_WRITE = (
    f"UPDATE portfolio SET {', '.join(f'{name} = told.{name}' for name in _TAKEN if name != 'id')}, "  # noqa: S608
    "uncounted = '[]', lags_since = NULL, synced_at = %s::timestamptz, updated_at = %s::timestamptz "
    f"FROM json_to_recordset(%s::json) AS told ({', '.join(f'{name} {kind}' for name, kind in _TAKEN.items())}) "
    "WHERE portfolio.id = told.id"
)


def _write(rows: Sequence[Portfolio], *, now: datetime) -> None:
    """Write rows that are locked, and those that are new; one a fill has made meanwhile is the fill's."""
    known, new = [row for row in rows if row.pk], [row for row in rows if not row.pk]
    if known:
        told = json.dumps([{name: getattr(row, name) for name in _TAKEN} for row in known], default=str)
        with connection.cursor() as cursor:
            cursor.execute(_WRITE, [now, now, told])
    if new:
        Portfolio.objects.bulk_create(new, ignore_conflicts=True)


def _lags(row: Portfolio, line: PositionCounts, holding: Holding, *, day: date, now: datetime) -> bool:
    """Whether the balance is behind our own fills on this line; it may be so only for a while."""
    if not positions.lags(line, day, holding.bought_today, holding.sold_today):
        return False
    row.lags_since = row.lags_since or now
    if now - row.lags_since < LAG_PATIENCE:
        row.line = positions.recounted(line, day, holding.bought_today, holding.sold_today)
        row.balance_won = _counted_won(row, holding)
        row.save(update_fields=["lags_since", "balance_won", "uncounted"])
        log.info("the balance of %s has not counted all our fills yet: kept as it is", row.stock_code)
        return True
    log.error("the balance of %s contradicts our fills since %s: it is believed now", row.stock_code, row.lags_since)
    return False


def _counted_won(row: Portfolio, holding: Holding) -> int:
    """Return what the balance counts in its total of the shares that we know of, in won."""
    return (row.quantity - row.line.uncounted_qty) * (holding.price or row.current_price)


def _note_change(row: Portfolio, line: PositionCounts, holding: Holding, *, day: date, now: datetime) -> None:
    """Record what changed a holding without a trade. The balance is taken over all the same."""
    kind = positions.change(line, day, holding)
    if kind is None:
        return
    event = PortfolioEvent.objects.create(
        at=now,
        stock_code=row.stock_code,
        stock_name=row.stock_name,
        kind=kind,
        qty_before=row.quantity,
        qty_after=holding.qty,
        avg_price_before=row.avg_price,
        avg_price_after=holding.average_price,
    )
    log.warning("a holding changed without a trade: %s", event)


def count_fill(
    code: str, name: str, side: Side, qty: int, price: Decimal, *, executed_at: datetime, cost_won: int = 0
) -> Decimal:
    """Count an execution of ours (a negative `qty` takes one back); return the average price it met, won.

    That is what the shares of a sale had cost; 0 where the broker never told. `cost_won` is its commission and tax,
    negative where it is taken back. Call it inside the fill's transaction.
    """
    day = executed_at.astimezone(KST).date()
    fresh = {
        "stock_name": name,
        "quantity": 0,
        "avg_price": Decimal(0),
        "counted_on": day,
        "current_price": int(price),
        "updated_at": executed_at,
    }
    held = sql.select(Portfolio, {"stock_code": code}, lock=True)
    row = held[0] if held else Portfolio.objects.select_for_update().get_or_create(stock_code=code, defaults=fresh)[0]
    met = row.avg_price or row.last_avg_price
    if not row.quantity:  # nobody followed its price while there were no shares
        row.current_price, row.priced_at = int(price), None
    row.line = positions.position_after_fill(row.line, day, side, qty, price, cost_won=cost_won)
    row.last_avg_price = row.avg_price or met
    row.profit_rate = positions.profit_rate_pct(row.avg_price, row.current_price)
    row.updated_at = executed_at
    sql.save(row)
    return met


# One statement for all stocks. A row that somebody is changing is not waited for: it is named, and told again.
_MARK = """
WITH told AS (SELECT * FROM unnest(%s::text[], %s::int8[]) AS told (code, price)),
moved AS (SELECT id, stock_code, price FROM portfolio JOIN told ON stock_code = code WHERE current_price <> price),
free AS (SELECT id FROM portfolio WHERE id IN (SELECT id FROM moved) FOR UPDATE SKIP LOCKED),
marked AS (
    UPDATE portfolio
    SET current_price = price, price_source = %s::text, priced_at = %s::timestamptz, updated_at = %s::timestamptz,
        profit_rate = CASE WHEN avg_price = 0 THEN 0 ELSE round((price - avg_price) / avg_price * 100, 2) END
    FROM moved WHERE portfolio.id = moved.id AND moved.id IN (SELECT id FROM free)
    RETURNING portfolio.stock_code
)
SELECT stock_code FROM moved EXCEPT SELECT stock_code FROM marked
"""


def mark(prices: Mapping[str, int], source: PriceSource, *, at: datetime) -> frozenset[str]:
    """Set what stocks trade at, in won, where they are held; return the codes to be told again.

    Raises DatabaseError, and then nothing is set.
    """
    if not prices:
        return frozenset()
    with connection.cursor() as cursor:
        cursor.execute(_MARK, [list(prices), list(prices.values()), source.value, at, at])
        return frozenset(code for (code,) in cursor.fetchall())
