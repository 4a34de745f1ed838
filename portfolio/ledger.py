"""The only writer of the portfolio: stores a balance, counts a fill, sets a price."""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from django.db import connection, transaction

from aegis import positions
from aegis.broker import Balance, Holding, PartialBalance, UnparsedHolding
from aegis.positions import PositionCounts
from aegis.sessions import KST
from aegis.terms import Side
from infra import sql
from portfolio.models import AccountSnapshot, Portfolio, PortfolioEvent, PriceSource

log = logging.getLogger(__name__)

# a newer balance is looked for within this time: no balance request takes longer
OVERTAKEN_WITHIN = timedelta(minutes=10)
# a balance that contradicts our fills for longer than this is stored anyway
LAG_PATIENCE = timedelta(minutes=10)


@transaction.atomic
def replace(balance: Balance, *, now: datetime) -> AccountSnapshot:
    """Store a balance: every holding, and a snapshot of the cash. Return the snapshot.

    A holding stays unchanged if the broker has not yet counted all our fills of it, or if its line cannot be parsed.
    If a balance that was requested later is already stored, nothing is written and its snapshot is returned.
    """
    day = balance.asked_at.astimezone(KST).date()
    locked = Portfolio.objects.select_for_update().order_by("stock_code").defer("synced_at", "updated_at")
    rows = {row.stock_code: row for row in locked}
    # read under the lock: the previous holder of the lock has written its snapshot
    if newer := _newer(balance.asked_at, now=now):
        log.info("the balance requested at %s was overtaken by that of %s", balance.asked_at, newer.asked_at)
        return newer
    updated = [
        _row_from_balance(rows.pop(holding.code, None), holding, asked_at=balance.asked_at, now=now)
        for holding in balance.holdings
    ]
    _write([row for row in updated if row is not None], now=now)
    unread = balance.unread if isinstance(balance, PartialBalance) else ()
    for line in unread:
        _keep_unparsed(rows.pop(line.code, None), line)
    removed_pks = [row.pk for row in rows.values() if _is_gone(row, day=day, now=now)]
    if removed_pks:
        Portfolio.objects.filter(pk__in=removed_pks).delete()
    return AccountSnapshot.objects.create(
        timestamp=now,
        asked_at=balance.asked_at,
        deposit=balance.deposit,
        deposit_d1=balance.deposit_d1,
        deposit_d2=balance.deposit_d2,
        valuation=balance.valuation,
        total_asset=balance.total_asset,
        # cash or shares transferred in or out count as profit here: the balance does not separate them
        net_profit_today=balance.total_asset - balance.total_asset_yesterday if balance.total_asset_yesterday else 0,
        left_out=[str(line) for line in unread],
    )


def _newer(asked_at: datetime, *, now: datetime) -> AccountSnapshot | None:
    """Return the snapshot of a balance requested later. Snapshots from the future are ignored: a clock was set back."""
    recent = AccountSnapshot.objects.filter(timestamp__gt=now - OVERTAKEN_WITHIN, timestamp__lte=now)
    return recent.filter(asked_at__gt=asked_at, asked_at__lte=now).order_by("-asked_at").first()


# the last snapshot of each Korean day stays: the account's history is drawn from them
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
    """Delete at most `at_most` snapshots older than `before`, except the last of each day; return how many."""
    with connection.cursor() as cursor:
        cursor.execute(_THIN, [before, at_most])
        return int(cursor.rowcount)


def _row_from_balance(
    row: Portfolio | None, holding: Holding, *, asked_at: datetime, now: datetime
) -> Portfolio | None:
    """Return a holding's row with the balance's figures, to be written; None if the row stays unchanged."""
    day, line = asked_at.astimezone(KST).date(), None
    if row is None:
        row = Portfolio(stock_code=holding.code, counted_on=day)
    elif _lags(row, line := row.line, holding, day=day, now=now):
        return None
    else:
        _note_change(row, line, holding, day=day, now=now)
    # the balance was read between the two times, so both must be before trading
    is_before_trading = positions.is_before_trading(asked_at) and positions.is_before_trading(now)
    row.line = positions.position_after_balance(line, day, holding, is_before_trading=is_before_trading)
    row.last_avg_price = row.avg_price or row.last_avg_price
    row.stock_name = holding.name or row.stock_name
    # the feed may have set a newer price since; a price from the future means that a rehearsal's clock was set back
    is_newest = row.priced_at is None or not asked_at < row.priced_at <= now
    if holding.price and is_newest:
        row.current_price, row.priced_at, row.price_source = holding.price, asked_at, PriceSource.BALANCE
    # a holding without a price is valued at its cost until a price arrives
    row.current_price = row.current_price or round(row.avg_price)
    row.profit_rate = positions.profit_rate_pct(row.avg_price, row.current_price)
    row.balance_won = _counted_won(row, holding)
    row.lags_since = None
    row.synced_at = row.updated_at = now
    return row


def _keep_unparsed(row: Portfolio | None, line: UnparsedHolding) -> None:
    """Keep a holding whose line cannot be parsed: the balance's total includes it at an unknown value."""
    log.warning("line of the balance cannot be parsed: %s", line)
    if row is None:
        return
    row.balance_won, row.uncounted = row.quantity * row.current_price, []
    row.save(update_fields=["balance_won", "uncounted"])


def _is_gone(row: Portfolio, *, day: date, now: datetime) -> bool:
    """Whether a holding that is missing from the balance is really gone."""
    no_shares = Holding(row.stock_code, row.stock_name, 0, 0, Decimal(0), row.current_price, 0, Decimal(0), 0, 0)
    if _lags(row, row.line, no_shares, day=day, now=now):
        return False
    _note_change(row, row.line, no_shares, day=day, now=now)
    return True


# The columns of a holding that a balance sets, with their PostgreSQL types. One statement writes all rows, passed as
# JSON, which psycopg sends faster than one array per column.
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
    """Write the locked rows, and insert the new ones. A row that a fill has inserted meanwhile is not changed."""
    existing, new = [row for row in rows if row.pk], [row for row in rows if not row.pk]
    if existing:
        payload = json.dumps([{name: getattr(row, name) for name in _TAKEN} for row in existing], default=str)
        with connection.cursor() as cursor:
            cursor.execute(_WRITE, [now, now, payload])
    if new:
        Portfolio.objects.bulk_create(new, ignore_conflicts=True)


def _lags(row: Portfolio, line: PositionCounts, holding: Holding, *, day: date, now: datetime) -> bool:
    """Whether the balance lags behind our own fills of this holding. It may lag for LAG_PATIENCE at most."""
    if not positions.lags(line, day, holding.bought_today, holding.sold_today):
        return False
    row.lags_since = row.lags_since or now
    if now - row.lags_since < LAG_PATIENCE:
        row.line = positions.without_counted(line, day, holding.bought_today, holding.sold_today)
        row.balance_won = _counted_won(row, holding)
        row.save(update_fields=["lags_since", "balance_won", "uncounted"])
        log.info("the balance of %s has not counted all our fills yet: the holding is kept", row.stock_code)
        return True
    log.error("the balance of %s contradicts our fills since %s: it is stored now", row.stock_code, row.lags_since)
    return False


def _counted_won(row: Portfolio, holding: Holding) -> int:
    """Return the value, in won, that the balance's total includes for this holding."""
    return (row.quantity - row.line.uncounted_qty) * (holding.price or row.current_price)


def _note_change(row: Portfolio, line: PositionCounts, holding: Holding, *, day: date, now: datetime) -> None:
    """Record a change of a holding without a trade. The balance is stored in any case."""
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
    """Count an execution of ours (a negative `qty` takes one back); return the average price before it, in won.

    For a sale, that is the cost per share sold; 0 if the broker never reported it. `cost_won` is the commission and
    tax, negative if the execution is taken back. Call it inside the fill's transaction.
    """
    day = executed_at.astimezone(KST).date()
    defaults = {
        "stock_name": name,
        "quantity": 0,
        "avg_price": Decimal(0),
        "counted_on": day,
        "current_price": int(price),
        "updated_at": executed_at,
    }
    rows = sql.select(Portfolio, {"stock_code": code}, lock=True)
    row = (
        rows[0] if rows else Portfolio.objects.select_for_update().get_or_create(stock_code=code, defaults=defaults)[0]
    )
    average_before = row.avg_price or row.last_avg_price
    if not row.quantity:  # the price is not followed while no shares are held
        row.current_price, row.priced_at = int(price), None
    row.line = positions.position_after_fill(row.line, day, side, qty, price, cost_won=cost_won)
    row.last_avg_price = row.avg_price or average_before
    row.profit_rate = positions.profit_rate_pct(row.avg_price, row.current_price)
    row.updated_at = executed_at
    sql.save(row)
    return average_before


# One statement for all stocks. It does not wait for a locked row: its code is returned, and the caller marks it again.
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
    """Set the current prices of held stocks, in won, by code; return the codes of locked rows, to be marked again.

    Raises DatabaseError, and then sets nothing.
    """
    if not prices:
        return frozenset()
    with connection.cursor() as cursor:
        cursor.execute(_MARK, [list(prices), list(prices.values()), source.value, at, at])
        return frozenset(code for (code,) in cursor.fetchall())
