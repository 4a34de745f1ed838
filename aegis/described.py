"""Base class of the enumerations from which `docs/reference/` is generated."""

from enum import StrEnum
from typing import Self


class DescribedName(StrEnum):
    """A stable name with its meaning. Members are written `NAME = "NAME", "what it means"`."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member
