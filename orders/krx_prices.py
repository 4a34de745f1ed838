"""Prices of KRX's own trades, and each day's base prices (기준가).

The trades are from our bars and the broker's closes: those may trigger a stop without a witness.
"""

from datetime import date, datetime, time, timedelta

from django.db.models import QuerySet

from aegis import sessions
from aegis.broker import Broker, Quote
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


def note_base_price(code: str, price: int, day: date) -> None:
    """Note the base price of a stock's day, in won, in the place of one that the broker told too early."""
    BasePrice.objects.update_or_create(date=day, stock_code=code, defaults={"price": price})


def opens_at(now: datetime) -> datetime:
    """Return when KRX's regular session begins on the day of `now`; nine on a day without one."""
    opens = sessions.krx_open(queries.today(now), now)
    return opens or datetime.combine(now.astimezone(KST), time(9), KST)


def is_of_today(quote: Quote, now: datetime, broker: Broker | None = None) -> bool:
    """Whether a quote is of today's session: KRX's regular one has begun, or nothing is traded yet.

    Before the open no volume says so only of a stock that traded the day before: one that was halted for its split
    shows none on either day. `broker` is asked about that day if we do not know. Raises BrokerError.
    """
    if now >= opens_at(now):
        return True
    if quote.volume or quote.is_halted:
        return False
    last = queries.last_final_day(now)
    traded = has_traded(quote.code, last)
    if traded is None and broker is not None:
        traded = any(each.volume for each in broker.daily_chart(quote.code, last, last, adjusted=False))
    return traded is not False


def _bars(code: str) -> QuerySet[MarketCandle]:
    bars = MarketCandle.objects.filter(symbol=code, venue=Market.KRX.value, interval=MarketCandle.Interval.MINUTE)
    return bars.order_by("-time")
