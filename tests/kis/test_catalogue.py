"""The catalogue against the broker's own facts: operations, ids, fields; and the simulator serves all of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from aegis.broker import NotSent, OrderRequest
from aegis.terms import Market, OrderKind, Side
from kis import catalogue
from kis.catalogue import OPERATIONS, TR, CallPriority, Effect
from kis.environment import LIVE, PAPER, Dialect
from kis.schema import OUTPUTS, REST, Unit

from .conftest import ACCOUNT, SAMSUNG, Desk

SAMPLES = Path(__file__).parents[1] / "samples" / "kis"
FACTS: dict[str, dict[str, Any]] = json.loads((SAMPLES / "rest_operations.json").read_text(encoding="utf-8"))
# what the broker has and AEGIS does not call
NOT_CALLED = {
    "inquire_account_balance",
    "inquire_daily_price",
    "search_info",
    "inquire_vi_status",
    "futures_daily_chart",
    "investor_daily_by_market",
    "overseas_price",
    "overseas_inquire_nccs",
}
CALLED = {name: fact for name, fact in FACTS.items() if name not in NOT_CALLED}

every_fact = pytest.mark.parametrize(("name", "fact"), FACTS.items(), ids=FACTS)
every_called_fact = pytest.mark.parametrize("fact", CALLED.values(), ids=CALLED)
every_operation = pytest.mark.parametrize("tr", OPERATIONS, ids=lambda tr: tr.name)


def row_of(fact: dict[str, Any]) -> TR:
    (found,) = [tr for tr in OPERATIONS if (tr.path, tr.live) == (fact["path"], fact["live"])]
    return found


def test_the_catalogue_has_every_operation_once_and_no_other() -> None:
    rows = [row_of(fact) for fact in CALLED.values()]
    assert sorted(tr.name for tr in rows) == sorted(tr.name for tr in OPERATIONS)
    assert len({tr.name for tr in OPERATIONS}) == len(OPERATIONS) == len({(tr.path, tr.live) for tr in OPERATIONS})


@every_called_fact
def test_ids_method_and_pages_are_the_broker_s(fact: dict[str, Any]) -> None:
    tr = row_of(fact)
    assert (tr.method, tr.paper) == (fact["method"], fact["paper"] or "")
    assert tr.old_live in ("", fact["old_live"])
    assert tr.old_paper in ("", fact["old_paper"])
    assert (tr.cursor is not None) == any(name.startswith("CTX_AREA_NK") for name in fact["params"].split())


@every_called_fact
def test_every_field_of_a_reply_has_our_name_and_a_unit(fact: dict[str, Any]) -> None:
    tr = row_of(fact)
    in_the_file = json.loads(REST.read_text(encoding="utf-8"))["operations"][tr.name]
    assert tr.outputs.keys() == fact["outputs"].keys()
    for name, told in fact["outputs"].items():
        assert in_the_file[name]["is_list"] == told["is_list"], name
        columns = tr.outputs[name]
        assert {field.lower() for field in told["fields"].split()} <= columns.keys(), name
        assert columns.keys() == {column.wire.lower() for column in columns.values()}
        names = [column.name for column in columns.values()]
        assert len(set(names)) == len(names), "no name of ours stands for two fields"
        assert all(isinstance(column.unit, Unit) for column in columns.values())


def test_no_output_belongs_to_an_operation_that_is_not_there() -> None:
    of_keys = {"tokenP", "revokeP", "Approval"}
    documented = {"inquire-daily-price", "inquire-vi-status", "program-trade-by-stock"}
    assert OUTPUTS.keys() == {tr.name for tr in OPERATIONS} | of_keys | documented


@every_operation
def test_only_orders_change_something_and_only_they_go_first(tr: TR) -> None:
    changes = tr in (catalogue.BUY, catalogue.SELL, catalogue.REVISE_OR_CANCEL)
    assert (tr.effect is Effect.COMMAND) == (tr.method == "POST") == changes
    assert tr.priority is CallPriority.ORDER or not changes
    assert tr.is_ledger == ("/trading/" in tr.path)


@every_operation
def test_what_paper_does_not_offer_is_not_sent(tr: TR) -> None:
    if tr.paper:
        assert tr.address(PAPER, Dialect.OFFICIAL, Market.KRX) == (tr.path, tr.paper)
    else:
        with pytest.raises(NotSent, match="paper trading does not offer"):
            tr.address(PAPER, Dialect.OFFICIAL, Market.KRX)


# the user's own ids (spec §2.2, §11.2): the operation, its id on KRX and on NXT, and its last word in the path
OF_SPEC = [
    (catalogue.BUY, "TTTC0802U", "TTTN0802U", "order-cash"),
    (catalogue.SELL, "TTTC0801U", "TTTN0801U", "order-cash"),
    (catalogue.BUYABLE, "TTTC8434R", "TTTC8434R", "inquire-psbl-order"),
    (catalogue.BALANCE, "TTTC8434R", "TTTN8434R", "inquire-balance"),
    (catalogue.OPEN_ORDERS, "TTTC8036R", "TTTN8036R", "inquire-nccs"),
    (catalogue.INDEX_CHART, "FHKUP03500100", "FHKUP03500100", "inquire-daily-indexchartprice"),
    (catalogue.FUTURES_PRICE, "FHKIF03010200", "FHKIF03010200", "inquire-price"),
    (catalogue.INVESTORS_NOW, "FHKIF03020100", "FHKIF03020100", "inquire-investor-time-by-market"),
]


@pytest.mark.parametrize(("tr", "krx", "nxt", "word"), OF_SPEC, ids=lambda each: getattr(each, "name", None))
def test_the_user_s_dialect_sends_the_user_s_ids(tr: TR, krx: str, nxt: str, word: str) -> None:
    for market, tr_id in ((Market.KRX, krx), (Market.NXT, nxt)):
        path, sent = tr.address(LIVE, Dialect.AEGIS_V3, market)
        assert (path.rpartition("/")[2], sent) == (word, tr_id)


# --- the simulator serves all of it, also what AEGIS does not call


# documented, and not in the live reply that was recorded on 2025-07-25: the simulator follows the reply
NOT_REALLY_THERE = {"new_hgpr_lwpr_cls_code", "apprch_rate"}
USUAL = {
    "CANO": ACCOUNT.cano,
    "ACNT_PRDT_CD": ACCOUNT.product,
    "PDNO": SAMSUNG,
    "PRDT_TYPE_CD": "300",
    "ORD_DVSN": "00",
    "ORD_QTY": "1",
    "ORD_UNPR": "69000",
    "EXCG_ID_DVSN_CD": "KRX",
    "FID_COND_MRKT_DIV_CODE": "J",
    "FID_INPUT_ISCD": SAMSUNG,
    "FID_INPUT_DATE_1": "20261116",
    "FID_INPUT_DATE_2": "20261120",
    "FID_INPUT_HOUR_1": "153000",
    "FID_PERIOD_DIV_CODE": "D",
    "FID_ORG_ADJ_PRC": "0",
    "FID_PW_DATA_INCU_YN": "N",
    "FID_DIV_CLS_CODE": "0",
    "BASS_DT": "20261123",
    "INQR_STRT_DT": "20261123",
    "INQR_END_DT": "20261123",
    "SLL_BUY_DVSN_CD": "00",
    "CCLD_DVSN": "00",
    "INQR_DVSN": "01",
    "INQR_DVSN_1": "0",
    "INQR_DVSN_2": "0",
    "INQR_DVSN_3": "00",
    "UNPR_DVSN": "01",
    "AFHR_FLPR_YN": "N",
    "FUND_STTL_ICLD_YN": "N",
    "FNCG_AMT_AUTO_RDPT_YN": "N",
    "PRCS_DVSN": "00",
    "EXCD": "NAS",
    "SYMB": "AAPL",
    "OVRS_EXCG_CD": "NASD",
    "SORT_SQN": "DS",
}
_INDEX = {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": "2001"}
_FUTURES = {"FID_COND_MRKT_DIV_CODE": "F", "FID_INPUT_ISCD": "A01612"}
BESIDES: dict[str, dict[str, str]] = {
    "inquire_vi_status": {"FID_INPUT_ISCD": ""},
    "inquire_index_price": _INDEX,
    "inquire_daily_indexchartprice": _INDEX,
    "futures_inquire_price": _FUTURES,
    "futures_daily_chart": _FUTURES,
    "display_board_futures": {"FID_COND_MRKT_DIV_CODE": "F", "FID_COND_MRKT_CLS_CODE": ""},
    "investor_time_by_market": {"FID_INPUT_ISCD": "KSP", "FID_INPUT_ISCD_2": "0001"},
    "investor_daily_by_market": {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": "0001", "FID_INPUT_ISCD_1": "KSP"},
}


def _asked(desk: Desk, name: str, fact: dict[str, Any]) -> httpx.Response:
    known = {**USUAL, **BESIDES.get(name, {})}
    values = {name: known.get(name.upper(), "") for name in fact["params"].split()}
    if name == "order_rvsecncl":
        order = desk.client.call(catalogue.BUY, values | {"PDNO": SAMSUNG, "ORD_DVSN": "00"}).row()
        values |= {
            "KRX_FWDG_ORD_ORGNO": order.text("KRX_FWDG_ORD_ORGNO"),
            "ORGN_ODNO": order.text("ODNO"),
            "RVSE_CNCL_DVSN_CD": "02",
            "QTY_ALL_ORD_YN": "Y",
        }
    with httpx.Client(base_url=desk.simulator.url, trust_env=False) as http:
        token = http.post(
            "/oauth2/tokenP", json={"grant_type": "client_credentials", "appkey": "other", "appsecret": "s"}
        ).json()["access_token"]
        headers = {"authorization": f"Bearer {token}", "appkey": "other", "appsecret": "s", "tr_id": fact["live"]}
        if fact["method"] == "GET":
            return http.get(fact["path"], params=values, headers=headers)
        return http.post(fact["path"], json=values, headers=headers)


@every_fact
def test_the_simulator_answers_with_every_field_in_the_broker_s_shape(
    name: str, fact: dict[str, Any], opened: Callable[..., Desk]
) -> None:
    desk = opened((Dialect.OFFICIAL, "2026-09", False))
    desk.simulator.command("POST", "/simulator/quotes/035420", {"vi": "static"})
    desk.broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.MARKET, 2, 0))
    reply = _asked(desk, name, fact)
    body = reply.json()
    assert (reply.status_code, body["rt_cd"]) == (200, "0"), body
    for output, told in fact["outputs"].items():
        assert isinstance(body[output], list) == told["is_list"], output
        rows = body[output] if told["is_list"] else [body[output]]
        wanted = set(told["fields"].split()) - NOT_REALLY_THERE
        assert [wanted - row.keys() for row in rows if wanted - row.keys()] == []
        assert all(isinstance(value, str) for row in rows for value in row.values())
