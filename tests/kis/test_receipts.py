"""What the broker's receipt of a command must say before the command counts as accepted."""

from collections.abc import Callable
from datetime import date, time
from typing import Any

import pytest

from aegis.broker import Acceptance, BrokerOrderRef, OrderRequest, OutcomeUnknown, PartialResponse
from aegis.terms import Market, OrderKind, Side
from kis.broker import KISBroker
from tests.conftest import ORDINARY_MORNING

from .test_client import Wire

PLACED = BrokerOrderRef(date(2026, 11, 23), "06010", "0000000007", Market.KRX, OrderKind.LIMIT)
COMMANDS: dict[str, Callable[[KISBroker], Acceptance]] = {
    "buy": lambda broker: broker.place(OrderRequest("005930", Side.BUY, Market.KRX, OrderKind.LIMIT, 10, 70_000)),
    "sell": lambda broker: broker.place(OrderRequest("005930", Side.SELL, Market.KRX, OrderKind.LIMIT, 10, 70_000)),
    "cancel": lambda broker: broker.cancel(PLACED),
}
GOOD = {"KRX_FWDG_ORD_ORGNO": "06010", "ODNO": "0000006555", "ORD_TMD": "093000"}


def receipt(**fields: Any) -> Wire:
    output = {name: value for name, value in {**GOOD, **fields}.items() if value is not None}
    return Wire({"rt_cd": "0", "msg_cd": "APBK0013", "msg1": "ok", "output": output})


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    "number",
    ["", "   ", "0", "0000000000", "A123", "12 34", "-5", "６５５５", "00000065551", None],
    ids=["blank", "spaces", "0", "zeros", "letters", "two", "negative", "wide digits", "eleven digits", "missing"],
)
def test_a_receipt_without_an_order_number_leaves_the_outcome_unknown(
    command: Callable[[KISBroker], Acceptance], number: str | None
) -> None:
    wire = receipt(ODNO=number)
    with pytest.raises(OutcomeUnknown):
        command(KISBroker(wire.client))
    assert len(wire.requests) == 1, "it may exist: it is not sent again"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("branch", ["", None, "정상처리되었습니다"])
def test_a_receipt_without_a_branch_is_an_acceptance(
    command: Callable[[KISBroker], Acceptance], branch: str | None
) -> None:
    acceptance = command(KISBroker(receipt(KRX_FWDG_ORD_ORGNO=branch).client))
    assert acceptance == Acceptance("", "0000006555", time(9, 30))


@pytest.mark.parametrize("text", ["", "25:00", "256199", None])
def test_a_receipt_with_an_impossible_time_is_an_acceptance_of_this_moment(
    text: str | None, clock_at: Callable[[object], object]
) -> None:
    clock_at(ORDINARY_MORNING)
    acceptance = COMMANDS["buy"](KISBroker(receipt(ORD_TMD=text).client))
    assert acceptance.order_no == "0000006555"
    assert acceptance.accepted_at.replace(second=0) == ORDINARY_MORNING.time()


@pytest.mark.parametrize("number", ["0000000000", "A123"])
def test_a_listed_order_without_a_number_is_an_unread_line_and_hides_no_other(number: str) -> None:
    line = {
        "ord_gno_brno": "06010",
        "odno": "0000000008",
        "pdno": "005930",
        "sll_buy_dvsn_cd": "02",
        "ord_dvsn_cd": "00",
        "psbl_qty": "10",
        "excg_id_dvsn_cd": "KRX",
    }
    wire = Wire({"rt_cd": "0", "output": [line, {**line, "odno": number}], "ctx_area_fk100": "", "ctx_area_nk100": ""})
    with pytest.raises(PartialResponse) as caught:
        KISBroker(wire.client).open_orders()
    assert [order.placed.order_no for order in caught.value.read] == ["0000000008"]
    assert [line.order_no for line in caught.value.unread] == [""]
