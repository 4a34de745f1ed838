"""What the risk checks must know of our own tables about an order, read in one statement.

An order is judged by this before it is priced, and committed only if the orders it competes with are still the same.
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

from aegis.broker import OrderRequest
from aegis.market_halts import HaltKind
from aegis.risk import ExposureFromOtherOrders, RestingOrder, RiskInputs, TradingState
from aegis.sessions import KST, Phase
from aegis.terms import Instrument, Market, Side
from aegis.ticks import DAILY_LIMIT_PERCENT
from infra import sql
from market import queries
from market.models import Stock, TradingSession
from orders import risk
from orders.models import OrderSequence, TradingSwitch

MINUTE = timedelta(minutes=1)
# a look at the broker's list older than this says nothing about now: one is taken each minute
FRESH = timedelta(seconds=150)
# a row of later than this was written before the clock was set back: machines' clocks are not so far apart
CLOCKS_APART = timedelta(seconds=10)
# an order that is still on its way after this may have lost its sender: it freezes like one of unknown fate
ON_ITS_WAY = timedelta(seconds=10)
NO_FAMILY = -1

# What is held, and what orders on their way, of unknown fate or open at the broker may still do to an order like this,
# but for its own family. Without a price the broker holds back the upper limit: 30 % more than the last trade, as far
# as known here. An amend takes what its original holds: until the list names it, that counts once, and in unknown cash
# only what it costs more.
# UNVERIFIED: the upper limit is reckoned from the price at arrival; the day's base may be higher
# two halves, each by its own index
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
# What the other orders mean for one: the trading state and a circuit breaker that goes on, how many orders were ever
# committed, today's orders, a twin, and what is not settled, in figures and once more as it stands. Without a price an
# order is worth what the last trade was.
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
# Compares and counts: succeeds only if the trading state, the count of commits and what is not settled are still as
# they were seen, and the chase of the order that it follows goes on. Who waits here for another order finds the count
# changed. The trading state is only read: whoever changes it waits for no order, and no order for him. A change that
# this statement does not see is seen by the last check before the order leaves.
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
            WHERE stock_code = %(stock_code)s AND (until IS NULL OR until >= %(today)s) LIMIT 1),
           (SELECT is_open FROM trading_days WHERE date = %(today)s),
           (SELECT json_agg(trading_sessions ORDER BY market, starts_at, phase)::text
            FROM trading_sessions WHERE day_id = %(today)s),
           (SELECT total_asset FROM account_snapshots ORDER BY timestamp DESC LIMIT 1),
           competing.*, {stock}
    FROM ({competing}) AS competing LEFT JOIN stocks ON stocks.code = %(stock_code)s
"""


@dataclass(frozen=True, slots=True)
class PreTradeQuery:
    """The order that is asked about; `price` 0 where the caller names none, `family` the root it chases for."""

    code: str
    side: Side
    qty: int
    price: int
    strategy: str
    request_id: str
    family: int | None = None


@dataclass(frozen=True, slots=True)
class CompetingOrders:
    """What others may change from one moment to the next, as it was for `query`.

    `breaker_since`: a circuit breaker goes on since then. `reconciled` says that the newest look at the broker's list
    told of our orders, not long ago. `commits` orders were ever committed, None before the first; `held_qty` are shares
    as last seen; `unsettled` is what is not settled, in the database's own words.
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
    """What our tables say about an order to be. `known` is the row that its request has already.

    `stock` is None where the broker was never asked for it; `total_asset` in won is as last seen.
    """

    known: int | None
    blacklisted: str | None
    phases: tuple[Phase, ...]
    total_asset: int | None
    competing: CompetingOrders
    stock: Stock | None


def load_context(query: PreTradeQuery, *, now: datetime) -> PreTradeContext:
    """Return everything that is known here about an order, in one query."""
    statement, stock = _statement()
    row = _ask(statement, query, now)
    known, blacklisted, is_open, sessions, total, *rest = row
    others, columns = rest[: -len(stock)], rest[-len(stock) :]
    # a day that is not laid down yet goes by the calendar
    phases = queries.today(now) if is_open is None else _phases(sessions or "[]") if is_open else ()
    return PreTradeContext(
        known=known,
        blacklisted=blacklisted,
        phases=phases,
        total_asset=total,
        competing=_competing_orders(query, others),
        stock=_known(Stock.from_db(connection.alias, stock, columns)) if columns[0] else None,
    )


def risk_inputs(
    request: OrderRequest,
    stock: Stock,
    context: PreTradeContext,
    *,
    now: datetime,
    is_child_order: bool,
    is_priced: bool,
) -> RiskInputs:
    """Return the facts about an order at `now`, as far as the broker need not be asked for them."""
    return RiskInputs(
        request=request,
        now=now.astimezone(KST),
        state=context.competing.state,
        breaker_since=context.competing.breaker_since,
        phases=context.phases,
        instrument=Instrument(stock.instrument),
        trades_on_nxt=stock.trades_on_nxt,
        is_priced=is_priced,
        is_child_order=is_child_order,
        sector=stock.sector,
        blacklisted=context.blacklisted,
        limits=risk.limits(),
        others=context.competing.others,
        held_qty=context.competing.held_qty,
        total_asset=context.total_asset,
    )


def with_current_exposure(facts: RiskInputs, competing: CompetingOrders) -> RiskInputs:
    """Return the facts about an order with what it competes with now."""
    return replace(
        facts,
        state=competing.state,
        breaker_since=competing.breaker_since,
        reconciled=competing.reconciled,
        held_qty=competing.held_qty,
        others=competing.others,
    )


def load_competing_orders(query: PreTradeQuery, *, now: datetime) -> CompetingOrders:
    """Return what an order competes with now, in one query."""
    return _competing_orders(query, _ask(COMPETING, query, now))


def bump_commits() -> None:
    """Hold up commits of orders to the end of the transaction: what is being committed is then judged again."""
    OrderSequence.objects.filter(pk=OrderSequence.ONLY_PK).update(commits=F("commits") + 1)


def version_params(competing: CompetingOrders, *, now: datetime) -> dict[str, Any]:
    """Return the parameters of `COMPARE_AND_COUNT` for an order that was judged with these competing orders."""
    return {
        **_unsettled(competing.query, now),
        "seen_state": competing.state.value,
        "seen_commits": competing.commits,
        "seen_unsettled": competing.unsettled,
    }


def _unsettled(query: PreTradeQuery, now: datetime) -> dict[str, Any]:
    return {
        "fresh_since": now - FRESH,
        "latest": now + CLOCKS_APART,
        "silent_since": now - ON_ITS_WAY,
        "order_type": query.side.value,
        "stock_code": query.code,
        "family": query.family or NO_FAMILY,
    }


def _ask(statement: str, query: PreTradeQuery, now: datetime) -> Any:
    params = {
        **_unsettled(query, now),
        "today": now.astimezone(KST).date(),
        "a_minute_ago": now - MINUTE,
        "twin_since": now - timedelta(seconds=settings.DUPLICATE_SECONDS),
        "qty": query.qty,
        "price": query.price,
        "strategy": query.strategy,
        "request_id": query.request_id,
    }
    (row,) = sql.fetch(statement, params)
    return row


def _competing_orders(query: PreTradeQuery, row: Any) -> CompetingOrders:
    (
        state, breaker_since, commits, last_minute, bought, twin, frozen, frozen_amend, cash, shares, open_buys,
        opposite, held, is_reconciled, unsettled,
    ) = row  # fmt: skip
    others = ExposureFromOtherOrders(
        last_minute=last_minute,
        bought_today_won=int(bought or 0),
        twin=_name(twin),
        blocked_by_unknown=_name(frozen),
        blocked_by_unknown_amend=_name(frozen_amend),
        unknown_cash_won=int(cash or 0),
        unknown_qty=int(shares or 0),
        open_buy_qty=int(open_buys or 0),
        opposite=tuple(RestingOrder(_name(pk), Market(market), price) for pk, market, price in _json(opposite)),
    )
    state = TradingState(state or TradingState.ACTIVE)
    is_reconciled = bool(is_reconciled)
    return CompetingOrders(query, state, breaker_since, commits, is_reconciled, held or 0, others, unsettled)


def _json(value: Any) -> Any:
    """Return a list that the database made, empty for none; a driver may give it as text."""
    return json.loads(value) if isinstance(value, str) else value or ()


def _known(stock: Stock) -> Stock | None:
    """Return a stock that the broker was asked for; of one that is only listed nobody knows whether NXT trades it."""
    return stock if stock.synced_at else None


def _name(pk: int | None) -> str:
    return f"#{pk}" if pk else ""


@cache
def _statement() -> tuple[str, list[str]]:
    """Return the statement, and the stock's fields that end its row."""
    fields = Stock._meta.concrete_fields
    columns = sql.columns(Stock, "stocks.")
    # psycopg keeps its parse of a statement of at most 4,096 bytes and 50 parameters
    statement = " ".join(CONTEXT.format(competing=COMPETING, stock=columns).split())
    return statement, [field.attname for field in fields]


@lru_cache(maxsize=8)
def _phases(rows: str) -> tuple[Phase, ...]:
    """Return a day's phases from their rows; the same text is the same day, however often it is asked for."""
    return tuple(_session(row).as_phase() for row in json.loads(rows))


def _session(row: dict[str, Any]) -> TradingSession:
    starts_at, ends_at = time.fromisoformat(row["starts_at"]), time.fromisoformat(row["ends_at"])
    return TradingSession(**{**row, "starts_at": starts_at, "ends_at": ends_at})
