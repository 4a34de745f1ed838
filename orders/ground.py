"""What an order stands on: all that the guards want to know of our own tables, asked in one statement.

An order waits for this twice, before it is priced and once more under the lock in which it is committed. The
words are SQL because Django takes longer to put ten questions together than PostgreSQL to answer them.
"""

import json
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from functools import cache, lru_cache
from typing import Any

from django.conf import settings
from django.db import connection

from aegis.broker import OrderRequest
from aegis.guards import Facts, Others, TradingState
from aegis.sessions import KST, Phase
from aegis.terms import Instrument, Side
from aegis.ticks import DAILY_LIMIT_PERCENT
from market import service as market
from market.models import Stock, TradingSession
from orders import guards
from orders.models import TradingSwitch
from orders.reconcile import FRESH

MINUTE = timedelta(minutes=1)
# an order that is still on its way after this may have lost its sender: it freezes like one of unknown fate
ON_ITS_WAY = timedelta(seconds=10)
NO_FAMILY = -1

# Whether the broker's list was read, then what the other orders mean for one: today's, and every one that is not
# settled yet, but for its own family. Without a price an order is worth what the last trade was, and the broker
# holds back the upper limit: 30 % more, as far as known here.
# UNVERIFIED: the upper limit is reckoned from the price at arrival; the day's base may be higher
CROWD = """
    SELECT (SELECT outcome IN ('WHOLE', 'PARTLY') AND at >= %(fresh_since)s
            FROM reconciliations ORDER BY id DESC LIMIT 1),
           today.*,
           (SELECT max(id) FROM trade_orders
            WHERE stock_code = %(code)s AND created_at > %(twin_since)s AND order_date = %(today)s
              AND order_type = %(side)s AND qty = %(qty)s AND status <> 'REJECTED'
              AND strategy = %(strategy)s AND (strategy <> '' OR price = %(price)s)
              AND root_id IS NULL AND origin = 'AEGIS' AND id <> %(family)s),
           unsettled.*
    FROM (
        SELECT max(id),
               count(*) FILTER (WHERE order_type = %(side)s AND created_at > %(a_minute_ago)s),
               sum(qty * CASE WHEN price > 0 THEN price ELSE arrival_price END)
                   FILTER (WHERE order_type = 'BUY' AND status <> 'REJECTED')
        FROM trade_orders
        WHERE id > %(since)s AND order_date = %(today)s
          AND root_id IS NULL AND origin = 'AEGIS' AND id <> %(family)s
    ) AS today, (
        SELECT min(id) FILTER (WHERE is_unknown AND order_type = %(side)s AND stock_code = %(code)s),
               sum(qty * CASE WHEN price > 0 THEN price ELSE arrival_price * %(upper_percent)s / 100 END)
                   FILTER (WHERE is_unknown AND order_type = 'BUY'),
               sum(qty) FILTER (WHERE is_unknown AND order_type = 'SELL' AND stock_code = %(code)s),
               sum(qty - filled_qty) FILTER (WHERE order_type = 'BUY' AND stock_code = %(code)s)
        FROM (
            SELECT *, status = 'UNKNOWN' OR (status = 'SUBMITTING' AND created_at <= %(silent_since)s) AS is_unknown
            FROM trade_orders
            WHERE (status IN ('PARTIAL', 'PENDING') AND stock_code = %(code)s OR status IN ('SUBMITTING', 'UNKNOWN'))
              AND id <> %(family)s AND coalesce(root_id, 0) <> %(family)s
        ) AS other
    ) AS unsettled
"""
SURVEY = """
    SELECT (SELECT id FROM trade_orders WHERE request_id = %(request_id)s),
           (SELECT state FROM trading_switch WHERE id = %(switch)s),
           (SELECT reason FROM blacklist
            WHERE stock_code = %(code)s AND (until IS NULL OR until >= %(today)s) LIMIT 1),
           (SELECT is_open FROM trading_days WHERE date = %(today)s),
           (SELECT json_agg(trading_sessions ORDER BY market, starts_at, phase)::text
            FROM trading_sessions WHERE day_id = %(today)s),
           (SELECT quantity FROM portfolio WHERE stock_code = %(code)s),
           (SELECT total_asset FROM account_snapshots ORDER BY timestamp DESC LIMIT 1),
           crowd.*, {stock}
    FROM ({crowd}) AS crowd LEFT JOIN stocks ON stocks.code = %(code)s
"""


@dataclass(frozen=True, slots=True)
class Question:
    """The order that is asked about; `price` 0 where it names none, `family` the root it chases for."""

    code: str
    side: Side
    qty: int
    price: int
    strategy: str
    request_id: str
    family: int | None = None


@dataclass(frozen=True, slots=True)
class Crowd:
    """What others may change from one moment to the next.

    `reconciled` says that the newest look at the broker's list told of our orders, not long ago. `newest` is the
    newest of today's intents.
    """

    reconciled: bool
    newest: int
    others: Others


@dataclass(frozen=True, slots=True)
class Ground:
    """What our tables say about an order to be. `known` is the row that its request has already.

    `stock` is None where the broker was never asked for it; `held_qty` shares and `total_asset` won are as last seen.
    """

    known: int | None
    state: TradingState
    blacklisted: str | None
    phases: tuple[Phase, ...]
    held_qty: int
    total_asset: int | None
    crowd: Crowd
    stock: Stock | None


def survey(question: Question, *, now: datetime) -> Ground:
    """Return everything that is known of the ground, in one query."""
    statement, stock = _survey()
    row = _ask(statement, question, now, since=0)
    known, state, blacklisted, is_open, sessions, held, total, *rest = row
    others, columns = rest[: -len(stock)], rest[-len(stock) :]
    # a day that is not laid down yet goes by the calendar
    phases = market.today(now) if is_open is None else _phases(sessions or "[]") if is_open else ()
    return Ground(
        known=known,
        state=TradingState(state or TradingState.ACTIVE),
        blacklisted=blacklisted,
        phases=phases,
        held_qty=held or 0,
        total_asset=total,
        crowd=_crowd(others),
        stock=_known(Stock.from_db(connection.alias, stock, columns)) if columns[0] else None,
    )


def facts(
    request: OrderRequest, stock: Stock, found: Ground, *, now: datetime, is_retry: bool, is_priced: bool
) -> Facts:
    """Return the facts about an order at `now`, as far as the broker need not be asked for them."""
    return Facts(
        request=request,
        now=now.astimezone(KST),
        state=found.state,
        phases=found.phases,
        instrument=Instrument(stock.instrument),
        trades_on_nxt=stock.trades_on_nxt,
        is_priced=is_priced,
        is_retry=is_retry,
        sector=stock.sector,
        blacklisted=found.blacklisted,
        limits=guards.limits(),
        others=found.crowd.others,
        held_qty=found.held_qty,
        total_asset=found.total_asset,
    )


def crowd(question: Question, *, seen: Crowd, now: datetime) -> Crowd:
    """Return what has become of the survey's crowd, in one query.

    Of the day's intents only those after it are read, and come on top: intents are committed one by one under the
    switch's lock, so none is newer and numbered lower.
    """
    found = _crowd(_ask(CROWD, question, now, since=seen.newest))
    others = replace(
        found.others,
        last_minute=seen.others.last_minute + found.others.last_minute,
        bought_today_won=seen.others.bought_today_won + found.others.bought_today_won,
    )
    return replace(found, others=others)


def _ask(statement: str, question: Question, now: datetime, *, since: int) -> Any:
    figures = {
        "since": since,
        "switch": TradingSwitch.ONLY_PK,
        "fresh_since": now - FRESH,
        "today": now.astimezone(KST).date(),
        "a_minute_ago": now - MINUTE,
        "silent_since": now - ON_ITS_WAY,
        "twin_since": now - timedelta(seconds=settings.DUPLICATE_SECONDS),
        "upper_percent": 100 + DAILY_LIMIT_PERCENT,
        "side": question.side.value,
        "code": question.code,
        "qty": question.qty,
        "price": question.price,
        "strategy": question.strategy,
        "request_id": question.request_id,
        "family": question.family or NO_FAMILY,
    }
    with connection.cursor() as cursor:
        cursor.execute(statement, figures)
        return cursor.fetchone()


def _crowd(row: Any) -> Crowd:
    reconciled, newest, last_minute, bought, twin, frozen, unknown_cash, unknown_qty, open_buys = row
    others = Others(
        last_minute=last_minute,
        bought_today_won=int(bought or 0),
        twin=_name(twin),
        frozen_by=_name(frozen),
        unknown_cash_won=int(unknown_cash or 0),
        unknown_qty=int(unknown_qty or 0),
        open_buy_qty=int(open_buys or 0),
    )
    return Crowd(bool(reconciled), newest or 0, others)


def _known(stock: Stock) -> Stock | None:
    """Return a stock that the broker was asked for; of one that is only listed nobody knows whether NXT trades it."""
    return stock if stock.synced_at else None


def _name(pk: int | None) -> str:
    return f"#{pk}" if pk else ""


@cache
def _survey() -> tuple[str, list[str]]:
    """Return the statement, and the stock's fields that end its row."""
    fields = Stock._meta.concrete_fields
    columns = ", ".join(f"stocks.{connection.ops.quote_name(field.column)}" for field in fields)
    return SURVEY.format(crowd=CROWD, stock=columns), [field.attname for field in fields]


@lru_cache(maxsize=8)
def _phases(rows: str) -> tuple[Phase, ...]:
    """Return a day's phases from their rows; the same text is the same day, however often it is asked for."""
    return tuple(_session(row).as_phase() for row in json.loads(rows))


def _session(row: dict[str, Any]) -> TradingSession:
    starts_at, ends_at = time.fromisoformat(row["starts_at"]), time.fromisoformat(row["ends_at"])
    return TradingSession(**{**row, "starts_at": starts_at, "ends_at": ends_at})
