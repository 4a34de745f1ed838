"""Every recorded REST reply through the real client: what it plainly holds stands here as it was read by eye."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from aegis.broker import (
    Acceptance,
    Balance,
    Book,
    BrokerError,
    BrokerOrderRef,
    CalendarDay,
    ChartMinute,
    Holding,
    Level,
    NotSent,
    OpenOrder,
    Orderable,
    OrderRecord,
    OrderRequest,
    OutcomeUnknown,
    Quote,
    Refused,
    StockInfo,
)
from aegis.sessions import KST
from aegis.terms import Board, Instrument, Market, OrderKind, Side
from kis import catalogue, client
from kis.auth import Tokens, approval_key
from kis.broker import KISBroker
from kis.catalogue import TR, CallPriority, Effect
from kis.client import BrokerReply
from kis.environment import SIM

from .test_client import SECRETS, Wire

SAMPLES = Path(__file__).parents[1] / "samples" / "kis"
TODAY = date(2026, 11, 23)
D = Decimal
# what AEGIS does not use, but was recorded: its envelope is judged all the same
UNUSED = TR("an operation of no use here", "GET", "/uapi/none", Effect.READ, CallPriority.QUOTE, live="NONE0000R")
BUY = OrderRequest("005930", Side.BUY, Market.KRX, OrderKind.LIMIT, 1, 70_000)
PLACED = BrokerOrderRef(TODAY, "00950", "0000002933", Market.KRX, OrderKind.LIMIT)


@pytest.fixture(autouse=True)
def _ready(monkeypatch: pytest.MonkeyPatch, clock_at: Callable[..., datetime]) -> None:
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.0)
    clock_at("2026-11-23 10:00:00", speed=1e-9)


def recorded(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))


def answering(body: Any, status: int = 200) -> KISBroker:
    """Return the broker whose every call is answered so."""
    return KISBroker(Wire(httpx.Response(status, json=body)).client)


def minute(day: str, clock: str, price: tuple[int, int, int, int], volume: int, day_value: int) -> ChartMinute:
    at = datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=KST)
    return ChartMinute(at, *price, volume=volume, day_value=day_value)


def filled(order_no: str, code: str, name: str, side: Side, qty: int, at: time, won: int) -> OrderRecord:
    """Return a market order of the recorded day, filled whole."""
    return OrderRecord(
        order_date=date(2024, 1, 5),
        branch="91254",
        order_no=order_no,
        original_no="",
        code=code,
        name=name,
        side=side,
        kind=OrderKind.MARKET,
        market=Market.KRX,
        qty=qty,
        price=0,
        placed_at=at,
        filled_qty=qty,
        filled_amount=won,
        open_qty=0,
        cancelled_qty=0,
        rejected_qty=0,
        is_cancelled=False,
        is_cancel=False,
    )


# --- what the port reads


Reading = tuple[str, Callable[[KISBroker], Any], Any]
READINGS: list[Reading] = [
    (
        "rest_order_cash_live_ok_151059.json",
        lambda broker: broker.place(BUY),
        Acceptance("06590", "0000006555", time(15, 10, 59)),
    ),
    (
        "rest_order_cash_vts_buy_ok_20240508_145152.json",
        lambda broker: broker.place(BUY),
        Acceptance("00950", "0000011774", time(14, 51, 52)),
    ),
    (
        "rest_order_rvsecncl_vts_revise_ok_2022_100556.json",
        lambda broker: broker.cancel(PLACED),
        Acceptance("00950", "0000002933", time(10, 5, 56)),
    ),
    (
        "doc_rest_order_rvsecncl.json",
        lambda broker: broker.cancel(PLACED),
        Acceptance("06010", "0001569139", time(13, 14, 38)),
    ),
    (
        "doc_rest_inquire_psbl_order.json",
        lambda broker: broker.orderable("005930", OrderKind.LIMIT, 70_000),
        Orderable(cash=107_177_377, qty=1_531),
    ),
    (
        "doc_rest_inquire_psbl_rvsecncl.json",
        lambda broker: broker.open_orders(),
        [
            OpenOrder(BrokerOrderRef(TODAY, "06010", "0001569139", Market.KRX, OrderKind.LIMIT), "009150", Side.BUY, 1),
            OpenOrder(BrokerOrderRef(TODAY, "06010", "0001569138", Market.KRX, OrderKind.LIMIT), "009150", Side.BUY, 1),
        ],
    ),
    (
        "rest_inquire_daily_ccld_live_20240105.json",
        lambda broker: broker.orders(date(2024, 1, 5), date(2024, 1, 5)),
        [
            filled("0000020437", "454910", "두산로보틱스", Side.BUY, 1, time(9, 2, 11), 102_700),
            filled("0000020530", "234340", "헥토파이낸셜", Side.BUY, 7, time(9, 2, 15), 179_550),
            filled("0000021078", "418470", "밀리의서재", Side.BUY, 10, time(9, 2, 41), 190_000),
            filled("0000031774", "068290", "삼성출판사", Side.BUY, 9, time(9, 12, 13), 198_000),
            filled("0000038455", "039130", "하나투어", Side.BUY, 3, time(9, 20, 12), 160_200),
            filled("0000063168", "234340", "헥토파이낸셜", Side.SELL, 7, time(10, 0, 1), 186_900),
            filled("0000063180", "418470", "밀리의서재", Side.SELL, 10, time(10, 0, 2), 204_100),
            filled("0000063195", "039130", "하나투어", Side.SELL, 3, time(10, 0, 3), 162_900),
            filled("0000150712", "068290", "삼성출판사", Side.SELL, 9, time(15, 0, 10), 189_900),
            filled("0000157513", "454910", "두산로보틱스", Side.SELL, 1, time(15, 20, 2), 101_800),
        ],
    ),
    (
        "rest_inquire_balance_vts_2holdings_2025.json",
        lambda broker: broker.balance(),
        Balance(
            asked_at=datetime(2026, 11, 23, 10, 0, tzinfo=KST),
            holdings=(
                Holding(
                    code="000660",
                    name="SK하이닉스",
                    qty=1,
                    sellable_qty=1,
                    average_price=D("198600.0000"),
                    price=215_500,
                    profit=16_900,
                    profit_rate=D("8.51"),
                    bought_today=0,
                    sold_today=0,
                ),
                Holding(
                    code="114800",
                    name="KODEX 인버스",
                    qty=35,
                    sellable_qty=35,
                    average_price=D("4482.1420"),
                    price=4_290,
                    profit=-6_725,
                    profit_rate=D("-4.29"),
                    bought_today=0,
                    sold_today=0,
                ),
            ),
            deposit=9_644_485,
            deposit_d1=9_644_485,
            deposit_d2=9_644_485,
            valuation=365_650,
            total_asset=10_010_135,
            total_asset_yesterday=10_005_510,
        ),
    ),
    (
        # one share in cash (1,657 at 135,440.2517) and on credit (3 at 123,000): one holding
        "doc_rest_inquire_balance.json",
        lambda broker: broker.balance(),
        Balance(
            asked_at=datetime(2026, 11, 23, 10, 0, tzinfo=KST),
            holdings=(
                Holding(
                    code="009150",
                    name="삼성전기",
                    qty=1_660,
                    sellable_qty=1_614,
                    average_price=D("135417.7693"),
                    price=0,  # the document's sample has no prices, and so the whole is lost
                    profit=0,
                    profit_rate=D("-100.00"),
                    bought_today=1_686,
                    sold_today=41,
                ),
            ),
            deposit=346_455,
            deposit_d1=346_455,
            deposit_d2=346_455,
            valuation=1_759_600,
            total_asset=2_106_055,
            total_asset_yesterday=2_142_945,
        ),
    ),
    (
        "rest_inquire_price_live_005930_20250725.json",
        lambda broker: broker.quote("005930", Market.KRX),
        Quote(
            code="005930",
            market=Market.KRX,
            price=65_850,
            base_price=66_000,
            upper_limit=85_800,
            lower_limit=46_200,
            is_halted=False,
            in_vi=False,
            tick=100,
            volume=1_943_202,
        ),
    ),
    (
        "rest_inquire_asking_price_exp_ccn_live_005930_20240610.json",
        lambda broker: broker.book("005930", Market.KRX),
        Book(
            "005930",
            Market.KRX,
            asks=(
                Level(75_800, 41_846),
                Level(75_900, 12_531),
                Level(76_000, 10_503),
                Level(76_100, 178_397),
                Level(76_200, 50_195),
                Level(76_300, 30_873),
                Level(76_400, 50_728),
                Level(76_500, 69_934),
                Level(76_600, 108_354),
                Level(76_700, 35_543),
            ),
            bids=(
                Level(75_700, 312_258),
                Level(75_600, 347_570),
                Level(75_500, 379_261),
                Level(75_400, 122_962),
                Level(75_300, 108_556),
                Level(75_200, 73_542),
                Level(75_100, 121_337),
                Level(75_000, 382_195),
                Level(74_900, 59_117),
                Level(74_800, 60_022),
            ),
            expected_price=75_700,
        ),
    ),
    (
        "rest_inquire_time_itemchartprice_live_005930_20240611.json",
        lambda broker: broker.minutes("005930", Market.KRX, datetime(2024, 6, 11, 12, 50, tzinfo=KST)),
        [
            minute("2024-06-11", "12:50:00", (75_300, 75_400, 75_300, 75_300), 69_449, 677_732_980_500),
            minute("2024-06-11", "12:49:00", (75_300, 75_400, 75_300, 75_300), 19_914, 672_499_305_400),
        ],
    ),
    (
        "doc_rest_inquire_time_dailychartprice.txt",
        lambda broker: broker.minutes("005930", Market.KRX, datetime(2024, 11, 8, 14, 0, tzinfo=KST)),
        [
            minute("2024-11-08", "14:00:00", (57_300, 57_400, 57_200, 57_300), 59_047, 538_940_180_600),
            minute("2024-11-08", "13:59:00", (57_400, 57_500, 57_300, 57_300), 118_619, 535_556_648_100),
            minute("2024-11-08", "12:01:00", (57_700, 57_800, 57_700, 57_700), 3_856, 357_875_441_100),
        ],
    ),
    ("rest_inquire_index_price_live_20240620.json", lambda broker: broker.index("0001"), D("2807.63")),
    (
        "rest_search_stock_info_live_000660_2024.json",
        lambda broker: broker.stock("000660"),
        StockInfo(
            "000660", "SK하이닉스", Board.KOSPI, Instrument.STOCK, "전기,전자", trades_on_nxt=False, is_halted=False
        ),
    ),
    (
        "rest_chk_holiday_live_20240611.json",
        lambda broker: broker.calendar(date(2024, 6, 11)),
        [CalendarDay(date(2024, 6, day), is_open=True) for day in (11, 12, 13)],
    ),
]


def _body(name: str) -> Any:
    if name.endswith(".json"):
        return recorded(name)
    # published with a row of dots for what was left out
    return json.loads((SAMPLES / name).read_text(encoding="utf-8").replace("...\n", "\n"))


@pytest.mark.parametrize(("name", "read", "expected"), READINGS, ids=[name for name, _, _ in READINGS])
def test_a_recorded_reply_decodes_to_what_it_holds(name: str, read: Callable[[KISBroker], Any], expected: Any) -> None:
    assert read(answering(_body(name))) == expected


# --- what the port does not read: the envelope, and the fields as text


Fields = dict[str, str]
UNUSED_REPLIES: dict[str, tuple[str, int, int, Fields]] = {
    "rest_inquire_daily_price_live_005930_20240610.json": (
        "output",
        4,
        1,
        {"stck_bsop_date": "20240603", "stck_oprc": "74400", "stck_hgpr": "78600", "acml_vol": "74171638"},
    ),
    "rest_inquire_vi_status_live_20240126.json": (
        "output",
        2,
        0,
        {"mksc_shrn_iscd": "069330", "cntg_vi_hour": "180030", "vi_kind_code": "2", "vi_dmc_stnd_prc": "1640"},
    ),
    "rest_futures_order_live_ok_101229.json": (
        "output",
        1,
        0,
        {"odno": "0000001829", "orgn_odno": "0000001827", "ord_gno_brno": "91257", "ord_tmd": "101229"},
    ),
    "rest_market_cap_ranking_live_20250725.json": (
        "output",
        30,
        29,
        {"mksc_shrn_iscd": "402340", "data_rank": "30", "hts_kor_isnm": "SK스퀘어", "stck_avls": "201992"},
    ),
    "rest_inquire_price_2_live_005930_20240611.json": (
        "output",
        1,
        0,
        {"stck_prpr": "75200", "stck_sdpr": "75700", "stck_mxpr": "98400", "stck_llam": "53000", "vi_cls_code": "N"},
    ),
    "rest_inquire_investor_live_005930_20240611.json": (
        "output",
        2,
        1,
        {"stck_bsop_date": "20240610", "frgn_ntby_qty": "-1893335", "frgn_ntby_tr_pbmn": "-143714"},
    ),
    "rest_inquire_index_daily_price_live_20240620.json": (
        "output2",
        1,
        0,
        {"stck_bsop_date": "20240620", "bstp_nmix_prpr": "2807.63", "acml_tr_pbmn": "13576970"},
    ),
    "rest_exp_index_trend_live_20240621.json": (
        "output",
        4,
        0,
        {"stck_cntg_hour": "666666", "bstp_nmix_prpr": "2792.43", "bstp_nmix_prdy_vrss": "-15.20"},
    ),
    "doc_rest_inquire_ccnl.json": (
        "output",
        2,
        1,
        {"stck_cntg_hour": "155935", "stck_prpr": "78900", "cntg_vol": "10", "tday_rltv": "114.05"},
    ),
    "doc_rest_market_time.json": (
        "output1",
        1,
        0,
        {"today": "20240911", "time": "083523", "s_time": "084500", "e_time": "154500"},
    ),
    "doc_rest_futures_inquire_ccnl.json": (
        "output1",
        2,
        1,
        {"odno": "0000007006", "orgn_odno": "0000007004", "trad_dvsn_name": "CANCEL CONFIRM", "qty": "0"},
    ),
    "doc_rest_futures_inquire_psbl_order.json": (
        "output",
        1,
        0,
        {"tot_psbl_qty": "11679", "ord_psbl_qty": "11665", "bass_idx": "379.67000000"},
    ),
}


@pytest.mark.parametrize("name", UNUSED_REPLIES)
def test_a_reply_of_no_use_here_is_read_as_well(name: str) -> None:
    output, count, index, expected = UNUSED_REPLIES[name]
    rows = _asked(recorded(name)).rows(output)
    assert len(rows) == count
    assert {field: rows[index].text(field) for field in expected} == expected


def _asked(body: Any, status: int = 200, tr: TR = UNUSED) -> BrokerReply:
    return Wire(httpx.Response(status, json=body)).client.call(tr, {})


def test_what_was_not_told_is_no_figure_and_a_special_hour_no_time_of_day() -> None:
    today = _asked(recorded("rest_inquire_investor_live_005930_20240611.json")).rows()[0]
    assert (today.text("frgn_ntby_qty"), today.day("stck_bsop_date")) == ("", date(2024, 6, 11))
    expected = _asked(recorded("rest_exp_index_trend_live_20240621.json")).rows()
    with pytest.raises(OutcomeUnknown, match="a time as 093025"):
        expected[0].clock("stck_cntg_hour")
    assert expected[1].clock("stck_cntg_hour") == time(8, 59, 50)


def test_fields_without_an_envelope_are_no_answer() -> None:
    fields = recorded("rest_futures_night_price_fields_20260805.json")
    with pytest.raises(OutcomeUnknown, match="no readable answer"):
        _asked(fields)
    row = _asked({"rt_cd": "0", **fields}, tr=catalogue.FUTURES_PRICE).row("output1")
    assert (row.decimal("futs_prpr"), row.decimal("basis")) == (D("1047.40"), D("2.38"))
    assert (row.integer("hts_otst_stpl_qty"), row.integer("acml_vol")) == (164_621, 5_882)


# --- refusals


Judged = tuple[int, type[BrokerError], str, str]
REFUSALS: dict[str, Judged] = {
    "rest_err_egw00121_http500_20250709.json": (500, NotSent, "EGW00121", "유효하지 않은 token 입니다."),
    "rest_err_egw00123_http500_msg1_before_msg_cd.json": (500, NotSent, "EGW00123", "기간이 만료된 token 입니다."),
    "rest_err_egw00133_tokenp_http403.json": (
        403,
        NotSent,
        "EGW00133",
        "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)",
    ),
    "rest_err_egw00201.json": (500, NotSent, "EGW00201", "초당 거래건수를 초과하였습니다."),
    "rest_err_live_apbk0919.json": (200, Refused, "APBK0919", "장운영일자가 주문일과 상이합니다"),
    "rest_err_live_apbk0952_http200.json": (200, Refused, "APBK0952", "주문가능금액을 초과 했습니다"),
    "rest_err_opsq2001_missing_param_http200_20250622.json": (
        200,
        Refused,
        "OPSQ2001",
        "ERROR : INPUT_FIELD_NAME BASS_DT",
    ),
    "rest_err_vts_40070000_not_tradable.json": (
        200,
        Refused,
        "40070000",
        "모의투자 주문처리가 안되었습니다(매매불가 종목)",
    ),
    "rest_err_vts_90000000_not_offered.json": (
        200,
        Refused,
        "90000000",
        "모의투자에서는 해당업무가 제공되지 않습니다.",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_recorded_refusal_of_an_order_means_what_it_says(name: str) -> None:
    _assert_judged(recorded(name), REFUSALS[name])


def _assert_judged(body: Any, judged: Judged) -> None:
    status, kind, code, words = judged
    with pytest.raises(BrokerError) as caught:
        answering(body, status).place(BUY)
    assert (type(caught.value), caught.value.code, caught.value.message) == (kind, code, words)


def test_a_redacted_refusal_of_a_closed_day_is_final() -> None:
    submitted = recorded("evidence_quant_app_20260817_sim_mutation_rejection.json")["submit"]
    _assert_judged(submitted, (200, Refused, "40100000", "모의투자 영업일이 아닙니다."))


LOGGED: list[Judged] = [
    (500, Refused, "IGW00007", "MCA 전문바디 구성 중 오류가 발생하였습니다."),
    (404, OutcomeUnknown, "", "HTTP 404 with no readable answer: ''"),
    (403, NotSent, "EGW00133", "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)"),
    (500, NotSent, "EGW00123", "기간이 만료된 token 입니다."),
]


def test_replies_that_a_log_quotes_are_judged_too() -> None:
    text = (SAMPLES / "log_kis_rest_ws_errors_202507.txt").read_text(encoding="utf-8")
    quoted = re.findall(r"HTTP 오류 발생(?: \(httpx\))?: (\d{3}) - (.*)", text)
    assert [int(status) for status, _ in quoted] == [judged[0] for judged in LOGGED]
    for (_, body), (status, kind, code, words) in zip(quoted, LOGGED, strict=True):
        broker = KISBroker(Wire(httpx.Response(status, text=body)).client)
        with pytest.raises(BrokerError) as caught:
            broker.place(BUY)
        assert (type(caught.value), caught.value.code, caught.value.message) == (kind, code, words)


# --- keys and tokens


@pytest.fixture
def told() -> Iterator[Callable[[Any], httpx.Client]]:
    """Make a connection that answers everything with one reply."""
    clients: list[httpx.Client] = []

    def tell(body: Any, status: int = 200) -> httpx.Client:
        clients.append(httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, json=body))))
        return clients[-1]

    yield tell
    for made in clients:
        made.close()


def test_a_recorded_token_serves_until_its_end(
    told: Callable[..., httpx.Client], store: redis.Redis, clock_at: Callable[[str], datetime]
) -> None:
    clock_at("2023-12-21 08:17:00")
    http = told(recorded("doc_rest_tokenP.json"))
    assert Tokens(SIM, SECRETS, http, store).get() == "D" * 328
    (key,) = store.scan_iter("aegis:kis:*:token")
    assert json.loads(store.get(key) or b"") == {"value": "D" * 328, "ends_at": "2023-12-22T08:16:59+09:00"}


def test_a_recorded_approval_key_is_taken_whole(told: Callable[..., httpx.Client]) -> None:
    http = told(recorded("doc_rest_approval.json"))
    assert approval_key(SIM, SECRETS, http) == "00000000-0000-4000-8000-00000000000"


def test_a_recorded_revocation_leads_to_a_new_token(store: redis.Redis) -> None:
    paths: list[str] = []
    fresh = {**recorded("doc_rest_tokenP.json"), "access_token_token_expired": "2026-11-24 10:00:00"}
    tokens = iter(["dead", "dead", "alive"])

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        if request.url.path == "/oauth2/revokeP":
            return httpx.Response(200, json=recorded("doc_rest_revokeP.json"))
        return httpx.Response(200, json={**fresh, "access_token": next(tokens)})

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        kept = Tokens(SIM, SECRETS, http, store)
        assert kept.get() == "dead"
        kept.invalidate("dead")
        assert kept.get() == "alive"
    assert paths == ["/oauth2/tokenP", "/oauth2/tokenP", "/oauth2/revokeP", "/oauth2/tokenP"]


def test_a_recorded_refusal_to_issue_is_waited_for_and_named(
    told: Callable[..., httpx.Client], store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kis.auth.ISSUE_PATIENCE_SECONDS", 0.0)
    http = told(recorded("rest_err_egw00133_tokenp_http403.json"), 403)
    with pytest.raises(NotSent) as caught:
        Tokens(SIM, SECRETS, http, store, sleep=lambda seconds: None).get()
    assert caught.value.code == "EGW00133"
    assert caught.value.message.startswith("접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)")


# --- nothing is left out

OF_THE_TESTS_ABOVE = {
    "doc_rest_approval.json",
    "doc_rest_revokeP.json",
    "doc_rest_tokenP.json",
    "evidence_quant_app_20260817_sim_mutation_rejection.json",
    "log_kis_rest_ws_errors_202507.txt",
    "rest_futures_night_price_fields_20260805.json",
}
# evidence of the socket, and tables made from documents
NO_REPLIES = {
    "README.md",
    "evidence_quant_app_20260817_premarket_quote_schema.json",
    "evidence_quant_app_20260817_subscription_acks.json",
    "message_codes.json",
    "realtime_columns.json",
    "rest_operations.json",
}


def test_no_recorded_reply_is_left_out() -> None:
    """A new sample of REST is expected here, with its values; those of the socket are read elsewhere."""
    read = {name for name, _, _ in READINGS} | UNUSED_REPLIES.keys() | REFUSALS.keys() | OF_THE_TESTS_ABOVE
    of_rest = {
        path.name
        for path in SAMPLES.iterdir()
        if not path.name.startswith(("ws_", "doc_ws_")) and path.name not in NO_REPLIES
    }
    assert of_rest == read
