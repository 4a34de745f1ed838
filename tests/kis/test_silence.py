"""When a connection counts as deaf: at the edges of the rule."""

import math

import pytest

from kis.liveness import (
    FEW_SECONDS,
    LEAST_SECONDS,
    MISSED_FRAMES,
    MOST_DOUBLINGS,
    MOST_RENEWALS,
    FeedRates,
    max_silence_seconds,
)
from kis.subscriptions import Topic

REGULAR = "REGULAR"
BUSY = [Topic("H0STCNT0", code) for code in ("005930", "000660", "035720")]
THIN = Topic("H0STCNT0", "004090")
INDEX = Topic("H0UPCNT0", "2001")


def heard(voices: FeedRates, per_second: dict[Topic, int], since: float, seconds: int, phase: str = REGULAR) -> float:
    """Let these feeds speak for a while, look each second, and return the end of it."""
    for second in range(seconds):
        assert not voices.detect_dead_connection(since + second + 1, per_second, dict.fromkeys(per_second, phase))
    return since + seconds


def deaf_after(voices: FeedRates, topics: list[Topic], since: float, most: int, phase: str = REGULAR) -> float:
    """Return after how many seconds of silence the connection counts as deaf, infinity for not within `most`."""
    for second in range(1, most + 1):
        if voices.detect_dead_connection(since + second, {}, dict.fromkeys(topics, phase)):
            return second
    return math.inf


def connected(known_rates: dict[Topic, float] | None = None) -> FeedRates:
    voices = FeedRates(known_rates)
    voices.restart(0.0)
    return voices


def test_the_more_is_usual_the_sooner_silence_counts() -> None:
    assert max_silence_seconds([10.0, 10.0, 10.0]) == LEAST_SECONDS
    assert max_silence_seconds([0.1, 0.1, 0.1]) == pytest.approx(MISSED_FRAMES / 0.3)
    assert max_silence_seconds([MISSED_FRAMES / LEAST_SECONDS / 3] * 3) == pytest.approx(LEAST_SECONDS)


def test_one_or_two_stocks_may_stand_still_longer_than_an_interruption_lasts() -> None:
    assert max_silence_seconds([50.0]) == max_silence_seconds([50.0, 50.0]) == FEW_SECONDS
    assert FEW_SECONDS > 2 * 60
    assert max_silence_seconds([50.0, 50.0, 0.0]) == FEW_SECONDS


def test_nothing_is_expected_of_feeds_that_never_spoke() -> None:
    assert max_silence_seconds([]) == max_silence_seconds([0.0, 0.0]) == math.inf


def test_patience_doubles_where_a_new_connection_changed_nothing_and_stops_doubling() -> None:
    assert max_silence_seconds([10.0] * 3, 1) == 2 * LEAST_SECONDS
    assert max_silence_seconds([10.0] * 3, 99) == 2**MOST_DOUBLINGS * LEAST_SECONDS


def test_a_busy_market_that_falls_silent_is_noticed_within_the_minute() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 300)
    assert deaf_after(voices, BUSY, now, 600) <= 60


def test_a_thin_stock_may_be_silent_for_hours() -> None:
    voices = connected()
    for minute in range(0, 120, 10):  # a trade every ten minutes
        for second in range(600):
            assert not voices.detect_dead_connection(
                minute * 60 + second, {THIN: 1} if second == 0 else {}, {THIN: REGULAR}
            )
    assert deaf_after(voices, [THIN], 7_200.0, 4 * 3_600) == math.inf


def test_a_silence_is_counted_only_while_the_market_trades() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 300)
    for second in range(3_600):  # closed, or in an auction
        assert not voices.detect_dead_connection(now + second, {}, {})
    # the clock of silence starts with the phase, not before it
    assert 1 < deaf_after(voices, BUSY, now + 3_600, 600) <= 62


def test_what_is_usual_is_learned_phase_by_phase() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 300)
    assert deaf_after(voices, BUSY, now, 3_600, "AFTER_MARKET") == math.inf
    assert voices.detect_dead_connection(now + 7_300, {}, dict.fromkeys(BUSY, REGULAR)) is False


def test_halted_stocks_are_not_expected_to_speak() -> None:
    voices = connected()
    now = heard(voices, {**dict.fromkeys(BUSY, 5), THIN: 1}, 0.0, 300)
    assert deaf_after(voices, [THIN], now, 150) == math.inf


def test_a_lull_is_learned_while_anything_is_heard() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 600)
    for second in range(0, 1_800, 20):  # the lunch hour: each every twenty seconds
        assert not voices.detect_dead_connection(now + second, dict.fromkeys(BUSY, 1), dict.fromkeys(BUSY, REGULAR))
    assert deaf_after(voices, BUSY, now + 1_800, 3_600) > 300


def test_a_pulse_is_expected_before_it_was_ever_heard() -> None:
    voices = connected({INDEX: 0.5})
    assert deaf_after(voices, [INDEX, THIN], 0.0, 3_600) == pytest.approx(200, abs=2)


def test_a_new_connection_that_hears_nothing_either_has_more_patience() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 300)
    waits = []
    for _ in range(3):
        waits.append(deaf_after(voices, BUSY, now, 3_600))
        now += waits[-1]
        voices.restart(now)
    assert waits == sorted(waits)
    assert waits[2] >= 3 * waits[0]
    # and once it hears, it is as alert as before
    now = heard(voices, dict.fromkeys(BUSY, 5), now, 300)
    assert deaf_after(voices, BUSY, now, 600) <= 60


def test_a_sudden_halt_of_everything_costs_few_connections() -> None:
    """A market-wide stop of forty minutes of which nobody told us, at worst."""
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 600)
    deaf = 0
    for second in range(1, 2_400):
        if voices.detect_dead_connection(now + second, {}, dict.fromkeys(BUSY, REGULAR)):
            deaf += 1
            voices.restart(now + second)
    assert 1 <= deaf <= 6


def muted(
    voices: FeedRates, silent: list[Topic], loud: list[Topic], since: float, seconds: int
) -> list[tuple[int, Topic]]:
    """Let some go on while others are silent; return when which of them counted as mute."""
    told = []
    for second in range(1, seconds + 1):
        assert not voices.detect_dead_connection(
            since + second, dict.fromkeys(loud, 5), dict.fromkeys([*silent, *loud], REGULAR)
        )
        told += [(second, topic) for topic in voices.detect_silent_feeds(since + second)]
    return told


def test_a_busy_stock_that_alone_falls_silent_is_registered_anew_a_few_times() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 600)
    told = muted(voices, BUSY[:1], BUSY[1:], now, 3_600)
    assert [topic for _, topic in told] == BUSY[:1] * len(told)
    assert 1 <= len(told) <= MOST_RENEWALS
    assert FEW_SECONDS < told[0][0] <= FEW_SECONDS + 2


def test_a_stock_that_speaks_again_is_watched_again() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 600)
    assert muted(voices, BUSY[:1], BUSY[1:], now, 3_600)
    now = heard(voices, dict.fromkeys(BUSY, 5), now + 3_600, 600)
    assert muted(voices, BUSY[:1], BUSY[1:], now, 3_600)


def test_a_thin_stock_beside_busy_ones_is_never_mute() -> None:
    voices = connected()
    for second in range(3_600):
        counts = dict.fromkeys(BUSY, 5) | ({THIN: 1} if second % 120 == 0 else {})
        assert not voices.detect_dead_connection(float(second), counts, dict.fromkeys([*BUSY, THIN], REGULAR))
        assert not voices.detect_silent_feeds(float(second))
    assert not muted(voices, [THIN], BUSY, 3_600.0, 3_600)


def test_a_stock_that_was_halted_for_a_while_is_not_mute_when_it_comes_back() -> None:
    voices = connected()
    now = heard(voices, dict.fromkeys(BUSY, 5), 0.0, 600)
    assert not muted(voices, [], BUSY[1:], now, 1_200)
    assert not muted(voices, BUSY[:1], BUSY[1:], now + 1_200, 60)
