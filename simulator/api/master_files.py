"""The master files (종목 마스터파일) that the broker publishes each day: all stocks, zipped, in fixed width.

The layouts are defined here independently of the client's, from the same source, so that a wrong offset on one side
shows as stocks that cannot be read. Source: the layouts in the broker's samples (stocks_info).
"""

import io
import zipfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from aegis.terms import Board, Instrument
from simulator.exchange.listings import STOCKS, ListedStock

PATH = "/common/master/"
ENCODING = "cp949"
SECTORS_FILE = "idxcode.mst"
# positions of the security group and the sector in the tail of a line
GROUP, SECTOR = slice(0, 2), slice(7, 11)
NO_SECTOR = "0000"
GROUP_OF = {Instrument.STOCK: "ST", Instrument.ETF: "EF", Instrument.ETN: "EN", Instrument.ELW: "EW"}
NAME_WIDTH = 40


@dataclass(frozen=True, slots=True)
class MasterFile:
    """A board's file: the width of its tail, the position of 거래정지 in it, and the board's digit in sector codes."""

    name: str
    tail: int
    halted_offset: int
    digit: str


# UNVERIFIED: the boards' digits in sector codes; a first download settles them
FILES = {
    Board.KOSPI: MasterFile("kospi_code.mst", tail=227, halted_offset=60, digit="0"),
    Board.KOSDAQ: MasterFile("kosdaq_code.mst", tail=221, halted_offset=55, digit="1"),
}


def file_content(name: str, halted: Collection[str]) -> bytes | None:
    """Return a file by its name, None if there is no such file. `halted` stocks are marked as halted."""
    if name == f"{SECTORS_FILE}.zip":
        return _zipped(
            SECTORS_FILE, (f"{digit}{code}{_padded(sector)}" for (digit, sector), code in _sectors().items())
        )
    for board, file in FILES.items():
        if name == f"{file.name}.zip":
            return _zipped(file.name, (_line(row, file, row.code in halted) for row in _stocks_of(board)))
    return None


def _stocks_of(board: Board) -> list[ListedStock]:
    return [row for row in STOCKS.values() if row.board is board]


@cache
def _sectors() -> dict[tuple[str, str], str]:
    """Return the sector codes by board digit and sector name."""
    sectors = sorted({(FILES[row.board].digit, row.sector) for row in STOCKS.values() if row.sector})
    return {sector: f"{number:04d}" for number, sector in enumerate(sectors, 5)}


def _line(row: ListedStock, file: MasterFile, is_halted: bool) -> str:
    tail = bytearray(b"0" * file.tail)
    tail[GROUP] = GROUP_OF[row.instrument].encode()
    tail[SECTOR] = _sectors().get((file.digit, row.sector), NO_SECTOR).encode()
    tail[file.halted_offset : file.halted_offset + 1] = b"Y" if is_halted else b"N"
    return f"{row.code:<9}KR7{row.code}003{_padded(row.name)}{tail.decode()}"


def _padded(name: str) -> str:
    """Return a name padded with spaces to `NAME_WIDTH` bytes."""
    return name + " " * (NAME_WIDTH - len(name.encode(ENCODING)))


def _zipped(name: str, lines: Iterable[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, "".join(f"{line}\n" for line in lines).encode(ENCODING))
    return buffer.getvalue()
