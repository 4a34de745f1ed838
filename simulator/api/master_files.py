"""The files the broker publishes each day: the list of every stock, zipped, in fixed width.

The layouts are written down here once more, from the same source as those of the client: a wrong offset on one side
shows as stocks that cannot be read. Source: the layouts beside the broker's samples (stocks_info).
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
# where in the tail of a line the group of securities and the sector stand
GROUP, SECTOR = slice(0, 2), slice(7, 11)
NO_SECTOR = "0000"
GROUP_OF = {Instrument.STOCK: "ST", Instrument.ETF: "EF", Instrument.ETN: "EN", Instrument.ELW: "EW"}
NAME_WIDTH = 40


@dataclass(frozen=True, slots=True)
class MasterFile:
    """A board's file: the width of its tail, where in it 거래정지 stands, and the board's digit among the sectors."""

    name: str
    tail: int
    halted_at: int
    digit: str


# UNVERIFIED: the digits of the boards among the sectors; a first download settles them
FILES = {
    Board.KOSPI: MasterFile("kospi_code.mst", tail=227, halted_at=60, digit="0"),
    Board.KOSDAQ: MasterFile("kosdaq_code.mst", tail=221, halted_at=55, digit="1"),
}


def published(name: str, halted: Collection[str]) -> bytes | None:
    """Return a file by its name, None where there is none; `halted` stocks are marked so."""
    if name == f"{SECTORS_FILE}.zip":
        return _zipped(
            SECTORS_FILE, (f"{digit}{code}{_padded(sector)}" for (digit, sector), code in _sectors().items())
        )
    for board, file in FILES.items():
        if name == f"{file.name}.zip":
            return _zipped(file.name, (_line(row, file, row.code in halted) for row in _of(board)))
    return None


def _of(board: Board) -> list[ListedStock]:
    return [row for row in STOCKS.values() if row.board is board]


@cache
def _sectors() -> dict[tuple[str, str], str]:
    """Return the code of each sector of each board."""
    named = sorted({(FILES[row.board].digit, row.sector) for row in STOCKS.values() if row.sector})
    return {sector: f"{number:04d}" for number, sector in enumerate(named, 5)}


def _line(row: ListedStock, file: MasterFile, is_halted: bool) -> str:
    tail = bytearray(b"0" * file.tail)
    tail[GROUP] = GROUP_OF[row.instrument].encode()
    tail[SECTOR] = _sectors().get((file.digit, row.sector), NO_SECTOR).encode()
    tail[file.halted_at : file.halted_at + 1] = b"Y" if is_halted else b"N"
    return f"{row.code:<9}KR7{row.code}003{_padded(row.name)}{tail.decode()}"


def _padded(name: str) -> str:
    """Return a name filled up with blanks to its width in bytes."""
    return name + " " * (NAME_WIDTH - len(name.encode(ENCODING)))


def _zipped(name: str, lines: Iterable[str]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, "".join(f"{line}\n" for line in lines).encode(ENCODING))
    return whole.getvalue()
