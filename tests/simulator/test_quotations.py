"""Charts, indexes, futures, investors, interruptions, and the few US shares."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aegis import ticks
from infra import clock
from simulator.api.server import Simulator

from .conftest import FUND, SAMSUNG, Client

Start = Callable[..., Simulator]
QUOTE = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": SAMSUNG}
INDEX = {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": "2001"}
FUTURE = {"FID_COND_MRKT_DIV_CODE": "F", "FID_INPUT_ISCD": "A01612"}


@pytest.fixture
def client(running: Start) -> Client:
    return Client(running())


def recorded(samples: Path, name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((samples / name).read_text(encoding="utf-8"))
    return body


def chart(client: Client, until: str, unit: str = "D", since: str = "20000101") -> list[dict[str, str]]:
    params = {"FID_INPUT_DATE_1": since, "FID_INPUT_DATE_2": until, "FID_PERIOD_DIV_CODE": unit, "FID_ORG_ADJ_PRC": "0"}
    reply = client.get("quotations/inquire-daily-itemchartprice", "FHKST03010100", **QUOTE, **params).json()
    rows: list[dict[str, str]] = reply["output2"]
    return rows


def test_the_daily_chart_goes_back_years_a_hundred_rows_at_a_time(client: Client) -> None:
    days: list[dict[str, str]] = []
    until = "20261123"
    while len(days) < 1_300:
        rows = chart(client, until)
        assert len(rows) == 100
        days += rows
        until = _day_before(rows[-1]["stck_bsop_date"])
    dates = [row["stck_bsop_date"] for row in days]
    assert dates == sorted(set(dates), reverse=True)
    assert dates[-1] < "20211201"
    for newer, older in pairwise(days):
        assert int(newer["stck_clpr"]) - int(newer["prdy_vrss"]) == int(older["stck_clpr"])
        for name in ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_clpr"):
            assert ticks.is_on_tick(int(older[name]))
        assert int(older["stck_lwpr"]) <= int(older["stck_clpr"]) <= int(older["stck_hgpr"])


@pytest.mark.parametrize(("code", "listed"), [(SAMSUNG, "19961226"), (FUND, "20001211")])
def test_before_its_listing_a_stock_has_no_prices(client: Client, code: str, listed: str) -> None:
    def rows(until: str, unit: str = "D") -> list[str]:
        params = {"FID_INPUT_DATE_1": "00010101", "FID_INPUT_DATE_2": until, "FID_PERIOD_DIV_CODE": unit}
        quote = {**QUOTE, "FID_INPUT_ISCD": code, "FID_ORG_ADJ_PRC": "0"}
        reply = client.get("quotations/inquire-daily-itemchartprice", "FHKST03010100", **quote, **params).json()
        assert reply["rt_cd"] == "0"
        return [row["stck_bsop_date"] for row in reply["output2"]]

    info = {"PRDT_TYPE_CD": "300", "PDNO": code}
    assert client.get("quotations/search-stock-info", "CTPF1002R", **info).json()["output"]["scts_mket_lstg_dt"] == (
        listed
    )
    assert rows(listed)[-1] == listed
    assert rows(_day_before(listed)) == rows("00010102") == []
    assert len(rows(_day_before(f"{int(listed[:4]) + 1}0101"), "Y")) == 1
    assert len(rows(f"{int(listed[:4]) + 1}0115")) < 40


def test_an_index_ends_where_its_youngest_member_begins(client: Client) -> None:
    params = {"FID_INPUT_DATE_1": "00010101", "FID_INPUT_DATE_2": "19970110", "FID_PERIOD_DIV_CODE": "D"}
    rows = client.get("quotations/inquire-daily-indexchartprice", "FHKUP03500100", **INDEX, **params).json()["output2"]
    assert 0 < len(rows) < 20
    assert rows[-1]["stck_bsop_date"] == "19961226"


def _day_before(text: str) -> str:
    day = date(int(text[:4]), int(text[4:6]), int(text[6:])) - timedelta(days=1)
    return f"{day:%Y%m%d}"


def test_the_chart_and_the_thirty_days_agree(client: Client) -> None:
    params = {"FID_PERIOD_DIV_CODE": "D", "FID_ORG_ADJ_PRC": "1"}
    thirty = client.get("quotations/inquire-daily-price", "FHKST01010400", **QUOTE, **params).json()["output"]
    rows = chart(client, "20261123")[:30]
    assert [(row["stck_bsop_date"], row["stck_clpr"], row["acml_vol"]) for row in thirty] == [
        (row["stck_bsop_date"], row["stck_clpr"], row["acml_vol"]) for row in rows
    ]


def test_weeks_and_months_join_their_days(client: Client) -> None:
    days = chart(client, "20261120", since="20261116")
    week = chart(client, "20261120", "W")[0]
    assert (week["stck_oprc"], week["stck_clpr"]) == (days[-1]["stck_oprc"], days[0]["stck_clpr"])
    assert int(week["acml_vol"]) == sum(int(day["acml_vol"]) for day in days)
    months = [row["stck_bsop_date"][:6] for row in chart(client, "20261120", "M")[:4]]
    assert months == ["202611", "202610", "202609", "202608"]


@pytest.mark.parametrize("earlier", ["Y", "N"])
def test_minutes_are_todays_so_that_paging_back_ends_at_the_opening(client: Client, earlier: str) -> None:
    params = {**QUOTE, "FID_INPUT_HOUR_1": "090300", "FID_PW_DATA_INCU_YN": earlier, "FID_ETC_CLS_CODE": ""}
    rows = client.get("quotations/inquire-time-itemchartprice", "FHKST03010200", **params).json()["output2"]
    assert [(row["stck_bsop_date"], row["stck_cntg_hour"]) for row in rows] == [
        ("20261123", f"090{minute}00") for minute in (3, 2, 1, 0)
    ]


def test_minutes_of_today_add_up(client: Client, samples: Path) -> None:
    params = {**QUOTE, "FID_INPUT_HOUR_1": "100000", "FID_PW_DATA_INCU_YN": "N", "FID_ETC_CLS_CODE": ""}
    client.buy(3, 0, "01")
    reply = client.get("quotations/inquire-time-itemchartprice", "FHKST03010200", **params).json()
    expected = recorded(samples, "rest_inquire_time_itemchartprice_live_005930_20240611.json")
    assert list(reply) == list(expected)
    assert list(reply["output1"]) == list(expected["output1"])
    assert list(reply["output2"][0]) == list(expected["output2"][0])
    assert reply["output2"][0]["cntg_vol"] == "3"
    client.http.post("/simulator/clock", json={"now": "2026-11-23T10:31:00"})
    whole = {**params, "FID_INPUT_HOUR_1": "103100"}
    quiet = client.get("quotations/inquire-time-itemchartprice", "FHKST03010200", **whole).json()["output2"]
    assert [row["cntg_vol"] for row in quiet] == ["0"] * 30
    assert {row["stck_prpr"] for row in quiet} == {reply["output2"][0]["stck_prpr"]}


def test_minutes_of_a_past_day_lie_within_it(client: Client) -> None:
    day = chart(client, "20261120")[0]
    params = {"FID_INPUT_DATE_1": "20261120", "FID_INPUT_HOUR_1": "153000", "FID_PW_DATA_INCU_YN": "N"}
    rows = client.get("quotations/inquire-time-dailychartprice", "FHKST03010230", **QUOTE, **params).json()["output2"]
    assert (len(rows), rows[0]["stck_cntg_hour"], rows[1]["stck_cntg_hour"]) == (120, "153000", "152000")
    assert rows[0]["stck_prpr"] == day["stck_clpr"]
    for row in rows:
        assert int(day["stck_lwpr"]) <= int(row["stck_lwpr"]) <= int(row["stck_hgpr"]) <= int(day["stck_hgpr"])


@pytest.mark.parametrize("code", ["004410", SAMSUNG])
def test_minutes_of_past_days_run_up_to_their_day(running: Start, code: str) -> None:
    client = Client(running(codes=(SAMSUNG, "004410")))
    quote = {**QUOTE, "FID_INPUT_ISCD": code}
    for date_ in [f"202611{day:02d}" for day in (2, 3, 4, 5, 6, 9, 10, 11, 12, 13)]:
        rows: list[dict[str, str]] = []
        hour = "153000"
        while hour:
            params = {"FID_INPUT_DATE_1": date_, "FID_INPUT_HOUR_1": hour, "FID_PW_DATA_INCU_YN": "N"}
            more = client.get("quotations/inquire-time-dailychartprice", "FHKST03010230", **quote, **params).json()
            fresh = [row for row in more["output2"] if not rows or row["stck_cntg_hour"] < rows[-1]["stck_cntg_hour"]]
            rows += fresh
            hour = fresh[-1]["stck_cntg_hour"] if fresh else ""
        params = {"FID_INPUT_DATE_1": date_, "FID_INPUT_DATE_2": date_, "FID_PERIOD_DIV_CODE": "D"}
        path = "quotations/inquire-daily-itemchartprice"
        (day,) = client.get(path, "FHKST03010100", **quote, **params, FID_ORG_ADJ_PRC="0").json()["output2"]
        running_won = [int(row["acml_tr_pbmn"]) for row in reversed(rows)]
        assert running_won == sorted(running_won)
        assert running_won[0] > 0
        assert running_won[-1] == int(day["acml_tr_pbmn"])
        assert sum(int(row["cntg_vol"]) for row in rows) == int(day["acml_vol"])


def test_an_index_follows_its_stocks(client: Client, samples: Path) -> None:
    def level() -> float:
        reply = client.get("quotations/inquire-index-price", "FHPUP02100000", **INDEX).json()
        assert list(reply["output"]) == list(recorded(samples, "rest_inquire_index_price_live_20240620.json")["output"])
        return float(reply["output"]["bstp_nmix_prpr"])

    before = level()
    client.sim.set_price(SAMSUNG, 80_000)
    assert level() > before


def test_the_index_chart_has_fifty_rows_and_today_first(client: Client) -> None:
    params = {"FID_INPUT_DATE_1": "20200101", "FID_INPUT_DATE_2": "20261123", "FID_PERIOD_DIV_CODE": "D"}
    client.sim.set_price(SAMSUNG, 75_000)
    reply = client.get("quotations/inquire-daily-indexchartprice", "FHKUP03500100", **INDEX, **params).json()
    assert len(reply["output2"]) == 50
    assert reply["output2"][0]["stck_bsop_date"] == "20261123"
    assert reply["output2"][0]["bstp_nmix_prpr"] == reply["output1"]["bstp_nmix_prpr"]


def future(client: Client) -> dict[str, str]:
    headers = {**client.headers, "tr_id": "FHMIF10000000"}
    reply = client.http.get("/uapi/domestic-futureoption/v1/quotations/inquire-price", params=FUTURE, headers=headers)
    body: dict[str, dict[str, str]] = reply.json()
    return body["output1"] | {"spot": body["output3"]["bstp_nmix_prpr"]}


def test_the_basis_can_be_held_where_a_rehearsal_wants_it(client: Client) -> None:
    for percent in (-0.8, 0.8):
        client.sim.command("POST", "/simulator/basis", {"percent": percent})
        quote = future(client)
        spot, basis = float(quote["spot"]), float(quote["mrkt_basis"])
        assert basis == pytest.approx(float(quote["futs_prpr"]) - spot, abs=0.011)
        assert basis / spot * 100 == pytest.approx(percent, abs=0.02)


def test_the_front_month_ends_on_its_second_thursday(client: Client, set_clock: Callable[[str], None]) -> None:
    def front() -> str:
        params = {"FID_COND_MRKT_DIV_CODE": "F", "FID_COND_SCR_DIV_CODE": "20503", "FID_COND_MRKT_CLS_CODE": ""}
        headers = {**client.headers, "tr_id": "FHPIF05030200"}
        path = "/uapi/domestic-futureoption/v1/quotations/display-board-futures"
        return str(client.http.get(path, params=params, headers=headers).json()["output"][0]["futs_shrn_iscd"])

    assert front() == "A01612"
    assert future(client)["futs_last_tr_date"] == "20261210"
    set_clock("2026-12-11 09:30")
    client.headers["authorization"] = f"Bearer {client.token().json()['access_token']}"
    assert front() == "A01703"


def test_who_buys_is_who_others_sell_to(client: Client) -> None:
    client.buy(100, 0, "01")
    params = {"fid_input_iscd": "KSP", "fid_input_iscd_2": "0001"}
    row = client.get("quotations/inquire-investor-time-by-market", "FHPTJ04030000", **params).json()["output"][0]
    for group in ("frgn", "prsn", "orgn"):
        assert int(row[f"{group}_shnu_vol"]) - int(row[f"{group}_seln_vol"]) == int(row[f"{group}_ntby_qty"])
    days = client.get(
        "quotations/inquire-investor-daily-by-market",
        "FHPTJ04040000",
        FID_COND_MRKT_DIV_CODE="U",
        FID_INPUT_ISCD="0001",
        FID_INPUT_DATE_1="20261120",
        FID_INPUT_ISCD_1="KSP",
        FID_INPUT_DATE_2="20261120",
        FID_INPUT_ISCD_2="0001",
    ).json()["output"]
    assert days[0]["stck_bsop_date"] == "20261120"


VI = {
    "FID_DIV_CLS_CODE": "0",
    "FID_COND_SCR_DIV_CODE": "20139",
    "FID_MRKT_CLS_CODE": "0",
    "FID_INPUT_ISCD": "",
    "FID_RANK_SORT_CLS_CODE": "0",
    "FID_INPUT_DATE_1": "20261123",
    "FID_TRGT_CLS_CODE": "",
    "FID_TRGT_EXLS_CLS_CODE": "",
}


def test_an_interruption_is_two_minutes_of_single_price(
    client: Client, samples: Path, set_clock: Callable[[str], None]
) -> None:
    socket = client.socket()
    socket.ask("H0STMKO0", SAMSUNG)
    client.sim.command("POST", f"/simulator/quotes/{SAMSUNG}", {"vi": "static"})
    assert socket.frame("H0STMKO0")[1][8] == "Y"
    number = client.buy(1, 72_500).json()["output"]["ODNO"]
    assert client.sim.ledger("12345678-01")["orders"][0]["filled"] == 0
    row = client.get("quotations/inquire-vi-status", "FHPST01390000", **VI).json()["output"][0]
    assert list(row) == list(recorded(samples, "rest_inquire_vi_status_live_20240126.json")["output"][0])
    assert (row["mksc_shrn_iscd"], row["vi_cls_code"], row["vi_kind_code"]) == (SAMSUNG, "Y", "1")
    assert client.get("quotations/inquire-price", "FHKST01010100", **QUOTE).json()["output"]["vi_cls_code"] == "Y"
    set_clock("2026-11-23 10:02:01")
    rows = {row["odno"]: row for row in client.orders("20261123").json()["output1"]}
    assert rows[number]["tot_ccld_qty"] == "1"
    assert socket.frame("H0STMKO0")[1][8] == "N"
    assert client.get("quotations/inquire-vi-status", "FHPST01390000", **VI).json()["output"][0]["vi_cls_code"] == "N"


def test_a_halted_stock_takes_no_orders_but_cancels(client: Client) -> None:
    number = client.buy(1, 65_000).json()["output"]["ODNO"]
    client.sim.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": True})
    assert client.buy(1, 65_000).json()["rt_cd"] == "7"
    quote = client.get("quotations/inquire-price", "FHKST01010100", **QUOTE).json()["output"]
    assert (quote["iscd_stat_cls_code"], quote["temp_stop_yn"]) == ("58", "Y")
    assert client.cancel(number).json()["rt_cd"] == "0"
    client.sim.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": False})
    assert client.buy(1, 65_000).json()["rt_cd"] == "0"


def test_a_cancel_names_the_venue_its_order_went_to(client: Client) -> None:
    number = client.buy(1, 65_000, EXCG_ID_DVSN_CD="NXT").json()["output"]["ODNO"]
    assert client.cancel(number).json()["msg_cd"] == "APBK0344"
    assert client.cancel(number, EXCG_ID_DVSN_CD="NXT").json()["rt_cd"] == "0"


@pytest.mark.parametrize(
    ("at", "feeds"),
    [
        ("2026-11-23 10:00", {"H0UPCNT0": ("2001", 30), "H0UPPGM0": ("0001", 88), "H0IFCNT0": ("A01612", 50)}),
        ("2026-11-23 10:00", {"H0IFASP0": ("A01612", 38), "H0STPGM0": (SAMSUNG, 11), "H0STNAV0": ("069500", 8)}),
        ("2026-11-23 10:00", {"H0STMBC0": (SAMSUNG, 78), "H0NXPGM0": (SAMSUNG, 11)}),
        ("2026-11-23 15:25", {"H0STANC0": (SAMSUNG, 45), "H0UPANC0": ("0001", 30)}),
        ("2026-09-10 16:20", {"H0STOUP0": (SAMSUNG, 43), "H0STOAA0": (SAMSUNG, 54)}),
        ("2026-11-23 23:40", {"HDFSCNT0": ("DNASAAPL", 26), "HDFSASP0": ("DNASAAPL", 71), "H0MFCNT0": ("A01612", 49)}),
    ],
)
def test_the_lesser_feeds_have_their_columns(running: Start, at: str, feeds: dict[str, tuple[str, int]]) -> None:
    socket = Client(running(at)).socket()
    clock.set_now(clock.now(), speed=30)  # these feeds speak by the second
    for tr_id, (key, _) in feeds.items():
        assert socket.ask(tr_id, key)["body"]["rt_cd"] == "0", tr_id
    for tr_id, (key, width) in feeds.items():
        count, values = socket.frame(tr_id)
        assert (count, len(values), values[0]) == (1, width, key)


def test_an_index_tick_looks_like_the_recorded_one(client: Client, samples: Path) -> None:
    socket = client.socket()
    clock.set_now(clock.now(), speed=30)
    socket.ask("H0UPCNT0", "2001")
    _, values = socket.frame("H0UPCNT0")
    expected = (
        (samples / "ws_h0upcnt0_20261001_2001_30f.txt").read_text(encoding="utf-8").strip().split("|")[3].split("^")
    )
    assert [len(value.partition(".")[2]) for value in values] == [len(value.partition(".")[2]) for value in expected]


def test_us_shares_are_quoted_when_new_york_trades(client: Client, set_clock: Callable[[str], None]) -> None:
    set_clock("2026-11-23 23:45")
    headers = {**client.headers, "tr_id": "HHDFS00000300"}
    path = "/uapi/overseas-price/v1/quotations/price"
    apple = client.http.get(path, params={"AUTH": "", "EXCD": "NAS", "SYMB": "AAPL"}, headers=headers).json()["output"]
    assert float(apple["last"]) > 0
    nobody = client.http.get(path, params={"AUTH": "", "EXCD": "NAS", "SYMB": "NONE"}, headers=headers).json()["output"]
    assert (nobody["rsym"], nobody["last"]) == ("DNASNONE", "")


def test_unified_quotes_count_both_venues(client: Client) -> None:
    client.buy(3, 0, "01")
    client.buy(2, 72_500, EXCG_ID_DVSN_CD="NXT")

    def volume(division: str) -> int:
        params = {"FID_COND_MRKT_DIV_CODE": division, "FID_INPUT_ISCD": SAMSUNG}
        return int(client.get("quotations/inquire-price", "FHKST01010100", **params).json()["output"]["acml_vol"])

    assert volume("J") + volume("NX") == volume("UN")
