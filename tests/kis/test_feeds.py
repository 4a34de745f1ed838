import contextlib
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import Trade
from aegis.terms import Market
from kis import codec
from kis.codec import BadFrame, Codec, Data
from kis.realtime import (
    FEEDS,
    BookTick,
    StockState,
    feed_of,
    read_records,
    trade_date,
)
from kis.schema import LAYOUTS, Layout, Unit

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
    values = read_records(data)
    assert len(values) == data.count
    values_of = data.body.split("^")
    width = len(values_of) // data.count
    records = [values_of[n * width : (n + 1) * width] for n in range(data.count)]
    assert [getattr(value, "code", None) for value in values] == [
        record[8] if "CNI" in data.tr_id else record[0] for record in records
    ]
    assert not codec.drift


@pytest.mark.parametrize(
    ("name", "ask", "bid", "day"),
    [
        ("ws_h0stcnt0_20260922_005930_vts_47f.txt", 278_000, 277_500, "20260922"),
        ("ws_h0stcnt0_20250730_005930_3rec_46f.txt", 72_000, 71_900, "20250730"),
    ],
)
def test_a_trade_tells_its_day_and_the_best_quotes_after_it(name: str, ask: int, bid: int, day: str) -> None:
    first = read_records(frame_of(name))[0]
    assert (first.ask, first.bid, trade_date(first)) == (ask, bid, day)


def test_a_trade_without_quotes_or_a_day_has_none() -> None:
    trade = Trade("005930", "100001", 70_000, 1, 1, 70_000, Market.KRX, "1^2^3", ("", "-"))
    assert (trade.ask, trade.bid, trade_date(trade)) == (0, 0, "")


@pytest.mark.parametrize("name", [name for name in FRAMES if "asp0" in name])
def test_a_book_is_what_it_plainly_holds(name: str) -> None:
    data = frame_of(name)
    (book,) = read_records(data)
    v = data.body.split("^")
    assert isinstance(book, BookTick)
    assert book.ask_prices == tuple(int(price) for price in v[3:13])
    assert book.bid_prices == tuple(int(price) for price in v[13:23])
    assert book.ask_qtys == tuple(int(qty) for qty in v[23:33])
    assert book.bid_qtys == tuple(int(qty) for qty in v[33:43])
    assert (book.total_ask_qty, book.total_bid_qty) == (int(v[43]), int(v[44]))
    assert (book.expected_price, book.expected_qty) == (int(v[47]), int(v[48]))
    assert book.market is Market.KRX


# what the first record of each recorded frame plainly says, copied by eye
PLAIN = {
    "doc_ws_h0stcnt0.txt": ("005930", "093354", 71_900, 1, 3_052_507, 219_853_241_700),
    "ws_h0stcnt0_20220831_005930_46f_payload.txt": ("005930", "151619", 59_700, 34, 10_247_065, 605_142_384_800),
    "ws_h0stcnt0_20240507_000100_4rec_46f_payload.txt": ("000100", "103413", 73_000, 454, 126_363, 9_245_403_600),
    "ws_h0stcnt0_20240530_005930_46f.txt": ("005930", "094943", 74_700, 10, 6_768_301, 505_885_260_300),
    "ws_h0stcnt0_20250722_005930_46f.txt": ("005930", "120651", 67_050, 200, 8_293_601, 560_819_903_500),
    "ws_h0stcnt0_20250730_005930_3rec_46f.txt": ("005930", "094751", 71_950, 1, 8_305_216, 595_403_999_350),
    "ws_h0stcnt0_20260223_000400_3rec_46f.txt": ("000400", "131509", 2_920, 3_418, 27_066_179, 77_309_405_544),
    "ws_h0stcnt0_20260901_005930_vts_46f.txt": ("005930", "123739", 259_500, 1, 7_125_812, 1_840_399_910_000),
    "ws_h0stcnt0_20260914_000660_3rec_47f.txt": ("000660", "150746", 1_697_500, 8, 3_348_315, 5_736_602_835_000),
    "ws_h0stcnt0_20260922_005930_vts_47f.txt": ("005930", "140610", 277_750, 5, 11_955_000, 3_352_130_122_500),
    "ws_h0stasp0_088350_131404_62f.txt": ("088350", "131404", 6_140, 6_130, 333_673, 120_091),
    "ws_h0stasp0_2023_005930_120755_59f.txt": ("005930", "120755", 71_500, 71_400, 1_420_444, 2_954_464),
    "ws_h0stasp0_20241011_066570_59f.txt": ("066570", "121523", 99_100, 98_900, 33_178, 24_488),
    "ws_h0stasp0_20260720_005930_vts_62f.txt": ("005930", "150526", 244_500, 244_000, 190_189, 770_303),
    "ws_h0stasp0_2026h1_005930_145856_62f.txt": ("005930", "145856", 358_500, 358_000, 796_206, 227_494),
    "doc_ws_h0stmko0.txt": ("396300", False, "", "311", "55", False),
    "ws_h0unmko0_20260921_003160_vi_on.txt": ("003160", False, "AB1", "311", "55", True),
    "ws_h0unmko0_20260923_011170.txt": ("011170", False, "AB1", "112", "57", False),
    "doc_ws_h0stpgm0.txt": ("005930", "092237", 1_413_444, 109_159_646_900, 1_189_408, 91_931_710_200),
    "ws_h0ifcnt0_20260722_A05608_1.txt": ("A05608", "152953", Decimal("1080.30"), 1, 134_935, Decimal("-0.91")),
    "ws_h0upcnt0_20261001_2001_30f.txt": ("2001", "145537", Decimal("1101.44"), Decimal("19.62"), 99_196, 12_550_500),
    "doc_ws_h0stcni0_accept.txt": ("1234567801", "0000002891", "136480", 1, 0, 1),
    "doc_ws_h0stcni0_fill.txt": ("1234567801", "0000002891", "136480", 1, 3_190, 1),
    "ws_h0stcni0_plain_live_accept_004090_26f.txt": ("5099999901", "0018424200", "004090", 1, 0, 1),
    "ws_h0stcni9_plain_20250722_accept_027360.txt": ("5099999901", "0000001562", "027360", 1, 2_200, 1),
}
SHOWN = {
    "CNT0": ("code", "hhmmss", "price", "qty", "volume", "value"),
    "MKO0": ("code", "is_halted", "phase_code", "expected_phase_code", "state_code", "in_vi"),
    "PGM0": ("code", "hhmmss", "sold_qty", "sold_won", "bought_qty", "bought_won"),
    "CNI0": ("account", "order_no", "code", "qty", "price", "order_qty"),
    "H0IFCNT0": ("code", "hhmmss", "points", "qty", "volume", "basis"),
    "H0UPCNT0": ("code", "hhmmss", "points", "change", "volume", "value"),
}


def shown(tr_id: str, value: Any) -> tuple[Any, ...]:
    """Return the six figures that the table shows of a value."""
    if isinstance(value, BookTick):
        return (
            value.code,
            value.hhmmss,
            value.ask_prices[0],
            value.bid_prices[0],
            value.total_ask_qty,
            value.total_bid_qty,
        )
    names = SHOWN.get(tr_id) or SHOWN[tr_id[4:].replace("CNI9", "CNI0")]
    return tuple(getattr(value, name) for name in names)


def test_no_recorded_frame_is_forgotten() -> None:
    assert set(FRAMES) == set(PLAIN)


@pytest.mark.parametrize("name", PLAIN)
def test_a_recorded_frame_says_what_it_plainly_says(name: str) -> None:
    data = frame_of(name)
    assert shown(data.tr_id, read_records(data)[0]) == PLAIN[name]


def test_an_index_is_read_in_points() -> None:
    (tick,) = read_records(frame_of("ws_h0upcnt0_20261001_2001_30f.txt"))
    assert (tick.code, tick.points, tick.change) == ("2001", Decimal("1101.44"), Decimal("19.62"))
    assert (tick.open, tick.high, tick.low) == (Decimal("1077.35"), Decimal("1102.88"), Decimal("1068.45"))
    assert (tick.change_pct, tick.volume, tick.value) == (Decimal("1.81"), 99_196, 12_550_500)


def test_a_future_is_read_in_points() -> None:
    data = frame_of("ws_h0ifcnt0_20260722_A05608_1.txt")
    (tick,) = read_records(data)
    v = data.body.split("^")
    assert (tick.points, tick.basis) == (Decimal(v[5]), Decimal(v[13]))
    assert (tick.qty, tick.volume, tick.open_interest) == (int(v[9]), int(v[10]), int(v[18]))


def test_a_volatility_interruption_is_told() -> None:
    (on,) = read_records(frame_of("ws_h0unmko0_20260921_003160_vi_on.txt"))
    assert isinstance(on, StockState)
    assert (on.code, on.in_vi, on.reason) == ("003160", True, "")


def test_a_wider_record_is_read_and_raises_one_alarm(caplog: pytest.LogCaptureFixture) -> None:
    codec.drift.clear()
    data = frame_of("ws_h0stcnt0_20260922_005930_vts_47f.txt")
    wider = Data(data.tr_id, 1, f"{data.body}^new^columns")
    (known,), (wide,) = read_records(data), read_records(wider)
    assert (wide.code, wide.price, wide.volume) == (known.code, known.price, known.volume)
    read_records(wider)
    assert codec.drift["H0STCNT0", 49] == 2
    assert caplog.text.count("wire drift") == 1


FACTS: dict[str, list[str]] = json.loads(sample("realtime_columns.json"))
# samples of the broker's that lack columns which its workbook and its wire have
INCOMPLETE = {"HDFSASP0@sample", "HDFSCNT0@sample"}
# its table forgets the first column, the stock code
CODELESS = "H0UNMKO0"


def names(layouts: Sequence[Layout]) -> set[tuple[str, ...]]:
    return {tuple(column.wire for column in layout) for layout in layouts}


def test_every_record_has_the_columns_that_the_broker_names_on_both_wires() -> None:
    known: dict[str, set[tuple[str, ...]]] = {}
    for name, columns in FACTS.items():
        if name not in INCOMPLETE:
            row = ("MKSC_SHRN_ISCD", *columns) if name == CODELESS else tuple(columns)
            known.setdefault(name.partition("@")[0], set()).add(row)
    assert {tr_id: names(layouts) for tr_id, layouts in LAYOUTS.items()} == known


def test_a_column_has_one_name_in_its_record() -> None:
    for tr_id, layouts in LAYOUTS.items():
        for layout in layouts:
            assert len({column.name for column in layout}) == len(layout), tr_id


def test_paper_has_only_what_the_broker_offers_there() -> None:
    on_paper = {tr_id for tr_id, feed in FEEDS.items() if feed.on_paper}
    assert on_paper == {"H0STCNT0", "H0STASP0", "H0STCNI9"}


def test_every_column_of_a_trade_has_a_name_and_a_type() -> None:
    values = frame_of("ws_h0stcnt0_20260922_005930_vts_47f.txt").body.split("^")
    row = {column.name: column.read(value) for column, value in zip(LAYOUTS["H0STCNT0"][-1], values, strict=True)}
    assert (row["code"], row["price"], row["strength"]) == ("005930", int(values[2]), Decimal(values[18]))
    assert (row["is_halted"], row["market_class"], row["trade_date"]) == (False, "2", values[33])


@pytest.mark.parametrize("tr_id", FEEDS)
def test_every_known_layout_is_read_without_drift(tr_id: str) -> None:
    examples = {Unit.TEXT: "1", Unit.FLAG: "Y", Unit.HHMMSS: "093000", Unit.DATE: "20261123"}
    for layout in LAYOUTS[tr_id]:
        values = [examples.get(column.unit, "7") for column in layout]
        if "CNI" in tr_id:  # a notice has words of its own
            values[2:5] = ["0000000001", "", "02"]
        codec.drift.clear()
        data = Data(tr_id, 2, "^".join(values * 2))
        assert len(read_records(data)) == 2
        assert not codec.drift


def widened(at: int, *, times: int = 1, value: str = "") -> Data:
    """Return a recorded trade, twice, with more columns at `at` of each record."""
    values = frame_of("ws_h0stcnt0_20260922_005930_vts_47f.txt").body.split("^")
    values[at:at] = [value] * times
    return Data("H0STCNT0", 2, "^".join(values * 2))


@pytest.mark.parametrize("at", [1, 2, 10, 20, 26, 33])
@pytest.mark.parametrize("value", ["1", "12.5", "new"])
def test_a_new_column_in_the_middle_puts_no_figure_in_anothers_place(at: int, value: str) -> None:
    with pytest.raises(BadFrame):
        read_records(widened(at, value=value))


def test_new_columns_at_the_end_of_every_record_are_left_alone() -> None:
    first, second = read_records(widened(47, times=2, value="new"))
    assert first == second
    assert (first.code, first.price) == (
        "005930",
        read_records(frame_of("ws_h0stcnt0_20260922_005930_vts_47f.txt"))[0].price,
    )


@pytest.mark.parametrize(("records", "said"), [(3, 1), (3, 2), (4, 2), (4, 3), (2, 1), (6, 4)])
def test_a_wrong_count_of_records_is_no_record_at_all(records: int, said: int) -> None:
    body = frame_of("ws_h0stcnt0_20260922_005930_vts_47f.txt").body
    with pytest.raises(BadFrame):
        read_records(Data("H0STCNT0", said, "^".join([body] * records)))


@pytest.mark.parametrize("name", [name for name in FRAMES if name.startswith("ws_") and "|" in sample(name)])
def test_no_truncated_frame_brings_a_figure_that_is_not_in_the_whole(name: str) -> None:
    text = sample(name)
    data = frame_of(name)
    whole = read_records(data)
    for length in range(text.index("|", 9) + 1, len(text), 7):
        with contextlib.suppress(BadFrame):
            cut = Codec().read(text[:length])
            assert isinstance(cut, Data)
            for seen, known in zip(read_records(cut), whole, strict=True):
                # what a trade does not read it keeps as it came
                assert [v for f, v in fields_of(seen) if f != "rest"] == [v for f, v in fields_of(known) if f != "rest"]


def fields_of(value: object) -> list[tuple[str, object]]:
    return [(name, getattr(value, name)) for name in type(value).__slots__]  # type: ignore[attr-defined]


def test_what_is_said_of_an_account_stays_out_of_the_message() -> None:
    with pytest.raises(BadFrame) as caught:
        read_records(Data("H0STCNI0", 1, "myhtsid1^5099999901^half"))
    assert "5099999901" not in str(caught.value)
    assert "5099999901" in caught.value.payload


def test_what_the_broker_does_not_tell_is_none_and_not_zero() -> None:
    (tick,) = read_records(Data("H0STPGM0", 1, "005930^100000^^(null)^5^6^7^8^9^10^11"))
    assert (tick.sold_qty, tick.sold_won, tick.bought_qty) == (None, None, 5)


@pytest.mark.parametrize("tr_id", [tr_id for tr_id in FEEDS if "CNI" not in tr_id])
@given(body=st.lists(st.text(alphabet="0123456789.-^(null)Y한", max_size=8), max_size=80).map("^".join))
def test_no_record_at_all_breaks_a_reader(tr_id: str, body: str) -> None:
    with contextlib.suppress(BadFrame):
        read_records(Data(tr_id, 1, body))


@pytest.mark.parametrize(("users", "brokers"), [("H0STCTI0", "H0STCNT0"), ("H1VI", "H0STMKO0")])
def test_the_users_own_names_find_the_feed_with_the_same_data(users: str, brokers: str) -> None:
    assert feed_of(users).tr_id == brokers


def test_an_unknown_feed_is_named_with_those_that_are_known() -> None:
    with pytest.raises(KeyError, match="H0STCNT0"):
        feed_of("H0NONSENSE")


def test_every_feed_of_the_users_list_is_served_or_its_columns_are_known() -> None:
    for name in ["H0STCNI0", "H0STCNI9", "H0STCNT0", "H0STASP0", "H0STCTI0", "H0STPGM0", "H1VI", "H0UPCNT0"]:
        feed_of(name)
    # expected prices, under the broker's name, and the feeds of the United States have no reader
    assert {"H0STANC0", "HDFSCNT0", "HDFSASP0"} < LAYOUTS.keys()
