"""Number formats of the broker's replies and frames: all values are text."""

from decimal import Decimal

PAGE_KEY = 100


def padded(text: str, width: int) -> str:
    """Return `text` padded with spaces to `width` bytes in the broker's encoding (EUC-KR)."""
    return text + " " * max(0, width - len(text.encode("euc-kr", "replace")))


def fixed(value: float | Decimal, places: int) -> str:
    """Return a number with `places` decimals; zero has no sign."""
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def percent_of(part: float, whole: float, places: int = 2) -> str:
    """Return `part` of `whole` in percent, 0 if `whole` is 0."""
    return fixed(part / whole * 100 if whole else 0.0, places)


def sign(price: int, base: int, lowest: int, highest: int) -> str:
    """Return the sign of a price against the base (전일 대비 부호): 1 upper limit, 2 up, 3 flat, 4 lower, 5 down."""
    if price > base:
        return "1" if price >= highest else "2"
    if price < base:
        return "4" if price <= lowest else "5"
    return "3"


def change_sign(price: float, reference: float) -> str:
    """Return the sign of a price against a reference: 2 up, 3 flat, 5 down."""
    return "2" if price > reference else "5" if price < reference else "3"
