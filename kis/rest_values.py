"""Reads values of REST replies. The broker sends every value as text; here it becomes a number, a date or an error.

The error for a missing field names the operation and the field. Fields that are not read are ignored.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from aegis.broker import OutcomeUnknown
from kis.schema import NUMBERS, Column, Unit

ORDER_NUMBER_DIGITS = 10


class BadField(OutcomeUnknown):
    """A reply lacks a required field, or has a value that cannot be read."""


class Row:
    """One object of a reply. Its keys are not case-sensitive (the broker prints `excg_id_dvsn_Cd`).

    If the catalogue has the `columns`, by lower-case name, each value is read only as the type that it has there: a
    field that the catalogue lacks raises LookupError, a price read as a date TypeError. Both are bugs in AEGIS.
    """

    __slots__ = ("_call", "_columns", "_values")

    def __init__(self, values: Mapping[str, Any], call: str, columns: Mapping[str, Column] | None = None) -> None:
        self._values = {key.lower(): value for key, value in values.items()}
        self._call = call
        self._columns = columns

    def text(self, name: str) -> str:
        """Return the value without padding. Raises BadField if the reply lacks it."""
        self._check(name)
        try:
            value = self._values[name.lower()]
        except KeyError:
            raise BadField(f"the reply has no field {name}", call=self._call) from None
        return str(value).strip()

    def optional(self, name: str, default: str = "") -> str:
        """Return the value of an optional field, `default` if the reply lacks it."""
        self._check(name)
        return str(self._values.get(name.lower(), default)).strip()

    def key(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the values of the fields that identify a row, with an empty text for each missing field."""
        return tuple(self.optional(name) for name in names)

    def decimal(self, name: str) -> Decimal:
        """Return a number. An empty value is zero, as the broker means it."""
        self._check(name, NUMBERS)
        text = self.text(name)
        try:
            number = Decimal(text or "0")
        except InvalidOperation:
            number = Decimal("nan")
        if not number.is_finite():
            raise self._unreadable(name, text, "a number")
        return number

    def integer(self, name: str) -> int:
        """Return a whole number of won or shares. `248750.0000` is 248,750; `248750.5` raises BadField."""
        number = self.decimal(name)
        if number != number.to_integral_value():
            raise self._unreadable(name, self.text(name), "a whole number")
        return int(number)

    def decimal_or(self, name: str, default: Decimal) -> Decimal:
        """Return a number that nothing depends on, `default` if it is missing, blank or unreadable."""
        try:
            return self.decimal(name) if self.optional(name) else default
        except BadField:
            return default

    def integer_or(self, name: str, default: int) -> int:
        """Return a whole number that nothing depends on, `default` if it is missing, blank or unreadable."""
        try:
            return self.integer(name) if self.optional(name) else default
        except BadField:
            return default

    def _check(self, name: str, units: Collection[Unit] = tuple(Unit)) -> None:
        if self._columns is None:
            return
        column = self._columns.get(name.lower())
        if column is None:
            raise LookupError(f"{self._call} has no field {name} in the catalogue")
        if column.unit not in units:
            raise TypeError(f"{self._call} {name} counts {column.unit}: it cannot be read so")

    def day(self, name: str) -> date:
        self._check(name, (Unit.DATE,))
        text = self.text(name)
        try:
            return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 a date has no zone
        except ValueError:
            raise self._unreadable(name, text, "a date as 20261123") from None

    def clock(self, name: str) -> time:
        self._check(name, (Unit.HHMMSS,))
        text = self.text(name)
        try:
            return hhmmss(text)
        except ValueError:
            raise self._unreadable(name, text, "a time as 093025") from None

    def order_number(self, name: str) -> str:
        """Return an order number in ten digits. Raises BadField for a blank, zero, letters or more than ten digits."""
        text = self.text(name)
        if not (text.isascii() and text.isdecimal() and text.strip("0") and len(text) <= ORDER_NUMBER_DIGITS):
            raise self._unreadable(name, text, "an order number")
        return order_number(text)

    def _unreadable(self, name: str, text: str, wanted: str) -> BadField:
        return BadField(f"field {name} is {text!r}, not {wanted}", call=self._call)


def hhmmss(text: str) -> time:
    """Return the time of day of six digits (HHMMSS). Raises ValueError."""
    if len(text) != 6 or not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    minutes, seconds = divmod(int(text), 100)
    hours, minutes = divmod(minutes, 100)
    return time(hours, minutes, seconds)


def order_number(text: str) -> str:
    """Return an order number in ten digits. Paper pads it with spaces or not at all, live with zeros."""
    return text.strip().zfill(ORDER_NUMBER_DIGITS)
