"""Prices of KRX's own trades, and each day's base prices (기준가).

The trades are from our bars and the broker's closes: they may trigger a stop without a second witness.
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

_TRUSTED_SOURCES = (MarketCandle.Source.FEED, MarketCandle.Source.CHART)


def last_trade(code: str, now: datetime) -> int | None:
    """Return the price, in won, of today's newest KRX trade that needs no witness, None if no bar has one."""
    hours, day = hours_of(queries.today(now)), now.astimezone(KST).date()
    if not hours.since:
        return None
    starts_at, ends_at = (datetime.combine(day, time.fromisoformat(text), KST) for text in (hours.since, hours.until))
    return _bars(code).filter(time__gte=starts_at, time__lt=min(ends_at, now)).values_list("close", flat=True).first()


def auction_close(code: str, day: date) -> int | None:
    """Return a stock's KRX close in won, by our own bar of the closing auction's end; None without that bar."""
    ends = [p.ends_at for p in queries.phases_on(day) if (p.market, p.name) == (Market.KRX, PhaseName.CLOSING_AUCTION)]
    if not ends:
        return None
    at = datetime.combine(day, max(ends), KST)
    return _bars(code).filter(time=at, source__in=_TRUSTED_SOURCES).values_list("close", flat=True).first()


def has_traded(code: str, day: date) -> bool | None:
    """Whether a stock traded on KRX on a day; None if neither our bars nor the daily prices show it."""
    midnight = datetime.combine(day, time.min, KST)
    if _bars(code).filter(time__gte=midnight, time__lt=midnight + timedelta(days=1), volume__gt=0).exists():
        return True
    volume = DailyPrice.objects.filter(stock_code=code, date=day).values_list("volume", flat=True).first()
    return None if volume is None else volume > 0


def reference(code: str, now: datetime) -> int | None:
    """Return the newest known price in won: a KRX trade, a KRX close or today's base price; None if none is known."""
    if price := last_trade(code, now):
        return price
    today, last = now.astimezone(KST).date(), queries.last_final_day(now)
    base_price = BasePrice.objects.filter(stock_code=code, date=today).values_list("price", flat=True).first()
    if base_price and last < today:
        return base_price
    daily = DailyPrice.objects.filter(stock_code=code, date=last).values_list("close", flat=True)
    return auction_close(code, last) or daily.first() or None


def note_base_price(code: str, price: int, day: date) -> None:
    """Store the base price of a stock's day, in won; it replaces one that the broker reported too early."""
    BasePrice.objects.update_or_create(date=day, stock_code=code, defaults={"price": price})


def opens_at(now: datetime) -> datetime:
    """Return when KRX's regular session begins on the day of `now`; 09:00 on a day without a session."""
    session_start = sessions.krx_open(queries.today(now), now)
    return session_start or datetime.combine(now.astimezone(KST), time(9), KST)


def is_of_today(quote: Quote, now: datetime, broker: Broker | None = None) -> bool:
    """Whether a quote is of today: KRX's regular session has begun, or the quote shows no volume yet.

    Before the open, no volume proves this only for a stock that traded the day before: a stock that was halted for its
    split shows none on either day. `broker` is asked about that day if our tables do not show it. Raises BrokerError.
    """
    if now >= opens_at(now):
        return True
    if quote.volume or quote.is_halted:
        return False
    last = queries.last_final_day(now)
    traded = has_traded(quote.code, last)
    if traded is None and broker is not None:
        traded = any(price.volume for price in broker.daily_chart(quote.code, last, last, adjusted=False))
    return traded is not False


def _bars(code: str) -> QuerySet[MarketCandle]:
    bars = MarketCandle.objects.filter(symbol=code, venue=Market.KRX.value, interval=MarketCandle.Interval.MINUTE)
    return bars.order_by("-time")
