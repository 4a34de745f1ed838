"""A customer's account number (계좌번호), as the broker writes it."""

import re
from dataclasses import dataclass

_ACCOUNT = re.compile(r"(\d{8})-?(\d{2})")


@dataclass(frozen=True, slots=True)
class Account:
    """An account number: eight digits (CANO) and the product code, 01 for shares."""

    cano: str
    product: str

    @classmethod
    def parse(cls, text: str) -> "Account":
        """Read `12345678-01`. Raises ValueError that names the text and the expected form."""
        match = _ACCOUNT.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"account number {text!r}: eight digits, a hyphen and two digits are needed, as 12345678-01"
            )
        return cls(cano=match[1], product=match[2])

    @property
    def digits(self) -> str:
        """The ten digits without hyphen, as fill notices print them."""
        return self.cano + self.product

    def __str__(self) -> str:
        return f"{self.cano}-{self.product}"
