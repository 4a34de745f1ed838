"""The broker's list of every stock (종목 마스터파일): zipped files of fixed width in CP949, one per board.

The broker creates them once a day. A download needs no app key and does not count against the call limit. A line has
a head with code, standard code and name, and a tail whose width depends on the board. The files do not show whether
NXT trades a stock; the stock-info service does. Source: the layouts beside the broker's samples (stocks_info).
"""

import io
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aegis.broker import Listing, OutcomeUnknown
from aegis.terms import Board, Instrument

log = logging.getLogger(__name__)

ENCODING = "cp949"
CODE, STANDARD_CODE, NAME_FROM = slice(0, 9), slice(9, 21), 21
GROUP, LARGE_SECTOR, SECTOR = slice(0, 2), slice(3, 7), slice(7, 11)
NO_SECTOR = "0000"
# up to this share of the lines may be unreadable; those lines are left out
MAX_UNREADABLE_SHARE = 0.01
# 증권그룹구분코드; subscription rights and warrants are left out, AEGIS does not trade them
INSTRUMENTS: Mapping[str, Instrument] = MappingProxyType(
    {
        **dict.fromkeys(("ST", "MF", "RT", "SC", "IF", "DR", "FS", "BC"), Instrument.STOCK),
        **dict.fromkeys(("EF", "FE"), Instrument.ETF),
        "EN": Instrument.ETN,
        "EW": Instrument.ELW,
    }
)
# a line of the list of sectors: the board's digit, the code, the name
SECTORS_FILE = "idxcode.mst"
SECTOR_CODE, SECTOR_NAME_FROM = slice(0, 5), 5


@dataclass(frozen=True, slots=True)
class File:
    """A board's file: the width of its tail, the offset of 거래정지 in it, and the board's digit in sector codes."""

    name: str
    tail: int
    halted_at: int
    digit: str


# UNVERIFIED: the digits of the boards in sector codes; a first download settles them
FILES: Mapping[Board, File] = MappingProxyType(
    {
        Board.KOSPI: File("kospi_code.mst", tail=227, halted_at=60, digit="0"),
        Board.KOSDAQ: File("kosdaq_code.mst", tail=221, halted_at=55, digit="1"),
    }
)


def listings(download: Callable[[str], bytes]) -> Sequence[Listing]:
    """Return every stock of KOSPI and KOSDAQ. `download` returns a file by its name.

    Raises OutcomeUnknown if a file is broken or truncated, and the errors of `download`.
    """
    sectors = {_text(line[SECTOR_CODE]): _text(line[SECTOR_NAME_FROM:]) for line in _lines(SECTORS_FILE, download)}
    return [listing for board, file in FILES.items() for listing in _read(board, file, sectors, download)]


def _read(board: Board, file: File, sectors: Mapping[str, str], download: Callable[[str], bytes]) -> Iterator[Listing]:
    """Yield the listings of a file.

    Raises OutcomeUnknown if more lines than MAX_UNREADABLE_SHARE do not fit the layout.
    """
    lines, errors = _lines(file.name, download), list[str]()
    for number, line in enumerate(lines, 1):
        try:
            listing = _listing(line, board, file, sectors)
        except ValueError as error:
            errors.append(f"line {number} of {file.name} is not of the layout: {error}")
            continue
        if listing:
            yield listing
    if len(errors) > len(lines) * MAX_UNREADABLE_SHARE:
        raise OutcomeUnknown(f"{len(errors)} of {len(lines)} lines cannot be read: {errors[0]}", call=file.name)
    for message in errors:
        log.warning("a stock is left out: %s", message)


def _lines(name: str, download: Callable[[str], bytes]) -> list[bytes]:
    """Return the lines of a file. Raises OutcomeUnknown if the archive is broken, incomplete or empty."""
    try:
        with zipfile.ZipFile(io.BytesIO(download(f"{name}.zip"))) as archive:
            lines = archive.read(name).splitlines()
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise OutcomeUnknown(f"{name}.zip is no whole archive of {name}: {error}", call=name) from error
    if not lines:
        raise OutcomeUnknown(f"{name} is empty", call=name)
    return lines


def _listing(line: bytes, board: Board, file: File, sectors: Mapping[str, str]) -> Listing | None:
    """Return the listing of a line, None if it is not a stock. Raises ValueError if it does not fit the layout."""
    head, tail = line[: -file.tail], line[-file.tail :]
    code, name = _text(head[CODE]), _text(head[NAME_FROM:])
    group, halted = _text(tail[GROUP]), _text(tail[file.halted_at :][:1])
    # a truncated line, or one of another board, has its tail at another offset: its group is not two letters then
    if not code.isalnum() or not name or not (len(group) == 2 and group.isalpha()) or halted not in ("Y", "N"):
        raise ValueError(f"code {code!r}, name {name!r}, group {group!r} of two letters, halted {halted!r} of Y or N")
    kind = INSTRUMENTS.get(group)
    if kind is None:
        return None
    sector = next((part for part in (_text(tail[SECTOR]), _text(tail[LARGE_SECTOR])) if part != NO_SECTOR), "")
    standard_code = _text(head[STANDARD_CODE])
    return Listing(code, name, board, kind, sectors.get(file.digit + sector, ""), halted == "Y", standard_code)


def _text(field: bytes) -> str:
    return field.decode(ENCODING).strip()
