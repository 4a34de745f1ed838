"""What other parts hang on the feeds: handlers, requests, jobs. No socket here."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import pytest

from aegis.sessions import KST, standard_phases
from aegis.terms import Market
from infra import clock
from kis.codec import Data
from kis.environment import PAPER
from kis.subscriptions import Topic
from market.models import Stock
from orders.models import StopRule
from stream import stops as desk_stops
from stream import worker as desk_stream
from stream.consumers import (
    Consumer,
    PeriodicJob,
    StockSubscriptions,
    SubscriptionPriority,
    SubscriptionRequest,
    open_venues,
    ranked_trades,
)
from stream.worker import Dispatch, JobRunner, LeaseLost, Lost

INDEX = Data("H0UPCNT0", 1, "2001^100000^" + "^".join(["1"] * 28))


def wait_for(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.01)


def dispatch(*consumers: Consumer, may_write: bool = True) -> Dispatch:
    return Dispatch(consumers, lambda: may_write)


def test_every_handler_of_a_feed_gets_its_typed_values() -> None:
    seen: list[tuple[str, Sequence[Any]]] = []
    first = Consumer(handlers={"H0UPCNT0": lambda values, arrived: seen.append(("first", values))})
    second = Consumer(handlers={"H0UPCNT0": lambda values, arrived: seen.append(("second", values))})
    dispatch(first, second).handle(INDEX, 0.0)
    assert [name for name, _ in seen] == ["first", "second"]
    assert [values[0].code for _, values in seen] == ["2001", "2001"]


def test_the_users_own_name_of_a_feed_finds_it() -> None:
    seen = []
    consumer = Consumer(handlers={"H0STCTI0": lambda values, arrived: seen.extend(values)})
    dispatch(consumer).handle(Data("H0STCNT0", 1, "005930^100000^70000" + "^1" * 43), 0.0)
    assert [(trade.code, trade.price, trade.market) for trade in seen] == [("005930", 70_000, Market.KRX)]


def test_a_handler_for_a_feed_nobody_knows_is_refused_at_once() -> None:
    with pytest.raises(KeyError, match="H0NONSENSE"):
        dispatch(Consumer(handlers={"H0NONSENSE": lambda values, arrived: None}))


def test_requests_are_heard_by_rank_and_own_fills_come_first() -> None:
    def request(rank: SubscriptionPriority, *codes: str) -> SubscriptionRequest:
        return SubscriptionRequest(rank, lambda: [Topic("H0STCNT0", code) for code in codes])

    asked = dispatch(
        Consumer(
            requests=(request(SubscriptionPriority.WATCHED, "000660"), request(SubscriptionPriority.HELD, "005930"))
        ),
        Consumer(requests=(request(SubscriptionPriority.ORDERED, "005930", "004090"),)),
    )
    asked.refresh_topics()
    assert asked.wanted() == (asked.own_fills, *(Topic("H0STCNT0", code) for code in ("005930", "004090", "000660")))


def test_before_anybody_was_asked_own_fills_are_wanted_alone() -> None:
    asked = dispatch()
    assert asked.wanted() == (asked.own_fills,)


def test_a_request_that_fails_leaves_the_feeds_as_they_were() -> None:
    answers: list[Iterable[Topic]] = [[Topic("H0STCNT0", "005930")]]
    asked = dispatch(Consumer(requests=(SubscriptionRequest(SubscriptionPriority.HELD, lambda: answers.pop()),)))
    asked.refresh_topics()
    with pytest.raises(IndexError):
        asked.refresh_topics()
    assert Topic("H0STCNT0", "005930") in asked.wanted()


def test_paper_is_not_asked_for_what_it_does_not_have(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.KIS_ENVIRONMENT = PAPER
    asked = dispatch(
        Consumer(
            requests=(
                SubscriptionRequest(
                    SubscriptionPriority.INDEX, lambda: [Topic("H0UPCNT0", "2001"), Topic("H0STASP0", "005930")]
                ),
            )
        )
    )
    asked.refresh_topics()
    asked.refresh_topics()
    assert asked.wanted() == (Topic("H0STCNI9", asked.own_fills.key), Topic("H0STASP0", "005930"))
    assert caplog.text.count("not offered on paper") == 1


def test_who_lost_the_lease_hands_nothing_on() -> None:
    seen = []
    consumer = Consumer(handlers={"H0UPCNT0": lambda values, arrived: seen.extend(values)})
    with pytest.raises(LeaseLost) as caught:
        dispatch(consumer, may_write=False).handle(INDEX, 0.0)
    assert isinstance(caught.value, Lost)
    assert not seen


# --- which venue's trades matter now


@pytest.mark.parametrize(
    ("at", "venues"),
    [
        ("07:58:59", ()),
        ("07:59:00", (Market.NXT,)),  # registrations take seconds: they begin before the venue does
        ("08:10:00", (Market.NXT,)),
        ("08:30:00", (Market.NXT,)),  # KRX collects orders for its auction, and nothing trades there before nine
        ("08:52:00", ()),
        ("08:59:00", (Market.KRX,)),
        ("10:00:00", (Market.KRX, Market.NXT)),
        ("15:25:00", (Market.KRX,)),
        ("15:29:30", (Market.KRX, Market.NXT)),
        ("15:30:30", (Market.KRX, Market.NXT)),  # the closing price comes some seconds late
        ("15:32:00", (Market.NXT,)),
        ("15:45:00", (Market.NXT,)),
        ("17:00:00", (Market.NXT, Market.KRX)),
        ("20:02:00", ()),
    ],
)
def test_the_venue_that_decides_comes_first(at: str, venues: tuple[Market, ...]) -> None:
    now = datetime.fromisoformat(f"2026-11-23 {at}").replace(tzinfo=KST)
    assert open_venues(standard_phases(now.date()), now) == venues


def ranks(
    at: str, codes: Sequence[str], on_nxt: set[str], rank: SubscriptionPriority = SubscriptionPriority.STOPS
) -> dict[str, SubscriptionPriority]:
    now = datetime.fromisoformat(f"2026-11-23 {at}").replace(tzinfo=KST)
    venues = open_venues(standard_phases(now.date()), now)
    return {str(topic): rank for rank, topic in ranked_trades(rank, codes, venues=venues, on_nxt=on_nxt)}


def test_a_stop_ranks_by_the_venue_that_may_trigger_it() -> None:
    krx, nxt = "H0STCNT0:005930", "H0NXCNT0:005930"
    assert ranks("08:10:00", ["005930"], {"005930"}) == {
        nxt: SubscriptionPriority.STOPS,
        krx: SubscriptionPriority.CLOSED,
    }
    assert ranks("10:00:00", ["005930"], {"005930"}) == {
        krx: SubscriptionPriority.STOPS,
        nxt: SubscriptionPriority.STOPS_ON_SECOND_VENUE,
    }
    assert ranks("17:00:00", ["005930"], {"005930"}) == {
        nxt: SubscriptionPriority.STOPS,
        krx: SubscriptionPriority.STOPS_ON_SECOND_VENUE,
    }
    assert ranks("17:00:00", ["005930"], set()) == {krx: SubscriptionPriority.STOPS}
    assert ranks("10:00:00", ["005930"], {"005930"}, SubscriptionPriority.HELD) == {
        krx: SubscriptionPriority.HELD,
        nxt: SubscriptionPriority.OTHER,
    }


@pytest.mark.parametrize(
    ("at", "sources", "expected"),
    [
        ("10:00:00", {Market.KRX}, ("KRX STOPS", "NXT OTHER")),
        ("10:00:00", {Market.NXT}, ("NXT STOPS", "KRX OTHER")),
        ("17:00:00", {Market.KRX}, ("KRX STOPS", "NXT OTHER")),
        ("17:00:00", {Market.NXT}, ("NXT STOPS", "KRX OTHER")),
        ("08:10:00", {Market.KRX}, ("NXT OTHER", "KRX CLOSED")),
        ("17:00:00", {Market.KRX, Market.NXT}, ("NXT STOPS", "KRX STOPS_ON_SECOND_VENUE")),
    ],
)
def test_only_a_venue_that_may_trigger_the_stop_ranks_as_a_stop_s(
    at: str, sources: set[Market], expected: tuple[str, ...]
) -> None:
    now = datetime.fromisoformat(f"2026-11-23 {at}").replace(tzinfo=KST)
    words = {"venues": open_venues(standard_phases(now.date()), now), "on_nxt": {"005930"}}
    names = {"H0STCNT0": "KRX", "H0NXCNT0": "NXT"}
    found = ranked_trades(SubscriptionPriority.STOPS, ["005930"], relevant_venues={"005930": sources}, **words)
    assert tuple(f"{names[topic.tr_id]} {rank.name}" for rank, topic in found) == expected


@pytest.mark.django_db
def test_a_stop_that_krx_alone_triggers_is_heard_on_krx_in_the_evening(clock_at: Any) -> None:
    clock_at("2026-11-23 17:00:00")
    now = clock.now()
    Stock.objects.create(
        code="005930", name="x", board="KOSPI", instrument="STOCK", trades_on_nxt=True, synced_at=clock.now()
    )
    words = {"kind": "STOP_LOSS", "unit": "PERCENT", "value": 5, "state_at": now, "armed_at": now, "armed_by": "kim"}
    StopRule.objects.create(stock_code="005930", sources="KRX", **words)
    asked = dispatch(desk_stops.consumer())
    asked.refresh_topics()
    assert asked.wanted()[1] == Topic("H0STCNT0", "005930")
    assert asked.vital == {Topic("H0STCNT0", "005930")}
    StopRule.objects.create(stock_code="005930", sources="NXT", **words)
    asked.refresh_topics()
    assert asked.wanted()[1] == Topic("H0NXCNT0", "005930"), "another stop of the stock counts NXT too"


@pytest.mark.django_db
def test_of_more_stocks_than_fit_the_one_with_a_stop_is_heard(clock_at: Any) -> None:
    clock_at("2026-11-23 08:10:00")
    held = [f"{number:06d}" for number in range(60)]
    for code in held[:40]:
        Stock.objects.create(
            code=code, name=code, board="KOSPI", instrument="STOCK", trades_on_nxt=True, synced_at=clock.now()
        )
    with_stop = held[39]
    consumer = Consumer(
        stocks=(
            StockSubscriptions(SubscriptionPriority.HELD, lambda: held),
            StockSubscriptions(SubscriptionPriority.STOPS, lambda: [with_stop]),
        )
    )
    asked = dispatch(consumer)
    asked.refresh_topics()
    wanted = asked.wanted()
    assert wanted[:2] == (asked.own_fills, Topic("H0NXCNT0", with_stop))
    assert {topic.tr_id for topic in wanted[1:41]} == {"H0NXCNT0"}, "closed KRX takes no room from open NXT"
    assert asked.vital == {Topic("H0NXCNT0", code) for code in held[:40]}
    clock_at("2026-11-23 10:00:00")
    asked.refresh_topics()
    assert asked.wanted()[:2] == (asked.own_fills, Topic("H0STCNT0", with_stop))


@pytest.mark.django_db
def test_paper_has_no_nxt(clock_at: Any, settings: Any) -> None:
    clock_at("2026-11-23 10:00:00")
    settings.KIS_ENVIRONMENT = PAPER
    Stock.objects.create(
        code="005930", name="x", board="KOSPI", instrument="STOCK", trades_on_nxt=True, synced_at=clock.now()
    )
    asked = dispatch(Consumer(stocks=(StockSubscriptions(SubscriptionPriority.STOPS, lambda: ["005930"]),)))
    asked.refresh_topics()
    assert asked.wanted() == (asked.own_fills, Topic("H0STCNT0", "005930"))


# --- who ought to be heard now


KRX_STOCK, NXT_STOCK, BOTH = Topic("H0STCNT0", "005930"), Topic("H0NXCNT0", "005930"), Topic("H0UNCNT0", "005930")
KOSPI200, PROGRAM = Topic("H0UPCNT0", "2001"), Topic("H0STPGM0", "005930")


def expected_at(clock_at: Any, at: str, *states: Data) -> dict[Topic, str]:
    """Return who ought to speak at a moment of an ordinary day, once these states were told."""
    clock_at(at)
    asked = dispatch(
        Consumer(
            requests=(
                SubscriptionRequest(SubscriptionPriority.HELD, lambda: [KRX_STOCK, NXT_STOCK, BOTH, KOSPI200, PROGRAM]),
            )
        )
    )
    asked.refresh_topics()
    asked.refresh_phases()
    for state in states:
        asked.handle(state, 0.0)
    return dict(asked.expected_feeds())


def state(*, halted: str = "N", in_vi: str = "N") -> Data:
    return Data("H0STMKO0", 1, f"005930^{halted}^(null)^^^^^55^{in_vi}^N")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("at", "names"),
    [
        ("2026-11-23 07:59:59", {}),
        ("2026-11-23 08:10:00", {NXT_STOCK: "PRE_MARKET", BOTH: "PRE_MARKET"}),
        ("2026-11-23 08:59:59", {}),
        ("2026-11-23 09:00:00", {KRX_STOCK: "REGULAR", BOTH: "REGULAR", KOSPI200: "REGULAR"}),
        (
            "2026-11-23 15:19:59",
            {KRX_STOCK: "REGULAR", NXT_STOCK: "REGULAR", BOTH: "REGULAR", KOSPI200: "REGULAR"},
        ),
        ("2026-11-23 15:20:00", {}),
        ("2026-11-23 16:30:00", dict.fromkeys((KRX_STOCK, NXT_STOCK, BOTH), "AFTER_MARKET")),
        ("2026-11-23 20:00:00", {}),
        ("2026-11-22 10:00:00", {}),
    ],
)
def test_only_who_trades_continuously_is_expected_to_speak(clock_at: Any, at: str, names: dict[Topic, str]) -> None:
    assert expected_at(clock_at, at) == names


@pytest.mark.django_db
@pytest.mark.parametrize("told", [state(halted="Y"), state(in_vi="Y")])
def test_a_stock_that_stands_still_may_be_silent_until_it_moves(clock_at: Any, told: Data) -> None:
    assert expected_at(clock_at, "2026-11-23 10:00:00", told) == {KOSPI200: "REGULAR"}
    assert KRX_STOCK in expected_at(clock_at, "2026-11-23 10:00:00", told, state())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("told", "silent_until", "expected_from"),
    [
        (state(in_vi="Y"), "2026-11-23 10:03:59", "2026-11-23 10:04:00"),
        (state(halted="Y"), "2026-11-23 15:19:59", "2026-11-24 09:00:00"),
    ],
)
def test_a_stock_whose_end_of_a_vi_or_a_halt_was_missed_is_expected_again(
    clock_at: Any, told: Data, silent_until: str, expected_from: str
) -> None:
    clock_at("2026-11-23 10:00:00")
    asked = dispatch(Consumer(requests=(SubscriptionRequest(SubscriptionPriority.HELD, lambda: [KRX_STOCK]),)))
    asked.refresh_topics()
    asked.handle(told, 0.0)
    clock_at(silent_until)
    asked.refresh_phases()
    assert not asked.expected_feeds()
    clock_at(expected_from)
    asked.refresh_phases()
    assert set(asked.expected_feeds()) == {KRX_STOCK}


@pytest.mark.django_db
def test_a_stock_halted_since_before_we_listened_may_be_silent(clock_at: Any) -> None:
    Stock.objects.create(
        code="005930", name="삼성전자", board="KOSPI", instrument="STOCK", is_halted=True, synced_at=clock.now()
    )
    assert expected_at(clock_at, "2026-11-23 10:00:00") == {KOSPI200: "REGULAR"}


@pytest.fixture
def reconciled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []
    monkeypatch.setattr(desk_stream.reconcile, "delay", lambda: asked.append(1))
    return asked


def test_notices_nobody_could_read_have_the_broker_asked_but_not_in_a_storm(reconciled: list[int]) -> None:
    asked = dispatch()
    for _ in range(5):
        asked.on_undecodable_notice()
    assert reconciled == [1]


def test_jobs_are_done_again_and_again_and_once_more_at_the_end() -> None:
    done = []
    with JobRunner([PeriodicJob("count", 0.01, lambda: done.append(1))], lambda: True):
        wait_for(lambda: len(done) >= 3)
    at_the_end = len(done)
    assert not [thread for thread in threading.enumerate() if thread.name == "kis-count"]
    assert len(done) == at_the_end


def test_a_job_that_fails_is_counted_and_tried_again() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with JobRunner([PeriodicJob("fails", 0.01, fail)], lambda: True) as jobs:
        wait_for(lambda: jobs.failures["fails"] >= 2)


def test_no_job_is_begun_without_the_lease() -> None:
    done, asked = [], threading.Event()

    def may_write() -> bool:
        asked.set()
        return False

    with JobRunner([PeriodicJob("never", 0.01, lambda: done.append(1))], may_write):
        assert asked.wait(10)
    assert not done
