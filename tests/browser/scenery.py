"""What weeks of trading would have left, for pictures of the screens. Fed to `manage.py shell`; made up, and seeded."""

import random
from datetime import timedelta
from decimal import Decimal

from django.db.models import F

from aegis.sessions import KST
from infra import clock
from kis.factory import broker
from market import partitions
from market.models import DailyPrice, MarketCandle, MarketMacro
from orders.models import StopRule
from portfolio.fetcher import KISFetcher
from portfolio.models import AccountSnapshot, Portfolio

now, dice = clock.now(), random.Random(7)
KISFetcher(broker(), clock.now).sync_portfolio()
for code, away in (("005930", "0.95"), ("000660", "0.96"), ("035720", "0.93")):
    held = Portfolio.objects.get(stock_code=code)
    StopRule.objects.create(
        stock_code=code,
        stock_name=held.stock_name,
        kind="STOP_LOSS",
        unit="PRICE",
        value=int(held.avg_price * Decimal(away)) // 100 * 100,
        armed_by="admin",
        armed_at=now,
        state_at=now,
    )
partitions.ensure_ahead(now.date())
newest = AccountSnapshot.objects.latest()


def snapshot(at, total):
    held = newest.valuation
    cash = round(total) - held
    AccountSnapshot.objects.create(
        timestamp=at,
        deposit=cash,
        deposit_d1=cash,
        deposit_d2=cash,
        valuation=held,
        total_asset=round(total),
        net_profit_today=0,
    )


def walk(value, steps, spread, drift=0.0):
    """Return a path that ends at `value`."""
    path = [float(value)]
    for _ in range(steps):
        path.append(path[-1] / (1 + dice.gauss(drift, spread)))
    return path[::-1]


for index, total in enumerate(walk(newest.total_asset, 64, 0.004, 0.0012)[:-1]):
    day = now - timedelta(days=64 - index)
    if day.weekday() < 5:
        snapshot(day.replace(hour=20, minute=5), total)
minutes = min(240, (now - now.replace(hour=8, minute=0)).seconds // 60 - 2)
for index, total in enumerate(walk(newest.total_asset, minutes, 0.00018)[:-1]):
    snapshot(now - timedelta(minutes=minutes - index + 1), total)

for code, price in Portfolio.objects.exclude(quantity=0).values_list("stock_code", "current_price"):
    path = walk(price, 250, 0.014, 0.0006)
    day, written = now.astimezone(KST).date(), 0
    for close, before in zip(reversed(path), reversed([path[0], *path[:-1]]), strict=True):
        if day.weekday() < 5 and day != now.astimezone(KST).date():
            low, high = sorted((close, before))
            figures = [round(each / 100) * 100 for each in (before, high * 1.006, low * 0.994, close)]
            DailyPrice.objects.get_or_create(
                stock_code=code,
                date=day,
                defaults={
                    **dict(zip(("open", "high", "low", "close"), figures, strict=True)),
                    "volume": dice.randint(4, 19) * 1_000_000,
                },
            )
        day -= timedelta(days=1)
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=minutes)
    path = walk(price, minutes, 0.0007)
    for index in range(minutes):
        first, last = path[index], path[index + 1]
        low, high = sorted((first, last))
        figures = [round(each / 100) * 100 for each in (first, high * 1.0006, low * 0.9994, last)]
        volume = dice.randint(2, 90) * 1000
        MarketCandle.objects.get_or_create(
            time=since + timedelta(minutes=index),
            symbol=code,
            interval="1m",
            venue="KRX",
            defaults={
                **dict(zip(("open", "high", "low", "close"), figures, strict=True)),
                "volume": volume,
                "value": volume * figures[3],
                "trade_count": volume // 40,
            },
        )

# the future is asked for once a minute, and the first picture is taken sooner
MarketMacro.objects.filter(basis=None, kospi200__gt=0).update(
    kospi200_futures=F("kospi200") + Decimal("1.37"), basis="1.37", basis_rate="0.3180", regime="NEUTRAL"
)
