"""The pre-trade context: everything the risk checks need from our own tables, read in one statement.

The first checks use it before the order is priced. The order is committed only if no competing order changed since.
It is SQL because Django takes longer to build ten queries than PostgreSQL to answer them.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from functools import cache, lru_cache
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import F

from aegis.market_halts import HaltKind
from aegis.risk import ExposureFromOtherOrders, Limits, RestingOrder, RiskInputs
from aegis.sessions import KST, Phase
from aegis.terms import Market, Side
from aegis.ticks import DAILY_LIMIT_PERCENT
from aegis.trading_state import TradingState
from infra import sql
from market import queries
from market.models import Stock, TradingSession
from orders.models import BlacklistedStock, OrderSequence, TradingSwitch

MINUTE = timedelta(minutes=1)
# a reconciliation older than this is stale; one runs each minute
FRESH = timedelta(seconds=150)
# a row dated further in the future than this was written before the clock was set back: clocks of machines differ less
MAX_CLOCK_SKEW = timedelta(seconds=10)
# an order that is still SUBMITTING after this may have lost its sender: it blocks others like an unknown outcome
IN_TRANSIT_MAX = timedelta(seconds=10)
NO_FAMILY = -1

# The holding, and the exposure from unsettled orders of other families: orders being sent, with an unknown outcome, or
# open at the broker. For an order without a price the broker reserves the upper limit, which is estimated as 30 % above
# the arrival price. An amend reuses what its original reserves: until the list shows the amend, its shares count once,
# and unknown cash counts only the increase of the price.
# UNVERIFIED: the upper limit is estimated from the arrival price; the day's base price may be higher
# two SELECTs, so that each uses its own index
_ORDERS_NOT_OVER = """
    SELECT * FROM trade_orders
    WHERE stock_code = %(stock_code)s AND status IN ('PARTIAL', 'PENDING', 'SUBMITTING', 'UNKNOWN')
    UNION ALL
    SELECT * FROM trade_orders WHERE stock_code <> %(stock_code)s AND status IN ('SUBMITTING', 'UNKNOWN')
"""
_UNSETTLED = f"""
    SELECT min(id) FILTER (WHERE is_unknown AND NOT is_amend AND is_same_side AND is_here) AS frozen,
           min(id) FILTER (WHERE is_unknown AND is_amend AND is_same_side AND is_here) AS frozen_amend,
           sum(qty * CASE WHEN is_amend THEN greatest(0, price - old_price) WHEN price > 0 THEN price
                          ELSE arrival_price * {100 + DAILY_LIMIT_PERCENT} / 100 END)
               FILTER (WHERE is_unknown AND order_type = 'BUY') AS cash,
           sum(qty) FILTER (WHERE is_unknown AND NOT is_amend AND order_type = 'SELL' AND is_here) AS shares,
           sum(greatest(0, qty - filled_qty - withdrawn_qty - moving))
               FILTER (WHERE order_type = 'BUY' AND is_here) AS open_buys,
           json_agg(json_build_array(id, market, price) ORDER BY id)
               FILTER (WHERE NOT is_same_side AND is_here) AS opposite,
           (SELECT quantity FROM portfolio WHERE stock_code = %(stock_code)s) AS held,
           (SELECT coalesce(outcome IN ('WHOLE', 'PARTLY') AND at >= %(fresh_since)s, false)
            FROM reconciliations WHERE at <= %(latest)s ORDER BY at DESC, id DESC LIMIT 1) AS is_reconciled
    FROM (
        SELECT id, market, order_type, price, qty, filled_qty, withdrawn_qty, arrival_price,
               stock_code = %(stock_code)s AS is_here, order_type = %(order_type)s AS is_same_side,
               status = 'UNKNOWN' OR (status = 'SUBMITTING' AND created_at <= %(silent_since)s)
                   OR missing_since IS NOT NULL AS is_unknown,
               replaces_id IS NOT NULL AND status IN ('SUBMITTING', 'UNKNOWN') AS is_amend,
               (SELECT price FROM trade_orders AS old WHERE old.id = own.replaces_id) AS old_price,
               (SELECT coalesce(sum(qty), 0) FROM broker_requests AS request
                WHERE order_id = own.id AND kind = 'AMEND'
                  AND request.state IN ('REQUESTED', 'SENT', 'ACKNOWLEDGED', 'UNKNOWN')) AS moving
        FROM ({_ORDERS_NOT_OVER}) AS own
        WHERE id <> %(family)s AND coalesce(root_id, 0) <> %(family)s
    ) AS other
"""  # noqa: S608
# Everything an order competes with: the trading state, a circuit breaker that has not ended, the number of commits so
# far, today's orders, a duplicate order, and the unsettled exposure, as columns and as one text to compare later. An
# order without a price counts at its arrival price.
COMPETING = f"""
    SELECT (SELECT state FROM trading_switch WHERE id = {TradingSwitch.ONLY_PK}),
           (SELECT began_at FROM market_halts WHERE kind = '{HaltKind.CIRCUIT_BREAKER}' AND ended_at IS NULL),
           (SELECT commits FROM order_sequence WHERE id = {OrderSequence.ONLY_PK}), today.*,
           (SELECT max(id) FROM trade_orders
            WHERE stock_code = %(stock_code)s AND created_at > %(twin_since)s AND order_date = %(today)s
              AND order_type = %(order_type)s AND qty = %(qty)s AND status <> 'REJECTED'
              AND strategy = %(strategy)s AND (strategy <> '' OR price = %(price)s)
              AND root_id IS NULL AND origin = 'AEGIS' AND id <> %(family)s),
           unsettled.*, unsettled::text
    FROM (
        SELECT count(*) FILTER (WHERE order_type = %(order_type)s AND created_at > %(a_minute_ago)s),
               sum(qty * CASE WHEN price > 0 THEN price ELSE arrival_price END)
                   FILTER (WHERE order_type = 'BUY' AND status <> 'REJECTED')
        FROM trade_orders
        WHERE order_date = %(today)s AND root_id IS NULL AND origin = 'AEGIS' AND id <> %(family)s
    ) AS today
    CROSS JOIN ({_UNSETTLED}) AS unsettled
"""  # noqa: S608
# Compare and increment: succeeds only if the trading state, the number of commits and the unsettled exposure are
# unchanged since they were read, and the chase of the order that it follows has not ended. A transaction that waits
# here for another commit finds the number changed. The trading state is only read, so its changes and the commits of
# orders do not wait for each other. The last check before sending sees a change that this statement does not see.
COMPARE_AND_COUNT = f"""
    UPDATE order_sequence SET commits = commits + 1
    WHERE id = {OrderSequence.ONLY_PK} AND commits = %(seen_commits)s
      AND coalesce((SELECT state FROM trading_switch WHERE id = {TradingSwitch.ONLY_PK}), 'ACTIVE') = %(seen_state)s
      AND (SELECT unsettled::text FROM ({_UNSETTLED}) AS unsettled) = %(seen_unsettled)s
      AND (%(follows)s::bigint IS NULL OR (SELECT chase_at FROM trade_orders WHERE id = %(follows)s) IS NOT NULL)
    RETURNING commits
"""  # noqa: S608
CONTEXT = """
    SELECT (SELECT id FROM trade_orders WHERE request_id = %(request_id)s),
           (SELECT reason FROM blacklist
            WHERE stock_code = %(stock_code)s AND {in_force} LIMIT 1),
           (SELECT is_open FROM trading_days WHERE date = %(today)s),
           (SELECT json_agg(trading_sessions ORDER BY market, starts_at, phase)::text
            FROM trading_sessions WHERE day_id = %(today)s),
           (SELECT total_asset FROM account_snapshots ORDER BY timestamp DESC LIMIT 1),
           competing.*, {stock}
    FROM ({competing}) AS competing LEFT JOIN stocks ON stocks.code = %(stock_code)s
"""


@dataclass(frozen=True, slots=True)
class PreTradeQuery:
    """The order to check. `price` is in won, 0 if the caller names none; `family` is the root of the order's family."""

    code: str
    side: Side
    qty: int
    price: int
    strategy: str
    request_id: str
    family: int | None = None


@dataclass(frozen=True, slots=True)
class CompetingOrders:
    """The state that other processes may change at any moment, as read for `query`.

    `breaker_since` is the start of a circuit breaker that has not ended. `reconciled`: the newest reconciliation
    succeeded and is not stale. `commits` is the number of orders ever committed, None before the first. `held_qty` is
    the holding in shares as last known. `unsettled` is the unsettled exposure as PostgreSQL prints the row.
    """

    query: PreTradeQuery
    state: TradingState
    breaker_since: datetime | None
    commits: int | None
    reconciled: bool
    held_qty: int
    others: ExposureFromOtherOrders
    unsettled: str


@dataclass(frozen=True, slots=True)
class PreTradeContext:
    """Everything our tables contain about an intended order at `now`, and the operator's limits.

    `existing_order` is the key of the order with its request id. `blacklisted` is the blacklist's reason, None if there
    is none. `stock` is None if the broker was never asked for it. `total_asset` is in won, by the last balance.
    """

    now: datetime
    limits: Limits
    existing_order: int | None
    blacklisted: str | None
    phases: tuple[Phase, ...]
    total_asset: int | None
    competing: CompetingOrders
    stock: Stock | None


def load_context(query: PreTradeQuery, *, limits: Limits, now: datetime) -> PreTradeContext:
    """Return the pre-trade context of an order, in one query."""
    statement, stock = _statement()
    row = _fetch_row(statement, query, now)
    order_pk, blacklisted, is_open, sessions, total_asset, *rest = row
    competing, values = rest[: -len(stock)], rest[-len(stock) :]
    # a day that has no row yet follows the calendar library
    phases = queries.today(now) if is_open is None else _phases(sessions or "[]") if is_open else ()
    return PreTradeContext(
        now=now,
        limits=limits,
        existing_order=order_pk,
        blacklisted=blacklisted,
        phases=phases,
        total_asset=total_asset,
        competing=_competing_orders(query, competing),
        stock=_synced(Stock.from_db(connection.alias, stock, values)) if values[0] else None,
    )


def with_current_exposure(facts: RiskInputs, competing: CompetingOrders) -> RiskInputs:
    """Return the risk inputs of an order with its current competing orders."""
    return replace(
        facts,
        state=competing.state,
        breaker_since=competing.breaker_since,
        reconciled=competing.reconciled,
        held_qty=competing.held_qty,
        others=competing.others,
    )


def load_competing_orders(query: PreTradeQuery, *, now: datetime) -> CompetingOrders:
    """Return the current competing orders of an order, in one query."""
    return _competing_orders(query, _fetch_row(COMPETING, query, now))


def bump_commits() -> None:
    """Block commits of orders until the transaction ends; each order being committed is then checked again."""
    OrderSequence.objects.filter(pk=OrderSequence.ONLY_PK).update(commits=F("commits") + 1)


def version_params(competing: CompetingOrders, *, now: datetime) -> dict[str, Any]:
    """Return the parameters of `COMPARE_AND_COUNT` for an order that was checked with these competing orders."""
    return {
        **_unsettled_params(competing.query, now),
        "seen_state": competing.state.value,
        "seen_commits": competing.commits,
        "seen_unsettled": competing.unsettled,
    }


def _unsettled_params(query: PreTradeQuery, now: datetime) -> dict[str, Any]:
    return {
        "fresh_since": now - FRESH,
        "latest": now + MAX_CLOCK_SKEW,
        "silent_since": now - IN_TRANSIT_MAX,
        "order_type": query.side.value,
        "stock_code": query.code,
        "family": query.family or NO_FAMILY,
    }


def _fetch_row(statement: str, query: PreTradeQuery, now: datetime) -> Any:
    params = {
        **_unsettled_params(query, now),
        "today": now.astimezone(KST).date(),
        "a_minute_ago": now - MINUTE,
        "twin_since": now - timedelta(seconds=settings.DUPLICATE_SECONDS),
        "qty": query.qty,
        "price": query.price,
        "strategy": query.strategy,
        "request_id": query.request_id,
    }
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchone()


def _competing_orders(query: PreTradeQuery, row: Any) -> CompetingOrders:
    (
        state, breaker_since, commits, last_minute, bought, twin, frozen, frozen_amend, cash, shares, open_buys,
        opposite, held_qty, is_reconciled, unsettled,
    ) = row  # fmt: skip
    exposure = ExposureFromOtherOrders(
        last_minute=last_minute,
        bought_today_won=int(bought or 0),
        duplicate_of=_order_name(twin),
        blocked_by_unknown=_order_name(frozen),
        blocked_by_unknown_amend=_order_name(frozen_amend),
        unknown_cash_won=int(cash or 0),
        unknown_qty=int(shares or 0),
        open_buy_qty=int(open_buys or 0),
        opposite=tuple(RestingOrder(_order_name(pk), Market(market), price) for pk, market, price in _json(opposite)),
    )
    state = TradingState(state or TradingState.ACTIVE)
    is_reconciled = bool(is_reconciled)
    return CompetingOrders(query, state, breaker_since, commits, is_reconciled, held_qty or 0, exposure, unsettled)


def _json(value: Any) -> Any:
    """Return a JSON list of the database, empty for NULL; the driver may return it as text."""
    return json.loads(value) if isinstance(value, str) else value or ()


def _synced(stock: Stock) -> Stock | None:
    """Return the stock if the broker was asked for it: the master file does not say whether NXT trades a stock."""
    return stock if stock.synced_at else None


def _order_name(pk: int | None) -> str:
    return f"#{pk}" if pk else ""


@cache
def _statement() -> tuple[str, list[str]]:
    """Return the statement of `load_context`, and the stock's fields, which are the last columns of its row."""
    fields = Stock._meta.concrete_fields
    columns = sql.columns(Stock, "stocks.")
    # psycopg keeps its parse of a statement of at most 4,096 bytes and 50 parameters
    statement = " ".join(CONTEXT.format(competing=COMPETING, stock=columns, in_force=BlacklistedStock.IN_FORCE).split())
    return statement, [field.attname for field in fields]


@lru_cache(maxsize=8)
def _phases(rows: str) -> tuple[Phase, ...]:
    """Return a day's phases from their rows as JSON text. Cached, as the same text always gives the same phases."""
    return tuple(_session(row).as_phase() for row in json.loads(rows))


def _session(row: dict[str, Any]) -> TradingSession:
    starts_at, ends_at = time.fromisoformat(row["starts_at"]), time.fromisoformat(row["ends_at"])
    return TradingSession(**{**row, "starts_at": starts_at, "ends_at": ends_at})
