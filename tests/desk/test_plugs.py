"""What other parts hang on the feeds: handlers, wishes, chores. No socket here."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from aegis.terms import Market
from desk.plugs import Chore, Plug, Rank, Wish
from desk.stream import Chores, Dispatch, Fenced, Lost
from kis.codec import Data
from kis.environment import PAPER
from kis.subscriptions import Topic

INDEX = Data("H0UPCNT0", 1, "2001^100000^" + "^".join(["1"] * 28))


def wait_for(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.01)


def dispatch(*plugs: Plug, may_write: bool = True) -> Dispatch:
    return Dispatch(plugs, lambda: may_write)


def test_every_handler_of_a_feed_gets_its_typed_values() -> None:
    seen: list[tuple[str, Sequence[Any]]] = []
    first = Plug(handlers={"H0UPCNT0": lambda values, arrived: seen.append(("first", values))})
    second = Plug(handlers={"H0UPCNT0": lambda values, arrived: seen.append(("second", values))})
    dispatch(first, second).handle(INDEX, 0.0)
    assert [name for name, _ in seen] == ["first", "second"]
    assert [values[0].code for _, values in seen] == ["2001", "2001"]


def test_the_users_own_name_of_a_feed_finds_it() -> None:
    seen = []
    plug = Plug(handlers={"H0STCTI0": lambda values, arrived: seen.extend(values)})
    dispatch(plug).handle(Data("H0STCNT0", 1, "005930^100000^70000" + "^1" * 43), 0.0)
    assert [(trade.code, trade.price, trade.market) for trade in seen] == [("005930", 70_000, Market.KRX)]


def test_a_handler_for_a_feed_nobody_knows_is_refused_at_once() -> None:
    with pytest.raises(KeyError, match="H0NONSENSE"):
        dispatch(Plug(handlers={"H0NONSENSE": lambda values, arrived: None}))


def test_wishes_are_heard_by_rank_and_own_fills_come_first() -> None:
    def wish(rank: Rank, *codes: str) -> Wish:
        return Wish(rank, lambda: [Topic("H0STCNT0", code) for code in codes])

    asked = dispatch(
        Plug(wishes=(wish(Rank.WATCHED, "000660"), wish(Rank.HELD, "005930"))),
        Plug(wishes=(wish(Rank.ORDERED, "005930", "004090"),)),
    )
    asked.ask_wanted()
    assert asked.wanted() == (asked.own_fills, *(Topic("H0STCNT0", code) for code in ("005930", "004090", "000660")))


def test_before_anybody_was_asked_own_fills_are_wanted_alone() -> None:
    asked = dispatch()
    assert asked.wanted() == (asked.own_fills,)


def test_a_wish_that_fails_leaves_the_feeds_as_they_were() -> None:
    wishes: list[Iterable[Topic]] = [[Topic("H0STCNT0", "005930")]]
    asked = dispatch(Plug(wishes=(Wish(Rank.HELD, lambda: wishes.pop()),)))
    asked.ask_wanted()
    with pytest.raises(IndexError):
        asked.ask_wanted()
    assert Topic("H0STCNT0", "005930") in asked.wanted()


def test_paper_is_not_asked_for_what_it_does_not_have(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.KIS_ENVIRONMENT = PAPER
    asked = dispatch(Plug(wishes=(Wish(Rank.INDEX, lambda: [Topic("H0UPCNT0", "2001"), Topic("H0STASP0", "005930")]),)))
    asked.ask_wanted()
    asked.ask_wanted()
    assert asked.wanted() == (Topic("H0STCNI9", asked.own_fills.key), Topic("H0STASP0", "005930"))
    assert caplog.text.count("not offered on paper") == 1


def test_who_lost_the_lease_hands_nothing_on() -> None:
    seen = []
    plug = Plug(handlers={"H0UPCNT0": lambda values, arrived: seen.extend(values)})
    with pytest.raises(Fenced) as caught:
        dispatch(plug, may_write=False).handle(INDEX, 0.0)
    assert isinstance(caught.value, Lost)
    assert not seen


def test_chores_are_done_again_and_again_and_once_more_at_the_end() -> None:
    done = []
    with Chores([Chore("count", 0.01, lambda: done.append(1))], lambda: True):
        wait_for(lambda: len(done) >= 3)
    at_the_end = len(done)
    assert not [thread for thread in threading.enumerate() if thread.name == "kis-count"]
    assert len(done) == at_the_end


def test_a_chore_that_fails_is_counted_and_tried_again() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with Chores([Chore("fails", 0.01, fail)], lambda: True) as chores:
        wait_for(lambda: chores.failures["fails"] >= 2)


def test_no_chore_is_begun_without_the_lease() -> None:
    done, asked = [], threading.Event()

    def may_write() -> bool:
        asked.set()
        return False

    with Chores([Chore("never", 0.01, lambda: done.append(1))], may_write):
        assert asked.wait(10)
    assert not done
