"""Every feed that the schema has is spoken by the simulator, with the columns that it has, on both wires."""

from collections.abc import Callable, Mapping

import pytest

from infra import clock
from kis import codec, realtime
from kis.codec import Data
from kis.realtime import FEEDS
from kis.schema import LAYOUTS, widths
from simulator.api.server import Simulator

from .conftest import FUND, OTHER, SAMSUNG, Client

Start = Callable[..., Simulator]

MORNING, AUCTION, NIGHT, OLD_EVENING = "2026-11-23 10:00", "2026-11-23 15:25", "2026-11-23 23:40", "2026-09-10 16:20"
# who speaks by the clock, when, and about what
BY_THE_CLOCK: Mapping[str, Mapping[str, str]] = {
    MORNING: {
        **dict.fromkeys(("H0STPGM0", "H0NXPGM0", "H0UNPGM0", "H0STMBC0", "H0NXMBC0", "H0UNMBC0"), SAMSUNG),
        "H0STNAV0": FUND,
        "H0UPCNT0": "2001",
        "H0UPPGM0": "0001",
        "H0IFCNT0": "A01612",
        "H0IFASP0": "A01612",
    },
    AUCTION: {"H0STANC0": SAMSUNG, "H0UNANC0": SAMSUNG, "H0UPANC0": "0001"},
    "2026-11-23 15:35": {"H0NXANC0": SAMSUNG},
    NIGHT: {
        **dict.fromkeys(("H0MFCNT0", "H0MFASP0"), "A01612"),
        **dict.fromkeys(("HDFSCNT0", "HDFSASP0", "HDFSASP1"), "DNASAAPL"),
    },
    OLD_EVENING: dict.fromkeys(("H0STOUP0", "H0STOAC0", "H0STOAA0"), SAMSUNG),
}
# who speaks when something happens to a stock
BY_EVENT = {f"H0{venue}{what}": SAMSUNG for venue in ("ST", "NX", "UN") for what in ("CNT0", "ASP0")}
BY_STATE = dict.fromkeys(("H0STMKO0", "H0UNMKO0", "H0NXMKO0"), SAMSUNG)
# nobody orders futures or shares abroad here: registered, and silent
SILENT = {"H0IFCNI0", "H0IFCNI9", "H0GSCNI0", "H0GSCNI9"}


def check(tr_id: str, count: int, values: list[str]) -> None:
    codec.drift.clear()
    data = Data(tr_id, count, "^".join(values))
    records = data.records(widths(tr_id))
    assert len(records) == count
    (layout,) = [layout for layout in LAYOUTS[tr_id] if len(layout) == len(records[0])]
    for record in records:
        for column, value in zip(layout, record, strict=True):
            column.read(value)  # raises where it is of another type
    if tr_id in FEEDS:
        assert len(realtime.read_records(data)) == count
    assert not codec.drift


def test_no_feed_is_forgotten() -> None:
    spoken = {tr_id for feeds_then in BY_THE_CLOCK.values() for tr_id in feeds_then}
    assert spoken | set(BY_EVENT) | set(BY_STATE) | SILENT | codec.NOTICE_IDS == set(LAYOUTS)


@pytest.mark.parametrize("wire", ["2026-07", "2026-09"])
@pytest.mark.parametrize("at", BY_THE_CLOCK)
def test_feeds_that_go_by_the_clock_speak_as_we_read(running: Start, at: str, wire: str) -> None:
    socket = Client(running(at, wire=wire)).socket()
    clock.set_now(clock.now(), speed=10)  # they speak by the second
    for tr_id, key in BY_THE_CLOCK[at].items():
        assert socket.ask(tr_id, key)["body"]["rt_cd"] == "0", tr_id
    for tr_id in BY_THE_CLOCK[at]:
        check(tr_id, *socket.frame(tr_id))


@pytest.mark.parametrize(
    ("wire", "trades", "krx_book", "unified_book"), [("2026-07", 46, 59, 65), ("2026-09", 47, 63, 66)]
)
def test_trades_and_books_speak_as_we_read(
    running: Start, wire: str, trades: int, krx_book: int, unified_book: int
) -> None:
    client = Client(running(MORNING, wire=wire))
    socket = client.socket()
    for tr_id, key in BY_EVENT.items():
        assert socket.ask(tr_id, key)["body"]["rt_cd"] == "0", tr_id
    expected = {"H0STASP0": krx_book, "H0NXASP0": 65, "H0UNASP0": unified_book}
    for tr_id in BY_EVENT:
        client.buy(1, 75_000, EXCG_ID_DVSN_CD="NXT" if tr_id.startswith("H0NX") else "KRX")
        count, values = socket.frame(tr_id)
        check(tr_id, count, values)
        assert len(values) // count == expected.get(tr_id, trades)


@pytest.mark.parametrize("wire", ["2026-07", "2026-09"])
def test_states_speak_as_we_read(running: Start, wire: str) -> None:
    client = Client(running(MORNING, wire=wire))
    socket = client.socket()
    for tr_id, key in BY_STATE.items():
        socket.ask(tr_id, key)
    client.sim.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": True})
    for tr_id in BY_STATE:
        count, values = socket.frame(tr_id)
        check(tr_id, count, values)
        (state,) = realtime.read_records(Data(tr_id, count, "^".join(values)))
        assert (state.code, state.is_halted) == (SAMSUNG, True)


@pytest.mark.parametrize("width", [23, 26])
@pytest.mark.parametrize("paper", [False, True])
def test_notices_speak_as_we_read(running: Start, width: int, paper: bool) -> None:
    client = Client(running(MORNING, notice_columns=width, paper=paper), paper=paper)
    socket = client.socket()
    tr_id = "H0STCNI9" if paper else "H0STCNI0"
    socket.ask(tr_id, "me")
    client.buy(3, 0, "01")
    for _ in range(2):
        count, values = socket.frame(tr_id)
        assert len(values) == width
        check(tr_id, count, values)


def test_a_frame_of_many_trades_is_read_whole(running: Start) -> None:
    client = Client(running(MORNING))
    socket = client.socket()
    socket.ask("H0STCNT0", SAMSUNG)
    client.sim.command("POST", f"/simulator/quotes/{SAMSUNG}", {"price": 60_000})
    count, values = socket.frame("H0STCNT0")
    assert count > 1
    check("H0STCNT0", count, values)


def test_notices_of_another_account_under_the_same_hts_id_come_too(running: Start) -> None:
    client = Client(running(MORNING))
    socket = client.socket()
    socket.ask("H0STCNI0", "me")
    client.buy(1, 65_000, CANO=OTHER.partition("-")[0])
    _, values = socket.frame("H0STCNI0")
    assert values[1] == OTHER.replace("-", "")


@pytest.mark.parametrize("tr_id", sorted(SILENT))
def test_notices_of_what_nobody_trades_here_can_be_registered(running: Start, tr_id: str) -> None:
    assert Client(running(MORNING)).socket().ask(tr_id, "me")["body"]["rt_cd"] == "0"
