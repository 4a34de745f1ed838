"""Trades from the simulated exchange, over a real socket, into bars: the exchange's own, whatever is dropped."""

from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlencode

import httpx
import pytest

from aegis.broker import Broker
from aegis.sessions import KST
from infra import clock
from kis.status import SocketState
from kis.stream import Stream
from kis.subscriptions import Topic
from market import candle_repair
from market.models import MarketCandle, Stock, WatchedStock
from portfolio import ledger
from simulator.api.server import Simulator
from tests.desk.test_stream import asked, stream, term, wait_for
from tests.portfolio.test_ledger import BALANCE

__all__ = ("asked", "stream", "term")

ClockAt = Callable[..., datetime]
CODE = "000660"
KRX_ONLY = "004090"
FEED = Topic("H0STCNT0", CODE)
Bar = tuple[int, int, int, int, int, int]


@pytest.fixture
def watched(simulator: Simulator, stream: Stream) -> Simulator:
    simulator.command("POST", "/simulator/trades", {"keep": True})
    WatchedStock.objects.create(stock_code=CODE)
    wait_for(lambda: FEED in stream.held)
    return simulator


def true_bars(simulator: Simulator, code: str = CODE, venue: str = "KRX") -> dict[str, Bar]:
    """Return the bars that the exchange's own list of trades gives, by minute."""
    query = urlencode({"code": code, "market": venue})
    minutes: dict[str, list[tuple[int, int]]] = {}
    for at, price, qty in httpx.get(f"{simulator.url}/simulator/trades?{query}", trust_env=False).json()["trades"]:
        minutes.setdefault(f"{datetime.fromisoformat(at):%H%M}", []).append((price, qty))
    return {
        minute: (
            trades[0][0],
            max(price for price, _ in trades),
            min(price for price, _ in trades),
            trades[-1][0],
            sum(qty for _, qty in trades),
            sum(price * qty for price, qty in trades),
        )
        for minute, trades in minutes.items()
    }


def rows(code: str = CODE, venue: str = "KRX") -> dict[str, MarketCandle]:
    """Return the bars since the exchange writes its trades down; those before come from its chart."""
    since = datetime(2026, 11, 23, 10, 1, tzinfo=KST)
    found = MarketCandle.objects.filter(symbol=code, venue=venue, time__gte=since)
    return {f"{row.time.astimezone(KST):%H%M}": row for row in found}


def our_bars(code: str = CODE, venue: str = "KRX") -> dict[str, Bar]:
    found = rows(code, venue)
    return {minute: (row.open, row.high, row.low, row.close, row.volume, row.value) for minute, row in found.items()}


def sources() -> dict[str, str]:
    return {minute: row.source for minute, row in rows().items()}


def trade(simulator: Simulator, clock_at: ClockAt, moment: str) -> None:
    clock_at(f"2026-11-23 {moment}")
    simulator.step(10)


def test_bars_are_the_exchanges_own(watched: Simulator, clock_at: ClockAt) -> None:
    for moment in ("10:01:00", "10:01:59", "10:02:00", "10:04:30"):
        trade(watched, clock_at, moment)
    wait_for(lambda: our_bars() == true_bars(watched))
    assert sources().keys() == {"1001", "1002", "1004"}
    # nobody listened before: whether the first minute is whole only the chart can tell
    assert {minute: source for minute, source in sources().items() if minute != "1001"} == {
        "1002": "FEED",
        "1004": "FEED",
    }


def test_what_was_lost_on_the_way_is_mended_from_the_chart(
    watched: Simulator, stream: Stream, broker: Broker, clock_at: ClockAt
) -> None:
    trade(watched, clock_at, "10:01:10")
    trade(watched, clock_at, "10:02:10")
    wait_for(lambda: our_bars() == true_bars(watched))
    watched.fault("frame_lost", tr_id=FEED.tr_id)
    trade(watched, clock_at, "10:02:40")
    trade(watched, clock_at, "10:03:10")
    watched.clear_faults()
    trade(watched, clock_at, "10:05:10")
    trade(watched, clock_at, "10:06:10")
    wait_for(lambda: sources().get("1006") == "FEED")
    assert sources()["1002"] == sources()["1005"] == "PARTIAL"
    assert sum(bar[4] for bar in our_bars().values()) == sum(bar[4] for bar in true_bars(watched).values())
    clock_at("2026-11-23 10:08:00")
    candle_repair.repair(broker, now=clock.now())
    assert our_bars() == true_bars(watched)
    assert [sources()[minute] for minute in ("1002", "1003", "1005", "1006")] == ["CHART", "CHART", "CHART", "FEED"]


def test_a_dropped_socket_leaves_nothing_wrong_behind(
    watched: Simulator, stream: Stream, broker: Broker, clock_at: ClockAt
) -> None:
    trade(watched, clock_at, "10:01:10")
    wait_for(lambda: our_bars() == true_bars(watched))
    watched.drop_sockets()
    wait_for(lambda: stream.state is SocketState.LOST)
    trade(watched, clock_at, "10:02:10")
    wait_for(lambda: stream.counters.connections == 2 and FEED in stream.held, 30)
    trade(watched, clock_at, "10:04:10")
    wait_for(lambda: "1004" in sources())
    clock_at("2026-11-23 10:06:00")

    def mended() -> bool:
        candle_repair.repair(broker, now=clock.now())
        return our_bars() == true_bars(watched) and "PARTIAL" not in sources().values()

    wait_for(mended, 30)


def test_a_stock_of_two_venues_has_the_bars_of_both_and_one_of_krx_alone_its_own(
    watched: Simulator, stream: Stream, clock_at: ClockAt
) -> None:
    ledger.replace(BALANCE, now=clock.now())
    for code, on_nxt in ((CODE, True), (KRX_ONLY, False)):
        words = {"name": code, "board": "KOSPI", "instrument": "STOCK", "synced_at": clock.now()}
        Stock.objects.create(code=code, trades_on_nxt=on_nxt, **words)
    WatchedStock.objects.create(stock_code=KRX_ONLY, rank=2)
    wait_for(lambda: {FEED, Topic("H0NXCNT0", CODE), Topic("H0STCNT0", KRX_ONLY)} <= set(stream.held))
    # the unified feed says nothing of a stock that KRX alone trades: nobody may lean on it
    assert not [topic for topic in stream.held if topic.tr_id.startswith("H0UN")]
    for minute in range(1, 9):
        clock_at(f"2026-11-23 10:{minute:02}:10")
        watched.step(40)
    for code, venue in ((CODE, "KRX"), (CODE, "NXT"), (KRX_ONLY, "KRX")):
        assert true_bars(watched, code, venue), f"{code} did not trade on {venue}: this day shows nothing"
        wait_for(lambda code=code, venue=venue: our_bars(code, venue) == true_bars(watched, code, venue))
    assert our_bars(CODE, "NXT") != our_bars(CODE)
    assert our_bars(KRX_ONLY, "NXT") == {}
