"""Reads of market data. They always use the database and write nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from django.db import connection
from django.db.models import Q
from django.db.models.functions import Substr

from aegis import sessions
from aegis.sessions import KST, Phase
from aegis.terms import Market
from infra import clock
from market import calendar
from market.models import (
    DailyPrice,
    MarketCandle,
    MarketMacro,
    ProgramTrade,
    Stock,
    TradingDay,
    TradingSession,
    WatchedStock,
)

if TYPE_CHECKING:
    import pandas


_PHASE = ("market", "phase", "starts_at", "ends_at", "matching", "order_kinds")
_DAY = f"""
    SELECT is_open, {", ".join(_PHASE)} FROM trading_days LEFT JOIN trading_sessions ON day_id = date
    WHERE date = %s ORDER BY market, starts_at, phase
"""  # noqa: S608


def phases_on(day: date) -> tuple[Phase, ...]:
    """Return the phases of `day`, empty on a holiday. A day that is not stored yet follows the calendar library."""
    with connection.cursor() as cursor:
        cursor.execute(_DAY, [day])
        rows = cursor.fetchall()
    if not rows:
        return calendar.phases_by_library(day)
    return tuple(
        TradingSession(**dict(zip(_PHASE, row, strict=True))).as_phase() for is_open, *row in rows if is_open and row[0]
    )


def today(now: datetime) -> tuple[Phase, ...]:
    return phases_on(now.astimezone(KST).date())


def is_market_open(market: Market, now: datetime) -> bool:
    """Whether `market` takes orders at `now`. Source: spec §11.6."""
    return sessions.is_market_open(market, today(now), now)


def is_trading(market: Market, now: datetime) -> bool:
    """Whether `market` matches orders continuously at `now`."""
    return sessions.is_trading(market, today(now), now)


def is_any_market_open(now: datetime) -> bool:
    phases = today(now)
    return any(sessions.is_market_open(market, phases, now) for market in Market)


def get_available_market(now: datetime) -> Market | None:
    """Return the preferred venue at `now`, None if none takes an order. Source: spec §11.6."""
    return sessions.get_available_market(today(now), now)


def get_stock(code: str) -> Stock | None:
    return Stock.objects.filter(pk=code).first()


def _known_codes(codes: Collection[str]) -> set[str]:
    if not codes:
        return set()
    with connection.cursor() as cursor:
        cursor.execute("SELECT code FROM stocks WHERE code = ANY(%s)", [list(codes)])
        return {code for (code,) in cursor.fetchall()}


def canonical_codes(printed: Collection[str]) -> dict[str, str]:
    """Return our code for each printed code that differs from ours. Codes that are equal to ours are left out.

    Two codes are one instrument if the stock master pairs them (`standard_code` KRG500001114 contains the 500001 of
    Q500001), or if one is the other with the prefix A, the exchange's letter for shares. Nothing else may be stripped:
    in 0009K0 and 00088K the letters are part of the code.
    """
    unknown = set(printed) - _known_codes(printed)
    if not unknown:
        return {}
    bare = {code.removeprefix("A"): code for code in unknown if code.startswith("A")}
    code_by_printed = {bare[code]: code for code in Stock.objects.filter(pk__in=bare).values_list("pk", flat=True)}
    pairs = Stock.objects.annotate(inner=Substr("standard_code", 4, 6)).filter(
        Q(inner__in=unknown) | Q(standard_code__in=unknown)
    )
    for code, standard_code, inner in pairs.values_list("pk", "standard_code", "inner"):
        code_by_printed.setdefault(standard_code if standard_code in unknown else inner, code)
    return code_by_printed


def is_day_over(now: datetime) -> bool:
    """Whether the last phase of today, a trading day, has ended: its prices are final."""
    phases = today(now)
    return bool(phases) and now.astimezone(KST).time() >= max(phase.ends_at for phase in phases)


def last_final_day(now: datetime) -> date:
    """Return the newest trading day whose last phase is over."""
    day = now.astimezone(KST).date()
    if is_day_over(now):
        return day
    while True:
        day -= timedelta(days=1)
        if phases_on(day):
            return day


def futures_code(day: date) -> str:
    """Return the futures contract of the figures of `day`, empty before the first figures."""
    days_figures = MarketMacro.objects.filter(time__date=day).exclude(futures_code="").order_by("-time")
    return days_figures.values_list("futures_code", flat=True).first() or ""


def watched_codes() -> list[str]:
    """Return the watch list, in its order."""
    return list(WatchedStock.objects.values_list("pk", flat=True))


def trading_days(first: date, last: date) -> Sequence[date]:
    return list(
        TradingDay.objects.filter(pk__range=(first, last), is_open=True).order_by("pk").values_list("pk", flat=True)
    )


@dataclass(frozen=True, slots=True)
class Candle:
    """One interval of a stock on one venue, in won and shares. `time` is its start, in Korean time.

    `trade_count` is None if it is not known. `is_whole`: no trade was missed. `is_closed`: the interval is over; the
    newest candle changes until then.
    """

    time: datetime
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int
    trade_count: int | None
    is_whole: bool
    is_closed: bool


@dataclass(frozen=True, slots=True)
class LastQuote:
    """The last price of a stock, in won, its minute, and the venue that traded last."""

    code: str
    market: Market
    price: int
    minute: datetime


INTERVALS = (1, 3, 5, 10, 15, 30, 60)
# a candle is final (closed) so long after its interval has ended: its last trades have arrived and are written
CLOSED_AFTER = timedelta(seconds=5)
_CANDLES = """
SELECT date_bin(make_interval(mins => %s), time, %s) AS at, (array_agg(open ORDER BY time))[1], max(high), min(low),
    (array_agg(close ORDER BY time DESC))[1], sum(volume)::int8, sum(value)::int8,
    CASE WHEN count(trade_count) = count(*) THEN sum(trade_count)::int8 END, bool_and(source IN ('FEED', 'CHART'))
FROM market_candles
WHERE symbol = %s AND interval = '1m' AND venue = %s AND time >= %s AND time < %s
GROUP BY at ORDER BY at
"""
# bins start at the full hour in Korea
_EPOCH = datetime(2000, 1, 1, tzinfo=KST)


def candles(
    code: str,
    since: datetime,
    until: datetime,
    *,
    minutes: int = 1,
    market: Market = Market.KRX,
    with_open: bool = False,
) -> list[Candle]:
    """Return a stock's candles of N minutes that start in `[since, until)`, the oldest first, in one query.

    Only closed candles, by the market's clock; `with_open` adds the newest, which still changes. Intervals without a
    trade have no candle. Raises ValueError if `minutes` is not one of `INTERVALS`.
    """
    if minutes not in INTERVALS:
        raise ValueError(f"minutes {minutes}: one of {', '.join(map(str, INTERVALS))} is needed")
    with connection.cursor() as cursor:
        cursor.execute(_CANDLES, [minutes, _EPOCH, code, market.value, since, until])
        rows = cursor.fetchall()
    closed_until = clock.now() - CLOSED_AFTER - timedelta(minutes=minutes)
    all_candles = [
        Candle(at.astimezone(KST), first, high, low, last, volume, value, count, is_whole, at <= closed_until)
        for at, first, high, low, last, volume, value, count, is_whole in rows
    ]
    return [candle for candle in all_candles if candle.is_closed or with_open]


def candles_frame(
    code: str,
    since: datetime,
    until: datetime,
    *,
    minutes: int = 1,
    market: Market = Market.KRX,
    with_open: bool = False,
) -> "pandas.DataFrame":
    """Return `candles` as a pandas DataFrame with `time` as its index. Raises ImportError without pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("candles_frame needs pandas: `pip install pandas`, or use candles()") from error
    names = [field.name for field in fields(Candle)]
    rows = candles(code, since, until, minutes=minutes, market=market, with_open=with_open)
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    return pandas.DataFrame(columns).set_index("time")


def daily_prices(code: str, since: date, until: date) -> list[DailyPrice]:
    """Return a stock's final daily prices in `[since, until]`, adjusted, the oldest first."""
    return list(DailyPrice.objects.filter(stock_code=code, date__range=(since, until)).order_by("date"))


def last_quote(code: str) -> LastQuote | None:
    """Return the last price of a stock by its stored candles, None if its trades were never received."""
    minute_candles = MarketCandle.objects.filter(symbol=code, interval=MarketCandle.Interval.MINUTE)
    newest_by_venue = [minute_candles.filter(venue=venue.value).order_by("-time")[:1] for venue in Market]
    rows = newest_by_venue[0].union(*newest_by_venue[1:], all=True)
    newest = max(rows, key=lambda row: row.time, default=None)
    return LastQuote(code, Market(newest.venue), newest.close, newest.time.astimezone(KST)) if newest else None


def macro(now: datetime) -> MarketMacro | None:
    """Return the newest figures of the whole market up to `now`, None if there are none."""
    return MarketMacro.objects.filter(time__lte=now).order_by("-time").first()


def program_trading(code: str, day: date) -> list[ProgramTrade]:
    """Return the program trading of a stock on a day, minute by minute."""
    return list(ProgramTrade.objects.filter(stock_code=code, time__date=day).order_by("time"))
