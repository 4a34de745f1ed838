"""Lists of several pages: every one is read to its end, or is an error; asked of the simulator at its worst."""

from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import pytest

from aegis.broker import OrderRequest, OutcomeUnknown, Refused
from aegis.terms import Market, OrderKind, Side
from infra import clock
from kis import catalogue, client
from kis.catalogue import OPERATIONS, TR
from kis.environment import Dialect
from simulator.api.handlers import account

from .conftest import ACCOUNT, SAMSUNG, Desk

SHARES = (SAMSUNG, "000660", "004090", "069500", "035720")
OF_THE_ACCOUNT = {"CANO": ACCOUNT.cano, "ACNT_PRDT_CD": ACCOUNT.product}
PAGES = 3


@dataclass(frozen=True)
class Asked:
    """A paged operation, what it is asked with, and how many rows it must bring."""

    tr: TR
    parameters: dict[str, str]
    rows: int
    pages: int = PAGES


BALANCE = Asked(
    catalogue.BALANCE,
    {
        **OF_THE_ACCOUNT,
        "AFHR_FLPR_YN": "N",
        "INQR_DVSN": "01",
        "UNPR_DVSN": "01",
        "FUND_STTL_ICLD_YN": "N",
        "FNCG_AMT_AUTO_RDPT_YN": "N",
        "PRCS_DVSN": "00",
    },
    5,
)
ORDERS = Asked(
    catalogue.ORDERS,
    {
        **OF_THE_ACCOUNT,
        "INQR_STRT_DT": "20261123",
        "INQR_END_DT": "20261123",
        "SLL_BUY_DVSN_CD": "00",
        "INQR_DVSN": "01",
        "INQR_DVSN_1": "",
        "INQR_DVSN_3": "00",
        "ORD_GNO_BRNO": "",
        "CCLD_DVSN": "02",  # unfilled alone
    },
    5,
)
OPEN_ORDERS = Asked(catalogue.OPEN_ORDERS, {**OF_THE_ACCOUNT, "INQR_DVSN_1": "0", "INQR_DVSN_2": "0"}, 5)
# the last days that the simulator knows, 24 a page
HOLIDAYS = Asked(catalogue.HOLIDAYS, {"BASS_DT": "20281101"}, 61)
LISTS = [BALANCE, ORDERS, OPEN_ORDERS, HOLIDAYS]

every_list = pytest.mark.parametrize("asked", LISTS, ids=lambda asked: asked.tr.name)


@pytest.fixture
def desk(opened: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Hold five shares and have five orders rest, at a broker that shows two a page."""
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.0)
    for size in ("BALANCE_ROWS", "DAILY_ROWS", "OPEN_ROWS"):
        monkeypatch.setattr(account, size, 2)
    desk = opened((Dialect.OFFICIAL, "2026-09", False))
    for code in SHARES:
        desk.broker.place(OrderRequest(code, Side.BUY, Market.KRX, OrderKind.MARKET, 1, 0))
    for _ in range(5):
        desk.broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 1, 60_000))
    return desk


def _keys(desk: Desk, asked: Asked) -> list[tuple[str, ...]]:
    replies = desk.client.pages(asked.tr, asked.parameters)
    assert len(replies) == asked.pages
    return [tuple(row.text(name) for name in asked.tr.key) for reply in replies for row in reply.list_rows()]


def test_every_operation_with_a_cursor_is_tried_here_and_says_what_names_a_row() -> None:
    paged = [tr for tr in OPERATIONS if tr.cursor is not None]
    assert {tr.name for tr in paged} == {asked.tr.name for asked in LISTS}
    assert all(tr.key for tr in paged)


@every_list
def test_a_list_of_pages_is_whole(desk: Desk, asked: Asked) -> None:
    keys = _keys(desk, asked)
    assert len(set(keys)) == len(keys) == asked.rows


@every_list
def test_empty_objects_are_no_rows(desk: Desk, asked: Asked) -> None:
    without = _keys(desk, asked)
    desk.simulator.fault("empty_rows", rows=3)
    assert _keys(desk, asked) == without


@every_list
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("page_fails", "HTTP 500"),
        ("page_repeats", "the cursor stands still|twice: its pages overlap"),
        ("stuck_cursor", "the cursor stands still|twice: its pages overlap"),
        ("duplicate_rows", "twice: its pages overlap"),
        ("dict_for_list", "no list of rows"),
        ("broken_json", "no readable answer"),
        ("rt_cd_missing", "no readable answer"),
    ],
)
def test_a_list_that_cannot_be_whole_is_an_error(desk: Desk, asked: Asked, fault: str, words: str) -> None:
    desk.simulator.fault(fault)
    with pytest.raises(OutcomeUnknown, match=words) as caught:
        desk.client.pages(asked.tr, asked.parameters)
    assert caught.value.call == asked.tr.name
    desk.simulator.clear_faults()
    assert len(_keys(desk, asked)) == asked.rows, "and the next time it is read as ever"


@every_list
@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("fault", ["duplicate_rows", "dict_for_list"])
def test_one_bad_page_spoils_the_list_whichever_it_is(desk: Desk, asked: Asked, fault: str, page: int) -> None:
    desk.simulator.fault(fault, after=page, count=1)
    with pytest.raises(OutcomeUnknown):
        desk.client.pages(asked.tr, asked.parameters)


@every_list
def test_a_page_that_fails_once_is_asked_for_again(desk: Desk, asked: Asked) -> None:
    desk.simulator.fault("page_fails", count=1)
    assert len(_keys(desk, asked)) == asked.rows


MOVED = {"rt_cd": "7", "msg_cd": "KIOK0999", "msg1": "조회이후에 자료가 변경되었습니다.(다시 조회하세요)"}


@every_list
@pytest.mark.parametrize("page", [0, 1, 2])
@pytest.mark.parametrize("times", [1, 3])
def test_a_list_that_moved_while_it_was_read_is_read_from_its_first_page(
    desk: Desk, asked: Asked, page: int, times: int
) -> None:
    """The order that fills while its list is read: the first pages are old by then."""
    desk.simulator.fault("refusal", path=asked.tr.name, after=page, count=times, **MOVED)
    with mock.patch.object(desk.client, "call", wraps=desk.client.call) as call:
        assert len(_keys(desk, asked)) == asked.rows
    assert [each.kwargs["tr_cont"] for each in call.mock_calls].count("") == 1 + times


@every_list
def test_a_list_that_moves_for_ever_is_given_up(desk: Desk, asked: Asked) -> None:
    desk.simulator.fault("refusal", path=asked.tr.name, **MOVED)
    with mock.patch.object(desk.client, "call", wraps=desk.client.call) as call, pytest.raises(Refused, match="다시"):
        desk.client.pages(asked.tr, asked.parameters)
    assert call.call_count == client.TRIES


@pytest.mark.parametrize("fault", ["page_fails", "page_repeats", "stuck_cursor", "duplicate_rows", "dict_for_list"])
def test_the_port_hands_out_no_part_of_a_list(desk: Desk, fault: str) -> None:
    desk.simulator.fault(fault)
    today = clock.now().date()
    for ask in (desk.broker.balance, desk.broker.open_orders, lambda: desk.broker.orders(today, today)):
        with pytest.raises(OutcomeUnknown):
            ask()
