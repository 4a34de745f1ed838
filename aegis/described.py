"""The base of names that explain themselves: `docs/reference/` is made from them."""

from enum import StrEnum
from typing import Self


class DescribedName(StrEnum):
    """A stable name, and what it means: members are written `NAME = "NAME", "what it means"`."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member
