"""`/잔고` on Telegram with 200 holdings: the time from the message to the reply.

It uses a Bot API on loopback, a real bot, PostgreSQL and Redis. The limit of the median is 100 ms.
"""

import multiprocessing
import statistics
import threading
import time

import httpx

from bench import isolation
from bench.report import Row

HOLDINGS = 200
LINES = 100
WARM_UP = 10
LIMIT_SECONDS = 0.1
CHAT = 4711


def rows() -> list[Row]:
    """Measure in a process of its own: one isolated system per process."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=_not_daemonic) as pool:
        seconds = pool.apply(measure)
    median, p95 = statistics.median(seconds), sorted(seconds)[int(len(seconds) * 0.95)]
    print(f"/잔고 at {HOLDINGS} holdings: median {median * 1000:.1f} ms, 95 % within {p95 * 1000:.1f} ms")
    return [Row("balance by telephone", median / LIMIT_SECONDS, 1, "100 ms, line to answer", at_least=False)]


def _not_daemonic() -> None:
    # the isolated system starts a process, which a daemonic worker of a pool may not do
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


def measure() -> list[float]:
    """Return the seconds from each message to its reply."""
    from tests.desk.botapi import TOKEN, serve

    with isolation.isolated_system(), serve() as telegram, httpx.Client(timeout=20, trust_env=False) as http:
        from desk.telegram.bot import Bot
        from infra import clock
        from notify.telegram import BotAPI

        insert_holdings()
        stop, bot = threading.Event(), Bot(BotAPI(telegram.url, TOKEN, http), clock.now, allowed=frozenset({CHAT}))
        thread = threading.Thread(target=bot.run, args=(stop,))
        thread.start()
        seconds = []
        for number in range(WARM_UP + LINES):
            started_at = time.perf_counter()
            telegram.write(CHAT, "/잔고")
            replies = telegram.wait_for_sent(number + 1)
            seconds.append(time.perf_counter() - started_at)
        if "180" not in replies[-1].text:
            raise RuntimeError(f"an answer without the holdings: {replies[-1].text}")
        stop.set()
        thread.join()
    return seconds[WARM_UP:]


def insert_holdings() -> None:
    """Replace the holdings in the table by HOLDINGS rows."""
    from infra import clock
    from portfolio.models import Portfolio

    now = clock.now()
    Portfolio.objects.all().delete()
    Portfolio.objects.bulk_create(
        Portfolio(
            stock_code=f"{number:06}",
            stock_name=f"종목 {number}",
            quantity=10 + number,
            avg_price=50_000,
            current_price=50_000 + number,
            counted_on=now.date(),
            updated_at=now,
        )
        for number in range(HOLDINGS)
    )


if __name__ == "__main__":
    rows()
