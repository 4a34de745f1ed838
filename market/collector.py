"""The only writer of the market's tables: calendar, stock master, daily prices."""

from collections.abc import Iterable
from datetime import date, datetime

from django.db import transaction

from aegis import sessions
from aegis.broker import Broker, CalendarDay
from market.models import DailyPrice, Stock, TradingDay, TradingSession


def sync_calendar(broker: Broker, first: date, *, now: datetime) -> int:
    """Ask the broker which days trade and lay down their phases; return how many days it told of.

    A day that has phases already keeps them while it stays open. Raises BrokerError.
    """
    days = broker.calendar(first)
    for day in days:
        _keep_day(day, now=now)
    return len(days)


@transaction.atomic
def _keep_day(day: CalendarDay, *, now: datetime) -> None:
    row, _ = TradingDay.objects.update_or_create(pk=day.day, defaults={"is_open": day.is_open, "synced_at": now})
    if not day.is_open:
        row.sessions.all().delete()
    elif not row.sessions.exists():
        TradingSession.objects.bulk_create(
            TradingSession(
                day=row,
                market=phase.market,
                phase=phase.name,
                starts_at=phase.starts_at,
                ends_at=phase.ends_at,
                matching=phase.matching,
                order_kinds=" ".join(sorted(kind.value for kind in phase.kinds)),
            )
            for phase in sessions.standard_phases(day.day)
        )


def sync_stock(broker: Broker, code: str, *, now: datetime) -> Stock:
    """Ask for one row of the stock master and keep it. Raises BrokerError; Refused where there is no such stock."""
    info = broker.stock(code)
    stock, _ = Stock.objects.update_or_create(
        pk=code,
        defaults={
            "name": info.name,
            "board": info.board,
            "instrument": info.instrument,
            "sector": info.sector,
            "trades_on_nxt": info.trades_on_nxt,
            "is_halted": info.is_halted,
            "synced_at": now,
        },
    )
    return stock


def sync_daily_prices(broker: Broker, codes: Iterable[str]) -> int:
    """Ask for the last thirty days of each stock and keep them; return how many rows. Raises BrokerError."""
    kept = 0
    for code in codes:
        rows = [
            DailyPrice(
                stock_code=code,
                date=price.day,
                open=price.open,
                high=price.high,
                low=price.low,
                close=price.close,
                volume=price.volume,
            )
            for price in broker.daily_prices(code)
        ]
        DailyPrice.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["stock_code", "date"],
            update_fields=["open", "high", "low", "close", "volume"],
        )
        kept += len(rows)
    return kept
