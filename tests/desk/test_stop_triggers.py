"""Which frames of the feed trigger a stop: real ones, repeated ones, old ones, single shares on NXT."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import Trade
from aegis.sessions import standard_phases
from aegis.stops import Rule, StopKind, StopUnit, TriggerRule, hours_of
from aegis.terms import Market
from infra import clock
from kis.codec import Data
from kis.realtime import read_records
from market.models import DailyPrice
from orders import stops
from orders.models import StopRule
from portfolio.models import Portfolio
from stream import stops as desk_stops
from stream.stops import ArmedStop, Stops
from stream.worker import JobRunner
from tests.kis.test_feeds import sample

from .test_stops import SAMSUNG, arm, fire_all, listening, sent, state, told

__all__ = ("sent",)

pytestmark = pytest.mark.django_db
D = Decimal
FRAME = sample("ws_h0stcnt0_20260922_005930_vts_47f.txt").rsplit("|", 1)[1]
AT = "2026-09-22 14:06:05"


@pytest.fixture(autouse=True)
def held(clock_at: Callable[[str], object]) -> Portfolio:
    clock_at("2026-11-23 10:00:00")
    return Portfolio.objects.create(
        stock_code=SAMSUNG,
        stock_name="삼성전자",
        quantity=10,
        avg_price=D(70_000),
        current_price=70_000,
        counted_on=clock.now().date(),
        updated_at=clock.now(),
    )


def frames(body: str = FRAME, tr_id: str = "H0STCNT0", **columns: str) -> Sequence[Trade]:
    """A recorded frame with some of its columns changed: by their places, as `c12="0"`."""
    values = body.split("^")
    for name, value in columns.items():
        values[int(name[1:])] = value
    if tr_id != "H0STCNT0":
        values.insert(46, "")
        values = values[:47]
    return read_records(Data(tr_id, 1, "^".join(values)))


def armed_before(clock_at: Callable[[str], object]) -> StopRule:
    """A stop loss at 278,000 won, armed just before the recorded trade at 277,750."""
    clock_at(AT)
    Portfolio.objects.update(current_price=280_000, avg_price=D(290_000))
    return stops.arm(SAMSUNG, StopKind.STOP_LOSS, StopUnit.PRICE, D(278_000), by="kim", at=clock.now())


def test_a_recorded_trade_below_the_line_triggers(sent: list[int], clock_at: Callable[[str], object]) -> None:
    row = armed_before(clock_at)
    heard = listening()
    heard.on_trades(frames(), 0.0)
    fire_all(heard)
    assert (sent, state(row), row.trigger_price) == ([row.pk], "TRIGGERED", 277_750)


@pytest.mark.parametrize(
    "columns",
    [
        {"c12": "0"},  # no share
        {"c1": "140604"},  # a second before it was armed
        {"c33": "20260921"},  # of the day before
    ],
)
def test_a_recorded_frame_that_tells_no_new_trade_does_not(
    sent: list[int], clock_at: Callable[[str], object], columns: dict[str, str]
) -> None:
    row = armed_before(clock_at)
    heard = listening()
    heard.on_trades(frames(**columns), 0.0)
    fire_all(heard)
    assert (sent, state(row)) == ([], "ARMED")
    # and hides none that does
    heard.on_trades(frames(c13="11955001", c1="140611"), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


def test_a_frame_behind_the_running_total_is_an_old_one(sent: list[int]) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(70_000, total=500), 0.0)
    heard.on_trades(told(60_000, total=500), 0.0)
    heard.on_trades(told(60_000, total=499), 0.0)
    fire_all(heard)
    assert state(row) == "ARMED"
    heard.on_trades(told(60_000, total=501), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


def test_the_next_day_s_total_begins_anew(sent: list[int], clock_at: Callable[[str], object]) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(70_000, total=10**9), 0.0)
    clock_at("2026-11-24 09:10:00")
    StopRule.objects.update(based_on=clock.now().date())
    heard.read()
    heard.on_trades(told(60_000, total=5, at="091000"), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


def test_venues_have_totals_of_their_own(sent: list[int]) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(70_000, total=10**9), 0.0)
    heard.on_trades(told(60_000, total=5, market=Market.NXT, qty=1_000), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


def test_one_share_on_nxt_sells_nothing_and_lifts_no_high(sent: list[int]) -> None:
    loss, trail = arm(), arm(StopKind.TRAILING, value="10")
    heard = listening()
    heard.on_trades(told(49_000, market=Market.NXT), 0.0)
    heard.on_trades(told(91_000, market=Market.NXT), 0.0)
    heard.on_trades(told(70_000, market=Market.NXT, qty=500, at="100005"), 0.0)
    fire_all(heard)
    heard.write()
    assert (sent, state(loss), state(trail)) == ([], "ARMED", "ARMED")
    assert trail.high == 70_000


@pytest.mark.parametrize(
    "witness",
    [
        told(49_000, market=Market.NXT, at="100002"),
        told(60_000, market=Market.NXT, qty=200),
        told(49_000, market=Market.NXT, quotes=("66500", "49000")),
        told(66_500),
    ],
)
def test_a_fall_on_nxt_is_borne_out(sent: list[int], witness: Sequence[Trade]) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(49_000, market=Market.NXT), 0.0)
    heard.read()
    again = [Trade(t.code, t.hhmmss, t.price, t.qty, 10**9, t.value, t.market, quotes=t.quotes) for t in witness]
    heard.on_trades(again, 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


def test_a_recorded_layout_on_nxt_needs_a_witness_too(sent: list[int], clock_at: Callable[[str], object]) -> None:
    row = armed_before(clock_at)
    heard = listening()
    heard.on_trades(frames(tr_id="H0NXCNT0", c10="278500"), 0.0)
    fire_all(heard)
    assert state(row) == "ARMED"
    heard.on_trades(frames(tr_id="H0NXCNT0", c13="11955006"), 0.0)  # the best ask is 278,000
    fire_all(heard)
    assert state(row) == "TRIGGERED"


def test_after_krx_s_hours_its_trades_need_a_witness(sent: list[int], clock_at: Callable[[str], object]) -> None:
    clock_at("2026-11-23 16:30:00")
    row, heard = arm(), listening()
    heard.on_trades(told(60_000, at="163001"), 0.0)
    fire_all(heard)
    assert state(row) == "ARMED"
    heard.on_trades(told(60_000, at="163002"), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


def test_a_venue_that_is_left_out_triggers_nothing(sent: list[int], settings: Any) -> None:
    settings.STOP_SOURCES = ("KRX",)
    row = arm()
    own = stops.arm(
        SAMSUNG, StopKind.TAKE_PROFIT, StopUnit.PRICE, D(80_000), by="kim", at=clock.now(), sources="KRX,NXT"
    )
    heard = listening()
    heard.on_trades(told(49_000, 49_000, market=Market.NXT, qty=1_000), 0.0)
    heard.on_trades(told(80_000, market=Market.NXT, qty=1_000), 0.0)
    fire_all(heard)
    assert (state(row), state(own)) == ("ARMED", "TRIGGERED")


def test_until_the_base_price_is_counted_in_it_holds_fire(sent: list[int], clock_at: Callable[[str], object]) -> None:
    row = arm()
    clock_at("2026-11-24 09:00:05")
    heard = listening()
    heard.on_trades(told(60_000, at="090005"), 0.0)
    fire_all(heard)
    assert state(row) == "ARMED"
    row.refresh_from_db()
    assert stops.settle_base(row, 60_000, D(60_000) / 70_000, "ex-rights", day=clock.now().date(), at=clock.now())
    heard.read()
    heard.on_trades(told(60_000, at="090006"), 0.0)
    fire_all(heard)
    assert (state(row), stops.current_limit(row)) == ("ARMED", 57_000)
    heard.on_trades(told(57_000, at="090007"), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


@pytest.mark.parametrize(
    ("base", "price", "fires"), [(70_000, 60_000, True), (60_000, 60_000, False), (35_000, 30_000, True)]
)
def test_the_last_trade_of_while_it_held_fire_is_judged_afterwards(
    sent: list[int], clock_at: Callable[[str], object], base: int, price: int, fires: bool
) -> None:
    row = arm()
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-23", open=70_000, high=70_000, low=70_000, close=70_000, volume=1
    )
    clock_at("2026-11-24 09:00:05")
    heard = listening()
    heard.on_trades(told(price, at="090005"), 0.0)
    heard.write()
    fire_all(heard)
    row.refresh_from_db()
    clock_at("2026-11-24 09:00:08")
    assert stops.settle_base(row, base, D(base) / 70_000, "base price", day=clock.now().date(), at=clock.now())
    heard.read()
    heard.read()
    fire_all(heard)
    assert state(row) == ("TRIGGERED" if fires else "ARMED")


def test_a_trade_of_before_an_edit_is_not_judged_when_it_holds_fire_no_more(
    sent: list[int], clock_at: Callable[[str], object]
) -> None:
    row = arm()
    clock_at("2026-11-24 09:00:05")
    heard = listening()
    heard.on_trades(told(66_000, at="090005"), 0.0)
    clock_at("2026-11-24 09:00:07")
    row.refresh_from_db()
    stops.edit(row, StopUnit.PRICE, D(66_500), by="kim", at=clock.now())
    heard.read()
    row.refresh_from_db()
    assert stops.settle_base(row, 70_000, D(1), "base price", day=clock.now().date(), at=clock.now())
    heard.read()
    fire_all(heard)
    assert state(row) == "ARMED"


def test_an_edit_forgets_what_was_heard_before_it(sent: list[int], clock_at: Callable[[object], object]) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(66_000, market=Market.NXT), 0.0)
    clock_at(clock.now() + timedelta(seconds=10))
    stops.edit(row, StopUnit.PRICE, D(66_500), by="kim", at=clock.now())
    heard.read()
    heard.on_trades(told(66_000, at="100005"), 0.0)
    fire_all(heard)
    assert state(row) == "ARMED", "that trade is older than the edit"
    heard.on_trades(told(66_000, at="100012"), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"


# --- what fired is marked before the term is given up


def fall(count: int) -> tuple[Stops, list[StopRule]]:
    """Make `count` stops of one term trigger in one frame; nothing is marked yet."""
    codes = [f"{number:06d}" for number in range(1, count + 1)]
    for code in codes:
        Portfolio.objects.create(
            stock_code=code,
            quantity=1,
            avg_price=D(70_000),
            current_price=70_000,
            counted_on=clock.now().date(),
            updated_at=clock.now(),
        )
    rows = [stops.arm(code, StopKind.STOP_LOSS, StopUnit.PERCENT, D(5), by="kim", at=clock.now()) for code in codes]
    heard = listening()
    heard.on_trades([trade for code in codes for trade in told(60_000, code=code)], 0.0)
    return heard, rows


def fire_chore(heard: Stops) -> Any:
    (job,) = (each for each in desk_stops.consumer().jobs if each.name == "stops-fire")
    return type(job)(job.name, job.every_seconds, heard.write_triggers, lambda: heard.has_unwritten_triggers)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_lost", [False, True])
def test_all_that_fired_is_marked_when_a_term_ends(sent: list[int], is_lost: bool) -> None:
    heard, rows = fall(5)
    with JobRunner([fire_chore(heard)], lambda: not is_lost):
        pass
    assert [state(row) for row in rows] == ["TRIGGERED"] * 5
    assert sorted(sent) == [row.pk for row in rows]


@pytest.mark.django_db(transaction=True)
def test_what_fired_while_the_database_was_away_is_marked_when_it_is_back(
    sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, rows = fall(3)
    trigger, is_back, tried = stops.trigger, threading.Event(), threading.Event()

    def away(*words: Any, **more: Any) -> bool:
        tried.set()
        if not is_back.is_set():
            raise OperationalError("the database is away")
        return trigger(*words, **more)

    monkeypatch.setattr(stops, "trigger", away)
    with JobRunner([fire_chore(heard)], lambda: True):
        assert tried.wait(10)
        threading.Timer(0.3, is_back.set).start()
    assert [state(row) for row in rows] == ["TRIGGERED"] * 3


def test_one_worker_that_cannot_be_called_leaves_no_other_unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pk: int) -> None:
        raise ConnectionError

    monkeypatch.setattr(desk_stops.stop, "delay", refuse)
    monkeypatch.setattr(desk_stops, "LISTEN_SECONDS", 0.01)
    heard, rows = fall(3)
    heard.write_triggers()
    assert [state(row) for row in rows] == ["TRIGGERED"] * 3


# --- what holds for every sequence of frames

PHASES = standard_phases(clock.now().date())
RULE = Rule(StopKind.STOP_LOSS, StopUnit.PRICE, D(65_000), D(70_000))
LEAST = 10_000_000


@st.composite
def sequences(draw: st.DrawFn) -> list[tuple[Trade, str]]:
    """Trades of both venues in their order, with frames among them that tell nothing new."""
    totals, told_before = {Market.KRX: 0, Market.NXT: 0}, []
    for _ in range(draw(st.integers(1, 10))):
        market = draw(st.sampled_from([Market.KRX, Market.NXT]))
        qty = draw(st.sampled_from([1, 1, 200]))
        totals[market] += qty
        price, at = draw(st.sampled_from([64_000, 65_000, 66_000])), draw(st.sampled_from(["160001", "160005"]))
        at = max(at, told_before[-1][0].hhmmss if told_before else at)
        told_before.append((Trade(SAMSUNG, at, price, qty, totals[market], 0, market), "new"))
        what = draw(st.sampled_from(["", "", "twice", "zero"]))
        if what == "twice":
            told_before.append((draw(st.sampled_from(told_before))[0], what))
        if what == "zero":
            told_before.append((Trade(SAMSUNG, at, 64_000, 0, totals[market] + 1, 0, market), what))
    return told_before


@given(sequences())
def test_frames_that_tell_nothing_new_change_no_outcome(frames: list[tuple[Trade, str]]) -> None:
    outcomes = []
    for told_frames in (frames, [each for each in frames if each[1] == "new"]):
        heard = Stops()
        heard._hours = hours_of(PHASES)
        armed = ArmedStop(
            1, TriggerRule(RULE, LEAST), range(1, 10**9), frozenset(Market), "160001", awaits_base_price=False
        )
        heard._armed = {SAMSUNG: [armed]}
        for trade, _ in told_frames:
            heard.on_trades([trade], 0.0)
        shots = [] if heard._triggers.empty() else [heard._triggers.get_nowait().price]
        outcomes.append((shots, armed.rule.crossing, heard._totals))
    assert outcomes[0] == outcomes[1]


def test_the_feed_of_both_venues_needs_a_witness_and_both_as_sources(sent: list[int]) -> None:
    both = arm()
    one = stops.arm(SAMSUNG, StopKind.TRAILING, StopUnit.PERCENT, D(5), by="kim", at=clock.now(), sources="KRX")
    heard = listening()
    heard.on_trades(told(60_000, market=Market.SOR), 0.0)
    fire_all(heard)
    assert state(both) == "ARMED"
    heard.on_trades(told(60_000, market=Market.SOR, at="100002"), 0.0)
    fire_all(heard)
    assert (state(both), state(one)) == ("TRIGGERED", "ARMED")


def test_a_clock_that_was_set_back_makes_no_stop_deaf(sent: list[int], clock_at: Callable[[str], object]) -> None:
    row = arm()
    clock_at("2026-11-23 09:30:00")
    heard = listening()
    heard.on_trades(told(60_000, at="093001"), 0.0)
    fire_all(heard)
    assert state(row) == "TRIGGERED"
