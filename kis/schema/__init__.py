"""The columns of the broker's REST outputs and realtime records, and the conversion of their values.

The facts are in `rest.json` and `realtime.json` beside this module: the broker's name, ours, and the unit. A reply or a
record may have more columns than these: the known ones are read, the others are ignored.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

NOTHING = ("", "(null)")
REST = Path(__file__).with_name("rest.json")
REALTIME = Path(__file__).with_name("realtime.json")
REST_LEVELS = 10


class Unit(StrEnum):
    """What a value counts. Each has one type: text, bool, int, or Decimal where it may have decimals."""

    TEXT = "text"
    FLAG = "flag"  # Y or N
    HHMMSS = "hhmmss"
    DATE = "yyyymmdd"
    WON = "won"
    WON_EXACT = "won_exact"  # averages and midpoints: half a tick is no whole number of won
    SHARES = "shares"
    THOUSAND_SHARES = "kshares"
    MILLION_WON = "mwon"
    HUNDRED_MILLION_WON = "100mwon"
    CONTRACTS = "contracts"
    COUNT = "count"
    POINTS = "points"
    PERCENT = "pct"
    FOREIGN = "foreign"  # the market's own currency
    UNSTATED = "unstated"  # the broker does not say


def to_text(value: str) -> str:
    return "" if value in NOTHING else value


def to_bool(value: str) -> bool:
    return value == "Y"


def to_int(value: str) -> int | None:
    """Return a whole number, None for an empty value. Raises ValueError."""
    return None if value in NOTHING else int(value)


def to_decimal(value: str) -> Decimal | None:
    """Return a number, None for an empty value. Raises ValueError."""
    if value in NOTHING:
        return None
    try:
        exact = Decimal(value)
    except InvalidOperation:
        exact = Decimal("nan")
    if not exact.is_finite():
        raise ValueError(f"{value!r} is not a number")
    return exact


_DIGITS = MappingProxyType({Unit.HHMMSS: 6, Unit.DATE: 8})
_WHOLE = (
    Unit.WON,
    Unit.SHARES,
    Unit.THOUSAND_SHARES,
    Unit.MILLION_WON,
    Unit.HUNDRED_MILLION_WON,
    Unit.CONTRACTS,
    Unit.COUNT,
)
_EXACT = (Unit.WON_EXACT, Unit.POINTS, Unit.PERCENT, Unit.FOREIGN, Unit.UNSTATED)
NUMBERS = (*_WHOLE, *_EXACT)
CONVERTERS: Mapping[Unit, Callable[[str], Any]] = MappingProxyType(
    {
        **dict.fromkeys((Unit.TEXT, Unit.HHMMSS, Unit.DATE), to_text),
        Unit.FLAG: to_bool,
        **dict.fromkeys(_WHOLE, to_int),
        **dict.fromkeys(_EXACT, to_decimal),
    }
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a record or an output: the broker's name, ours, and what the value counts."""

    wire: str
    name: str
    unit: Unit

    def read(self, value: str) -> Any:
        """Return the value typed. Raises ValueError."""
        return CONVERTERS[self.unit](value)

    def fits(self, value: str) -> bool:
        """Whether a value looks like one of this column's unit."""
        if value in NOTHING:
            return True
        if digits := _DIGITS.get(self.unit):
            return len(value) == digits and value.isascii() and value.isdigit()
        if self.unit is Unit.FLAG:
            return value in ("Y", "N")
        try:
            self.read(value)
        except ValueError:
            return False
        return True


Layout = tuple[Column, ...]
# the columns of each output of a reply, by the broker's name in small letters
Outputs = Mapping[str, Mapping[str, Column]]


def _columns(rows: Iterable[Sequence[str]], levels: int) -> Iterator[Column]:
    """Return the columns of `rows`. A row with a `#` stands for `levels` columns. Raises ValueError."""
    for wire, name, unit in rows:
        kind = Unit(unit)
        if "#" not in wire:
            yield Column(wire, name, kind)
            continue
        for level in map(str, range(1, levels + 1)):
            yield Column(wire.replace("#", level), name.replace("#", level), kind)


def _read_outputs() -> dict[str, Outputs]:
    operations = json.loads(REST.read_text(encoding="utf-8"))["operations"]
    return {
        operation: {
            output: {
                column.wire.lower(): column
                for column in _columns([*facts["columns"], *facts.get("of_specification", ())], REST_LEVELS)
            }
            for output, facts in outputs.items()
        }
        for operation, outputs in operations.items()
    }


def _read_layouts() -> dict[str, tuple[Layout, ...]]:
    facts = json.loads(REALTIME.read_text(encoding="utf-8"))
    layouts: dict[str, tuple[Layout, ...]] = {}
    for layout in facts["layouts"]:
        rows = [row for part in layout["parts"] for row in facts["parts"][part]]
        columns = tuple(_columns(rows, layout.get("levels", 0)))
        known = tuple(columns[:width] for width in layout.get("widths", [len(columns)]))
        for tr_id in layout["tr_ids"]:
            layouts[tr_id] = layouts.get(tr_id, ()) + known
    return layouts


# operation to its outputs
OUTPUTS: Mapping[str, Outputs] = MappingProxyType(_read_outputs())
# TR id to its known layouts, the narrowest first
LAYOUTS: Mapping[str, tuple[Layout, ...]] = MappingProxyType(_read_layouts())


def widths(tr_id: str) -> tuple[int, ...]:
    """Return the known record widths of a TR, the least first."""
    return tuple(map(len, LAYOUTS[tr_id]))


def index_of(tr_id: str, name: str) -> int:
    """Return where our `name` stands in every layout of a TR. Raises ValueError where they disagree."""
    places = {[column.name for column in layout].index(name) for layout in LAYOUTS[tr_id]}
    if len(places) != 1:
        raise ValueError(f"{tr_id}: {name} stands in different places")
    return places.pop()
