"""A backfill of years of daily prices is killed and continued, while orders keep their speed.

    make backfill-check

`backfill_daily` fetches every listed stock of the simulator, which refuses calls above the limit of any
second. Halfway it is killed, and started again. Meanwhile a few calls of the order class a second use the
same rate limiter. The last line is JSON: days fetched, days that differ from the broker's chart, order
calls that the broker refused, and how long they waited, in call intervals. Exit 1 if a goal is missed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

ALLOWANCE = 18
STOCKS = 200
# all days of every Nth stock are compared with the broker's chart; of the others only the number of days
COMPARED_EVERY = 10
MOST_ORDER_WAIT = 3.0
MOMENT = "2026-11-23T10:00:00+09:00"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=5)
    years = parser.parse_args().years
    with tempfile.TemporaryDirectory(prefix="aegis-backfill-") as name:
        home = Path(name)
        home.chmod(0o755)
        _set_environment(home)
        import django

        django.setup()
        return _run(home, years)


def _set_environment(home: Path) -> None:
    """Set a home of our own before the settings are read."""
    for name in [name for name in os.environ if name.startswith(("KIS_", "AEGIS_")) or name.endswith("_URL")]:
        del os.environ[name]
    os.environ |= {
        "AEGIS_HOME": str(home),
        "AEGIS_ENV_FILE": os.devnull,
        "AEGIS_CLOCK_FILE": str(home / "clock.json"),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "KIS_CALLS_PER_SECOND": str(ALLOWANCE),
        "AEGIS_SIMULATOR_STOCKS": str(STOCKS),
    }


def _run(home: Path, years: int) -> int:
    from datetime import datetime

    from django.conf import settings
    from django.core.management import call_command

    from infra import clock
    from ops import embedded
    from simulator.api.server import serve

    postgres, redis = embedded.Postgres(home), embedded.Redis(home)
    postgres.start()
    redis.start()
    try:
        postgres.create_database(settings.DATABASES["default"]["NAME"])
        call_command("migrate", verbosity=0)
        clock.set_now(datetime.fromisoformat(MOMENT))
        with serve(seed=1, rate=ALLOWANCE, ticking=False) as simulator:
            os.environ["AEGIS_SIMULATOR_URL"] = simulator.url
            settings.KIS_ENVIRONMENT = settings.KIS_ENVIRONMENT.at(simulator.url)
            return _check(years)
    finally:
        redis.stop()
        postgres.stop()


class Trader(threading.Thread):
    """Makes occasional calls of the order class, and records the seconds that each waited for its turn."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.waits: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        from kis.factory import broker, client

        dice, throttle = random.Random(1), client()._throttle
        while not self.over.is_set():
            waited_before = throttle.counters.waited_seconds
            broker().sellable_qty("005930")
            self.waits.append(throttle.counters.waited_seconds - waited_before)
            self.over.wait(dice.uniform(0.05, 0.4))


def _check(years: int) -> int:
    from market import daily_prices
    from market.models import DailyPrice
    from simulator.exchange.listings import STOCKS as LISTED

    codes, trader = sorted(LISTED), Trader()
    expected = len(codes) * years * 245
    trader.start()
    first = _backfill(codes, years)
    while first.poll() is None and DailyPrice.objects.count() < expected // 2:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    print(f"killed with {DailyPrice.objects.count():,} days; {len(daily_prices.unfinished())} stocks are not done")
    started_at = time.monotonic()
    second = _backfill(codes, years)
    code = second.wait()
    trader.over.set()
    trader.join()
    print(f"continued and finished with code {code} in {time.monotonic() - started_at:.0f} s")
    return _report(codes, years, trader.waits) or code


def _backfill(codes: list[str], years: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-W", "ignore", "manage.py", "backfill_daily", *codes, "--years", str(years)]
    return subprocess.Popen(command, stdout=sys.stderr)


def _report(codes: list[str], years: int, waits: list[float]) -> int:
    from kis.factory import client
    from market.models import DailyPrice

    last = date(2026, 11, 20)
    first = last.replace(year=last.year - years)
    days = different = 0
    days_by_stock = {row["stock_code"]: row["days"] for row in _days_by_stock()}
    usual = max(days_by_stock.values())
    short = sum(days_by_stock.get(code, 0) != usual for code in codes)
    for code in codes[::COMPARED_EVERY]:
        expected = _chart(code, first, last)
        rows = DailyPrice.objects.filter(stock_code=code)
        ours = {row.date: (row.open, row.high, row.low, row.close, row.volume) for row in rows}
        days += len(ours)
        different += sum(ours.get(day) != expected.get(day) for day in ours.keys() | expected.keys())
    waits.sort()
    wait = round(waits[int(len(waits) * 0.99)] * ALLOWANCE, 2)
    refused = client()._throttle.counters.slowed
    print(f"{len(waits)} order calls, median wait {waits[len(waits) // 2] * 1000:.0f} ms")
    figures = {
        "stocks": len(codes),
        "years": years,
        "days": sum(days_by_stock.values()),
        "short": short,
        "compared": days,
    }
    figures |= {"different": different, "refused": refused, "order_wait_p99_intervals": wait}
    print(json.dumps(figures))
    return 0 if days and not different and not short and not refused and wait <= MOST_ORDER_WAIT else 1


def _days_by_stock() -> Any:
    from django.db.models import Count

    from market.models import DailyPrice

    return DailyPrice.objects.values("stock_code").annotate(days=Count("pk"))


def _chart(code: str, first: date, last: date) -> dict[date, Any]:
    """Return all days of a stock from the broker, page by page."""
    from kis.factory import broker

    prices: dict[date, Any] = {}
    while page := broker().daily_chart(code, first, last):
        prices |= {price.day: (price.open, price.high, price.low, price.close, price.volume) for price in page}
        last = page[-1].day - timedelta(days=1)
    return prices


if __name__ == "__main__":
    sys.exit(main())
