"""Which lines of the broker's list are the cancels and amends of ours."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from aegis.broker import OrderRecord
from aegis.requests import STAMP_TOLERANCE, RequestKind, RequestState, SentRequest, attribute, clock_offset
from aegis.sessions import KST
from aegis.terms import Market, OrderKind, Side

SENT_AT = datetime(2026, 11, 23, 10, 0, 31, tzinfo=KST)
# ten shares, of which four were filled before something took the other six
ORDER = OrderRecord(
    order_date=SENT_AT.date(),
    branch="06010",
    order_no="0000000001",
    original_no="",
    code="005930",
    name="삼성전자",
    side=Side.BUY,
    kind=OrderKind.LIMIT,
    market=Market.KRX,
    qty=10,
    price=69_800,
    placed_at=(SENT_AT - timedelta(seconds=31)).time(),
    filled_qty=4,
    filled_amount=4 * 69_800,
    open_qty=0,
    cancelled_qty=6,
    rejected_qty=0,
    is_cancelled=False,
    is_cancel=False,
)
CANCEL_LINE = replace(
    ORDER,
    order_no="0000000002",
    original_no=ORDER.order_no,
    qty=6,
    placed_at=SENT_AT.time(),
    filled_qty=0,
    filled_amount=0,
    is_cancel=True,
)
AMEND_LINE = replace(CANCEL_LINE, is_cancel=False, price=69_900)
UNANSWERED = SentRequest(
    pk=7,
    kind=RequestKind.CANCEL,
    state=RequestState.UNKNOWN,
    sent_at=SENT_AT,
    deadline=SENT_AT + timedelta(seconds=30),
    order_no="",
    qty=6,
    is_whole=True,
)
UNANSWERED_AMEND = replace(UNANSWERED, kind=RequestKind.AMEND, price=AMEND_LINE.price)
ASKED_AT = SENT_AT + timedelta(seconds=40)
ANSWERED = replace(UNANSWERED, state=RequestState.ACKNOWLEDGED, order_no=CANCEL_LINE.order_no)


def test_the_line_with_the_number_of_our_reply_is_ours() -> None:
    assert attribute([ANSWERED], [CANCEL_LINE], ORDER, ASKED_AT) == {7: CANCEL_LINE}
    assert attribute([ANSWERED], [replace(CANCEL_LINE, order_no="0000000003")], ORDER, ASKED_AT) == {}


def test_the_only_line_of_a_lost_reply_is_ours_if_it_took_all_that_was_open() -> None:
    assert attribute([UNANSWERED], [CANCEL_LINE], ORDER, ASKED_AT) == {7: CANCEL_LINE}
    assert attribute([UNANSWERED], [replace(CANCEL_LINE, qty=5)], ORDER, ASKED_AT) == {}


def test_an_amend_of_somebody_else_is_no_cancel_of_ours() -> None:
    assert attribute([UNANSWERED], [AMEND_LINE], ORDER, ASKED_AT) == {}


@pytest.mark.parametrize("price", [AMEND_LINE.price, AMEND_LINE.price - 100])
def test_an_amend_to_another_price_is_not_the_one_whose_reply_was_lost(price: int) -> None:
    amend = replace(UNANSWERED_AMEND, price=price)
    is_ours = price == AMEND_LINE.price
    assert attribute([amend], [AMEND_LINE], ORDER, ASKED_AT) == ({7: AMEND_LINE} if is_ours else {})


def test_an_amend_of_ours_is_told_from_another_by_its_price() -> None:
    external = replace(AMEND_LINE, order_no="0000000003", qty=2, price=AMEND_LINE.price + 200)
    ours = replace(AMEND_LINE, qty=4)
    assert attribute([UNANSWERED_AMEND], [external, ours], ORDER, ASKED_AT) == {7: ours}
    twin = replace(external, price=ours.price)
    part = replace(UNANSWERED_AMEND, qty=2, is_whole=False)
    assert attribute([part], [twin, replace(twin, order_no="0000000004")], ORDER, ASKED_AT) == {}


@pytest.mark.parametrize("unanswered", [UNANSWERED, UNANSWERED_AMEND])
@pytest.mark.parametrize("qty", [2, 3])
def test_a_line_of_a_part_is_ours_if_it_is_of_as_many_shares(unanswered: SentRequest, qty: int) -> None:
    part = replace(unanswered, qty=2, is_whole=False)
    line = replace(CANCEL_LINE if unanswered is UNANSWERED else AMEND_LINE, qty=qty)
    order = replace(ORDER, open_qty=6 - qty, cancelled_qty=qty)
    assert attribute([part], [line], order, ASKED_AT) == ({7: line} if qty == 2 else {})


def test_two_cancels_are_told_apart_by_nothing() -> None:
    assert attribute([UNANSWERED], [CANCEL_LINE, replace(CANCEL_LINE, order_no="0000000003")], ORDER, ASKED_AT) == {}


@pytest.mark.parametrize("stamped_at", [SENT_AT - 2 * STAMP_TOLERANCE, UNANSWERED.deadline + 2 * STAMP_TOLERANCE])
def test_a_line_from_before_the_sending_or_after_the_deadline_is_not_ours(stamped_at: datetime) -> None:
    assert attribute([UNANSWERED], [replace(CANCEL_LINE, placed_at=stamped_at.time())], ORDER, ASKED_AT) == {}


@pytest.mark.parametrize(
    ("answered", "stamped", "expected"),
    [(1, 5, 5), (1, -5, -5), (1, 2, 0), (3, 5, 0), (-1, 5, 0), (None, 5, 0)],
)
def test_a_reply_that_came_at_once_says_how_far_the_brokers_clock_is_ahead(
    answered: int | None, stamped: int, expected: int
) -> None:
    answered_at = None if answered is None else SENT_AT + timedelta(seconds=answered)
    offset = clock_offset(SENT_AT, answered_at, SENT_AT + timedelta(seconds=stamped))
    assert offset == timedelta(seconds=expected)
    assert clock_offset(None, SENT_AT, SENT_AT) == timedelta(0)


@pytest.mark.parametrize("ahead", [timedelta(minutes=-5), timedelta(minutes=5)])
def test_a_line_is_in_time_by_the_clock_that_stamped_it(ahead: timedelta) -> None:
    line = replace(CANCEL_LINE, placed_at=(SENT_AT + ahead).time())
    assert attribute([UNANSWERED], [line], ORDER, ASKED_AT) == {}
    assert attribute([UNANSWERED], [line], ORDER, ASKED_AT, ahead) == {7: line}


def test_a_request_that_lapsed_may_turn_up_in_its_time() -> None:
    lapsed = replace(UNANSWERED, state=RequestState.LAPSED)
    assert attribute([lapsed], [CANCEL_LINE], ORDER, ASKED_AT) == {7: CANCEL_LINE}
