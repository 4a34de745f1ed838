"""Bars against the trades they are made of, whatever the wire does to them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import ChartMinute, Trade
from aegis.candles import KEPT_MINUTES, Bar, MinuteBarAggregator, doubtful, mended
from aegis.sessions import KST
from aegis.terms import Market

DAY = date(2026, 11, 23)
SAMSUNG, KOGAS = "005930", "036460"
Print = tuple[str, int, int]  # HHMMSS, won, shares


def day_of(prints: Iterable[Print], code: str = SAMSUNG, market: Market = Market.KRX) -> list[Trade]:
    """Return prints as the feed tells them: each with the day's running totals."""
    volume = value = 0
    trades = []
    for hhmmss, price, qty in prints:
        volume, value = volume + qty, value + price * qty
        trades.append(Trade(code, hhmmss, price, qty, volume, value, market))
    return trades


def truth(trades: Sequence[Trade]) -> dict[tuple[str, str], Bar]:
    """Return the bars of a day all of which was heard, reckoned minute by minute."""
    minutes: dict[tuple[str, str], list[Trade]] = {}
    for trade in trades:
        minutes.setdefault((trade.code, trade.hhmmss[:4]), []).append(trade)
    return {
        (code, minute): Bar(
            code=code,
            market=heard[0].market,
            day=DAY,
            minute=minute,
            open=heard[0].price,
            high=max(trade.price for trade in heard),
            low=min(trade.price for trade in heard),
            close=heard[-1].price,
            volume=sum(trade.qty for trade in heard),
            value=sum(trade.qty * trade.price for trade in heard),
            count=len(heard),
            day_volume=heard[-1].volume,
            day_value=heard[-1].value,
            is_whole=True,
        )
        for (code, minute), heard in minutes.items()
    }


def fold(
    *frames: Sequence[Trade], market: Market = Market.KRX, into: MinuteBarAggregator | None = None
) -> MinuteBarAggregator:
    made = into or MinuteBarAggregator(market, DAY)
    for frame in frames:
        made.add(frame)
    return made


def told(fold: MinuteBarAggregator, before: dict[tuple[str, str], Bar] | None = None) -> dict[tuple[str, str], Bar]:
    """Return what a table would hold that keeps the newest word on each bar."""
    return {**(before or {}), **{(bar.code, bar.minute): bar for bar in fold.changed()}}


MORNING: list[Print] = [
    ("090000", 71_500, 1_000),
    ("090012", 71_600, 10),
    ("090059", 71_400, 5),
    ("090100", 71_500, 7),
    ("090307", 71_300, 20),
    ("153000", 71_200, 4_000),
]


def test_trades_become_the_bars_of_their_minutes() -> None:
    bars = told(fold(day_of(MORNING)))
    first = bars[SAMSUNG, "0900"]
    assert (first.open, first.high, first.low, first.close) == (71_500, 71_600, 71_400, 71_400)
    assert (first.volume, first.count, first.is_whole) == (1_015, 3, True)
    assert first.value == 71_500 * 1_000 + 71_600 * 10 + 71_400 * 5
    assert first.time == datetime(2026, 11, 23, 9, 0, tzinfo=KST)
    assert bars == truth(day_of(MORNING))


def test_the_closing_auction_is_a_bar_of_one_trade_and_quiet_minutes_have_none() -> None:
    bars = told(fold(day_of(MORNING)))
    assert sorted(minute for _, minute in bars) == ["0900", "0901", "0903", "1530"]
    assert (bars[SAMSUNG, "1530"].count, bars[SAMSUNG, "1530"].volume) == (1, 4_000)


def test_only_what_changed_is_told_again() -> None:
    trades, running = day_of(MORNING), MinuteBarAggregator(Market.KRX, DAY)
    running.add(trades[:2])
    assert [bar.minute for bar in running.changed()] == ["0900"]
    assert running.changed() == []
    running.add(trades[2:4])
    assert [(bar.minute, bar.count) for bar in running.changed()] == [("0900", 3), ("0901", 1)]


def test_a_repeated_trade_changes_nothing() -> None:
    trades = day_of(MORNING)
    doubled = fold([trade for trade in trades for _ in range(2)])
    assert told(doubled) == truth(trades)
    assert doubled.counters.repeated == len(trades)


def test_a_lost_trade_loses_no_volume_and_its_minute_is_not_whole() -> None:
    trades = day_of(MORNING)
    bars = told(fold([trades[0], *trades[2:]]))
    assert bars[SAMSUNG, "0900"].volume == 1_015
    assert bars[SAMSUNG, "0900"].high == 71_500
    assert bars[SAMSUNG, "0900"].count is None
    assert not bars[SAMSUNG, "0900"].is_whole
    assert bars[SAMSUNG, "0901"].is_whole


def test_shares_lost_between_two_minutes_count_once_and_neither_minute_is_whole() -> None:
    trades = day_of(MORNING)
    bars = told(fold([trades[0], trades[1], *trades[3:]]))
    assert sum(bar.volume for bar in bars.values()) == trades[-1].volume
    assert [bars[SAMSUNG, minute].is_whole for minute in ("0900", "0901", "0903")] == [False, False, True]


def test_a_late_trade_makes_its_minute_whole_again() -> None:
    trades = day_of(MORNING)
    running = fold([trades[0], trades[2], trades[3]])
    bars = told(running)
    assert not bars[SAMSUNG, "0900"].is_whole
    bars = told(fold([trades[1], *trades[4:]], into=running), bars)
    assert bars == truth(trades)
    assert running.counters.late == 1


def test_a_late_trade_may_be_the_only_one_of_its_minute() -> None:
    trades = day_of(MORNING)
    running = fold([*trades[:3], trades[4], trades[3], trades[5]])
    assert told(running) == truth(trades)


def test_a_trade_later_than_the_kept_minutes_is_counted_and_its_bar_stays_doubtful() -> None:
    trades = day_of([(f"09{minute:02}00", 100, 1) for minute in range(KEPT_MINUTES + 4)])
    running = fold([trades[0], *trades[2:], trades[1]])
    bars = told(running)
    assert (SAMSUNG, "0901") not in bars
    assert not bars[SAMSUNG, "0900"].is_whole
    assert not bars[SAMSUNG, "0902"].is_whole


def test_a_stock_heard_of_in_mid_day_begins_with_a_bar_that_is_not_whole() -> None:
    trades = day_of(MORNING)
    bars = told(fold(trades[1:]))
    assert (bars[SAMSUNG, "0900"].volume, bars[SAMSUNG, "0900"].is_whole) == (15, False)
    assert bars[SAMSUNG, "0901"] == truth(trades)[SAMSUNG, "0901"]


def test_an_expected_price_of_an_auction_is_no_trade() -> None:
    trades = day_of(MORNING)
    expected = [replace(trades[1], price=99_000, qty=0), replace(trades[1], hhmmss="090013", price=99_000, qty=500)]
    assert told(fold([*trades[:2], *expected, *trades[2:]])) == truth(trades)
    assert told(fold([replace(trades[0], qty=0, volume=0)])) == {}


def test_running_totals_that_begin_anew_within_the_day_begin_the_stock_anew() -> None:
    morning = day_of(MORNING[:4])
    evening = day_of([("160001", 71_000, 3), ("160002", 71_100, 4)])
    running = fold(morning, evening)
    bars = told(running)
    assert (bars[SAMSUNG, "0900"].volume, bars[SAMSUNG, "0901"].volume) == (1_015, 7)
    assert (bars[SAMSUNG, "1600"].volume, bars[SAMSUNG, "1600"].high) == (7, 71_100)
    assert running.counters.recounts == 1


def test_a_torn_bar_is_whole_again_once_the_next_trade_follows_it_directly() -> None:
    trades = day_of(MORNING)
    running = fold(trades[:2])
    running.mark_suspect()
    bars = told(running)
    assert not bars[SAMSUNG, "0900"].is_whole
    assert told(fold(trades[2:], into=running), bars) == truth(trades)


def test_a_torn_bar_stays_so_where_trades_were_missed() -> None:
    trades = day_of(MORNING)
    running = fold(trades[:2])
    running.mark_suspect()
    bars = told(fold(trades[3:], into=running))
    assert not bars[SAMSUNG, "0900"].is_whole
    assert not bars[SAMSUNG, "0901"].is_whole
    assert bars[SAMSUNG, "0903"].is_whole


@pytest.mark.parametrize("cut", range(1, len(MORNING)))
def test_another_process_goes_on_in_mid_minute_where_nothing_was_missed(cut: int) -> None:
    trades = day_of(MORNING)
    table = told(fold(trades[:cut]))
    second = MinuteBarAggregator(Market.KRX, DAY)
    second.resume([max(table.values(), key=lambda bar: bar.minute)])
    assert not any(bar.is_whole for bar in second.changed())
    assert told(fold(trades[cut:], into=second), table) == truth(trades)


def test_what_another_process_left_doubtful_stays_doubtful() -> None:
    trades = day_of(MORNING)
    left = next(iter(told(fold([trades[0], trades[2]])).values()))
    second = MinuteBarAggregator(Market.KRX, DAY)
    second.resume([left])
    bars = told(fold(trades[3:], into=second))
    assert [bars[SAMSUNG, minute].is_whole for minute in ("0900", "0901")] == [False, True]


def test_venues_and_stocks_do_not_mix() -> None:
    krx, nxt, other = day_of(MORNING), day_of([("090031", 71_450, 3)], market=Market.NXT), day_of(MORNING[1:], KOGAS)
    both = sorted([*krx, *other], key=lambda trade: trade.hhmmss)
    assert told(fold(both)) == truth([*krx, *other])
    assert told(fold(nxt, market=Market.NXT)) == truth(nxt)


seconds = st.integers(0, 20 * 60 - 1).map(lambda at: f"{9 + at // 3600:02}{at // 60 % 60:02}{at % 60:02}")
prints = st.lists(st.tuples(seconds, st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=60).map(
    lambda rows: sorted(rows, key=lambda row: row[0])
)


@st.composite
def mangled(draw: st.DrawFn) -> tuple[list[Trade], list[Trade]]:
    """Return a day, and the same as a bad wire brings it: doubled, swapped with neighbours, with holes."""
    trades = day_of(draw(prints))
    heard = [trade for trade in trades for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2])))]
    for at in draw(st.lists(st.integers(0, max(0, len(heard) - 2)), max_size=15)):
        if len(heard) > 1:
            heard[at], heard[at + 1] = heard[at + 1], heard[at]
    return trades, heard


@given(st.data())
def test_however_doubled_and_reordered_a_whole_day_gives_its_bars(data: st.DataObject) -> None:
    trades = day_of(data.draw(prints))
    heard = list(trades)
    for at in data.draw(st.lists(st.integers(0, max(0, len(heard) - 2)), max_size=15)):
        neighbours = heard[at : at + 2]
        # a trade may be late by less than the minutes that are kept open
        if len({trade.hhmmss[:4] for trade in heard}) <= KEPT_MINUTES or len(neighbours) < 2:
            heard[at : at + 2] = reversed(neighbours)
    doubles = data.draw(st.lists(st.sampled_from(heard), max_size=10))
    assert told(fold([*heard, *doubles])) == truth(trades)


@given(mangled(), st.integers(1, 7))
def test_a_bar_that_says_it_is_whole_is_right(day: tuple[list[Trade], list[Trade]], every: int) -> None:
    trades, heard = day
    true, bars, running = truth(trades), {}, MinuteBarAggregator(Market.KRX, DAY)
    for start in range(0, len(heard), every):
        running.add(heard[start : start + every])
        bars = told(running, bars)
    newest = max((trade.volume for trade in heard), default=0)
    for key, bar in bars.items():
        # what was lost after the last trade heard, nothing on the wire can tell
        if bar.is_whole and bar.day_volume < newest:
            assert bar == true[key]


@given(mangled())
def test_no_share_is_lost_or_counted_twice(day: tuple[list[Trade], list[Trade]]) -> None:
    _, heard = day
    bars = told(fold(heard)).values()
    if bars:
        newest, oldest = max(bars, key=lambda bar: bar.day_volume), min(bars, key=lambda bar: bar.day_volume)
        assert sum(bar.volume for bar in bars) == newest.day_volume - (oldest.day_volume - oldest.volume)
        assert sum(bar.value for bar in bars) == newest.day_value - (oldest.day_value - oldest.value)
        assert newest.day_volume == max(trade.volume for trade in heard)


@given(prints, st.data())
def test_a_restart_anywhere_loses_nothing_it_does_not_tell_of(rows: list[Print], data: st.DataObject) -> None:
    trades = day_of(rows)
    dies, lives = sorted(data.draw(st.tuples(*[st.integers(0, len(trades))] * 2)))
    table = told(fold(trades[:dies]))
    second = MinuteBarAggregator(Market.KRX, DAY)
    second.resume(sorted(table.values(), key=lambda bar: bar.minute)[-1:])
    table = told(fold(trades[lives:], into=second), table)
    true = truth(trades)
    for key, bar in table.items():
        if bar.is_whole:
            assert bar == true[key]
    if dies == lives < len(trades):
        assert table == true


def chart(trades: Sequence[Trade]) -> list[ChartMinute]:
    return [
        ChartMinute(bar.time, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.day_value)
        for bar in truth(trades).values()
    ]


def by_time(bars: dict[tuple[str, str], Bar]) -> list[Bar]:
    return sorted(bars.values(), key=lambda bar: bar.minute)


def test_a_chart_that_agrees_makes_a_doubted_bar_whole() -> None:
    trades = day_of(MORNING)
    running = fold(trades)
    bars = told(running)
    running.mark_suspect()
    (doubted,) = running.changed()
    others = [bar for bar in by_time(bars) if bar.minute != doubted.minute]
    assert mended([*others, doubted], chart(trades), (0, 0)) == [bars[SAMSUNG, "1530"]]


def test_a_bar_with_holes_that_the_chart_confirms_does_not_know_its_count() -> None:
    trades = day_of([("090000", 100, 5), ("090010", 100, 3), ("090020", 100, 2), ("090100", 100, 1)])
    bars = by_time(told(fold([trades[0], *trades[2:]])))
    (mend,) = mended(bars[:1], chart(trades), (0, 0))[:1]
    assert (mend.volume, mend.count, mend.is_whole) == (10, None, True)


def test_a_chart_mends_the_bars_beside_a_gap_and_fills_in_the_minutes_within() -> None:
    trades = day_of(MORNING)
    bars = by_time(told(fold([trades[0], trades[4], trades[5]])))
    assert [bar.minute for bar in bars] == ["0900", "0903", "1530"]
    mends = mended(bars, chart(trades), (0, 0))
    true = truth(trades)
    assert mends == [
        replace(true[SAMSUNG, "0900"], count=None),
        replace(true[SAMSUNG, "0901"], count=None),
        replace(true[SAMSUNG, "0903"], count=None),
    ]


def test_a_minute_the_chart_does_not_know_stays_doubtful() -> None:
    trades = day_of(MORNING)
    bars = by_time(told(fold([trades[0], *trades[2:]])))
    (left,) = mended(bars, [row for row in chart(trades) if f"{row.at:%H%M}" != "0900"], (0, 0))
    assert (left.minute, left.is_whole) == ("0900", False)


def test_a_minute_without_trades_in_the_chart_is_no_bar() -> None:
    trades = day_of(MORNING)
    quiet = ChartMinute(datetime(2026, 11, 23, 9, 2, tzinfo=KST), 71_500, 71_500, 71_500, 71_500, 0, 72_000_000)
    bars = by_time(told(fold([trades[0], *trades[4:]])))
    assert "0902" not in [bar.minute for bar in mended(bars, [*chart(trades), quiet], (0, 0))]


@given(mangled())
def test_whatever_was_missed_before_the_last_trade_heard_the_chart_makes_good(
    day: tuple[list[Trade], list[Trade]],
) -> None:
    trades, heard = day
    bars = told(fold([*heard, trades[-1]]))
    mends = mended(by_time(bars), chart(trades), (0, 0))
    table = {**bars, **{(bar.code, bar.minute): bar for bar in mends}}
    assert {key: replace(bar, count=None) for key, bar in table.items()} == {
        key: replace(bar, count=None) for key, bar in truth(trades).items()
    }


def stretches(whole: str, finished: str = "1600") -> list[tuple[str, str, str]]:
    """Return the stretches of bars at 0900, 0901, ... that are whole (+) or not (-), as (since, until, bars)."""
    (like,) = told(fold(day_of(MORNING[:1]))).values()
    bars = [
        replace(like, minute=f"09{number:02}", day_volume=number + 1, is_whole=sign == "+")
        for number, sign in enumerate(whole)
    ]
    return [(each.since, each.until, " ".join(bar.minute for bar in each.bars)) for each in doubtful(bars, finished)]


def test_doubtful_neighbours_are_one_stretch_from_the_bar_before_them() -> None:
    assert stretches("++--+-+") == [("0901", "0903", "0902 0903"), ("0904", "0905", "0905")]
    assert stretches("+++") == []


def test_a_day_that_begins_doubtful_is_doubtful_from_its_beginning() -> None:
    assert stretches("-+") == [("", "0900", "0900")]


def test_behind_a_doubtful_newest_bar_everything_is() -> None:
    assert stretches("+-", finished="0930") == [("0900", "0930", "0901")]


def test_minutes_that_are_not_over_are_left_alone() -> None:
    assert stretches("+--", finished="0901") == [("0900", "0901", "0901")]
    assert stretches("-", finished="0859") == []
