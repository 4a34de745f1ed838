import contextlib
import json
from datetime import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import NoticeKind
from aegis.terms import Market, Side
from kis.codec import BadFrame, Codec, ControlMessage, Data, notices, registration
from kis.realtime import read_records

SAMPLES = Path(__file__).parent.parent / "samples" / "kis"


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8").removesuffix("\n")


def data(text: str) -> Data:
    frame = Codec().read(text)
    assert isinstance(frame, Data)
    return frame


@pytest.mark.parametrize(
    "name",
    [
        "ws_h0stcnt0_20240530_005930_46f.txt",
        "ws_h0stcnt0_20250722_005930_46f.txt",
        "ws_h0stcnt0_20260901_005930_vts_46f.txt",
        "ws_h0stcnt0_20260922_005930_vts_47f.txt",
    ],
)
def test_a_trade_is_read_on_both_wires(name: str) -> None:
    text = sample(name)
    (trade,) = read_records(data(text))
    values = text.split("|", 3)[3].split("^")
    assert trade.code == "005930"
    assert (trade.hhmmss, trade.price, trade.qty) == (values[1], int(values[2]), int(values[12]))
    assert (trade.volume, trade.value) == (int(values[13]), int(values[14]))
    assert trade.market is Market.KRX


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ws_h0stcnt0_20250730_005930_3rec_46f.txt", "005930"),
        ("ws_h0stcnt0_20260223_000400_3rec_46f.txt", "000400"),
        ("ws_h0stcnt0_20260914_000660_3rec_47f.txt", "000660"),
    ],
)
def test_every_record_of_a_frame_is_read_whatever_its_width(name: str, code: str) -> None:
    seen = read_records(data(sample(name)))
    assert [trade.code for trade in seen] == [code] * 3
    assert [trade.volume for trade in seen] == sorted(trade.volume for trade in seen)


def test_a_frame_without_its_prefix_has_four_records() -> None:
    payload = sample("ws_h0stcnt0_20240507_000100_4rec_46f_payload.txt")
    assert len(read_records(Data("H0STCNT0", 4, payload))) == 4


def test_an_acceptance_of_26_columns_is_no_fill() -> None:
    text = sample("ws_h0stcni0_plain_live_accept_004090_26f.txt")
    (notice,) = notices(Data("H0STCNI0", 1, text))
    assert notice.kind is NoticeKind.ACCEPTED
    assert (notice.account, notice.order_no, notice.original_no) == ("5099999901", "0018424200", "")
    assert (notice.side, notice.code, notice.qty, notice.price) == (Side.BUY, "004090", 1, 0)
    assert (notice.at, notice.branch, notice.order_qty) == (time(9, 48, 1), "91259", 1)
    assert notice.market is Market.KRX
    assert notice.text == text


def test_an_acceptance_of_23_columns_reads_the_same() -> None:
    (notice,) = notices(Data("H0STCNI9", 1, sample("ws_h0stcni9_plain_20250722_accept_027360.txt")))
    assert notice.kind is NoticeKind.ACCEPTED
    assert (notice.order_no, notice.code, notice.qty, notice.price) == ("0000001562", "027360", 1, 2_200)
    assert notice.market is Market.KRX


def test_the_documents_fill_is_a_fill() -> None:
    (notice,) = notices(Data("H0STCNI0", 1, sample("doc_ws_h0stcni0_fill.txt").split("|")[-1]))
    assert notice.kind is NoticeKind.FILLED
    assert notice.qty == 1
    assert notice.price == 3_190


def test_an_encrypted_notice_is_read_with_the_key_of_its_registration() -> None:
    keys = json.loads(sample("ws_h0stcni_encrypted_key_iv.json"))
    codec = Codec()
    codec.read(acknowledgement("H0STCNI0", "myhtsid1", **keys))
    frame = codec.read(sample("ws_h0stcni0_encrypted_live_accept_004090.txt"))
    assert isinstance(frame, Data)
    assert frame.body == sample("ws_h0stcni0_plain_live_accept_004090_26f.txt")


def test_the_key_of_another_feed_does_not_replace_the_notices_key() -> None:
    keys = json.loads(sample("ws_h0stcni_encrypted_key_iv.json"))
    codec = Codec()
    codec.read(acknowledgement("H0STCNI0", "myhtsid1", **keys))
    codec.read(acknowledgement("H0STCNT0", "005930", key="z" * 32, iv="0" * 16))
    frame = codec.read(sample("ws_h0stcni0_encrypted_live_accept_004090.txt"))
    assert isinstance(frame, Data)
    assert frame.body.startswith("myhtsid1^")


def test_an_encrypted_notice_without_a_key_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame, match="no key"):
        Codec().read(sample("ws_h0stcni0_encrypted_live_accept_004090.txt"))


def test_a_wrong_key_is_a_bad_frame_not_a_wrong_number() -> None:
    codec = Codec()
    codec.read(acknowledgement("H0STCNI0", "myhtsid1", key="x" * 32, iv="1" * 16))
    with pytest.raises(BadFrame):
        notices(codec.read(sample("ws_h0stcni0_encrypted_live_accept_004090.txt")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("refused", "filled", "accepted", "changed", "kind"),
    [
        ("0", "1", "1", "0", NoticeKind.ACCEPTED),
        ("0", "1", "1", "2", NoticeKind.ACCEPTED),
        ("0", "1", "2", "1", NoticeKind.AMENDED),
        ("0", "1", "2", "2", NoticeKind.CANCELLED),
        ("0", "1", "3", "0", NoticeKind.REMAINDER_CANCELLED),
        ("1", "1", "1", "0", NoticeKind.REFUSED),
        ("1", "1", "2", "2", NoticeKind.REFUSED),
        ("0", "2", "2", "0", NoticeKind.FILLED),
    ],
)
def test_only_one_kind_of_notice_is_a_fill(refused, filled, accepted, changed, kind) -> None:
    values = sample("ws_h0stcni0_plain_live_accept_004090_26f.txt").split("^")
    values[5], values[12], values[13], values[14] = changed, refused, filled, accepted
    (notice,) = notices(Data("H0STCNI0", 1, "^".join(values)))
    assert notice.kind is kind


@pytest.mark.parametrize(("digit", "market"), [("1", Market.KRX), ("2", Market.NXT), ("3", Market.SOR)])
def test_the_venue_is_read_from_both_layouts(digit: str, market: Market) -> None:
    wide = sample("ws_h0stcni0_plain_live_accept_004090_26f.txt").split("^")
    wide[19] = digit
    narrow = sample("ws_h0stcni9_plain_20250722_accept_027360.txt").split("^")
    narrow[18] = f"{digit}Y"
    for values in (wide, narrow):
        (notice,) = notices(Data("H0STCNI0", 1, "^".join(values)))
        assert notice.market is market


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0|H0STCNT0",
        "0|H0STCNT0|xx|1^2",
        "0|H0STCNT0|000|1^2",
        "1|H0STCNI0|001|not base64!",
        "{}",
        "[1]",
        "<html>502</html>",
        '{"header": null}',
    ],
)
def test_a_malformed_frame_is_told_with_its_payload(text: str) -> None:
    with pytest.raises(BadFrame) as caught:
        Codec().read(text)
    assert caught.value.payload == text


def test_records_that_do_not_come_out_even_are_refused() -> None:
    body = sample("ws_h0stcnt0_20240530_005930_46f.txt").split("|", 3)[3]
    with pytest.raises(BadFrame):
        read_records(Data("H0STCNT0", 2, f"{body}^one more"))
    with pytest.raises(BadFrame):
        read_records(Data("H0STCNT0", 1, "^".join(body.split("^")[:45])))
    with pytest.raises(BadFrame):
        read_records(Data("H0STCNT0", 1, body.replace(body.split("^")[2], "(null)", 1)))


@given(st.text(max_size=200))
def test_no_text_at_all_breaks_the_codec(text: str) -> None:
    try:
        frame = Codec().read(text)
        if isinstance(frame, Data):
            notices(frame)
    except BadFrame:
        pass


@given(st.lists(st.text(alphabet="0123456789^|.-( )null가", max_size=12), min_size=20, max_size=60))
def test_no_record_at_all_breaks_the_notice_reader(values: list[str]) -> None:
    with contextlib.suppress(BadFrame):
        notices(Data("H0STCNI0", 1, "^".join(values)))


def test_replies_of_the_server_are_told_apart() -> None:
    codec = Codec()
    assert codec.read(sample("ws_pingpong_20241011.json")).is_ping  # type: ignore[union-attr]
    taken = codec.read(sample("ws_ack_h0stcnt0_005930_2025.json"))
    assert isinstance(taken, ControlMessage)
    assert (taken.is_ok, taken.tr_id, taken.tr_key, taken.code) == (True, "H0STCNT0", "005930", "OPSP0000")
    no_header = codec.read(sample("ws_err_opsp0003_unsubscribe_not_found_20260513.json"))
    assert isinstance(no_header, ControlMessage)
    assert (no_header.is_ok, no_header.code, no_header.tr_id) == (False, "OPSP0003", "")
    in_use = codec.read(sample("ws_err_opsp8996_already_in_use_full.json"))
    assert isinstance(in_use, ControlMessage)
    assert (in_use.is_ok, in_use.code) == (False, "OPSP8996")


def test_a_registration_carries_all_four_headers() -> None:
    words = json.loads(registration("key", "H0STCNT0", "005930", register=True))
    assert words == {
        "header": {"approval_key": "key", "custtype": "P", "tr_type": "1", "content-type": "utf-8"},
        "body": {"input": {"tr_id": "H0STCNT0", "tr_key": "005930"}},
    }
    assert json.loads(registration("key", "H0STCNT0", "005930", register=False))["header"]["tr_type"] == "2"


def acknowledgement(tr_id: str, tr_key: str, *, key: str, iv: str) -> str:
    body = {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS", "output": {"iv": iv, "key": key}}
    return json.dumps({"header": {"tr_id": tr_id, "tr_key": tr_key, "encrypt": "Y"}, "body": body})
