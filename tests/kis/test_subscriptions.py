import pytest

from kis.codec import Control
from kis.subscriptions import ANSWER_SECONDS, LIMIT, TRIES, Subscriptions, Topic

NOTICES = Topic("H0STCNI0", "myhtsid1")


def stock(n: int) -> Topic:
    return Topic("H0STCNT0", f"{n:06d}")


def reply(topic: Topic, code: str = "OPSP0000") -> Control:
    return Control(topic.tr_id, topic.key, code, "", code in ("OPSP0000", "OPSP0001"), "")


def holding(*topics: Topic) -> Subscriptions:
    subscriptions = Subscriptions()
    subscriptions.want(topics)
    subscriptions.due(0)
    for topic in topics:
        subscriptions.answered(reply(topic), 0)
    return subscriptions


def test_what_is_wanted_is_asked_for_once_in_order() -> None:
    subscriptions = Subscriptions()
    subscriptions.want([NOTICES, stock(1), stock(1)])
    assert subscriptions.due(0) == [(NOTICES, True), (stock(1), True)]
    assert subscriptions.due(1) == []


def test_an_acknowledgement_ends_the_asking() -> None:
    subscriptions = holding(NOTICES)
    assert subscriptions.held == {NOTICES}
    assert subscriptions.due(ANSWER_SECONDS + 1) == []


def test_a_request_without_an_answer_is_repeated_and_in_the_end_given_up() -> None:
    subscriptions = Subscriptions()
    subscriptions.want([NOTICES])
    asked = sum(bool(subscriptions.due(n * (ANSWER_SECONDS + 1))) for n in range(10))
    assert asked == TRIES


def test_already_subscribed_is_as_good_as_subscribed() -> None:
    subscriptions = Subscriptions()
    subscriptions.want([NOTICES])
    subscriptions.due(0)
    subscriptions.answered(reply(NOTICES, "OPSP0002"), 0)
    assert subscriptions.held == {NOTICES}


def test_a_refusal_is_tried_again_later() -> None:
    subscriptions = Subscriptions()
    subscriptions.want([NOTICES])
    subscriptions.due(0)
    subscriptions.answered(reply(NOTICES, "OPSP0007"), 0)
    assert subscriptions.due(1) == []
    assert subscriptions.due(6) == [(NOTICES, True)]


def test_what_is_no_longer_wanted_is_released_before_new_ones_are_asked_for() -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.want([NOTICES, stock(2)])
    assert subscriptions.due(20) == [(stock(1), False), (stock(2), True)]
    subscriptions.answered(reply(stock(1), "OPSP0001"), 20)
    assert subscriptions.held == {NOTICES}


def test_the_least_important_are_left_out_and_told() -> None:
    subscriptions = Subscriptions()
    subscriptions.want([NOTICES, *(stock(n) for n in range(LIMIT + 4))])
    asked = subscriptions.due(0)
    assert len(asked) == LIMIT
    assert asked[0] == (NOTICES, True)
    assert subscriptions.left_out == tuple(stock(n) for n in range(LIMIT - 1, LIMIT + 4))


def test_a_full_session_asks_for_a_new_one_only_when_an_old_one_is_released() -> None:
    everything = [NOTICES, *(stock(n) for n in range(LIMIT - 1))]
    subscriptions = holding(*everything)
    subscriptions.want([NOTICES, stock(900), *everything[1:]])
    assert subscriptions.due(20) == [(everything[-1], False)]
    subscriptions.answered(reply(everything[-1], "OPSP0001"), 20)
    assert subscriptions.due(21) == [(stock(900), True)]


def test_a_new_connection_asks_for_everything_again() -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.reconnected()
    assert subscriptions.held == frozenset()
    assert subscriptions.due(1) == [(NOTICES, True), (stock(1), True)]


@pytest.mark.parametrize("code", ["OPSP0001", "OPSP0003"])
def test_a_release_counts_as_done_even_if_the_server_knows_nothing_of_it(code: str) -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.want([NOTICES])
    subscriptions.due(20)
    subscriptions.answered(reply(stock(1), code), 20)
    assert subscriptions.held == {NOTICES}
