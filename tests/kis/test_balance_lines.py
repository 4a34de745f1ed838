"""Lines of the balance as they should not be: what is worked out, what is left out, what is no balance."""

from decimal import Decimal
from typing import Any

import pytest

from aegis.broker import Balance, OutcomeUnknown, PartialBalance
from kis.broker import KISBroker
from kis.environment import PAPER, Dialect

from .test_client import Wire
from .test_order_lists import Lists

LINE = {
    "pdno": "005930",
    "prdt_name": "삼성전자",
    "trad_dvsn_name": "현금",
    "loan_dt": "",
    "hldg_qty": "10",
    "ord_psbl_qty": "10",
    "pchs_avg_pric": "70000.0000",
    "prpr": "71000",
    "evlu_pfls_amt": "9999",
    "evlu_pfls_rt": "1.42",
    "thdt_buyqty": "0",
    "thdt_sll_qty": "0",
}
OTHER = {**LINE, "pdno": "000660", "prdt_name": "SK하이닉스"}
TOTALS = {
    "dnca_tot_amt": "1000000",
    "nxdy_excc_amt": "900000",
    "prvs_rcdl_excc_amt": "800000",
    "scts_evlu_amt": "1420000",
    "tot_evlu_amt": "2220000",
    "bfdy_tot_asst_evlu_amt": "2200000",
}


def balance(*lines: dict[str, str], **totals: Any) -> Balance:
    body = {"rt_cd": "0", "output1": list(lines), "output2": [{**TOTALS, **totals}]}
    return KISBroker(Wire({**body, "ctx_area_fk100": "", "ctx_area_nk100": ""}).client).balance()


def test_what_the_broker_prints_of_the_profit_is_taken() -> None:
    (holding,) = balance(LINE).holdings
    assert (holding.profit, holding.profit_rate) == (9_999, Decimal("1.42"))


@pytest.mark.parametrize("text", ["-", "", "  ", "N/A", "NaN", None])
def test_a_profit_that_is_no_figure_is_worked_out_and_spoils_nothing(text: str | None) -> None:
    line = {name: value for name, value in LINE.items() if text is not None or not name.startswith("evlu_")}
    if text is not None:
        line |= {"evlu_pfls_amt": text, "evlu_pfls_rt": text}
    seen = balance(line)
    assert not isinstance(seen, PartialBalance)
    (holding,) = seen.holdings
    assert (holding.profit, holding.profit_rate) == (10_000, Decimal("1.43"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("hldg_qty", "2.5"), ("hldg_qty", "-"), ("ord_psbl_qty", "0.5"), ("pchs_avg_pric", "-"), ("thdt_buyqty", "1.25")],
)
def test_a_line_that_cannot_be_read_is_left_out_and_named_and_the_rest_counts(name: str, text: str) -> None:
    seen = balance({**LINE, name: text}, OTHER)
    assert isinstance(seen, PartialBalance)
    assert [holding.code for holding in seen.holdings] == ["000660"]
    (unread,) = seen.unread
    assert (unread.code, unread.name) == ("005930", "삼성전자")
    assert name in unread.why
    assert text in unread.why
    assert (seen.deposit, seen.deposit_d2) == (1_000_000, 800_000)
    assert (seen.valuation, seen.total_asset) == (1_420_000, 2_220_000)


def test_a_share_with_a_line_that_cannot_be_read_is_left_out_with_all_its_lines() -> None:
    on_credit = {**LINE, "trad_dvsn_name": "유통융자", "loan_dt": "20261120", "hldg_qty": "2.5"}
    seen = balance(LINE, on_credit, OTHER)
    assert isinstance(seen, PartialBalance)
    assert [holding.code for holding in seen.holdings] == ["000660"]


def test_a_share_has_the_price_of_whichever_of_its_lines_tells_one() -> None:
    (holding,) = balance({**LINE, "prpr": ""}, {**LINE, "loan_dt": "20261120"}).holdings
    assert (holding.price, holding.qty, holding.profit_rate) == (71_000, 20, Decimal("1.43"))


@pytest.mark.parametrize("name", ["tot_evlu_amt", "scts_evlu_amt", "prvs_rcdl_excc_amt", "dnca_tot_amt"])
def test_a_balance_without_its_totals_is_none(name: str) -> None:
    with pytest.raises(OutcomeUnknown, match=name):
        balance(LINE, **{name: "-"})


def test_on_paper_nobody_says_that_nothing_can_be_sold_of_a_line_that_cannot_be_read() -> None:
    lists = Lists({"VTTC8434R": [{**LINE, "hldg_qty": "2.5"}, OTHER]}, PAPER, Dialect.OFFICIAL, totals=TOTALS)
    assert lists.broker.sellable_qty("000660") == 10
    with pytest.raises(OutcomeUnknown, match="hldg_qty"):
        lists.broker.sellable_qty("005930")
