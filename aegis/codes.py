"""Normalises stock codes (종목코드) as people, programs and files write them.

Letters are part of a code: 0009K0, 00088K, 0126Z0 and Q500001 are whole codes, so no letter is ever stripped. Only the
stock master decides whether A027360 means 027360 (`market.codes`).
"""

import re
import unicodedata

from aegis.denials import gettext_noop

# Source: the broker's master files. Codes of shares and ETFs have six characters, of ETNs seven, of listed funds nine,
# standard codes twelve. All contain a digit, so a name in capitals, as SIMPAC, is not a code.
CODE = re.compile(r"(?=.*[0-9])[0-9A-Z]{6,12}")
NOT_A_CODE = gettext_noop(
    "{code!r} is not a stock code: write six digits or letters, as 005930 or 0009K0, or seven, as Q500001"
)
# the full-width forms of ! to ~, https://www.unicode.org/charts/PDF/UFF00.pdf
_HALF_WIDTH = {0xFF01 + number: 0x21 + number for number in range(94)} | {0x3000: 0x20}
_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+")
# categories of invisible characters: spaces, line ends, and format characters as the byte order mark
_BLANK = ("Zs", "Zl", "Zp", "Cc", "Cf")


class NotACode(ValueError):
    """A text that is not a stock code. `value` is the text as given, `NOT_A_CODE` the message template."""

    def __init__(self, value: object) -> None:
        super().__init__(NOT_A_CODE.format(code=value))
        self.value = value


def plain(text: str) -> str:
    """Return a typed text with composed Korean (NFC), half-width letters and digits, and no blanks at either end."""
    narrow = unicodedata.normalize("NFC", text).translate(_HALF_WIDTH)
    first, last = 0, len(narrow)
    while first < last and unicodedata.category(narrow[first]) in _BLANK:
        first += 1
    while last > first and unicodedata.category(narrow[last - 1]) in _BLANK:
        last -= 1
    return narrow[first:last]


def normalise(text: str) -> str:
    """Return a stock code in canonical form: capital letters and digits, without padding. Raises NotACode."""
    code = plain(text) if isinstance(text, str) else ""
    # check for ASCII first: the capital of "ı" is an ASCII letter
    if not code.isascii() or not CODE.fullmatch(code.upper()):
        raise NotACode(text)
    return code.upper()


def without_commas(number: str) -> str:
    """Return a whole number without its thousands separators; a text with commas elsewhere is returned unchanged."""
    return number.replace(",", "") if _THOUSANDS.fullmatch(number) else number
