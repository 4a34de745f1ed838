import contextlib
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.terms import Market
from kis import codec
from kis.codec import BadFrame, Codec, Data
from kis.feeds import FEEDS, BookTick, StockState, feed_of, read

SAMPLES = Path(__file__).parent.parent / "samples" / "kis"
FRAMES = sorted(path.name for path in SAMPLES.glob("*ws_h0*") if "encrypted" not in path.name)


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8").removesuffix("\n")


def frame_of(name: str) -> Data:
    """Return a recorded frame; a payload whose prefix its source dropped gets it back from the file's name."""
    text = sample(name)
    if "|" in text:
        frame = Codec().read(text)
        assert isinstance(frame, Data)
        return frame
    tr_id = re.search(r"ws_(h0[a-z]+\d)", name)
    count = re.search(r"_(\d)rec", name)
    assert tr_id is not None
    return Data(tr_id[1].upper(), int(count[1]) if count else 1, text)


@pytest.mark.parametrize("name", FRAMES)
def test_every_recorded_frame_is_read_without_drift(name: str) -> None:
    codec.drift.clear()
    data = frame_of(name)
    values = read(data)
    assert len(values) == data.count
    values_of = data.body.split("^")
    width = len(values_of) // data.count
    records = [values_of[n * width : (n + 1) * width] for n in range(data.count)]
    assert [getattr(value, "code", None) for value in values] == [
        record[8] if "CNI" in data.tr_id else record[0] for record in records
    ]
    assert not codec.drift


@pytest.mark.parametrize("name", [name for name in FRAMES if "asp0" in name])
def test_a_book_is_what_it_plainly_holds(name: str) -> None:
    data = frame_of(name)
    (book,) = read(data)
    v = data.body.split("^")
    assert isinstance(book, BookTick)
    assert book.ask_prices == tuple(int(price) for price in v[3:13])
    assert book.bid_prices == tuple(int(price) for price in v[13:23])
    assert book.ask_qtys == tuple(int(qty) for qty in v[23:33])
    assert book.bid_qtys == tuple(int(qty) for qty in v[33:43])
    assert (book.total_ask_qty, book.total_bid_qty) == (int(v[43]), int(v[44]))
    assert (book.expected_price, book.expected_qty) == (int(v[47]), int(v[48]))
    assert book.market is Market.KRX


def test_an_index_is_read_in_points() -> None:
    (tick,) = read(frame_of("ws_h0upcnt0_20261001_2001_30f.txt"))
    assert (tick.code, tick.points, tick.change) == ("2001", Decimal("1101.44"), Decimal("19.62"))
    assert (tick.open, tick.high, tick.low) == (Decimal("1077.35"), Decimal("1102.88"), Decimal("1068.45"))
    assert (tick.change_pct, tick.volume, tick.value) == (Decimal("1.81"), 99_196, 12_550_500)


def test_a_future_is_read_in_points() -> None:
    data = frame_of("ws_h0ifcnt0_20260722_A05608_1.txt")
    (tick,) = read(data)
    v = data.body.split("^")
    assert (tick.points, tick.basis) == (Decimal(v[5]), Decimal(v[13]))
    assert (tick.qty, tick.volume, tick.open_interest) == (int(v[9]), int(v[10]), int(v[18]))


def test_a_volatility_interruption_is_told() -> None:
    (on,) = read(frame_of("ws_h0unmko0_20260921_003160_vi_on.txt"))
    assert isinstance(on, StockState)
    assert (on.code, on.in_vi, on.reason) == ("003160", True, "")


def test_a_wider_record_is_read_and_raises_one_alarm(caplog: pytest.LogCaptureFixture) -> None:
    codec.drift.clear()
    data = frame_of("ws_h0stcnt0_20260922_005930_vts_47f.txt")
    wider = Data(data.tr_id, 1, f"{data.body}^new^columns")
    (known,), (wide,) = read(data), read(wider)
    assert (wide.code, wide.price, wide.volume) == (known.code, known.price, known.volume)
    read(wider)
    assert codec.drift["H0STCNT0", 49] == 2
    assert caplog.text.count("wire drift") == 1


def test_what_the_broker_does_not_tell_is_none_and_not_zero() -> None:
    (tick,) = read(Data("H0STPGM0", 1, "005930^100000^^(null)^5^6^7^8^9^10^11"))
    assert (tick.sold_qty, tick.sold_won, tick.bought_qty) == (None, None, 5)


@pytest.mark.parametrize("tr_id", [tr_id for tr_id in FEEDS if "CNI" not in tr_id])
@given(body=st.lists(st.text(alphabet="0123456789.-^(null)Y한", max_size=8), max_size=80).map("^".join))
def test_no_record_at_all_breaks_a_reader(tr_id: str, body: str) -> None:
    with contextlib.suppress(BadFrame):
        read(Data(tr_id, 1, body))


@pytest.mark.parametrize(("users", "brokers"), [("H0STCTI0", "H0STCNT0"), ("H1VI", "H0STMKO0"), ("H0STNV", "H0STANC0")])
def test_the_users_own_names_find_the_feed_with_the_same_data(users: str, brokers: str) -> None:
    assert feed_of(users).tr_id == brokers


def test_an_unknown_feed_is_named_with_those_that_are_known() -> None:
    with pytest.raises(KeyError, match="H0STCNT0"):
        feed_of("H0NONSENSE")


def test_every_feed_of_the_users_list_is_served() -> None:
    users = "H0STCNI0 H0STCNI9 H0STCNT0 H0STASP0 H0STCTI0 H0STPGM0 H1VI H0UPCNT0 H0STNV HDFSCNT0 HDFSASP0"
    for name in users.split():
        feed_of(name)
