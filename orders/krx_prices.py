"""Prices of KRX's own trades, from our bars and the broker's closes: those may trigger a stop without a witness."""

from datetime import date, datetime, time, timedelta

from django.db.models import QuerySet

from aegis.sessions import KST, PhaseName
from aegis.stops import hours_of
from aegis.terms import Market
from market import queries
from market.models import DailyPrice, MarketCandle
from orders.models import BasePrice

_SURE = (MarketCandle.Source.FEED, MarketCandle.Source.CHART)


def last_trade(code: str, now: datetime) -> int | None:
    """Return the won of the newest KRX trade of today that counts alone, None if no bar has one."""
    hours, day = hours_of(queries.today(now)), now.astimezone(KST).date()
    if not hours.since:
        return None
    begins, ends = (datetime.combine(day, time.fromisoformat(each), KST) for each in (hours.since, hours.until))
    return _bars(code).filter(time__gte=begins, time__lt=min(ends, now)).values_list("close", flat=True).first()


def close_heard(code: str, day: date) -> int | None:
    """Return the won at which a stock closed on KRX, by our own bar of the closing auction's end; None without one."""
    ends = [p.ends_at for p in queries.phases_on(day) if (p.market, p.name) == (Market.KRX, PhaseName.CLOSING_AUCTION)]
    if not ends:
        return None
    at = datetime.combine(day, max(ends), KST)
    return _bars(code).filter(time=at, source__in=_SURE).values_list("close", flat=True).first()


def has_traded(code: str, day: date) -> bool | None:
    """Whether a stock traded on KRX on a day; None if neither our bars nor the daily prices say."""
    begins = datetime.combine(day, time.min, KST)
    if _bars(code).filter(time__gte=begins, time__lt=begins + timedelta(days=1), volume__gt=0).exists():
        return True
    volume = DailyPrice.objects.filter(stock_code=code, date=day).values_list("volume", flat=True).first()
    return None if volume is None else volume > 0


def reference(code: str, now: datetime) -> int | None:
    """Return the newest won known that a KRX trade, its close or today's base price says; None if nothing does."""
    if price := last_trade(code, now):
        return price
    today, last = now.astimezone(KST).date(), queries.last_final_day(now)
    told = BasePrice.objects.filter(stock_code=code, date=today).values_list("price", flat=True).first()
    if told and last < today:
        return told
    daily = DailyPrice.objects.filter(stock_code=code, date=last).values_list("close", flat=True)
    return close_heard(code, last) or daily.first() or None


def _bars(code: str) -> QuerySet[MarketCandle]:
    bars = MarketCandle.objects.filter(symbol=code, venue=Market.KRX.value, interval=MarketCandle.Interval.MINUTE)
    return bars.order_by("-time")
