"""The realtime wire on real sockets."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import websocket

from simulator.api.server import Simulator
from simulator.exchange.listings import STOCKS
from simulator.feed import hub

from .conftest import OTHER, SAMSUNG, THIN, Client, Socket

Start = Callable[..., Simulator]


@pytest.fixture
def client(running: Start) -> Client:
    return Client(running())


@pytest.fixture
def socket(client: Client) -> Socket:
    return client.socket()


def code(reply: dict[str, dict[str, str]]) -> tuple[str, str]:
    return reply["body"]["rt_cd"], reply["body"]["msg_cd"]


def columns(samples: Path, name: str) -> list[str]:
    return (samples / name).read_text(encoding="utf-8").strip().split("|")[-1].split("^")


def test_a_registration_is_answered_like_the_recorded_one(socket: Socket, samples: Path) -> None:
    reply = socket.ask("H0STCNT0", SAMSUNG)
    expected = json.loads((samples / "ws_ack_h0stcnt0_005930_2025.json").read_text(encoding="utf-8"))
    assert reply["header"] == expected["header"]
    assert {**reply["body"], "output": 0} == {**expected["body"], "output": 0}
    output = reply["body"]["output"]
    assert list(output) == ["iv", "key"]
    assert (len(output["key"]), len(output["iv"])) == (32, 16)


def test_registrations_have_their_codes(socket: Socket) -> None:
    assert code(socket.ask("H0STCNT0", SAMSUNG)) == ("0", "OPSP0000")
    assert code(socket.ask("H0STCNT0", SAMSUNG)) == ("1", "OPSP0002")
    assert code(socket.ask("H0STCNT0", SAMSUNG, "2")) == ("0", "OPSP0001")
    assert code(socket.ask("H0STCNT0", SAMSUNG, "2")) == ("1", "OPSP0003")
    assert code(socket.ask("H0STXXX0", SAMSUNG)) == ("1", "OPSP8991")
    assert code(socket.ask("H0STCNT0", SAMSUNG, "0")) == ("9", "OPSP8997")


def test_a_key_that_is_none_is_refused_without_saying_which(socket: Socket) -> None:
    reply = socket.ask("H0STCNT0", "00593")
    assert code(reply) == ("9", "OPSP8992")
    assert (reply["header"]["tr_key"], reply["body"]["msg1"]) == ("", "JSON PARSING ERROR : invalid tr_key")


def _read_to_the_close(socket: Socket) -> None:
    while socket.line.recv_data()[0] != websocket.ABNF.OPCODE_CLOSE:
        continue


def test_a_close_is_not_answered(socket: Socket) -> None:
    socket.ask("H0STCNT0", SAMSUNG)
    socket.line.send_close()
    with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
        _read_to_the_close(socket)


def test_the_forty_second_registration_is_too_many(socket: Socket) -> None:
    codes = list(STOCKS)
    for stock in codes[:41]:
        assert code(socket.ask("H0STCNT0", stock)) == ("0", "OPSP0000")
    assert code(socket.ask("H0STCNT0", codes[41])) == ("1", "OPSP0008")


def test_every_registration_has_a_key_of_its_own(socket: Socket) -> None:
    first = socket.ask("H0STCNI0", "myhts")["body"]["output"]
    socket.ask("H0STCNI0", "myhts", "2")
    assert socket.ask("H0STCNI0", "myhts")["body"]["output"] != first


def test_a_second_session_with_a_key_is_turned_away(client: Client, socket: Socket, samples: Path) -> None:
    socket.ask("H0STCNT0", SAMSUNG)
    second = client.socket()
    reply = second.ask("H0STCNT0", SAMSUNG)
    assert reply == json.loads((samples / "ws_err_opsp8996_already_in_use_full.json").read_text(encoding="utf-8"))
    assert second.is_cut_off()
    assert code(socket.ask("H0STASP0", SAMSUNG)) == ("0", "OPSP0000")
    socket.close()
    third = client.socket()
    assert code(third.ask("H0STCNT0", SAMSUNG)) == ("0", "OPSP0000")


def test_an_unknown_approval_key_ends_the_session(client: Client) -> None:
    line = Socket(client.sim.ws_url, "nobody")
    assert code(line.ask("H0STCNT0", SAMSUNG)) == ("1", "OPSP0011")
    assert line.is_cut_off()


def test_an_empty_hts_id_ends_the_session(socket: Socket) -> None:
    reply = socket.ask("H0STCNI0", "")
    assert code(reply) == ("9", "OPSP0017")
    assert reply["header"]["tr_id"] == "(null)"


@pytest.mark.parametrize(
    ("frame", "msg_cd"),
    [
        ("nonsense", "OPSP9999"),
        ("{}", "OPSP9998"),
        ('{"header": {}}', "OPSP9992"),
        ('{"header": {}, "body": {}}', "OPSP9991"),
        ('{"header": {}, "body": {"input": {}}}', "OPSP9990"),
        ('{"header": {}, "body": {"input": {"tr_key": "x"}}}', "OPSP9997"),
    ],
)
def test_malformed_frames_are_named(socket: Socket, frame: str, msg_cd: str) -> None:
    socket.line.send(frame)
    assert code(json.loads(socket.text())) == ("9", msg_cd)


@pytest.mark.parametrize(
    ("wire", "sample"),
    [("2026-07", "ws_h0stcnt0_20260901_005930_vts_46f.txt"), ("2026-09", "ws_h0stcnt0_20260922_005930_vts_47f.txt")],
)
def test_a_trade_has_the_columns_of_its_wire(running: Start, samples: Path, wire: str, sample: str) -> None:
    client = Client(running(wire=wire))
    socket = client.socket()
    socket.ask("H0STCNT0", SAMSUNG)
    client.buy(1, 0, "01")
    count, values = socket.frame("H0STCNT0")
    expected = columns(samples, sample)
    assert len(values) == count * len(expected)
    check_alike(values[: len(expected)], expected)


def check_alike(values: list[str], expected: list[str]) -> None:
    """Same kinds of values: the same decimals, times where times are, empty where empty."""
    for index, (value, sample) in enumerate(zip(values, expected, strict=True)):
        assert bool(value) == bool(sample), index
        assert len(value.partition(".")[2]) == len(sample.partition(".")[2]) or index in (59,), index
        if len(sample) == 6 and index in (1, 24, 27, 30):
            assert len(value) == 6, index


def test_a_sweep_comes_as_one_frame_of_many_records(client: Client) -> None:
    socket = client.socket()
    socket.ask("H0STCNT0", THIN)
    client.buy(2_000, 0, "01", THIN)
    count, values = socket.frame("H0STCNT0")
    assert count > 1
    assert len(values) == count * 47
    volumes = [int(values[record * 47 + 13]) for record in range(count)]
    quantities = [int(values[record * 47 + 12]) for record in range(count)]
    assert [after - before for before, after in pairwise(volumes)] == quantities[1:]


@pytest.mark.parametrize(("wire", "width"), [("2026-07", 59), ("2026-09", 63)])
def test_a_book_has_the_columns_of_its_wire(running: Start, samples: Path, wire: str, width: int) -> None:
    client = Client(running(wire=wire))
    socket = client.socket()
    socket.ask("H0STASP0", SAMSUNG)
    client.buy(1, 0, "01")
    _, values = socket.frame("H0STASP0")
    assert len(values) == width
    expected = columns(samples, "ws_h0stasp0_20260720_005930_vts_62f.txt")
    check_alike(values[:59], expected[:59])
    assert values[47:53] == ["0", "0", values[53], "-71500", "5", "-100.00"]
    asks, bids = [int(v) for v in values[3:13]], [int(v) for v in values[13:23]]
    assert asks == sorted(asks)
    assert bids == sorted(bids, reverse=True)
    assert asks[0] > bids[0]


@pytest.mark.parametrize(
    ("width", "sample"),
    [(26, "ws_h0stcni0_plain_live_accept_004090_26f.txt"), (23, "ws_h0stcni9_plain_20250722_accept_027360.txt")],
)
def test_an_acceptance_looks_like_the_recorded_one(running: Start, samples: Path, width: int, sample: str) -> None:
    client = Client(running(notice_columns=width))
    socket = client.socket()
    assert socket.ask("H0STCNI0", "myhtsid1")["header"]["encrypt"] == "Y"
    expected = columns(samples, sample)
    kind = expected[6]
    reply = client.buy(1, 0 if kind == "01" else 71_000, kind).json()["output"]
    _, values = socket.frame("H0STCNI0")
    assert len(values) == width
    assert values[2] == reply["ODNO"]
    for index in set(range(width)) - {1, 2, 8, 10, 11, 15, width - 2}:
        assert values[index] == expected[index], index
    assert len(values[10]) == 9


def test_notices_tell_the_whole_story_of_an_order(client: Client) -> None:
    socket = client.socket()
    socket.ask("H0STCNI0", "$Hts")
    number = client.buy(5, 70_000).json()["output"]["ODNO"]
    _, accepted = socket.frame("H0STCNI0")
    assert (accepted[0], accepted[2], accepted[9], accepted[10]) == ("$Hts", number, "0000000005", "000070000")
    assert accepted[12:15] == ["0", "1", "1"]
    cancelled = client.cancel(number).json()["output"]["ODNO"]
    _, confirmed = socket.frame("H0STCNI0")
    assert (confirmed[2], confirmed[3], confirmed[5]) == (cancelled, number, "2")
    assert confirmed[12:15] == ["0", "1", "2"]
    client.buy(2, 0, "01")
    socket.frame("H0STCNI0")
    _, fill = socket.frame("H0STCNI0")
    assert (fill[6], fill[9], fill[12:15]) == ("00", "0000000002", ["0", "2", "2"])
    assert fill[16] == "000000002"


def test_notices_go_to_the_hts_id_of_the_key_that_traded(client: Client) -> None:
    stranger = Client(client.sim, app_key="stranger", account=OTHER)
    mine, theirs = client.socket(), stranger.socket()
    mine.ask("H0STCNI0", "me")
    theirs.ask("H0STCNI0", "them")
    stranger.buy(1, 70_000)
    client.buy(2, 70_000)
    _, values = mine.frame("H0STCNI0")
    assert (values[0], values[1], values[16]) == ("me", "1234567801", "000000002")
    _, values = theirs.frame("H0STCNI0")
    assert (values[0], values[1], values[16]) == ("them", "8765432101", "000000001")


def test_the_unified_feed_is_silent_on_what_only_krx_trades(client: Client) -> None:
    socket = client.socket()
    socket.ask("H0UNCNT0", THIN)
    socket.ask("H0STCNT0", THIN)
    client.buy(1, 0, "01", THIN)
    seen = socket.text()
    assert seen.split("|")[1] == "H0STCNT0"
    socket.ask("H0UNCNT0", SAMSUNG)
    client.buy(1, 0, "01")
    assert socket.frame("H0UNCNT0")[0] >= 1


def test_nxt_trades_come_on_nxt_feeds(client: Client) -> None:
    socket = client.socket()
    for tr_id in ("H0NXCNT0", "H0NXASP0", "H0UNASP0"):
        socket.ask(tr_id, SAMSUNG)
    client.buy(1, 72_500, EXCG_ID_DVSN_CD="NXT")
    assert len(socket.frame("H0NXCNT0")[1]) == 47
    assert len(socket.frame("H0NXASP0")[1]) == 65
    client.buy(1, 72_500, EXCG_ID_DVSN_CD="NXT")
    assert len(socket.frame("H0UNASP0")[1]) == 66


def test_the_server_pings_and_takes_either_answer(running: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "FIRST_PING_SECONDS", 0.05)
    monkeypatch.setattr(hub, "PING_SECONDS", 0.05)
    client = Client(running())
    socket = client.socket()
    text = str(socket.line.recv())
    assert json.loads(text)["header"]["tr_id"] == "PINGPONG"
    for answer in ("echo", "pong") * 4:
        text = str(socket.line.recv())
        if answer == "echo":
            socket.line.send(text)
        else:
            socket.line.pong(text)
    assert socket.is_cut_off()


def test_paper_takes_other_feeds_and_says_nothing(running: Start) -> None:
    client = Client(running(paper=True), paper=True)
    socket = client.socket()
    assert code(socket.ask("H0NXCNT0", SAMSUNG)) == ("0", "OPSP0000")
    socket.ask("H0STCNI9", "me")
    socket.ask("H0STCNT0", SAMSUNG)
    client.buy(1, 0, "01")
    count, values = socket.frame("H0STCNI9")
    assert (count, len(values)) == (1, 23)


def test_the_unified_feed_counts_both_venues_together(client: Client) -> None:
    socket = client.socket()
    socket.ask("H0UNCNT0", SAMSUNG)
    volumes = []
    for venue in ("KRX", "NXT", "KRX"):
        client.buy(1, 72_500, EXCG_ID_DVSN_CD=venue)
        volumes.append(int(socket.frame("H0UNCNT0")[1][13]))
    assert [after - before for before, after in pairwise(volumes)] == [1, 1]
