"""Readers of wire values. The broker sends every value as text; here it becomes a number, a date or an error.

A missing field names the operation and the field; a field nobody asked for is ignored.
"""

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from aegis.broker import OutcomeUnknown


class BadField(OutcomeUnknown):
    """A reply without a field we need, or with a value that cannot be read."""


class Row:
    """One object of a reply, its keys read without regard to case (the broker prints `excg_id_dvsn_Cd`)."""

    __slots__ = ("_call", "_values")

    def __init__(self, values: Mapping[str, Any], call: str) -> None:
        self._values = {key.lower(): value for key, value in values.items()}
        self._call = call

    def text(self, name: str) -> str:
        """Return the value without the spaces that pad it."""
        try:
            value = self._values[name.lower()]
        except KeyError:
            raise BadField(f"the reply has no field {name}", call=self._call) from None
        return str(value).strip()

    def maybe(self, name: str, default: str = "") -> str:
        """Return the value of a field that not every reply has."""
        return str(self._values.get(name.lower(), default)).strip()

    def decimal(self, name: str) -> Decimal:
        """Return a number; an empty value counts as zero, as the broker means it."""
        text = self.text(name)
        try:
            return Decimal(text or "0")
        except InvalidOperation:
            raise self._unreadable(name, text, "a number") from None

    def integer(self, name: str) -> int:
        """Return a whole number of won or shares; `248750.0000` is 248,750."""
        return int(self.decimal(name))

    def day(self, name: str) -> date:
        text = self.text(name)
        try:
            return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 a date has no zone
        except ValueError:
            raise self._unreadable(name, text, "a date as 20261123") from None

    def clock(self, name: str) -> time:
        text = self.text(name)
        try:
            return hhmmss(text)
        except ValueError:
            raise self._unreadable(name, text, "a time as 093025") from None

    def _unreadable(self, name: str, text: str, wanted: str) -> BadField:
        return BadField(f"field {name} is {text!r}, not {wanted}", call=self._call)


def hhmmss(text: str) -> time:
    """Return the time of day that six digits write. Raises ValueError."""
    if len(text) != 6 or not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    minutes, seconds = divmod(int(text), 100)
    hours, minutes = divmod(minutes, 100)
    return time(hours, minutes, seconds)


def order_number(text: str) -> str:
    """Return an order number in ten digits: paper pads with spaces or not at all, live with zeros."""
    return text.strip().zfill(10)
