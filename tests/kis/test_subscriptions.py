import logging

import pytest

from kis.codec import ControlMessage
from kis.subscriptions import (
    ANSWER_SECONDS,
    LIMIT,
    OWN_FILLS_RETRY_SECONDS,
    PACE_SECONDS,
    RETRY_SECONDS,
    ROOM_SECONDS,
    TRIES,
    Subscriptions,
    Topic,
)

NOTICES = Topic("H0STCNI0", "myhtsid1")
OK, RELEASED, ALREADY, UNKNOWN, INTERNAL, FULL = (
    "OPSP0000",
    "OPSP0001",
    "OPSP0002",
    "OPSP0003",
    "OPSP0007",
    "OPSP0008",
)


def stock(n: int) -> Topic:
    return Topic("H0STCNT0", f"{n:06d}")


def reply(topic: Topic, code: str = OK) -> ControlMessage:
    return ControlMessage(topic.tr_id, topic.key, code, "", code in (OK, RELEASED), "")


def due_from(subscriptions: Subscriptions, now: float) -> list[tuple[Topic, bool]]:
    """Return all that is asked for from `now` on, one request after another at the pace, none of them answered."""
    asked = []
    while (request := subscriptions.take_next_request(now)) is not None:
        asked.append(request)
        now += PACE_SECONDS
    return asked


def answer_all(subscriptions: Subscriptions, now: float, refused: dict[Topic, str] | None = None) -> list[Topic]:
    """Let the server answer everything that is due, and return what was registered, in order."""
    asked = []
    while (request := subscriptions.take_next_request(now)) is not None:
        topic, register = request
        code = (refused or {}).get(topic, OK) if register else RELEASED
        subscriptions.handle_reply(reply(topic, code), now)
        asked += [topic] if register else []
        now += PACE_SECONDS
    return asked


def holding(*topics: Topic) -> Subscriptions:
    subscriptions = Subscriptions()
    subscriptions.set_wanted(topics)
    answer_all(subscriptions, 0)
    return subscriptions


def test_what_is_wanted_is_asked_for_once_in_order() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([NOTICES, stock(1), stock(1)])
    assert due_from(subscriptions, 0) == [(NOTICES, True), (stock(1), True)]
    assert due_from(subscriptions, 1) == []


def test_requests_keep_the_brokers_pace() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([NOTICES, stock(1)])
    assert subscriptions.take_next_request(0) == (NOTICES, True)
    assert subscriptions.take_next_request(PACE_SECONDS - 0.001) is None
    assert subscriptions.take_next_request(PACE_SECONDS) == (stock(1), True)


def test_an_acknowledgement_ends_the_asking() -> None:
    subscriptions = holding(NOTICES)
    assert subscriptions.held == {NOTICES}
    assert subscriptions.take_next_request(ANSWER_SECONDS + 1) is None


def test_a_request_without_an_answer_is_repeated_and_in_the_end_given_up() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([stock(1)])
    asked = sum(len(due_from(subscriptions, n * (ANSWER_SECONDS + 1))) for n in range(10))
    assert asked == TRIES
    assert subscriptions.refused == {stock(1): "no answer"}


def test_a_refusal_that_names_no_registration_is_told(caplog: pytest.LogCaptureFixture) -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([stock(1)])
    due_from(subscriptions, 0)
    nothing = ControlMessage("H0STCNT0", "", "OPSP8992", "JSON PARSING ERROR : invalid tr_key", is_ok=False, text="")
    assert subscriptions.handle_reply(nothing, 1) is None
    assert "OPSP8992 JSON PARSING ERROR : invalid tr_key" in caplog.text
    assert not subscriptions.refused


def test_already_subscribed_is_as_good_as_subscribed() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([NOTICES])
    due_from(subscriptions, 0)
    subscriptions.handle_reply(reply(NOTICES, ALREADY), 0)
    assert subscriptions.held == {NOTICES}


def test_a_refusal_is_tried_again_later_and_later_and_ends() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([stock(1)])
    asked_at = []
    for tenth in range(1_000):
        now = tenth / 10
        if subscriptions.take_next_request(now):
            asked_at.append(now)
            subscriptions.handle_reply(reply(stock(1), INTERNAL), now)
    assert asked_at == [0.0, RETRY_SECONDS, 3 * RETRY_SECONDS]
    assert subscriptions.refused == {stock(1): INTERNAL}


def test_a_new_connection_asks_again_for_what_was_given_up() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([stock(1)])
    for now in (0, 10, 30):
        due_from(subscriptions, now)
        subscriptions.handle_reply(reply(stock(1), INTERNAL), now)
    assert subscriptions.take_next_request(1_000) is None
    subscriptions.clear()
    assert subscriptions.take_next_request(1_001) == (stock(1), True)


def test_own_fills_are_asked_for_without_end_and_their_refusal_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([NOTICES])
    now = 0.0
    for _ in range(TRIES + 3):
        assert due_from(subscriptions, now) == [(NOTICES, True)]
        subscriptions.handle_reply(reply(NOTICES, INTERNAL), now)
        now += OWN_FILLS_RETRY_SECONDS
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * (TRIES + 3)
    assert subscriptions.refused == {NOTICES: INTERNAL}
    # whose they are is nobody's business
    assert NOTICES.key not in caplog.text
    due_from(subscriptions, now)
    subscriptions.handle_reply(reply(NOTICES), now)
    assert not subscriptions.refused


def test_what_is_no_longer_wanted_is_released_before_new_ones_are_asked_for() -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.set_wanted([NOTICES, stock(2)])
    assert due_from(subscriptions, 20) == [(stock(1), False), (stock(2), True)]
    subscriptions.handle_reply(reply(stock(1), RELEASED), 20)
    assert subscriptions.held == {NOTICES}


def test_the_least_important_are_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    subscriptions = Subscriptions()
    wanted = [NOTICES, *(stock(n) for n in range(LIMIT + 4))]
    subscriptions.set_wanted(wanted)
    asked = due_from(subscriptions, 0)
    subscriptions.set_wanted(wanted)
    assert len(asked) == LIMIT
    assert asked[0] == (NOTICES, True)
    assert subscriptions.left_out == tuple(stock(n) for n in range(LIMIT - 1, LIMIT + 4))
    assert caplog.text.count("do not fit") == 1


def test_when_places_become_free_those_left_out_come_in() -> None:
    everything = [NOTICES, *(stock(n) for n in range(LIMIT + 2))]
    subscriptions = holding(*everything)
    assert len(subscriptions.held) == LIMIT
    subscriptions.set_wanted([NOTICES, *everything[4:]])
    assert answer_all(subscriptions, 20) == [stock(LIMIT - 1), stock(LIMIT), stock(LIMIT + 1)]
    assert (len(subscriptions.held), subscriptions.left_out) == (LIMIT, ())


def test_a_full_session_asks_for_a_new_one_only_when_an_old_one_is_released() -> None:
    everything = [NOTICES, *(stock(n) for n in range(LIMIT - 1))]
    subscriptions = holding(*everything)
    subscriptions.set_wanted([NOTICES, stock(900), *everything[1:]])
    assert due_from(subscriptions, 20) == [(everything[-1], False)]
    subscriptions.handle_reply(reply(everything[-1], RELEASED), 20)
    assert due_from(subscriptions, 21) == [(stock(900), True)]


def test_a_release_without_an_answer_is_repeated() -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.set_wanted([NOTICES])
    assert due_from(subscriptions, 20) == [(stock(1), False)]
    assert due_from(subscriptions, 20 + ANSWER_SECONDS) == [(stock(1), False)]


def test_what_is_given_up_makes_room_for_those_left_out() -> None:
    subscriptions = Subscriptions(limit=2)
    subscriptions.set_wanted([NOTICES, stock(1), stock(2)])
    for now in (0, 10, 30):
        answer_all(subscriptions, now, refused={stock(1): INTERNAL})
    assert answer_all(subscriptions, 40) == [] or stock(2) in subscriptions.held
    assert subscriptions.held == {NOTICES, stock(2)}


def test_a_server_with_less_room_keeps_the_most_important() -> None:
    everything = [stock(n) for n in range(5)]
    subscriptions = Subscriptions()
    subscriptions.set_wanted(everything)
    answer_all(subscriptions, 0, refused={stock(3): FULL, stock(4): FULL})
    assert subscriptions.held == {stock(0), stock(1), stock(2)}
    assert subscriptions.left_out == (stock(3), stock(4))
    # our fills come late, and one of the others goes for them
    subscriptions.set_wanted([NOTICES, *everything])
    assert due_from(subscriptions, 30) == [(stock(2), False)]
    subscriptions.handle_reply(reply(stock(2), RELEASED), 30)
    assert due_from(subscriptions, 31) == [(NOTICES, True)]


def test_our_fills_refused_for_want_of_room_push_another_out() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([stock(0), stock(1)])
    answer_all(subscriptions, 0)
    subscriptions.set_wanted([NOTICES, stock(0), stock(1)])
    assert subscriptions.take_next_request(10) == (NOTICES, True)
    subscriptions.handle_reply(reply(NOTICES, FULL), 10)
    assert answer_all(subscriptions, 20) == [NOTICES]
    assert subscriptions.held == {NOTICES, stock(0)}


def test_a_new_connection_asks_for_everything_again() -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.clear()
    assert subscriptions.held == frozenset()
    assert due_from(subscriptions, 1) == [(NOTICES, True), (stock(1), True)]


@pytest.mark.parametrize("code", [RELEASED, UNKNOWN])
def test_a_release_counts_as_done_even_if_the_server_knows_nothing_of_it(code: str) -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.set_wanted([NOTICES])
    due_from(subscriptions, 20)
    subscriptions.handle_reply(reply(stock(1), code), 20)
    assert subscriptions.held == {NOTICES}


def test_a_topic_whose_key_was_lost_is_released_and_registered_again() -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.resubscribe(NOTICES)
    assert subscriptions.held == {stock(1)}
    assert subscriptions.take_next_request(20) == (NOTICES, False)
    subscriptions.handle_reply(reply(NOTICES, RELEASED), 20)
    assert subscriptions.take_next_request(21) == (NOTICES, True)
    subscriptions.handle_reply(reply(NOTICES), 21)
    assert subscriptions.held == {NOTICES, stock(1)}


def live(subscriptions: Subscriptions, server: set[Topic], room: int, begin: float, end: float) -> list[Topic]:
    """Let a server with so much room answer every request from `begin` to `end`; return what it refused."""
    turned_away = []
    now = begin
    while now < end:
        now += PACE_SECONDS
        if (request := subscriptions.take_next_request(now)) is None:
            continue
        topic, register = request
        if register and len(server) >= room:
            turned_away.append(topic)
            subscriptions.handle_reply(reply(topic, FULL), now)
        elif register:
            server.add(topic)
            subscriptions.handle_reply(reply(topic), now)
        else:
            server.discard(topic)
            subscriptions.handle_reply(reply(topic, RELEASED), now)
    return turned_away


def test_one_refusal_for_want_of_room_is_believed_for_a_minute_only() -> None:
    everything = [NOTICES, *(stock(n) for n in range(20))]
    subscriptions, server = Subscriptions(), set[Topic]()
    subscriptions.set_wanted(everything)
    assert live(subscriptions, server, 10, 0, 20) == [everything[10]]
    assert subscriptions.left_out == tuple(everything[10:])
    live(subscriptions, server, LIMIT, 20, 20 + ROOM_SECONDS)
    assert subscriptions.held == set(everything)
    assert subscriptions.left_out == ()


def test_a_server_that_stays_full_is_asked_once_a_minute_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    everything = [NOTICES, *(stock(n) for n in range(20))]
    subscriptions, server = Subscriptions(), set[Topic]()
    subscriptions.set_wanted(everything)
    turned_away = live(subscriptions, server, 10, 0, 60 * ROOM_SECONDS)
    assert 50 <= len(turned_away) <= 61
    assert set(turned_away) == {everything[10]}
    assert subscriptions.held == set(everything[:10]), "what is held is not let go for what is tried"
    assert subscriptions.left_out == tuple(everything[10:])
    assert len(caplog.records) == 2


def test_what_is_left_out_stays_so_while_it_is_only_tried() -> None:
    everything = [NOTICES, stock(1), stock(2)]
    subscriptions, server = Subscriptions(), set[Topic]()
    subscriptions.set_wanted(everything)
    live(subscriptions, server, 2, 0, 10)
    assert due_from(subscriptions, 2 * ROOM_SECONDS) == [(stock(2), True)]
    assert subscriptions.left_out == (stock(2),)


def test_a_release_that_is_never_answered_does_not_keep_our_own_fills_out() -> None:
    subscriptions = holding(NOTICES, stock(1))
    subscriptions.resubscribe(NOTICES)
    asked = [request for tenth in range(1_000) if (request := subscriptions.take_next_request(20 + tenth / 10))]
    assert asked[:TRIES] == [(NOTICES, False)] * TRIES
    assert asked[TRIES] == (NOTICES, True)
    # the server never heard of the releases
    subscriptions.handle_reply(reply(NOTICES, ALREADY), 200)
    assert subscriptions.held == {NOTICES, stock(1)}


def test_the_late_answer_to_a_release_is_no_refusal_of_what_was_asked_for_again() -> None:
    subscriptions = holding(NOTICES)
    subscriptions.resubscribe(NOTICES)
    for turn in range(TRIES + 1):
        due_from(subscriptions, 20 + turn * (ANSWER_SECONDS + 1))
    now = 20 + (TRIES + 1) * (ANSWER_SECONDS + 1)
    for code in (RELEASED, UNKNOWN, UNKNOWN):
        assert subscriptions.handle_reply(reply(NOTICES, code), now) is None
    assert not subscriptions.refused
    assert subscriptions.handle_reply(reply(NOTICES), now) == NOTICES


def test_what_is_no_longer_wanted_while_it_is_asked_for_is_released_once_it_is_held() -> None:
    subscriptions = Subscriptions()
    subscriptions.set_wanted([NOTICES, stock(1)])
    due_from(subscriptions, 0)
    subscriptions.set_wanted([stock(1)])
    assert NOTICES in subscriptions.occupied
    assert due_from(subscriptions, 1) == [(NOTICES, False)]
    assert subscriptions.handle_reply(reply(NOTICES), 2) is None
    subscriptions.handle_reply(reply(NOTICES, RELEASED), 2)
    assert NOTICES not in subscriptions.occupied
