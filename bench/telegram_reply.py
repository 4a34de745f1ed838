"""`/잔고` by telephone with 200 holdings: from the line that is written to the answer that arrives, by a Bot API on
loopback, a real bot, PostgreSQL and Redis. The limit is 100 ms at the median.
"""

import multiprocessing
import statistics
import threading
import time

import httpx

from bench import house
from bench.report import Row

HOLDINGS = 200
LINES = 100
WARM_UP = 10
LIMIT_SECONDS = 0.1
CHAT = 4711


def rows() -> list[Row]:
    """Measure in a process of its own: one house a process."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=_not_daemonic) as pool:
        seconds = pool.apply(measure)
    middle, slow = statistics.median(seconds), sorted(seconds)[int(len(seconds) * 0.95)]
    print(f"/잔고 at {HOLDINGS} holdings: median {middle * 1000:.1f} ms, 95 % within {slow * 1000:.1f} ms")
    return [Row("balance by telephone", middle / LIMIT_SECONDS, 1, "100 ms, line to answer", at_least=False)]


def _not_daemonic() -> None:
    # the house starts a process of its own, which a pool's worker otherwise may not
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


def measure() -> list[float]:
    """Return the seconds that each line took."""
    from tests.desk.botapi import TOKEN, serve

    with house.house(), serve() as telegram, httpx.Client(timeout=20, trust_env=False) as http:
        from desk.telegram.bot import Bot
        from infra import clock
        from notify.telegram import BotAPI

        hold()
        stop, bot = threading.Event(), Bot(BotAPI(telegram.url, TOKEN, http), clock.now, allowed=frozenset({CHAT}))
        thread = threading.Thread(target=bot.run, args=(stop,))
        thread.start()
        seconds = []
        for number in range(WARM_UP + LINES):
            began = time.perf_counter()
            telegram.write(CHAT, "/잔고")
            answers = telegram.wait_for_sent(number + 1)
            seconds.append(time.perf_counter() - began)
        if "180" not in answers[-1].text:
            raise RuntimeError(f"an answer without the holdings: {answers[-1].text}")
        stop.set()
        thread.join()
    return seconds[WARM_UP:]


def hold() -> None:
    """Lay so many holdings into the table."""
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
