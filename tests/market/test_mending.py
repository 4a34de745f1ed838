"""Holes in the bars, mended from the simulator's chart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from aegis.broker import Broker, ChartMinute, Refused
from aegis.candles import Bar
from aegis.sessions import KST
from aegis.terms import Market
from infra import clock
from market import candle_repair, candles
from market.models import MarketCandle
from simulator.api.server import Simulator

pytestmark = pytest.mark.django_db
ClockAt = Callable[..., datetime]
CODE = "005930"
DAY = date(2026, 11, 23)


@pytest.fixture
def chart(simulator: Simulator, broker: Broker, clock_at: ClockAt) -> dict[str, ChartMinute]:
    """Ten minutes of lively trading, and what the broker's chart says of them."""
    for minute in range(10):
        clock_at(f"2026-11-23 10:{minute:02}:30")
        simulator.step(20)
    clock_at("2026-11-23 10:10:30")
    rows = broker.minutes(CODE, Market.KRX, clock.now())
    return {f"{row.at:%H%M}": row for row in rows if row.at.hour == 10 and row.volume and row.at.minute < 10}


def bar(row: ChartMinute, before: ChartMinute | None = None, **words: object) -> Bar:
    """Return a bar of ours as the chart has it; running totals of shares are ten times the minute's number."""
    made = Bar(
        code=CODE,
        market=Market.KRX,
        day=DAY,
        minute=f"{row.at:%H%M}",
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        value=row.day_value - (before.day_value if before else 0),
        count=3,
        day_volume=1_000_000 + row.volume,
        day_value=row.day_value,
        is_whole=True,
    )
    return replace(made, **words)


def rows() -> dict[str, tuple[str, int, int, int, int, int]]:
    return {
        f"{row.time.astimezone(KST):%H%M}": (row.source, row.open, row.high, row.low, row.close, row.volume)
        for row in MarketCandle.objects.all()
    }


def told(row: ChartMinute, source: str) -> tuple[str, int, int, int, int, int]:
    return source, row.open, row.high, row.low, row.close, row.volume


def test_a_gap_is_filled_from_the_chart_and_marked(broker: Broker, chart: dict[str, ChartMinute]) -> None:
    candles.write_feed_bars(
        [
            bar(chart["1000"]),
            bar(chart["1001"], high=chart["1001"].high + 100, is_whole=False),
            bar(chart["1005"], volume=1, is_whole=False),
            bar(chart["1006"]),
        ]
    )
    assert candle_repair.repair(broker, now=clock.now()) == 5
    expected = {minute: told(chart[minute], "CHART") for minute in ("1001", "1002", "1003", "1004", "1005")}
    expected |= {minute: told(chart[minute], "FEED") for minute in ("1000", "1006")}
    assert rows() == expected
    assert candle_repair.repair(broker, now=clock.now()) == 0


def test_values_and_running_totals_follow_from_the_bar_before(broker: Broker, chart: dict[str, ChartMinute]) -> None:
    candles.write_feed_bars([bar(chart["1000"]), bar(chart["1002"], close=chart["1002"].low, is_whole=False)])
    candle_repair.repair(broker, now=clock.now())
    first, second = candles.bars_of(CODE, Market.KRX, chart["1001"].at, chart["1002"].at)
    assert first.value == chart["1001"].day_value - chart["1000"].day_value
    assert first.day_volume == 1_000_000 + chart["1000"].volume + chart["1001"].volume
    assert second.day_volume == first.day_volume + chart["1002"].volume
    assert (first.count, second.count) == (None, None)


def test_a_doubted_bar_the_chart_confirms_is_the_feeds_again(broker: Broker, chart: dict[str, ChartMinute]) -> None:
    whole = [bar(chart["1003"]), bar(chart["1004"], chart["1003"])]
    confirmed = replace(whole[1], day_volume=whole[0].day_volume + whole[1].volume)
    candles.write_feed_bars([whole[0], replace(confirmed, is_whole=False)])
    candle_repair.repair(broker, now=clock.now())
    assert candles.bars_of(CODE, Market.KRX, whole[1].time, whole[1].time) == [confirmed]


def test_behind_a_doubtful_newest_bar_the_chart_fills_in_all_that_is_over(
    broker: Broker, chart: dict[str, ChartMinute]
) -> None:
    candles.write_feed_bars([bar(chart["1006"]), bar(chart["1007"], low=1, is_whole=False)])
    candle_repair.repair(broker, now=clock.now())
    assert sorted(rows()) == ["1006", "1007", "1008", "1009"]


def test_the_running_minute_is_left_to_the_feed(
    broker: Broker, simulator: Simulator, chart: dict[str, ChartMinute]
) -> None:
    simulator.step(5)
    candles.write_feed_bars([bar(chart["1009"], minute="1010", is_whole=False)])
    assert candle_repair.repair(broker, now=clock.now()) == 0
    assert candle_repair.repair(broker, now=datetime(2026, 11, 23, 10, 11, 4, tzinfo=KST)) == 0
    assert rows()["1010"][0] == "PARTIAL"


def test_a_stock_heard_of_late_gets_its_morning(broker: Broker, chart: dict[str, ChartMinute]) -> None:
    candles.write_feed_bars([bar(chart["1009"], is_whole=False)])
    candle_repair.repair(broker, now=clock.now())
    assert rows().keys() == {"0900", *chart}
    assert MarketCandle.objects.order_by("time").first().day_value > 0


def test_yesterdays_holes_are_mended_from_the_chart_of_yesterday(broker: Broker, clock_at: ClockAt) -> None:
    friday = datetime(2026, 11, 20, 10, 0, tzinfo=KST)
    (row,) = [row for row in broker.minutes(CODE, Market.KRX, friday) if row.at == friday]
    before = bar(row, minute="0959", day=friday.date(), day_value=row.day_value - row.volume * row.open)
    candles.write_feed_bars([before, bar(row, day=friday.date(), high=row.high + 100, is_whole=False)])
    candle_repair.repair(broker, now=clock.now())
    found = candles.bars_of(CODE, Market.KRX, friday, friday)[0]
    assert (found.high, found.is_whole) == (row.high, True)


def test_what_no_chart_tells_of_is_not_asked_for_for_ever(broker: Broker, chart: dict[str, ChartMinute]) -> None:
    candles.write_feed_bars([bar(chart["1000"]), bar(chart["1001"], minute="0730", is_whole=False)])
    candle_repair.repair(broker, now=clock.now())
    assert rows()["0730"][0] == "UNSURE"
    assert candles.days_with_gaps(clock.now() - timedelta(days=1)) == []


def test_where_the_broker_is_silent_the_holes_wait(
    broker: Broker, simulator: Simulator, chart: dict[str, ChartMinute]
) -> None:
    candles.write_feed_bars([bar(chart["1000"]), bar(chart["1001"], low=1, is_whole=False)])
    simulator.stop()
    assert candle_repair.repair(broker, now=clock.now()) == 0
    assert rows()["1001"][0] == "PARTIAL"


class Refuses:
    """A broker that refuses the minutes of some stocks, and counts how often it is asked."""

    def __init__(self, broker: Broker, refusals: dict[str, Refused]) -> None:
        self._broker = broker
        self.refusals = refusals
        self.asked: list[str] = []

    def minutes(self, code: str, market: Market, last: datetime) -> Sequence[ChartMinute]:
        self.asked.append(code)
        if refusal := self.refusals.get(code):
            raise refusal
        return self._broker.minutes(code, market, last)


@pytest.fixture
def _nothing_refused_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candle_repair, "_refused_at", {})


@pytest.mark.usefixtures("_nothing_refused_yet")
def test_a_wrong_key_spoils_no_bar_and_the_chart_is_asked_for_again_later(
    broker: Broker, chart: dict[str, ChartMinute]
) -> None:
    candles.write_feed_bars([bar(chart["1000"]), bar(chart["1005"], is_whole=False)])
    refuses = Refuses(broker, {CODE: Refused("유효하지 않은 AppSecret", code="EGW00105", call="tokenP")})
    now = clock.now()
    for _ in range(5):
        assert candle_repair.repair(refuses, now=now) == 0
    assert refuses.asked == [CODE], "once for all these turns"
    assert rows()["1005"][0] == "PARTIAL"
    refuses.refusals.clear()
    assert candle_repair.repair(refuses, now=now + candle_repair.PAUSE) > 0
    assert rows()["1005"][0] == "CHART"


@pytest.mark.usefixtures("_nothing_refused_yet")
def test_one_refused_chart_keeps_no_other_waiting_and_many_end_the_turn(
    broker: Broker, chart: dict[str, ChartMinute]
) -> None:
    others = [f"00000{number}" for number in range(2 * candle_repair.REFUSALS_AT_MOST)]
    for code in (*others, CODE):
        candles.write_feed_bars([bar(chart["1000"], code=code), bar(chart["1005"], code=code, is_whole=False)])
    refuses = Refuses(broker, {code: Refused("잘못된 요청", code="OPSQ2001") for code in others})
    assert candle_repair.repair(refuses, now=clock.now()) == 0
    assert refuses.asked == others[: candle_repair.REFUSALS_AT_MOST]
    for _ in range(2):
        candle_repair.repair(refuses, now=clock.now())
    assert rows()["1005"][0] == "CHART"
    assert CODE in refuses.asked


@pytest.mark.usefixtures("_nothing_refused_yet")
def test_a_chart_that_contradicts_our_totals_spoils_no_other_gap(
    broker: Broker, chart: dict[str, ChartMinute], caplog: pytest.LogCaptureFixture
) -> None:
    candles.write_feed_bars(
        [
            bar(chart["1000"]),
            bar(chart["1001"], is_whole=False),
            bar(chart["1002"]),
            bar(chart["1004"], day_value=chart["1009"].day_value * 2),
            bar(chart["1006"], is_whole=False),
            bar(chart["1007"]),
        ]
    )
    assert candle_repair.repair(broker, now=clock.now()) == 1
    sources = {minute: row[0] for minute, row in rows().items()}
    assert (sources["1001"], sources["1006"]) == ("CHART", "PARTIAL")
    assert "1005" not in sources
    assert "1005" in caplog.text
    # it is asked for again later, not at once
    caplog.clear()
    assert candle_repair.repair(broker, now=clock.now()) == 0
    assert not caplog.text


@pytest.mark.usefixtures("_nothing_refused_yet")
def test_a_stock_the_broker_does_not_know_is_not_asked_for_again(broker: Broker, chart: dict[str, ChartMinute]) -> None:
    candles.write_feed_bars([bar(chart["1000"], code="999999"), bar(chart["1001"], code="999999", is_whole=False)])
    candle_repair.repair(broker, now=clock.now())
    assert rows()["1001"][0] == "UNSURE"
    assert candles.days_with_gaps(clock.now() - timedelta(days=1)) == []
