"""What the market tells: reads only, always the database."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from aegis import sessions
from aegis.sessions import KST, Phase
from aegis.terms import Market
from market import calendar
from market.models import MarketMacro, Stock, TradingDay, TradingSession, WatchedStock


def phases_on(day: date) -> tuple[Phase, ...]:
    """Return the phases of `day`, empty on a holiday. A day not laid down yet goes by the calendar library."""
    known = TradingDay.objects.filter(pk=day).first()
    if known is None:
        return sessions.phases_of(day, calendar.kind_of(day)) if calendar.is_trading_day(day) else ()
    if not known.is_open:
        return ()
    rows = TradingSession.objects.filter(day=known)
    return tuple(row.as_phase() for row in rows)


def today(now: datetime) -> tuple[Phase, ...]:
    return phases_on(now.astimezone(KST).date())


def is_market_open(market: Market, now: datetime) -> bool:
    """Whether `market` takes orders at `now`. Source: spec §11.6."""
    return sessions.is_market_open(market, today(now), now)


def is_any_market_open(now: datetime) -> bool:
    phases = today(now)
    return any(sessions.is_market_open(market, phases, now) for market in Market)


def get_available_market(now: datetime) -> Market | None:
    """Return the venue to prefer at `now`. Source: spec §11.6."""
    return sessions.get_available_market(today(now), now)


def get_stock(code: str) -> Stock | None:
    return Stock.objects.filter(pk=code).first()


def days_over(now: datetime) -> bool:
    """Whether the last phase of a trading day has ended: its prices are final."""
    phases = today(now)
    return bool(phases) and now.astimezone(KST).time() >= max(phase.ends_at for phase in phases)


def last_final_day(now: datetime) -> date:
    """Return the newest trading day whose last phase is over."""
    day = now.astimezone(KST).date()
    if days_over(now):
        return day
    while True:
        day -= timedelta(days=1)
        if phases_on(day):
            return day


def futures_code(day: date) -> str:
    """Return the futures contract that `day`'s figures are of, empty before the first of them."""
    today = MarketMacro.objects.filter(time__date=day).exclude(futures_code="").order_by("-time")
    return today.values_list("futures_code", flat=True).first() or ""


def watched_codes() -> list[str]:
    """Return the watch list, in its order."""
    return list(WatchedStock.objects.values_list("pk", flat=True))


def trading_days(first: date, last: date) -> Sequence[date]:
    return list(
        TradingDay.objects.filter(pk__range=(first, last), is_open=True).order_by("pk").values_list("pk", flat=True)
    )
