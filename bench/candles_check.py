"""An hour of rehearsal, whose candles are compared with the exchange's own trades, bar by bar.

    make candles-check

All of AEGIS runs in a home of its own at ten times real speed, with forty stocks. Meanwhile the socket is
dropped twice and the stream worker is killed once. Then every minute bar of every stock must equal the bar
of the simulator's log of trades. The last line is JSON: how many bars were compared, how many differ, and
how many were repaired from the broker's chart. Exit 1 if a bar differs.
"""

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

STOCKS = 40
REGISTER_SECONDS = 90.0
MEND_SECONDS = 120.0
BEGINS = "2026-11-23T10:00:00+09:00"
# minutes before the first that is compared: subscriptions are registered one after the other
WARM_UP_MINUTES = 2
Bar = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Plan:
    minutes: int
    speed: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--speed", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aegis-candles-") as home:
        Path(home).chmod(0o755)
        _set_environment(Path(home))
        return _run(Plan(options.minutes, options.speed), Path(home))


def _set_environment(home: Path) -> None:
    """Set a home, ports and a broker of our own before the settings are read."""
    for name in [name for name in os.environ if name.startswith(("KIS_", "AEGIS_"))]:
        del os.environ[name]
    os.environ.pop("DATABASE_URL", None)
    os.environ.pop("REDIS_URL", None)
    os.environ |= {"AEGIS_HOME": str(home), "AEGIS_ENV_FILE": os.devnull, "DJANGO_SETTINGS_MODULE": "config.settings"}
    for name in ("AEGIS_WEB_PORT", "AEGIS_FLOWER_PORT", "AEGIS_SIMULATOR_PORT"):
        os.environ[name] = str(_free_port())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(plan: Plan, home: Path) -> int:
    import django

    django.setup()
    from ops.runtime import Runtime

    log = home / "system.log"
    try:
        with log.open("w", encoding="utf-8") as output, Runtime(output=output, say=_say, fresh_day=True) as runtime:
            runtime.wait_until_ready()
            return _check(plan)
    except BaseException:
        print(log.read_text(encoding="utf-8")[-5_000:], file=sys.stderr)
        raise


def _check(plan: Plan) -> int:
    from django.conf import settings

    exchange = httpx.Client(base_url=settings.KIS_ENVIRONMENT.rest_url, timeout=30, trust_env=False)
    codes = _hold_stocks(exchange)
    begins = datetime.fromisoformat(BEGINS)
    _post(exchange, "/simulator/clock", now=begins.isoformat(), speed=plan.speed)
    _post(exchange, "/simulator/trades", keep=True)
    _wait("every stock to be subscribed", lambda: len(_subscribed_codes(codes)) == len(codes), REGISTER_SECONDS)
    first = _next_minute() + timedelta(minutes=WARM_UP_MINUTES)
    last = first + timedelta(minutes=plan.minutes)
    _run_hour_with_faults(exchange, first, plan)
    _sleep_until(last)
    # the hour is over: the remaining gaps are repaired at real speed
    _post(exchange, "/simulator/clock", now=_now().isoformat(), speed=1.0)
    _wait("trades of every stock after the hour", lambda: _stocks_since(last) >= set(codes), REGISTER_SECONDS)
    _wait("the gaps to be repaired", lambda: not _has_gaps(first), MEND_SECONDS)
    return _compare(exchange, codes, first, last)


def _hold_stocks(exchange: httpx.Client) -> list[str]:
    """Put a share of each stock into the account: holdings are subscribed before other stocks."""
    from django.conf import settings

    from infra import clock
    from kis.factory import broker
    from portfolio.fetcher import KISFetcher
    from simulator.exchange.listings import STOCKS as LISTED

    codes = sorted(LISTED)[:STOCKS]
    for code in codes:
        _post(
            exchange,
            "/simulator/shares",
            account=str(settings.KIS_CREDENTIALS.account),
            code=code,
            quantity=1,
            cost=10_000,
        )
    KISFetcher(broker(), clock.now).sync_portfolio()
    return codes


def _subscribed_codes(codes: list[str]) -> set[str]:
    from kis.factory import stream_status

    topics = stream_status().held
    return {code for code in codes if f"H0STCNT0:{code}" in topics}


def _run_hour_with_faults(exchange: httpx.Client, first: datetime, plan: Plan) -> None:
    """Drop the socket after a quarter, kill the worker at half, drop the socket again after three quarters."""
    quarter = timedelta(minutes=plan.minutes) / 4
    _sleep_until(first + quarter)
    _say(f"{_now():%H:%M:%S}  the socket is dropped")
    _post(exchange, "/simulator/faults", name="drop_sockets")
    _sleep_until(first + 2 * quarter + timedelta(seconds=25))
    pid = _stream_pid()
    os.kill(pid, signal.SIGKILL)
    _say(f"{_now():%H:%M:%S}  the stream worker, process {pid}, is killed")
    _sleep_until(first + 3 * quarter)
    _say(f"{_now():%H:%M:%S}  the socket is dropped")
    _post(exchange, "/simulator/faults", name="drop_sockets")


def _stream_pid() -> int:
    from config.celery import app

    replies: dict[str, Any] = app.control.inspect(timeout=5).stats() or {}
    return next(int(stats["pid"]) for name, stats in replies.items() if name.startswith("stream@"))


def _now() -> datetime:
    from infra import clock

    return clock.now()


def _next_minute() -> datetime:
    return _now().replace(second=0, microsecond=0) + timedelta(minutes=1)


def _sleep_until(moment: datetime) -> None:
    while _now() < moment:
        time.sleep(0.05)


def _wait(what: str, is_met: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_met():
        if time.monotonic() > deadline:
            _say(f"gave up waiting for {what}")
            return
        time.sleep(0.5)


def _rows(first: datetime, last: datetime) -> Any:
    from market.models import MarketCandle

    return MarketCandle.objects.filter(venue="KRX", time__gte=first, time__lt=last)


def _stocks_since(moment: datetime) -> set[str]:
    return set(_rows(moment, _now()).values_list("symbol", flat=True))


def _has_gaps(first: datetime) -> bool:
    """Whether a bar that ended more than 90 seconds ago still has gaps."""
    return bool(_rows(first, _now() - timedelta(seconds=90)).filter(source="PARTIAL").exists())


def _compare(exchange: httpx.Client, codes: list[str], first: datetime, last: datetime) -> int:
    from aegis.sessions import KST

    rows = {(row.symbol, row.time.astimezone(KST)): row for row in _rows(first, last).filter(symbol__in=codes)}
    ours: dict[tuple[str, datetime], Bar] = {
        key: (row.open, row.high, row.low, row.close, row.volume, row.value) for key, row in rows.items()
    }
    counts = {key: row.trade_count for key, row in rows.items() if row.trade_count is not None}
    expected: dict[tuple[str, datetime], Bar] = {}
    expected_counts: dict[tuple[str, datetime], int] = {}
    for code in codes:
        for minute, trades in _by_minute(exchange, code).items():
            if first <= minute < last:
                expected[code, minute] = _bar(trades)
                expected_counts[code, minute] = len(trades)
    different = sorted(key for key in expected.keys() | ours.keys() if ours.get(key) != expected.get(key))
    different += sorted(
        key for key, count in counts.items() if count != expected_counts.get(key) and key not in different
    )
    for key in different[:20]:
        source = rows[key].source if key in rows else "missing"
        _say(f"{key[0]} {key[1]:%H:%M} {source}: ours {ours.get(key)} x{counts.get(key)}, ")
        _say(f"    the exchange's {expected.get(key)} x{expected_counts.get(key)}")
    sources = [row.source for row in rows.values()]
    feed, chart = sources.count("FEED"), sources.count("CHART")
    _say(f"{sum(expected_counts.values()):,} trades, {feed:,} bars from the feed, {chart:,} from the chart")
    print(json.dumps({"bars": len(expected), "different": len(different), "healed": chart}))
    return 1 if different or not expected else 0


def _by_minute(exchange: httpx.Client, code: str) -> dict[datetime, list[tuple[int, int]]]:
    """Return the exchange's own trades of a stock, won and shares, minute by minute."""
    response = exchange.get("/simulator/trades", params={"code": code, "market": "KRX"}).raise_for_status()
    minutes: dict[datetime, list[tuple[int, int]]] = {}
    for at, price, qty in response.json()["trades"]:
        minutes.setdefault(datetime.fromisoformat(at).replace(second=0, microsecond=0), []).append((price, qty))
    return minutes


def _bar(trades: list[tuple[int, int]]) -> Bar:
    prices = [price for price, _ in trades]
    shares, won = sum(qty for _, qty in trades), sum(price * qty for price, qty in trades)
    return prices[0], max(prices), min(prices), prices[-1], shares, won


def _post(exchange: httpx.Client, path: str, **body: Any) -> None:
    exchange.post(path, json=body).raise_for_status()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
