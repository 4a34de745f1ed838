"""The REST wire: shapes, texts, statuses, paging, as the broker's recorded replies have them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulator.api.server import Simulator

from .conftest import ACCOUNT, SAMSUNG, Client

Start = Callable[..., Simulator]
QUOTE = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": SAMSUNG}
TODAY = "20261123"


@pytest.fixture
def client(running: Start) -> Client:
    return Client(running())


def recorded(samples: Path, name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((samples / name).read_text(encoding="utf-8"))
    return body


def words(reply: httpx.Response) -> tuple[int, str, str]:
    return reply.status_code, reply.json()["rt_cd"], reply.json()["msg_cd"]


def check_strings(value: Any) -> None:
    if isinstance(value, dict):
        for item in value.values():
            check_strings(item)
    elif isinstance(value, list):
        for item in value:
            check_strings(item)
    else:
        assert isinstance(value, str)


def test_header_names_are_written_as_the_sample_client_needs_them(client: Client) -> None:
    reply = client.get("quotations/inquire-price", "FHKST01010100", **QUOTE)
    names = {name.decode() for name, _ in reply.headers.raw}
    assert {"Content-Type", "Content-Length", "Date", "Server"} <= names
    assert {name for name in names if name.islower()} == {"tr_id", "tr_cont", "gt_uid"}
    assert reply.headers["tr_id"] == "FHKST01010100"
    assert reply.headers["tr_cont"] == ""


@pytest.mark.parametrize(
    ("path", "tr_id", "params", "sample"),
    [
        ("quotations/inquire-price", "FHKST01010100", QUOTE, "rest_inquire_price_live_005930_20250725.json"),
        (
            "quotations/inquire-asking-price-exp-ccn",
            "FHKST01010200",
            QUOTE,
            "rest_inquire_asking_price_exp_ccn_live_005930_20240610.json",
        ),
        (
            "quotations/inquire-daily-price",
            "FHKST01010400",
            {**QUOTE, "FID_PERIOD_DIV_CODE": "D", "FID_ORG_ADJ_PRC": "1"},
            "rest_inquire_daily_price_live_005930_20240610.json",
        ),
        (
            "quotations/chk-holiday",
            "CTCA0903R",
            {"BASS_DT": "20261120", "CTX_AREA_NK": "", "CTX_AREA_FK": ""},
            "rest_chk_holiday_live_20240611.json",
        ),
    ],
)
def test_quotations_have_the_recorded_keys_in_order(
    client: Client, samples: Path, path: str, tr_id: str, params: dict[str, str], sample: str
) -> None:
    reply, expected = client.get(path, tr_id, **params).json(), recorded(samples, sample)
    check_strings(reply)
    assert list(reply) == list(expected)
    for name, value in expected.items():
        if isinstance(value, list):
            assert list(reply[name][0]) == list(value[0])
        elif isinstance(value, dict):
            assert list(reply[name]) == list(value)
    assert (reply["msg_cd"], reply["msg1"]) == (expected["msg_cd"], expected["msg1"])


def test_stock_info_has_the_recorded_keys_and_the_nxt_ones(client: Client, samples: Path) -> None:
    reply = client.get("quotations/search-stock-info", "CTPF1002R", PRDT_TYPE_CD="300", PDNO="000660").json()
    expected = recorded(samples, "rest_search_stock_info_live_000660_2024.json")
    assert list(reply["output"]) == [*expected["output"], "cptt_trad_tr_psbl_yn", "nxt_tr_stop_yn"]
    assert (reply["msg_cd"], reply["msg1"]) == (expected["msg_cd"], expected["msg1"])
    assert reply["output"]["pdno"] == expected["output"]["pdno"]
    assert reply["output"]["prdt_abrv_name"] == expected["output"]["prdt_abrv_name"]


def test_a_balance_looks_like_the_recorded_one(running: Start, samples: Path) -> None:
    client = Client(running(paper=True), paper=True)
    client.buy(1, 0, "01")
    reply = client.balance().json()
    expected = recorded(samples, "rest_inquire_balance_vts_2holdings_2025.json")
    check_strings(reply)
    assert list(reply) == list(expected)
    assert list(reply["output1"][0]) == list(expected["output1"][0])
    assert list(reply["output2"][0]) == list(expected["output2"][0])
    assert (reply["msg_cd"], reply["msg1"]) == (expected["msg_cd"], expected["msg1"])
    for name in ("pchs_avg_pric", "evlu_pfls_rt", "evlu_erng_rt", "fltt_rt", "stck_loan_unpr"):
        decimals = [len(row[name].partition(".")[2]) for row in (reply["output1"][0], expected["output1"][0])]
        assert decimals[0] == decimals[1], name


def test_a_day_of_orders_looks_like_the_recorded_one(client: Client, samples: Path) -> None:
    client.buy(1, 0, "01")
    reply = client.orders(TODAY).json()
    expected = recorded(samples, "rest_inquire_daily_ccld_live_20240105.json")
    check_strings(reply)
    assert list(reply) == list(expected)
    row, sample = reply["output1"][0], expected["output1"][0]
    assert list(row)[: len(sample)] == list(sample)
    assert list(reply["output2"]) == list(expected["output2"])
    assert len(reply["ctx_area_fk100"]) == len(reply["ctx_area_nk100"]) == 100
    assert reply["ctx_area_fk100"].rstrip() == "12345678^01^20261123^20261123^ ^00^00^"
    for name in ("ord_dvsn_name", "sll_buy_dvsn_cd", "sll_buy_dvsn_cd_name", "ord_unpr", "cncl_yn", "ccld_cndt_name"):
        assert row[name] == sample[name]


def test_an_accepted_order_says_what_the_broker_says(client: Client, samples: Path) -> None:
    reply = client.buy(1, 0, "01").json()
    expected = recorded(samples, "rest_order_cash_live_ok_151059.json")
    assert list(reply) == list(expected)
    assert list(reply["output"]) == list(expected["output"])
    assert (reply["msg_cd"], reply["msg1"]) == (expected["msg_cd"], expected["msg1"])
    assert reply["output"]["ODNO"] == "0000000001"


def test_paper_speaks_its_own_way(running: Start, samples: Path) -> None:
    client = Client(running(paper=True), paper=True)
    reply = client.buy(1, 0, "01").json()
    expected = recorded(samples, "rest_order_cash_vts_buy_ok_20240508_145152.json")
    assert (reply["msg_cd"], reply["msg1"]) == (expected["msg_cd"], expected["msg1"])
    assert reply["output"]["KRX_FWDG_ORD_ORGNO"] == "00950"
    assert reply["output"]["ODNO"] == "1"
    assert words(client.buy(1, 71_450)) == (200, "1", "40030000")
    assert words(client.buy(1, 0, "01", EXCG_ID_DVSN_CD="NXT")) == (200, "1", "90000000")
    assert words(client.cancel("77")) == (200, "1", "40320000")
    assert words(client.sell(5, 0, "01")) == (200, "1", "40240000")
    psbl = client.get("trading/inquire-psbl-rvsecncl", "TTTC0084R", **client.account, INQR_DVSN_1="0", INQR_DVSN_2="0")
    assert words(psbl) == (500, "1", "EGW02006")


def test_the_legacy_paper_list_is_always_empty(running: Start) -> None:
    client = Client(running(paper=True), paper=True)
    client.buy(1, 0, "01")
    reply = client.orders(TODAY, tr_id="TTTC8001R").json()
    assert (reply["rt_cd"], reply["msg_cd"], reply["output1"]) == ("0", "70070000", [])
    assert reply["output2"]["tot_ccld_qty"] == "1"
    assert len(client.orders(TODAY).json()["output1"]) == 1


@pytest.mark.parametrize(
    ("at", "code", "paper_code"),
    [
        ("2026-11-22 10:00", "APBK0919", "40100000"),
        ("2026-11-23 08:00", "APBK0918", "40570000"),
        ("2026-11-23 20:30", "APBK0918", "40580000"),
    ],
)
def test_the_clock_refuses(running: Start, at: str, code: str, paper_code: str) -> None:
    assert words(Client(running(at)).buy(1, 71_500)) == (200, "7", code)
    assert words(Client(running(at, paper=True), paper=True).buy(1, 71_500)) == (200, "1", paper_code)


def test_refusals_say_why(client: Client) -> None:
    assert words(client.buy(100_000, 71_500)) == (200, "7", "APBK0952")
    assert words(client.sell(1, 71_500)) == (200, "7", "APBK0400")
    assert words(client.buy(1, 71_500, code="999999")) == (200, "7", "APBK0656")
    assert words(client.buy(1, 0, "01", EXCG_ID_DVSN_CD="NXT")) == (200, "7", "APBK3013")
    assert "output" not in client.buy(1, 0).json()


def test_a_body_the_ledger_cannot_read_is_a_500(client: Client) -> None:
    body = {**client.account, "PDNO": SAMSUNG, "ORD_DVSN": "00", "ORD_QTY": "1", "ORD_UNPR": "71500"}
    for bad in (
        {**body, "ORD_UNPR": "71500.0"},
        {**body, "ORD_QTY": 1},
        {name.lower(): value for name, value in body.items()},
        {name: value for name, value in body.items() if name != "ORD_QTY"},
        {**body, "ORD_DVSN": "06"},
    ):
        assert words(client.post("order-cash", "TTTC0012U", **bad)) == (500, "1", "IGW00007")


def test_a_missing_query_parameter_is_named(client: Client, samples: Path) -> None:
    reply = client.get("quotations/chk-holiday", "CTCA0903R")
    assert reply.json() == recorded(samples, "rest_err_opsq2001_missing_param_http200_20250622.json")


def test_query_names_may_be_lower_case(client: Client) -> None:
    lower = {name.lower(): value for name, value in QUOTE.items()}
    assert client.get("quotations/inquire-price", "FHKST01010100", **lower).json()["rt_cd"] == "0"


def test_ids_and_paths_must_fit(client: Client) -> None:
    assert words(client.get("quotations/inquire-price", "FHKST01010200", **QUOTE))[2] == "OPSQ0002"
    assert words(client.post("order-cash", "VTTC0012U", **client.account)) == (500, "1", "EGW02004")
    unknown = client.http.get("/uapi/domestic-stock/v1/quotations/inquire-time-itemconclude", headers=client.headers)
    assert (unknown.status_code, unknown.content) == (404, b"")


@pytest.mark.parametrize("tr_id", ["TTTC0084R", "VTTC0084R", "VTTC8036R"])
def test_paper_says_what_it_does_not_offer(running: Start, tr_id: str) -> None:
    client = Client(running(paper=True), paper=True)
    reply = client.get("trading/inquire-psbl-rvsecncl", tr_id, **client.account)
    assert words(reply) == (500, "1", "EGW02006")


def test_ids_of_the_specification_are_known_only_where_asked_for(running: Start, client: Client) -> None:
    unknown = (500, "1", "EGW02004"), (200, "1", "OPSQ0002")
    assert words(client.post("order-cash", "TTTN0802U", **client.account)) in unknown
    assert client.get("trading/inquire-nccs", "TTTC8036R", **client.account).status_code == 404
    client = Client(running(specification=True))
    body = {**client.account, "PDNO": SAMSUNG, "ORD_DVSN": "01", "ORD_QTY": "2", "ORD_UNPR": "0"}
    assert client.post("order-cash", "TTTC0802U", **body).json()["rt_cd"] == "0"
    nxt = {**body, "ORD_DVSN": "00", "ORD_UNPR": "72500"}
    assert client.post("order-cash", "TTTN0802U", **nxt).json()["rt_cd"] == "0"
    assert client.sim.ledger(ACCOUNT)["executions"][-1]["market"] == "NXT"
    client.buy(1, 65_000)
    row = client.get("trading/inquire-nccs", "TTTC8036R", **client.account).json()["output"][0]
    assert (row["rmn_qty"], row["tot_ccld_qty"], row["ord_qty"]) == ("1", "0", "1")
    deposit = client.orderable("TTTC8434R", PDNO="", ORD_DVSN="00").json()["output"]
    assert deposit["dnca_tot_amt"] == "100000000"
    assert int(deposit["tot_evlu_amt"]) == client.sim.ledger(ACCOUNT)["cash"]["total_asset"]
    nothing_twice = client.get(
        "trading/inquire-balance",
        "TTTN8434R",
        **client.account,
        **dict.fromkeys(("AFHR_FLPR_YN", "UNPR_DVSN", "FUND_STTL_ICLD_YN", "FNCG_AMT_AUTO_RDPT_YN", "PRCS_DVSN"), "N"),
        INQR_DVSN="01",
    )
    assert nothing_twice.json()["output1"] == []


def test_the_token_is_the_same_for_six_hours_and_asked_for_once_a_minute(
    client: Client, samples: Path, set_clock: Callable[[str], None]
) -> None:
    first = client.headers["authorization"].split()[1]
    assert len(first) <= 350
    again = client.token()
    assert (again.status_code, again.json()) == (403, recorded(samples, "rest_err_egw00133_tokenp_http403.json"))
    set_clock("2026-11-23 10:02")
    body = client.token().json()
    assert body["access_token"] == first
    assert body["access_token_token_expired"] == "2026-11-24 10:00:00"
    set_clock("2026-11-23 16:01")
    assert client.token().json()["access_token"] != first


def test_a_token_expires_after_a_day(client: Client, samples: Path, set_clock: Callable[[str], None]) -> None:
    set_clock("2026-11-24 10:00:01")
    reply = client.get("quotations/inquire-price", "FHKST01010100", **QUOTE)
    assert reply.status_code == 500
    assert reply.json() == recorded(samples, "rest_err_egw00123_http500_msg1_before_msg_cd.json")


def test_a_revoked_token_is_dead(client: Client, samples: Path) -> None:
    token = client.headers["authorization"].split()[1]
    body = {"appkey": client.app_key, "appsecret": "s", "token": token}
    assert client.http.post("/oauth2/revokeP", json=body).json() == recorded(samples, "doc_rest_revokeP.json")
    reply = client.get("quotations/inquire-price", "FHKST01010100", **QUOTE)
    assert (reply.status_code, reply.json()) == (500, recorded(samples, "rest_err_egw00121_http500_20250709.json"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"grant_type": None}, "EGW00115"),
        ({"grant_type": "password"}, "EGW00116"),
        ({"appkey": None}, "EGW00102"),
        ({"appkey": ""}, "EGW00103"),
        ({"appsecret": None}, "EGW00104"),
        ({"appsecret": ""}, "EGW00105"),
        ({"appsecret": "of another key"}, "EGW00105"),
    ],
)
def test_token_errors_have_a_shape_of_their_own(client: Client, change: dict[str, str | None], code: str) -> None:
    asked = {"grant_type": "client_credentials", "appkey": client.app_key, "appsecret": "s" * 180} | change
    body = {name: value for name, value in asked.items() if value is not None}
    reply = client.http.post("/oauth2/tokenP", json=body)
    assert (reply.status_code, reply.json()["error_code"]) == (403, code)
    assert "rt_cd" not in reply.json()


def test_a_secret_belongs_to_its_key(client: Client) -> None:
    client.headers["appsecret"] = "of another key"
    reply = client.get("quotations/inquire-price", "FHKST01010100", **QUOTE)
    assert words(reply) == (500, "1", "EGW00304")


def test_a_hashkey_comes_back_with_its_body(client: Client) -> None:
    reply = client.http.post("/uapi/hashkey", json={"CANO": "1"}, headers=client.headers).json()
    assert reply["BODY"] == {"CANO": "1"}
    assert len(reply["HASH"]) == 64


def test_the_call_limit_holds_in_every_sliding_second(running: Start, samples: Path) -> None:
    client = Client(running(rate=5))
    replies = [client.get("quotations/inquire-price", "FHKST01010100", **QUOTE) for _ in range(8)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [500] * 3
    assert replies[-1].json() == recorded(samples, "rest_err_egw00201.json")


def test_each_app_key_has_its_own_allowance(running: Start) -> None:
    sim = running(rate=1)
    one, two = Client(sim), Client(sim, app_key="another")
    assert one.get("quotations/inquire-price", "FHKST01010100", **QUOTE).status_code == 200
    assert two.get("quotations/inquire-price", "FHKST01010100", **QUOTE).status_code == 200


def test_an_account_of_another_kind_is_not_ours(client: Client, samples: Path) -> None:
    client.account["ACNT_PRDT_CD"] = "03"
    reply = client.balance()
    assert words(reply) == (200, "2", "OPSQ2000")
    assert reply.json()["msg1"] == "ERROR : INPUT INVALID_CHECK_ACNO"


def test_a_balance_is_by_loan_date_or_by_stock(client: Client) -> None:
    assert [client.balance(INQR_DVSN=by).json()["rt_cd"] for by in ("01", "02")] == ["0", "0"]
    assert client.balance(INQR_DVSN="03").json()["msg1"] == "ERROR : INPUT INVALID_CHECK_INQR_DVSN"


def test_a_balance_is_valued_at_the_prices_asked_for(running: Start, set_clock: Callable[[str], None]) -> None:
    client = Client(running("2026-11-23 15:19"))
    client.buy(10, 0, "01")
    set_clock("2026-11-23 16:05")
    closed_at = client.balance().json()["output1"][0]["prpr"]
    client.sim.set_price(SAMSUNG, 74_000)
    prices = {choice: client.balance(AFHR_FLPR_YN=choice).json()["output1"][0]["prpr"] for choice in "NXY"}
    assert prices == {"N": closed_at, "X": "74000", "Y": "74000"}
    assert closed_at != "74000"


def test_lists_come_in_pages(running: Start) -> None:
    client = Client(running(paper=True), paper=True)
    for _ in range(32):
        client.buy(1, 60_000)
    seen: list[str] = []
    reply = client.orders(TODAY)
    marks = [reply.headers["tr_cont"]]
    while True:
        body = reply.json()
        seen += [row["odno"] for row in body["output1"]]
        if reply.headers["tr_cont"] not in ("F", "M"):
            break
        # what comes in meanwhile shifts nothing
        client.buy(1, 60_000)
        keys = {name.upper(): value for name, value in body.items() if name.startswith("ctx_area")}
        reply = client.orders(TODAY, "N", **keys)
        marks.append(reply.headers["tr_cont"])
    assert marks == ["F", "M", "D"]
    assert reply.json()["ctx_area_nk100"].strip() == ""
    assert seen == [f"{number:010d}" for number in range(32, 0, -1)]


def test_holidays_go_on_from_their_key(client: Client) -> None:
    first = client.get("quotations/chk-holiday", "CTCA0903R", BASS_DT="20261201", CTX_AREA_NK="", CTX_AREA_FK="")
    assert (len(first.json()["output"]), first.headers["tr_cont"]) == (24, "F")
    days = {row["bass_dt"]: row for row in first.json()["output"]}
    assert days["20261205"]["wday_dvsn_cd"] == "07"
    keys = {name.upper(): value for name, value in first.json().items() if name.startswith("ctx_area")}
    second = client.get("quotations/chk-holiday", "CTCA0903R", "N", BASS_DT="20261201", **keys).json()
    days |= {row["bass_dt"]: row for row in second["output"]}
    assert second["output"][0]["bass_dt"] == "20261225"
    assert [days[day]["opnd_yn"] for day in ("20261224", "20261225", "20261231", "20270101")] == ["Y", "N", "N", "N"]
    assert first.json()["ctx_area_nk"].strip() == "20261224"
    assert (days["20261231"]["bzdy_yn"], days["20261231"]["sttl_day_yn"]) == ("Y", "N")


def test_replies_agree_with_the_ledger(client: Client) -> None:
    client.buy(10, 0, "01")
    client.buy(5, 65_000)
    client.sell(3, 0, "01")
    ledger = client.sim.ledger(ACCOUNT)
    body = client.balance().json()
    assert body["output2"][0]["prvs_rcdl_excc_amt"] == str(ledger["cash"]["d2"])
    assert body["output1"][0]["hldg_qty"] == str(ledger["holdings"][0]["quantity"]) == "7"
    assert body["output1"][0]["pchs_avg_pric"] == ledger["holdings"][0]["average_price"]
    rows = {row["odno"]: row for row in client.orders(TODAY).json()["output1"]}
    for order in ledger["orders"]:
        assert rows[order["number"]]["tot_ccld_qty"] == str(order["filled"])
        assert rows[order["number"]]["tot_ccld_amt"] == str(order["amount"])
    psbl = client.orderable("TTTC8908R", PDNO=SAMSUNG, ORD_DVSN="01")
    assert psbl.json()["output"]["ord_psbl_cash"] == str(ledger["cash"]["orderable"])
    pages = {"CTX_AREA_FK100": "", "CTX_AREA_NK100": ""}
    open_rows = client.get(
        "trading/inquire-psbl-rvsecncl", "TTTC0084R", **client.account, **pages, INQR_DVSN_1="0", INQR_DVSN_2="0"
    ).json()["output"]
    assert [(row["odno"], row["psbl_qty"]) for row in open_rows] == [("0000000002", "5")]


def test_a_cancelled_order_shows_both_lines(client: Client) -> None:
    number = client.buy(5, 65_000).json()["output"]["ODNO"]
    reply = client.cancel(number).json()["output"]["ODNO"]
    rows = {row["odno"]: row for row in client.orders(TODAY).json()["output1"]}
    assert (rows[number]["cncl_yn"], rows[number]["cncl_cfrm_qty"], rows[number]["rmn_qty"]) == ("Y", "5", "0")
    assert rows[reply]["orgn_odno"] == number
    assert words(client.cancel(number))[1] == "7"


def test_commands_explain_what_is_wrong(client: Client) -> None:
    assert "commands" in client.http.get("/simulator/").json()
    bad = client.http.post(f"/simulator/quotes/{SAMSUNG}", json={"price": 71_450})
    assert (bad.status_code, bad.json()["error"]) == (400, "price 71450 is not on the tick grid; 71400 is")
    assert "listed are" in client.http.post("/simulator/quotes/1", json={}).json()["error"]
    assert client.http.post("/simulator/clock", json={"now": "soon"}).status_code == 400
    assert client.http.post("/simulator/nonsense").status_code == 404


def test_a_command_moves_the_price_and_the_clock(client: Client) -> None:
    reply = client.http.post(f"/simulator/quotes/{SAMSUNG}", json={"price": 75_000, "freeze": True}).json()
    assert (reply["price"], reply["frozen"]) == (75_000, True)
    assert client.get("quotations/inquire-price", "FHKST01010100", **QUOTE).json()["output"]["stck_prpr"] == "75000"
    client.http.post("/simulator/clock", json={"now": "2026-11-24T09:30:00"})
    assert client.buy(1, 0, "01").json()["output"]["ORD_TMD"].startswith("0930")


def test_a_reset_forgets_one_account_or_all(client: Client) -> None:
    client.buy(1, 0, "01")
    client.http.post("/simulator/reset", json={"account": ACCOUNT})
    assert client.sim.ledger(ACCOUNT)["orders"] == []
    client.buy(1, 0, "01")
    client.http.post("/simulator/reset", json={"seed": 5})
    assert client.sim.ledger(ACCOUNT)["orders"] == []


def test_a_revoked_app_key_gets_nothing_until_it_lives_again(client: Client) -> None:
    key = {"grant_type": "client_credentials", "appkey": client.app_key, "secretkey": "s" * 180}
    assert "approval_key" in client.http.post("/oauth2/Approval", json=key).json()
    client.sim.command("POST", "/simulator/keys", {"key": client.app_key, "revoked": True})
    refused = client.http.post("/oauth2/Approval", json=key)
    assert (refused.status_code, refused.json()["error_code"]) == (403, "EGW00103")
    assert client.token().json()["error_code"] == "EGW00103"
    assert words(client.get("quotations/inquire-price", "FHKST01010100", **QUOTE))[2] == "EGW00121"
    client.sim.command("POST", "/simulator/keys", {"key": client.app_key, "revoked": False})
    assert words(client.get("quotations/inquire-price", "FHKST01010100", **QUOTE))[0] == 200
