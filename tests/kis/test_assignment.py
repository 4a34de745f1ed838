"""Which app key carries which feed: every wish once, by rank, and little moves."""

from hypothesis import given
from hypothesis import strategies as st

from kis.assignment import KeyState, assign
from kis.subscriptions import Topic

NOTICES = Topic("H0STCNI0", "me")


def stock(n: int) -> Topic:
    return Topic("H0STCNT0", f"{n:06d}")


def stocks(count: int) -> list[Topic]:
    return [stock(n) for n in range(count)]


def current(assigned: list[tuple[Topic, ...]]) -> dict[Topic, int]:
    return {topic: number for number, topics in enumerate(assigned) for topic in topics}


def test_one_key_is_asked_for_everything_in_order() -> None:
    wanted = [NOTICES, *stocks(50)]
    assert assign(wanted, [KeyState(41)]) == [tuple(wanted)]


def test_three_keys_carry_three_times_as_much_and_our_fills_are_on_the_first() -> None:
    wanted = [NOTICES, *stocks(122)]
    first, second, third = assign(wanted, [KeyState(41)] * 3)
    assert first[0] == NOTICES
    assert [len(each) for each in (first, second, third)] == [41, 41, 41]


def test_of_more_than_fit_the_least_important_wait() -> None:
    wanted = [NOTICES, *stocks(10)]
    first, second = assign(wanted, [KeyState(3), KeyState(3)])
    assert {*first[:3], *second[:3]} == set(wanted[:6])
    assert {*first, *second} == set(wanted)


def test_the_feeds_of_a_lost_key_move_and_the_others_stay() -> None:
    wanted = [NOTICES, *stocks(60)]
    before = assign(wanted, [KeyState(41)] * 3)
    after = assign(wanted, [KeyState(41, is_available=False), KeyState(41), KeyState(41)], current(before))
    assert after[0] == ()
    assert NOTICES in after[1]
    assert set(before[1]) <= set(after[1])
    assert set(before[2]) <= set(after[2])


def test_nothing_moves_back_to_a_key_that_returns_but_what_had_no_room() -> None:
    wanted = [NOTICES, *stocks(100)]
    lost = assign(wanted, [KeyState(41, is_available=False), KeyState(41), KeyState(41)])
    back = assign(wanted, [KeyState(41)] * 3, current(lost))
    assert lost[1][:41] == back[1][:41]
    assert lost[2][:41] == back[2][:41]
    assert set(back[0]) == set(wanted[82:])


def test_what_one_key_refuses_another_is_asked_for() -> None:
    refusing = KeyState(41, refused=frozenset({NOTICES}))
    first, second = assign([NOTICES, stock(1)], [refusing, KeyState(41)], {NOTICES: 0})
    assert NOTICES not in first
    assert NOTICES in second


def test_what_every_key_refuses_takes_no_room() -> None:
    refusing = KeyState(1, refused=frozenset({stock(0)}))
    first, second = assign(stocks(3), [refusing, refusing])
    assert {stock(1), stock(2)} == {first[-1], second[-1]}


def test_without_any_key_the_wishes_are_placed_all_the_same() -> None:
    away = KeyState(41, is_available=False)
    first, second = assign([NOTICES, stock(1)], [away, away])
    assert (first, second) == ((NOTICES,), (stock(1),))


KEYS = st.lists(
    st.builds(
        KeyState,
        capacity=st.integers(1, 8),
        refused=st.frozensets(st.integers(0, 29).map(stock), max_size=3),
        is_available=st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@given(
    st.lists(st.integers(0, 29).map(stock), unique=True),
    KEYS,
    st.dictionaries(st.integers(0, 29).map(stock), st.integers(0, 5)),
)
def test_every_wish_is_placed_once_and_no_key_is_overfilled(
    wanted: list[Topic], keys: list[KeyState], before: dict[Topic, int]
) -> None:
    assigned = assign(wanted, keys, before)
    assert sorted(topic.key for each in assigned for topic in each) == sorted(topic.key for topic in wanted)
    if any(key.is_available for key in keys):
        assert not [topic for key, each in zip(keys, assigned, strict=True) if not key.is_available for topic in each]
    again = assign(wanted, keys, current(assigned))
    assert again == assigned, "what is not disturbed stays"
