"""Lists of orders: which lines are one order, and which operation is asked for which days."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import httpx
import pytest

from aegis.broker import PartialResponse, Refused
from aegis.sessions import KST
from kis.broker import KISBroker
from kis.client import Client
from kis.environment import PAPER, SIM, Dialect, Environment

from .test_client import SECRETS, FreeThrottle, StillTokens

OPEN = {
    "ord_gno_brno": "06010",
    "odno": "0000000008",
    "pdno": "005930",
    "sll_buy_dvsn_cd": "02",
    "ord_dvsn_cd": "00",
    "psbl_qty": "10",
    "excg_id_dvsn_cd": "KRX",
}


class Lists:
    """Answers each TR id with rows of its own, or a refusal with that code, and remembers what it was asked."""

    def __init__(
        self,
        rows: Mapping[str, Sequence[Mapping[str, str]] | str],
        environment: Environment = SIM,
        dialect: Dialect = Dialect.OFFICIAL,
        totals: Mapping[str, str] | None = None,
    ) -> None:
        self._rows, self._totals = rows, totals
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        throttle: Any = FreeThrottle()
        tokens: Any = StillTokens()
        http = httpx.Client(transport=httpx.MockTransport(self._answer))
        self.broker = KISBroker(Client(environment, SECRETS, dialect, http, tokens, throttle, throttle))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        tr_id = request.headers["tr_id"]
        self.asked.append((tr_id, dict(request.url.params)))
        rows = self._rows.get(tr_id, ())
        if isinstance(rows, str):
            return httpx.Response(200, json={"rt_cd": "1", "msg_cd": rows, "msg1": "no"})
        outputs = {"output": rows, "output1": rows, "output2": [self._totals]}
        return httpx.Response(200, json={"rt_cd": "0", **outputs, "ctx_area_fk100": "", "ctx_area_nk100": ""})


@pytest.mark.parametrize(
    "other",
    [{"ord_gno_brno": "91252"}, {"pdno": "000660"}, {"sll_buy_dvsn_cd": "01"}],
    ids=["another branch", "another share", "the other side"],
)
def test_open_orders_that_share_a_number_are_all_kept(other: Mapping[str, str]) -> None:
    orders = Lists({"TTTC0084R": [OPEN, {**OPEN, **other}]}).broker.open_orders()
    assert len(orders) == 2


def test_an_open_order_that_two_lists_have_is_one() -> None:
    padded = {**OPEN, "odno": "         8"}
    lists = Lists({"TTTC8036R": [OPEN], "TTTN8036R": [padded]}, dialect=Dialect.AEGIS_V3)
    (order,) = lists.broker.open_orders()
    assert order.placed.order_no == "0000000008"
    assert [tr_id for tr_id, _ in lists.asked] == ["TTTC8036R", "TTTN8036R"]


LISTED = {
    "ord_gno_brno": "06010",
    "orgn_odno": "",
    "pdno": "005930",
    "prdt_name": "삼성전자",
    "sll_buy_dvsn_cd": "02",
    "sll_buy_dvsn_cd_name": "현금매수",
    "ord_dvsn_cd": "00",
    "excg_id_dvsn_cd": "KRX",
    "ord_qty": "10",
    "ord_unpr": "70000",
    "ord_tmd": "093000",
    "tot_ccld_qty": "0",
    "tot_ccld_amt": "0",
    "rmn_qty": "10",
    "cncl_cfrm_qty": "0",
    "rjct_qty": "0",
    "cncl_yn": "N",
}
RECENT = {**LISTED, "ord_dt": "20261123", "odno": "0000000008"}
OLD = {**LISTED, "ord_dt": "20260731", "odno": "0000000003"}
TODAY = date(2026, 11, 23)


def days(asked: Mapping[str, str]) -> tuple[str, str]:
    return asked["INQR_STRT_DT"], asked["INQR_END_DT"]


@pytest.fixture
def _today(clock_at: Callable[[object], object]) -> None:
    clock_at(datetime(2026, 11, 23, 10, 0, tzinfo=KST))


@pytest.mark.parametrize(
    ("environment", "dialect", "older", "recent"),
    [
        (SIM, Dialect.OFFICIAL, "CTSC9215R", "TTTC0081R"),
        (PAPER, Dialect.OFFICIAL, "VTSC9215R", "VTTC0081R"),
        (SIM, Dialect.AEGIS_V3, "CTSC9115R", "TTTC8001R"),
    ],
)
@pytest.mark.usefixtures("_today")
def test_days_beyond_the_recent_months_are_asked_for_by_the_id_that_has_them(
    environment: Environment, dialect: Dialect, older: str, recent: str
) -> None:
    lists = Lists({older: [OLD], recent: [RECENT]}, environment, dialect)
    records = lists.broker.orders(date(2026, 7, 31), TODAY)
    assert [record.order_no for record in records] == ["0000000003", "0000000008"]
    assert [(tr_id, days(asked)) for tr_id, asked in lists.asked] == [
        (older, ("20260731", "20260731")),
        (recent, ("20260801", "20261123")),
    ]


@pytest.mark.usefixtures("_today")
def test_days_within_the_recent_months_are_one_question() -> None:
    lists = Lists({"TTTC0081R": [RECENT]})
    assert len(lists.broker.orders(date(2026, 8, 1), TODAY)) == 1
    assert [tr_id for tr_id, _ in lists.asked] == ["TTTC0081R"]


@pytest.mark.usefixtures("_today")
def test_old_days_alone_are_one_question() -> None:
    lists = Lists({"CTSC9215R": [OLD]})
    assert len(lists.broker.orders(date(2026, 7, 30), date(2026, 7, 31))) == 1
    assert [(tr_id, days(asked)) for tr_id, asked in lists.asked] == [("CTSC9215R", ("20260730", "20260731"))]


@pytest.mark.parametrize(
    ("now", "begins"),
    [(date(2026, 4, 22), "20260101"), (date(2026, 5, 1), "20260201"), (date(2026, 2, 28), "20251101")],
)
def test_the_recent_list_reaches_back_by_whole_months(
    now: date, begins: str, clock_at: Callable[[object], object]
) -> None:
    clock_at(datetime(now.year, now.month, now.day, 10, 0, tzinfo=KST))
    lists = Lists({})
    lists.broker.orders(date(2025, 1, 2), now)
    assert days(lists.asked[-1][1]) == (begins, f"{now:%Y%m%d}")


@pytest.mark.usefixtures("_today")
def test_old_days_that_cannot_be_had_leave_the_recent_ones_readable() -> None:
    lists = Lists({"CTSC9215R": "APBK0001", "TTTC0081R": [RECENT]})
    with pytest.raises(PartialResponse, match="orders from 2026-07-31 to 2026-07-31") as caught:
        lists.broker.orders(date(2026, 7, 31), TODAY)
    assert [record.order_no for record in caught.value.read] == ["0000000008"]


@pytest.mark.usefixtures("_today")
@pytest.mark.parametrize("first", [date(2026, 7, 31), TODAY])
def test_recent_days_that_cannot_be_had_are_no_list(first: date) -> None:
    lists = Lists({"CTSC9215R": [OLD], "TTTC0081R": "APBK0001"})
    with pytest.raises(Refused):
        lists.broker.orders(first, TODAY)
