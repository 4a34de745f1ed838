"""The list of every stock: handmade files, whole and broken, and those of the simulator."""

import io
import zipfile
from collections.abc import Callable

import pytest

from aegis.broker import Listing, NotSent, OutcomeUnknown
from aegis.terms import Board, Instrument
from kis import stock_master
from kis.environment import Dialect
from simulator.exchange.listings import STOCKS

from .conftest import Desk, Way

SECTORS = "00013전기전자            \n10015제약                \n"


def zipped(name: str, text: str) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text.encode("cp949"))
    return whole.getvalue()


def kospi(code: str, name: str, group: str = "ST", sector: str = "0013", halted: str = "N") -> str:
    tail = f"{group}1{'0002'}{sector}".ljust(60, "N") + halted
    return f"{code:<9}KR7005930003{name:<40}{tail.ljust(227, '0')}\n"


def kosdaq(code: str, name: str, group: str = "ST", sector: str = "0015", halted: str = "N") -> str:
    tail = f"{group}1{'0007'}{sector}".ljust(55, "N") + halted
    return f"{code:<9}KR7247540008{name:<40}{tail.ljust(221, '0')}\n"


def files(**changed: bytes) -> Callable[[str], bytes]:
    whole = {
        "idxcode.mst.zip": zipped("idxcode.mst", SECTORS),
        "kospi_code.mst.zip": zipped("kospi_code.mst", kospi("005930", "삼성전자")),
        "kosdaq_code.mst.zip": zipped("kosdaq_code.mst", kosdaq("247540", "에코프로비엠", halted="Y")),
    }
    return {**whole, **{f"{name}.mst.zip": content for name, content in changed.items()}}.__getitem__


def test_a_line_says_what_a_stock_is() -> None:
    assert stock_master.listings(files()) == [
        Listing(
            "005930",
            "삼성전자",
            Board.KOSPI,
            Instrument.STOCK,
            "전기전자",
            is_halted=False,
            standard_code="KR7005930003",
        ),
        Listing(
            "247540",
            "에코프로비엠",
            Board.KOSDAQ,
            Instrument.STOCK,
            "제약",
            is_halted=True,
            standard_code="KR7247540008",
        ),
    ]


@pytest.mark.parametrize(
    ("group", "instrument"),
    [("ST", "STOCK"), ("RT", "STOCK"), ("FS", "STOCK"), ("EF", "ETF"), ("FE", "ETF"), ("EN", "ETN"), ("EW", "ELW")],
)
def test_the_group_says_which_kind(group: str, instrument: str) -> None:
    lines = kospi("Q530031", "삼성 레버리지 WTI원유 선물 ETN", group=group, sector="0000")
    (found, _) = stock_master.listings(files(kospi_code=zipped("kospi_code.mst", lines)))
    assert (found.code, found.instrument, found.sector) == ("Q530031", instrument, "")


def test_rights_are_no_stocks() -> None:
    lines = kospi("005930", "삼성전자") + kospi("J0036221D", "어느회사 4R", group="SR")
    assert len(stock_master.listings(files(kospi_code=zipped("kospi_code.mst", lines)))) == 2


def test_lines_may_end_as_they_do_on_windows() -> None:
    lines = kospi("005930", "삼성전자").replace("\n", "\r\n")
    assert stock_master.listings(files(kospi_code=zipped("kospi_code.mst", lines)))[0].name == "삼성전자"


WHOLE = zipped("kospi_code.mst", kospi("005930", "삼성전자") * 50)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no whole archive"),
        (b"<html>not found</html>", "no whole archive"),
        (WHOLE[: len(WHOLE) // 2], "no whole archive"),
        (zipped("another.mst", "x"), "no whole archive"),
        (zipped("kospi_code.mst", ""), "is empty"),
        (zipped("kospi_code.mst", kospi("005930", "삼성전자")[:-10] + "\n"), "line 1 of kospi_code.mst"),
        (zipped("kospi_code.mst", kospi("005930", "삼성전자") + kospi("000660", "")), "1 of 2 lines .* line 2"),
        (zipped("kospi_code.mst", kospi("005930", "삼성전자", halted="0")), "halted '0' of Y or N"),
        (zipped("kospi_code.mst", kosdaq("005930", "삼성전자")), "is not of the layout"),
    ],
)
def test_a_broken_file_is_no_list(content: bytes, words: str) -> None:
    with pytest.raises(OutcomeUnknown, match=words):
        stock_master.listings(files(kospi_code=content))


def test_a_line_or_two_among_many_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    lines = kospi("005930", "삼성전자") * 150 + kospi("000660", "")
    assert len(stock_master.listings(files(kospi_code=zipped("kospi_code.mst", lines)))) == 151
    assert "a stock is left out: line 151 of kospi_code.mst" in caplog.text


def test_a_flipped_bit_is_found() -> None:
    broken = bytearray(WHOLE)
    broken[len(broken) // 3] ^= 1
    with pytest.raises(OutcomeUnknown):
        stock_master.listings(files(kospi_code=bytes(broken)))


def test_the_simulator_publishes_what_it_lists(desk: Desk) -> None:
    desk.simulator.command("POST", "/simulator/quotes/000660", {"halt": True})
    found = {each.code: each for each in desk.broker.listings()}
    assert found.keys() == STOCKS.keys()
    for code, row in STOCKS.items():
        each = found[code]
        assert (each.name, each.board, each.instrument) == (row.name, row.board, row.instrument)
        assert (each.sector, each.is_halted) == (row.sector, code == "000660")


def test_a_file_that_is_not_there_is_told_by_its_name(opened: Callable[[Way], Desk]) -> None:
    client = opened((Dialect.OFFICIAL, "2026-09", False)).client
    with pytest.raises(OutcomeUnknown, match="404"):
        client.download("nothing.mst.zip")
    client.environment = client.environment.at("http://127.0.0.1:9")
    with pytest.raises(NotSent, match="files"):
        client.download("kospi_code.mst.zip")
