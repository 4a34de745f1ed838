"""Stock codes (종목코드) as people, programs and files write them, brought to the one form that identifies a stock.

Letters are part of a code: 0009K0, 00088K, 0126Z0 and Q500001 are whole codes, so no letter is ever stripped. Whether
A027360 means 027360 is for the stock master to say (`market.codes`).
"""

import re
import unicodedata

from aegis.risk import gettext_noop

# Source: the broker's master files. Shares and ETFs have six, ETNs seven, listed funds nine, standard codes twelve; all
# have a digit, so an all-capital name, as SIMPAC, is no code
CODE = re.compile(r"(?=.*[0-9])[0-9A-Z]{6,12}")
NOT_A_CODE = gettext_noop(
    "stock code {code!r} is none: write its six digits or letters, as 005930 or 0009K0, or seven as Q500001"
)
# the full-width forms of ! to ~, https://www.unicode.org/charts/PDF/UFF00.pdf
_HALF_WIDTH = {0xFF01 + number: 0x21 + number for number in range(94)} | {0x3000: 0x20}
# what is no ink: spaces, line ends, and marks that only steer the text beside them, as a byte order mark
_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+")
_BLANK = ("Zs", "Zl", "Zp", "Cc", "Cf")


class NotACode(ValueError):
    """A text that can be no stock code; `value` is the text as it came. `NOT_A_CODE` is its sentence."""

    def __init__(self, value: object) -> None:
        super().__init__(NOT_A_CODE.format(code=value))
        self.value = value


def plain(text: str) -> str:
    """Return a typed text with composed Korean (NFC), half-width letters and digits, and no blanks at its ends."""
    narrow = unicodedata.normalize("NFC", text).translate(_HALF_WIDTH)
    first, last = 0, len(narrow)
    while first < last and unicodedata.category(narrow[first]) in _BLANK:
        first += 1
    while last > first and unicodedata.category(narrow[last - 1]) in _BLANK:
        last -= 1
    return narrow[first:last]


def normalise(text: str) -> str:
    """Return a stock code in its one form: capital letters and digits, without padding. Raises NotACode."""
    code = plain(text) if isinstance(text, str) else ""
    # ASCII first: "ı" has a capital that is ASCII, and is no letter of a code
    if not code.isascii() or not CODE.fullmatch(code.upper()):
        raise NotACode(text)
    return code.upper()


def without_commas(number: str) -> str:
    """Return a whole number without the commas at its thousands; with commas elsewhere it comes back as it is."""
    return number.replace(",", "") if _THOUSANDS.fullmatch(number) else number
