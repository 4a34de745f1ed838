"""The context of each part of the dashboard: facts from the tables and from Redis, one or two queries each.

No part calls the broker. Times whose age matters are passed as they are; the page calculates their age.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, TypedDict

import redis
from django.conf import settings
from django.db import connection
from django.db.models import F, Q, Sum, Window
from django.db.models.functions import RowNumber, TruncDate
from django.template.loader import render_to_string
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from aegis import stops
from aegis.lifecycle import UNSETTLED, Status
from aegis.sessions import KST, Phase, PhaseName
from aegis.terms import Market
from desk.timeline import differences
from kis import factory
from kis.status import SocketState, StreamStatus
from market import queries
from market.models import DailyPrice, MarketCandle, MarketMacro
from monitor.health import check_undelivered, queue_depths
from orders import kill_switch
from orders.models import MarketHalt, Reconciliation, StopRule, TradeExecution, TradeOrder, TradingSwitch
from orders.stop_rows import LIVE
from portfolio.models import AccountSnapshot, Portfolio
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

PHASES = {
    PhaseName.OPENING_AUCTION: gettext_noop("opening auction"),
    PhaseName.PRE_OPEN_CLOSE: gettext_noop("at yesterday's close"),
    PhaseName.PRE_MARKET: gettext_noop("pre-market"),
    PhaseName.REGULAR: gettext_noop("regular session"),
    PhaseName.CLOSING_AUCTION: gettext_noop("closing auction"),
    PhaseName.POST_CLOSE: gettext_noop("at the close"),
    PhaseName.AFTER_HOURS_SINGLE: gettext_noop("after hours, single price"),
    PhaseName.AFTER_AUCTION: gettext_noop("auction before the after-market"),
    PhaseName.AFTER_MARKET: gettext_noop("after-market"),
}
SOCKET = {
    SocketState.NONE: gettext_noop("no process holds it"),
    SocketState.STALE: gettext_noop("no sign of life from its holder"),
    SocketState.CONNECTING: gettext_noop("connecting"),
    SocketState.CONNECTED: gettext_noop("connected"),
    SocketState.LOST: gettext_noop("lost"),
    SocketState.STOPPED: gettext_noop("stopped"),
}
EXECUTIONS_SHOWN = 60
CANDLES_SHOWN = 780  # minutes from eight in the morning to nine at night
DAYS_SHOWN = 250
DAYS_OF_CURVE = 400
KST_SECONDS = 9 * 3600


def render_parts(language: str, now: datetime) -> dict[str, str]:
    """Return the page's parts as HTML, by name."""
    with translation.override(language):
        return {name: render_to_string(f"desk/parts/{name}.html", part(now)) for name, part in PARTS.items()}


def account_part(now: datetime) -> dict[str, Any]:
    snapshot = PortfolioService().get_snapshot()
    if snapshot is None:
        return {"snapshot": None}
    before = snapshot.total_asset - snapshot.net_profit_today
    rate = snapshot.net_profit_today * 100 / before if before else 0
    return {"snapshot": snapshot, "rate": rate}


@dataclass(frozen=True, slots=True)
class Stop:
    """A live stop: the price in won at which it sells, and the distance of that price from the last one, in percent."""

    rule: StopRule
    limit: int
    away: float | None


@dataclass(frozen=True, slots=True)
class HoldingRow:
    """A holding, with its value and profit in won, and its profit rate in percent."""

    row: Portfolio
    value: int
    profit: int
    rate: float
    stops: Sequence[Stop]


def holdings_part(now: datetime) -> dict[str, Any]:
    rules = defaultdict(list)
    for rule in StopRule.objects.filter(state__in=LIVE).order_by("kind"):
        rules[rule.stock_code].append(rule)
    rows = [_held(row, rules[row.stock_code]) for row in PortfolioService().get_portfolio()]
    rows.sort(key=lambda holding: -holding.value)
    cost = sum(holding.value - holding.profit for holding in rows)
    profit = sum(holding.profit for holding in rows)
    return {
        "holdings": rows,
        "value": sum(holding.value for holding in rows),
        "profit": profit,
        "rate": profit * 100 / cost if cost else 0,
    }


def _held(row: Portfolio, rules: Sequence[StopRule]) -> HoldingRow:
    value, cost = row.quantity * row.current_price, round(row.quantity * row.avg_price)
    profit = value - cost if row.current_price else 0
    return HoldingRow(row, value, profit, profit * 100 / cost if cost else 0, [_stop(rule, row) for rule in rules])


def _stop(rule: StopRule, row: Portfolio) -> Stop:
    limit = stops.trigger_limit(rule.rule(row.avg_price))
    return Stop(rule, limit, (limit / row.current_price - 1) * 100 if row.current_price else None)


def open_orders_part(now: datetime) -> dict[str, Any]:
    unsettled = TradeOrder.objects.filter(status__in=UNSETTLED).select_related("root").order_by("-created_at", "-id")
    orders = [(order, differences(order)) for order in unsettled]
    return {"orders": orders, "unknown": sum(order.state is Status.UNKNOWN for order, _notes in orders)}


def executions_part(now: datetime) -> dict[str, Any]:
    of_today = TradeExecution.objects.filter(executed_at__gte=_midnight(now), voided_at=None)
    sums = of_today.aggregate(
        bought=Sum("exec_amount", filter=Q(order__order_type="BUY")),
        sold=Sum("exec_amount", filter=Q(order__order_type="SELL")),
        profit=Sum("realized_profit"),
        fee=Sum("fee"),
        tax=Sum("tax"),
    )
    fills = of_today.select_related("order").order_by("-executed_at", "-id")[:EXECUTIONS_SHOWN]
    return {"fills": fills, **{name: total or 0 for name, total in sums.items()}}


def basis_part(now: datetime) -> dict[str, Any]:
    phases = queries.today(now)
    at = now.astimezone(KST).time()
    running = {
        venue.value: next(
            (_(PHASES[phase.name]) for phase in phases if phase.market is venue and _includes(phase, at)), ""
        )
        for venue in (Market.KRX, Market.NXT)
    }
    halts = list(MarketHalt.objects.filter(ended_at=None))
    return {"macro": MarketMacro.objects.order_by("-time").first(), "running": running, "halts": halts}


def _includes(phase: Phase, moment: time) -> bool:
    return bool(phase.starts_at <= moment < phase.ends_at)


def health_part(now: datetime) -> dict[str, Any]:
    return {
        "switch": TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).first(),
        "last_reconciliation": Reconciliation.objects.first(),
        "undelivered": check_undelivered(now),
        **_synced_and_armed(),
        **_from_redis(),
    }


def _synced_and_armed() -> dict[str, Any]:
    """Return the time of the last balance, and the explanation of a halt with the number of live stops. One query."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT max(timestamp) FROM account_snapshots), "
            "(SELECT count(*) FROM stop_rules WHERE state = ANY(%s))",
            [[state.value for state in kill_switch.LIVE_STOPS]],
        )
        synced_at, count = cursor.fetchone()
    return {"synced_at": synced_at, "armed": count, "about_halting": kill_switch.explain_halt(count)}


def _from_redis() -> dict[str, Any]:
    """Return the facts in Redis: the socket, the call limit, the queues. `redis` is False if it cannot be read."""
    try:
        stream = factory.stream_status()
        socket = {"socket": _(SOCKET[stream.state]), "frame_age": _frame_age(stream)}
        return {"redis": True, "stream": stream, **socket, **_throttle(), "queues": queue_depths()}
    except redis.RedisError as error:
        log.warning("the dashboard cannot read Redis: %s", error)
        return {"redis": False, "stream": StreamStatus(), "socket": "?", "queues": {}}


def _frame_age(stream: StreamStatus) -> int | None:
    return None if stream.frame_age is None else int(stream.frame_age)


def _throttle() -> dict[str, Any]:
    """Return the number of calls in use, the call limit, and whether it is reduced."""
    throttle, limit = factory.call_throttle(), settings.KIS_CALLS_PER_SECOND
    return {"calls": min(throttle.in_use(), limit), "limit": limit, "slowed": throttle.is_slowed()}


PARTS: dict[str, Callable[[datetime], dict[str, Any]]] = {
    "health": health_part,
    "account": account_part,
    "basis": basis_part,
    "holdings": holdings_part,
    "open_orders": open_orders_part,
    "executions": executions_part,
}


def _midnight(now: datetime) -> datetime:
    return datetime.combine(now.astimezone(KST).date(), time(), KST)


def _chart_time(moment: datetime) -> int:
    """Return a moment in seconds for the chart, which has no time zones: Korean time, written as if it were UTC."""
    return int(moment.timestamp()) + KST_SECONDS


def equity(now: datetime, *, of_today: bool) -> list[dict[str, int | str]]:
    """Return the total asset in won: one point per minute of the newest day, or the last one of each day."""
    if of_today:
        newest = PortfolioService().get_snapshot()
        since = _midnight(newest.timestamp if newest else now)
        points = AccountSnapshot.objects.filter(timestamp__gte=since).order_by("timestamp")
        by_minute = {_chart_time(at) // 60 * 60: total for at, total in points.values_list("timestamp", "total_asset")}
        return [{"time": at, "value": total} for at, total in by_minute.items()]
    of_day = Window(RowNumber(), partition_by=[TruncDate("timestamp")], order_by=F("timestamp").desc())
    recent = AccountSnapshot.objects.filter(timestamp__gte=now - timedelta(days=DAYS_OF_CURVE))
    days = recent.annotate(from_last=of_day).filter(from_last=1).order_by("timestamp")
    rows = days.values_list("timestamp", "total_asset")
    return [{"time": f"{at.astimezone(KST):%Y-%m-%d}", "value": total} for at, total in rows]


def candles(code: str, now: datetime, *, by_day: bool) -> dict[str, Any]:
    """Return the bars of a stock and our fills: the minute bars of its newest day, or its daily bars."""
    if by_day:
        days = DailyPrice.objects.filter(stock_code=code).order_by("-date")[:DAYS_SHOWN]
        bars = [_bar(f"{day.date:%Y-%m-%d}", day) for day in reversed(days)]
        since = days[len(days) - 1].date if days else now.date()
        return {"bars": bars, "fills": _marks(code, datetime.combine(since, time(), KST), lambda at: f"{at:%Y-%m-%d}")}
    newest = MarketCandle.objects.filter(symbol=code).order_by("-time").values_list("time", flat=True).first()
    since = _midnight(newest or now)
    rows = MarketCandle.objects.filter(symbol=code, time__range=(since, since + timedelta(days=1))).order_by("time")
    return {"bars": _merged(rows), "fills": _marks(code, since, lambda at: _chart_time(at) // 60 * 60)}


class ChartBar(TypedDict):
    """A candle in the chart's format: its time or day, prices in won, volume in shares."""

    time: int | str
    open: int
    high: int
    low: int
    close: int
    volume: int


def _bar(at: int | str, row: DailyPrice | MarketCandle) -> ChartBar:
    return {
        "time": at,
        "open": row.open,
        "high": row.high,
        "low": row.low,
        "close": row.close,
        "volume": row.volume,
    }


def _merged(rows: Iterable[MarketCandle]) -> list[ChartBar]:
    """Return one bar per minute. If both venues traded: the range and volume of both, the open and close of KRX."""
    bars: dict[int, ChartBar] = {}
    for row in rows:
        at = _chart_time(row.time)
        bar = _bar(at, row)
        if (other := bars.get(at)) is not None:
            first, second = (bar, other) if row.venue == Market.KRX else (other, bar)
            bar = first | {
                "high": max(first["high"], second["high"]),
                "low": min(first["low"], second["low"]),
                "volume": first["volume"] + second["volume"],
            }
        bars[at] = bar
    return list(bars.values())[-CANDLES_SHOWN:]


def _marks(code: str, since: datetime, at: Callable[[datetime], int | str]) -> list[dict[str, Any]]:
    fills = TradeExecution.objects.filter(stock_code=code, executed_at__gte=since, voided_at=None)
    rows = fills.order_by("executed_at").values_list("executed_at", "order__order_type", "exec_qty", "exec_price")
    return [
        {"time": at(moment.astimezone(KST)), "side": side, "qty": qty, "price": int(price)}
        for moment, side, qty, price in rows
    ]


def chart_stocks(today: date) -> list[tuple[str, str]]:
    """Return the stocks to offer a chart of, as code and name: first the holdings, then the stocks of recent orders."""
    stocks = {row.stock_code: row.stock_name for row in PortfolioService().get_portfolio()}
    orders = TradeOrder.objects.filter(order_date__gte=today - timedelta(days=7)).order_by("stock_code")
    for code, name in orders.values_list("stock_code", "stock_name").distinct():
        stocks.setdefault(code, name)
    return list(stocks.items())
