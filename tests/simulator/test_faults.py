"""What goes wrong on demand, seen from the client's side of the wire."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import websocket

from simulator.api.control import BadCommand
from simulator.api.server import Simulator
from simulator.faults.injection import change_frame_values
from simulator.faults.table import BEFORE, KINDS, BadFault, Faults
from simulator.feed import hub

from .conftest import ACCOUNT, KEPCO, SAMSUNG, Client, Socket

QUOTE = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": SAMSUNG}
TODAY = "20261123"


@pytest.fixture
def client(running: Callable[..., Simulator]) -> Client:
    return Client(running())


@pytest.fixture
def socket(client: Client) -> Socket:
    socket = client.socket()
    assert socket.ask("H0STCNI0", "me")["body"]["rt_cd"] == "0"
    return socket


def orders(client: Client) -> list[str]:
    return [order["status"] for order in client.sim.ledger(ACCOUNT)["orders"]]


# --- the table


def test_a_fault_strikes_as_often_as_it_was_asked_to() -> None:
    faults = Faults()
    faults.add({"name": "too_fast", "count": 2, "after": 1, "tr_id": "A"})
    struck = [faults.take(BEFORE, tr_id=tr_id) is not None for tr_id in "BAAAA"]
    assert struck == [False, False, True, True, False]
    assert faults.active() == []


def test_a_fault_may_strike_by_chance_and_the_seed_decides() -> None:
    def run(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add({"name": "too_fast", "probability": 0.5})
        return [faults.take(BEFORE) is not None for _ in range(40)]

    assert run(1) == run(1) != run(2)
    assert 8 < sum(run(1)) < 32


def test_a_fault_may_strike_every_third_time() -> None:
    faults = Faults()
    faults.add({"name": "notice_lost", "every": 3})
    assert [faults.take("notice") is not None for _ in range(6)] == [False, False, True, False, False, True]


def test_a_fault_may_last_for_a_while() -> None:
    now = [0.0]
    faults = Faults(clock=lambda: now[0])
    faults.add({"name": "stall", "lasts": 10})
    assert faults.has("stall")
    now[0] = 10.0
    assert not faults.has("stall")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"name": "nonsense"}, "name 'nonsense': one of request_lost"),
        ({"name": "delay", "count": 0}, "count 0: a whole number of 1 or more"),
        ({"name": "delay", "probability": 2}, "probability 2: a number from 0.0 to 1.0"),
        ({"name": "delay", "minutes": 2}, "'minutes' is nothing that delay knows; it knows seconds, path"),
    ],
)
def test_a_bad_fault_is_explained(words: dict[str, object], said: str) -> None:
    with pytest.raises(BadFault) as caught:
        Faults().add(words)
    assert str(caught.value).startswith(said)


def test_the_list_explains_every_fault(client: Client) -> None:
    listed = client.http.get("/simulator/faults").json()
    assert set(listed["faults"]) == set(KINDS)
    reply = client.http.post("/simulator/faults", json={"name": "delay", "seconds": 1}).json()
    assert [fault["id"] for fault in client.http.get("/simulator/faults").json()["active"]] == [reply["id"]]
    assert client.http.post("/simulator/faults", json={"clear": True}).json() == {"active": []}


# --- orders whose answer goes astray


def test_an_answer_lost_after_the_order_was_taken(client: Client) -> None:
    client.sim.fault("answer_lost", tr_id="TTTC0012U", count=1)
    with pytest.raises(httpx.TransportError):
        client.buy(1, 65_000)
    assert orders(client) == ["open"]


def test_an_answer_torn_in_the_middle(client: Client) -> None:
    client.sim.fault("answer_torn", tr_id="TTTC0012U", count=1)
    with pytest.raises(httpx.TransportError):
        client.buy(1, 65_000)
    assert orders(client) == ["open"]


def test_a_request_lost_before_the_order_was_taken(client: Client) -> None:
    client.sim.fault("request_lost", path="order-cash", count=1)
    with pytest.raises(httpx.TransportError):
        client.buy(1, 65_000)
    assert orders(client) == []


def test_an_answer_later_than_the_client_waits(client: Client, socket: Socket) -> None:
    client.sim.fault("delay", tr_id="TTTC0012U", seconds=0.6)
    client.http.timeout = httpx.Timeout(0.2)
    with pytest.raises(httpx.ReadTimeout):
        client.buy(1, 0, "01")
    # the notices did not wait for the answer
    assert socket.frame("H0STCNI0")[1][13] == "1"
    assert socket.frame("H0STCNI0")[1][13] == "2"
    assert orders(client) == ["filled"]


@pytest.mark.parametrize(("name", "done"), [("timeout_accepted", ["open"]), ("timeout_unaccepted", [])])
@pytest.mark.parametrize("code", ["EGW00301", "EGW00302"])
def test_timeouts_of_the_gateway_may_mean_either(client: Client, name: str, done: list[str], code: str) -> None:
    client.sim.fault(name, tr_id="TTTC0012U", msg_cd=code)
    reply = client.buy(1, 65_000)
    assert (reply.status_code, reply.json()["msg_cd"]) == (500, code)
    assert "직전 거래를 반드시 확인하세요" in reply.json()["msg1"]
    assert orders(client) == done


def test_a_receipt_has_no_number_though_the_order_was_taken(client: Client) -> None:
    client.sim.fault("receipt_without_number", count=1)
    assert client.balance().json()["rt_cd"] == "0"
    output = client.buy(1, 65_000).json()["output"]
    assert (output["ODNO"], output["KRX_FWDG_ORD_ORGNO"]) == ("", "06010")
    assert orders(client) == ["open"]
    client.sim.fault("receipt_without_number", path="order-rvsecncl", count=1)
    assert client.cancel("1").json()["output"]["ODNO"] == ""
    assert orders(client) == ["cancelled", "done"]


def test_a_cancel_is_answered_and_ignored(client: Client, socket: Socket) -> None:
    number = client.buy(10, 65_000).json()["output"]["ODNO"]
    client.sim.fault("cancel_ignored", path="order-rvsecncl", count=1)
    reply = client.cancel(number).json()
    assert (reply["rt_cd"], int(reply["output"]["ODNO"])) == ("0", int(number) + 1)
    assert orders(client) == ["open"]
    assert [row["odno"] for row in client.orders(TODAY).json()["output1"]] == [number]
    following = client.buy(1, 65_000).json()["output"]["ODNO"]
    assert int(following) == int(number) + 2, "the number that was given is used up"
    assert numbers(socket, 2) == [int(number), int(following)]
    assert client.cancel(number).json()["rt_cd"] == "0"
    assert orders(client) == ["cancelled", "open", "done"]


def test_an_ignored_cancel_is_still_checked_and_spares_new_orders(client: Client) -> None:
    client.sim.fault("cancel_ignored")
    number = client.buy(1, 0, "01").json()["output"]["ODNO"]
    assert orders(client) == ["filled"]
    assert client.cancel(number).json()["msg_cd"] == "APBK0927"


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize(
    ("name", "status", "body"),
    [("error_500", 500, ""), ("bad_gateway", 502, "<html>"), ("broken_json", 200, "{"), ("rt_cd_missing", 200, "{")],
)
def test_answers_that_say_nothing(client: Client, name: str, status: int, body: str, executed: bool) -> None:
    client.sim.fault(name, tr_id="TTTC0012U", executed=executed)
    reply = client.buy(1, 65_000)
    assert reply.status_code == status
    assert reply.text.startswith(body)
    assert '"rt_cd"' not in reply.text or name == "broken_json"
    assert orders(client) == (["open"] if executed else [])


def test_storms_turn_calls_away_unread(client: Client) -> None:
    client.sim.fault("ledger_too_fast", count=1)
    quote = client.get("quotations/inquire-price", "FHKST01010100", **QUOTE)
    assert quote.status_code == 200
    assert client.balance().json()["msg_cd"] == "EGW00215"
    client.sim.fault("too_fast", lasts=0.3)
    assert client.buy(1, 65_000).json()["msg_cd"] == "EGW00201"
    time.sleep(0.35)
    assert client.buy(1, 65_000).json()["rt_cd"] == "0"
    assert orders(client) == ["open"]


def test_a_refusal_in_any_words(client: Client) -> None:
    client.sim.fault("refusal", tr_id="TTTC0011U", msg_cd="APBK9999", msg1="처음 보는 말")
    reply = client.sell(1, 71_500).json()
    assert (reply["rt_cd"], reply["msg_cd"], reply["msg1"]) == ("7", "APBK9999", "처음 보는 말")


def test_tokens_end_early(client: Client) -> None:
    client.sim.fault("expire_tokens")
    assert client.balance().json()["msg_cd"] == "EGW00123"
    client.sim.fault("revoke_tokens")
    assert client.balance().json()["msg_cd"] == "EGW00121"


def test_the_token_endpoint_has_faults_too(client: Client) -> None:
    client.sim.fault("gateway", path="/oauth2/tokenP", msg_cd="EGW00002", msg1="서버 에러가 발생했습니다.", count=1)
    assert client.token().json()["error_code"] == "EGW00002"
    client.sim.fault("request_lost", path="/oauth2/tokenP", seconds=30, count=1)
    with pytest.raises(httpx.ReadTimeout):
        client.http.post("/oauth2/tokenP", json={}, timeout=0.3)


def test_a_fault_without_a_scope_is_not_spent_on_a_key(client: Client) -> None:
    client.sim.fault("too_fast", count=1)
    client.sim.fault("rt_cd_missing", count=1)
    assert client.approval()
    assert client.buy(1, 65_000).json()["msg_cd"] == "EGW00201"
    assert "rt_cd" not in client.buy(1, 65_000).json()


@pytest.mark.parametrize(("name", "code"), [("token_invalid", "EGW00121"), ("token_ended", "EGW00123")])
def test_a_good_token_may_be_turned_away(client: Client, name: str, code: str) -> None:
    client.sim.fault(name, path="order-cash", count=1)
    assert client.buy(1, 65_000).json()["msg_cd"] == code
    assert client.buy(1, 65_000).json()["rt_cd"] == "0"
    assert orders(client) == ["open"], "the first was not taken"


def test_a_request_may_wait_before_it_is_done(client: Client) -> None:
    client.sim.fault("delay_before", path="order-cash", seconds=1)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as other:
        reply = other.submit(client.buy, 1, 65_000)
        while not client.http.get("/simulator/faults").json()["active"][0]["struck"]:
            assert time.monotonic() - began < 30
        done_early = orders(client)
        looked_in_time = time.monotonic() - began < 1
        assert reply.result(30).json()["rt_cd"] == "0"
    assert time.monotonic() - began >= 1
    assert done_early == [] or not looked_in_time
    assert orders(client) == ["open"]


# --- lists


@pytest.fixture
def listed(running: Callable[..., Simulator]) -> Client:
    client = Client(running(paper=True), paper=True)
    for _ in range(17):
        client.buy(1, 65_000)
    return client


def test_an_order_is_missing_from_the_list_for_three_polls(client: Client) -> None:
    number = client.buy(1, 65_000).json()["output"]["ODNO"]
    client.sim.fault("order_missing", path="inquire-daily-ccld", code=SAMSUNG, count=3)
    seen = [len(client.orders(TODAY, PDNO=SAMSUNG).json()["output1"]) for _ in range(4)]
    assert seen == [0, 0, 0, 1]
    assert client.orders(TODAY).json()["output1"][0]["odno"] == number


def test_an_order_is_missing_from_the_list_of_the_whole_account(running: Callable[..., Simulator]) -> None:
    client = Client(running())
    client.sim.fault("order_missing", path="inquire-daily-ccld", code=SAMSUNG, count=2)
    assert client.orders(TODAY).json()["output1"] == []
    client.buy(1, 35_000, code=KEPCO)
    assert [row["pdno"] for row in client.orders(TODAY).json()["output1"]] == [KEPCO]
    client.buy(1, 65_000)
    seen = [[row["pdno"] for row in client.orders(TODAY).json()["output1"]] for _ in range(3)]
    assert seen == [[KEPCO], [KEPCO], [SAMSUNG, KEPCO]], "lists without such a row do not use the fault up"


@pytest.mark.parametrize(
    ("words", "kinds"),
    [({"code": SAMSUNG}, ["00", "??", "??"]), ({}, ["??", "00", "00"]), ({"code": "000660"}, ["00", "00", "00"])],
)
def test_a_row_has_a_field_that_nobody_can_read(client: Client, words: dict[str, str], kinds: list[str]) -> None:
    for code, price in ((SAMSUNG, 65_000), (SAMSUNG, 65_000), (KEPCO, 35_000)):
        client.buy(1, price, code=code)
    client.sim.fault("row_unreadable", path="inquire-daily-ccld", **words)
    assert [row["ord_dvsn_cd"] for row in client.orders(TODAY).json()["output1"]] == kinds


def test_the_field_and_the_value_of_an_unreadable_row_are_chosen(client: Client) -> None:
    client.buy(1, 65_000)
    client.sim.fault("row_unreadable", field="rmn_qty", value="ten")
    row = client.orders(TODAY).json()["output1"][0]
    assert (row["rmn_qty"], row["ord_qty"], row["ord_dvsn_cd"]) == ("ten", "1", "00")


def open_orders(client: Client) -> dict[str, str]:
    params = {"CTX_AREA_FK100": "", "CTX_AREA_NK100": "", "INQR_DVSN_1": "0", "INQR_DVSN_2": "0"}
    reply = client.get("trading/inquire-psbl-rvsecncl", "TTTC0084R", **client.account, **params)
    return {row["odno"]: row["psbl_qty"] for row in reply.json()["output"]}


def listed_quantities(client: Client) -> dict[str, tuple[str, ...]]:
    rows = client.orders(TODAY).json()["output1"]
    return {row["odno"]: tuple(row[name] for name in ("tot_ccld_qty", "cncl_cfrm_qty", "rmn_qty")) for row in rows}


def test_the_order_list_lags_behind_by_market_time(client: Client, set_clock: Callable[[str], None]) -> None:
    first = client.buy(10, 65_000).json()["output"]["ODNO"]
    set_clock("2026-11-23 10:00:30")
    client.sim.fault("list_lag", path="inquire-daily-ccld", seconds=20.0)
    second = client.buy(4, 0, "01").json()["output"]["ODNO"]
    request = client.cancel(first).json()["output"]["ODNO"]
    assert listed_quantities(client) == {first: ("0", "0", "10")}
    assert open_orders(client) == {}, "the list of open orders is not the one that lags"
    set_clock("2026-11-23 10:00:55")
    now = {request: ("0", "10", "0"), second: ("4", "0", "0"), first: ("0", "10", "0")}
    assert listed_quantities(client) == now
    client.sim.fault("list_lag", path="inquire-daily-ccld", seconds=3_600)
    client.sim.clear_faults()
    assert listed_quantities(client) == now


def test_the_list_of_open_orders_lags_too(client: Client, set_clock: Callable[[str], None]) -> None:
    first = client.buy(10, 65_000).json()["output"]["ODNO"]
    set_clock("2026-11-23 10:00:30")
    client.sim.fault("list_lag", path="inquire-psbl-rvsecncl")
    client.cancel(first)
    client.buy(4, 65_000)
    assert open_orders(client) == {first: "10"}
    assert listed_quantities(client)[first] == ("0", "10", "0")


def test_a_lagging_list_is_not_spent_on_other_calls(client: Client) -> None:
    client.sim.fault("list_lag", seconds=600, count=1)
    client.buy(1, 65_000)
    assert client.balance().json()["rt_cd"] == "0"
    assert listed_quantities(client) == {}
    assert len(listed_quantities(client)) == 1


def test_pages_go_wrong(listed: Client) -> None:
    first = listed.orders(TODAY).json()
    keys = {name.upper(): value for name, value in first.items() if name.startswith("ctx_area")}
    listed.sim.fault("page_fails", path="inquire-daily-ccld", count=1)
    assert listed.orders(TODAY, "N", **keys).status_code == 500
    listed.sim.fault("page_repeats", path="inquire-daily-ccld", count=1)
    assert listed.orders(TODAY, "N", **keys).json()["output1"] == first["output1"]
    listed.sim.fault("stuck_cursor", path="inquire-daily-ccld", count=1)
    stuck = listed.orders(TODAY, "N", **keys)
    assert (stuck.headers["tr_cont"], stuck.json()["ctx_area_nk100"]) == ("M", keys["CTX_AREA_NK100"])
    assert len(listed.orders(TODAY, "N", **keys).json()["output1"]) == 2


def test_rows_go_wrong(listed: Client) -> None:
    def rows(name: str) -> object:
        listed.sim.fault(name, path="inquire-daily-ccld", count=1)
        return listed.orders(TODAY).json()["output1"]

    assert rows("empty_list") == []
    assert isinstance(rows("dict_for_list"), dict)
    doubled = rows("duplicate_rows")
    assert isinstance(doubled, list)
    assert doubled[0] == doubled[1]


def test_a_balance_lags_behind_its_fills(client: Client) -> None:
    client.sim.fault("balance_lag", lasts=0.5)
    client.buy(3, 0, "01")
    assert client.balance().json()["output1"] == []
    time.sleep(0.55)
    assert client.balance().json()["output1"][0]["hldg_qty"] == "3"


# --- fills and orders


def test_the_exchange_refuses_what_the_broker_took(client: Client, socket: Socket) -> None:
    client.sim.fault("refused_later", code=SAMSUNG, count=1)
    number = client.buy(4, 65_000).json()["output"]["ODNO"]
    assert socket.frame("H0STCNI0")[1][12:15] == ["0", "1", "1"]
    assert socket.frame("H0STCNI0")[1][12:15] == ["1", "1", "1"]
    row = client.orders(TODAY).json()["output1"][0]
    assert (row["odno"], row["rjct_qty"], row["rmn_qty"], row["tot_ccld_qty"]) == (number, "4", "0", "0")
    assert client.sim.ledger(ACCOUNT)["cash"]["orderable"] == 100_000_000


def test_a_fill_overtakes_a_cancel(client: Client) -> None:
    number = client.buy(4, 65_000).json()["output"]["ODNO"]
    client.sim.fault("overtaken", count=1)
    assert client.cancel(number).json()["rt_cd"] == "7"
    assert orders(client) == ["filled"]


def test_fills_come_in_crumbs(client: Client, socket: Socket) -> None:
    client.sim.fault("crumbs", shares=1)
    client.buy(5, 0, "01")
    socket.frame("H0STCNI0")
    assert [socket.frame("H0STCNI0")[1][9] for _ in range(5)] == ["0000000001"] * 5
    assert client.sim.ledger(ACCOUNT)["orders"][0]["filled"] == 5


# --- notices


def numbers(socket: Socket, count: int) -> list[int]:
    return [int(socket.frame("H0STCNI0")[1][2]) for _ in range(count)]


def test_notices_are_lost_doubled_and_late(client: Client, socket: Socket) -> None:
    client.sim.fault("notice_lost", count=1)
    client.sim.fault("notice_doubled", count=1, times=3)
    client.sim.fault("notice_late", count=1, seconds=0.3)
    for _ in range(4):
        client.buy(1, 65_000)
    assert numbers(socket, 5) == [2, 2, 2, 4, 3]


def test_notices_come_in_reverse(client: Client, socket: Socket) -> None:
    client.sim.fault("notice_reordered", batch=2, count=2)
    client.buy(1, 0, "01")
    assert [socket.frame("H0STCNI0")[1][13] for _ in range(2)] == ["2", "1"]


def test_notices_of_a_stranger_come_too(client: Client, socket: Socket) -> None:
    client.sim.fault("notice_of_another", account="55555555-01", count=1)
    client.buy(1, 65_000)
    assert [socket.frame("H0STCNI0")[1][1] for _ in range(2)] == ["5555555501", "1234567801"]


@pytest.mark.parametrize(("more", "width"), [(1, 27), (2, 28), (-3, 23)])
def test_notices_grow_and_shrink(client: Client, socket: Socket, more: int, width: int) -> None:
    client.sim.fault("notice_columns", more=more)
    client.buy(1, 65_000)
    assert len(socket.frame("H0STCNI0")[1]) == width


def test_notices_nobody_can_read(client: Client, socket: Socket) -> None:
    client.sim.fault("notice_wrong_key", count=1)
    client.sim.fault("notice_garbled", count=1)
    client.buy(1, 65_000)
    try:
        _, values = socket.frame("H0STCNI0")
    except ValueError:
        values = []
    assert values[:1] != ["me"]
    client.buy(1, 65_000)
    assert socket.text().split("|")[3].startswith("!")


# --- sockets and frames


def test_sockets_are_cut_without_a_word(client: Client, socket: Socket) -> None:
    client.sim.fault("drop_sockets")
    assert socket.is_cut_off()


def test_a_ghost_keeps_the_key_busy(client: Client, socket: Socket) -> None:
    client.sim.fault("ghost", seconds=8, count=1)
    socket.close()
    gives_up_at = time.monotonic() + 60
    while (code := client.socket().ask("H0STCNI0", "me")["body"]["msg_cd"]) == "OPSP8996":
        assert time.monotonic() < gives_up_at
        seen = code
        time.sleep(0.2)
    assert (seen, code) == ("OPSP8996", "OPSP0000")


def test_a_stalled_session_says_nothing(client: Client, socket: Socket) -> None:
    client.sim.fault("stall")
    client.buy(1, 65_000)
    assert socket.ask("H0STCNT0", SAMSUNG)["body"]["msg_cd"] == "OPSP0000"
    client.sim.clear_faults()
    client.buy(1, 65_000)
    assert numbers(socket, 1) == [2]


def test_a_server_that_does_not_ping_may_hang_up(
    running: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FIRST_PING_SECONDS", 0.05)
    monkeypatch.setattr(hub, "PING_SECONDS", 0.05)
    client = Client(running())
    client.sim.fault("no_pingpong")
    silent = client.socket()
    silent.line.settimeout(0.5)
    with pytest.raises(websocket.WebSocketTimeoutException):
        silent.line.recv()
    client.sim.clear_faults()
    assert '"PINGPONG"' in str(silent.line.recv())
    client.sim.fault("no_pingpong", hangs_up_after=0.1)
    silent.line.settimeout(30)
    assert silent.is_cut_off()


def test_registrations_fail_on_demand(client: Client, socket: Socket) -> None:
    client.sim.fault("subscription_refused", tr_id="H0STCNT0", count=1)
    assert socket.ask("H0STCNT0", SAMSUNG)["body"]["msg_cd"] == "OPSP0007"
    client.sim.fault("approval_refused", count=1)
    socket.close()
    assert client.socket().ask("H0STCNI0", "me")["body"]["msg_cd"] == "OPSP0011"


@pytest.mark.parametrize(
    ("name", "words"),
    [("frame_cut", {}), ("frame_bytes", {}), ("frame_nulls", {}), ("frame_giant", {"times": 50}), ("frame_tr", {})],
)
def test_bad_frames_do_not_harm_the_server(client: Client, socket: Socket, name: str, words: dict[str, object]) -> None:
    socket.ask("H0STCNT0", SAMSUNG)
    client.sim.fault(name, count=1, tr_id="H0STCNT0", **words)
    client.buy(1, 0, "01")
    seen = b""
    while not seen.startswith(b"0|"):
        _, frame = socket.line.recv_data_frame()
        seen = frame.data
    client.buy(1, 0, "01")
    count, values = socket.frame("H0STCNT0")
    assert len(values) == 47 * count


def test_columns_appear_in_the_middle(client: Client, socket: Socket) -> None:
    socket.ask("H0STCNT0", SAMSUNG)
    client.sim.fault("frame_columns", tr_id="H0STCNT0", at=2, value="new", count=1)
    client.buy(1, 0, "01")
    count, values = socket.frame("H0STCNT0")
    assert (len(values), values[2]) == (48 * count, "new")


def test_values_of_an_encrypted_notice_are_null(client: Client, socket: Socket) -> None:
    client.sim.fault("frame_nulls", columns=[2, 12, 99], count=1)
    client.buy(1, 65_000)
    values = socket.frame("H0STCNI0")[1]
    assert (values[2], values[12], values[8], len(values)) == ("(null)", "(null)", SAMSUNG, 26)


def test_an_encrypted_notice_has_a_column_more(client: Client, socket: Socket) -> None:
    client.sim.fault("frame_columns", at=2, value="new", count=1)
    client.buy(1, 65_000)
    values = socket.frame("H0STCNI0")[1]
    assert (values[2], int(values[3]), len(values)) == ("new", 1, 27)


def test_a_null_beyond_the_last_column_changes_nothing(client: Client, socket: Socket) -> None:
    socket.ask("H0STCNT0", SAMSUNG)
    client.sim.fault("frame_nulls", tr_id="H0STCNT0", columns=[47], count=1)
    client.buy(1, 0, "01")
    count, values = socket.frame("H0STCNT0")
    assert (len(values), "(null)" in values) == (47 * count, False)


def test_every_record_of_a_frame_has_its_nulls() -> None:
    fault = Faults().add({"name": "frame_nulls", "columns": [1]})
    assert change_frame_values(fault, 2, ["a", "b", "c", "d"]) == ["a", "(null)", "c", "(null)"]


# --- hands


def test_an_order_by_hand_is_told_like_any_other(client: Client, socket: Socket) -> None:
    client.balance()
    placed = client.sim.command(
        "POST",
        "/simulator/orders",
        {"account": ACCOUNT, "code": SAMSUNG, "side": "BUY", "quantity": 2, "price": 65_000},
    )
    assert numbers(socket, 1) == [int(placed["number"])]
    client.sim.command("POST", "/simulator/orders", {"account": ACCOUNT, "cancel": int(placed["number"])})
    assert orders(client) == ["cancelled", "done"]


def by_hand(client: Client, **body: object) -> dict[str, object]:
    return client.sim.command("POST", "/simulator/orders", {"account": ACCOUNT, **body})


def test_a_part_of_an_order_is_cancelled_by_hand(client: Client, socket: Socket) -> None:
    number = client.buy(10, 65_000).json()["output"]["ODNO"]
    line = by_hand(client, cancel=int(number), quantity=4)
    first, second = (row for row in client.orders(TODAY, INQR_DVSN="01").json()["output1"])
    assert (first["cncl_cfrm_qty"], first["rmn_qty"]) == ("4", "6")
    assert (second["odno"], second["orgn_odno"], second["ord_qty"]) == (line["number"], number, "4")
    assert numbers(socket, 2) == [int(number), int(str(line["number"]))]
    by_hand(client, cancel=int(number))
    assert orders(client) == ["cancelled", "done", "done"]


def test_an_order_is_amended_by_hand_in_part_and_whole(client: Client, socket: Socket) -> None:
    number = client.buy(10, 65_000).json()["output"]["ODNO"]
    part = by_hand(client, amend=int(number), price=65_100, quantity=4)
    whole = by_hand(client, amend=int(number), price=65_200)
    rows = client.orders(TODAY, INQR_DVSN="01").json()["output1"]
    assert [(row["odno"], row["orgn_odno"], row["ord_unpr"], row["rmn_qty"]) for row in rows] == [
        (number, "", "65000", "0"),
        (part["number"], number, "65100", "4"),
        (whole["number"], number, "65200", "6"),
    ]
    socket.frame("H0STCNI0")
    assert [socket.frame("H0STCNI0")[1][5] for _ in range(2)] == ["1", "1"]


def test_what_was_done_by_hand_is_tagged_as_such(client: Client) -> None:
    number = int(client.buy(10, 65_000).json()["output"]["ODNO"])
    by_hand(client, amend=number, price=65_100, quantity=4)
    by_hand(client, cancel=number)
    by_hand(client, code=SAMSUNG, side="BUY", quantity=1, price=65_000)
    lines = [event for event in client.sim.events() if event["event"] == "order"]
    assert [event.get("tag") for event in lines] == [None, "by hand", "by hand", "by hand"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"cancel": "1"}, "cancel '1': a whole number is needed"),
        ({"cancel": 9}, "cancel 9: an open order of 12345678-01 is needed; open are 1"),
        ({"amend": 9, "price": 65_100}, "amend 9: an open order of 12345678-01 is needed; open are 1"),
        ({"amend": 1}, "price None: a whole number is needed"),
        ({"amend": 1, "price": 65_101}, "the desk refuses: 주식주문호가단위 오류입니다. (APBK0506, bad tick)"),
        ({"amend": 1, "price": 65_100, "quantity": 0}, "quantity 0: a number of 1 or more is needed"),
        ({"amend": 1, "price": 65_100, "quantity": "4"}, "quantity '4': a whole number is needed"),
        ({"cancel": 1, "quantity": 11}, "the desk refuses: 정정/취소할 수량이 없습니다. (APBK0927, nothing left)"),
        ({"cancel": 1, "amend": 1}, "cancel 1 and amend 1: only one of them is possible"),
    ],
)
def test_a_bad_change_by_hand_is_explained(client: Client, body: dict[str, object], said: str) -> None:
    client.buy(10, 65_000)
    with pytest.raises(BadCommand) as caught:
        by_hand(client, **body)
    assert str(caught.value).startswith(said)
    assert orders(client) == ["open"]


def test_a_split_changes_quantity_and_average(client: Client) -> None:
    client.buy(10, 0, "01")
    before = client.sim.ledger(ACCOUNT)["holdings"][0]
    client.sim.command("POST", "/simulator/shares", {"account": ACCOUNT, "code": SAMSUNG, "ratio": 5})
    after = client.sim.ledger(ACCOUNT)["holdings"][0]
    assert after["quantity"] == 50
    assert float(after["average_price"]) == pytest.approx(float(before["average_price"]) / 5)
