"""Prices of KRX's own trades, from our bars and the broker's closes: those may trigger a stop without a witness."""

from datetime import date, datetime

from django.db.models import QuerySet

from aegis.sessions import KST, PhaseName
from aegis.terms import Market
from market import service as market
from market.models import MarketCandle

_SURE = (MarketCandle.Source.FEED, MarketCandle.Source.CHART)


def close_heard(code: str, day: date) -> int | None:
    """Return the won at which a stock closed on KRX, by our own bar of the closing auction's end; None without one."""
    ends = [p.ends_at for p in market.phases_on(day) if (p.market, p.name) == (Market.KRX, PhaseName.CLOSING_AUCTION)]
    if not ends:
        return None
    at = datetime.combine(day, max(ends), KST)
    return _bars(code).filter(time=at, source__in=_SURE).values_list("close", flat=True).first()


def _bars(code: str) -> QuerySet[MarketCandle]:
    bars = MarketCandle.objects.filter(symbol=code, venue=Market.KRX.value, interval=MarketCandle.Interval.MINUTE)
    return bars.order_by("-time")
