"""Lists of orders: which lines are one order."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from kis.broker import KISBroker
from kis.client import Client
from kis.environment import SIM, Dialect, Environment

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
    """Answers each TR id with rows of its own, and remembers what it was asked."""

    def __init__(
        self,
        rows: Mapping[str, Sequence[Mapping[str, str]]],
        environment: Environment = SIM,
        dialect: Dialect = Dialect.OFFICIAL,
    ) -> None:
        self._rows = rows
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        throttle: Any = FreeThrottle()
        tokens: Any = StillTokens()
        http = httpx.Client(transport=httpx.MockTransport(self._answer))
        self.broker = KISBroker(Client(environment, SECRETS, dialect, http, tokens, throttle, throttle))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        tr_id = request.headers["tr_id"]
        self.asked.append((tr_id, dict(request.url.params)))
        rows = list(self._rows.get(tr_id, ()))
        return httpx.Response(
            200, json={"rt_cd": "0", "output": rows, "output1": rows, "ctx_area_fk100": "", "ctx_area_nk100": ""}
        )


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
