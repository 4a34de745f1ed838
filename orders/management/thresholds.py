"""The line of a stop as people write it: 65000 (won), 5% (of the average price), 2atr (average true ranges)."""

import argparse
import re
from decimal import Decimal

from django.utils.translation import gettext as _

from aegis.codes import plain
from aegis.stops import StopUnit

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,10})(?:\.[0-9]{1,4})?"
_THRESHOLD = re.compile(rf"(?P<value>{_NUMBER})(?P<unit>%|atr)?", re.IGNORECASE)
_UNITS = {None: StopUnit.PRICE, "%": StopUnit.PERCENT, "atr": StopUnit.ATR}


def threshold(text: str) -> tuple[StopUnit, Decimal]:
    """Return a stop's unit and value. Raises ArgumentTypeError if the text is none."""
    found = _THRESHOLD.fullmatch(plain(text))
    if found is None or not Decimal(found["value"].replace(",", "")):
        words = _("threshold {text} is none: write won as 65000, percent as 5%, true ranges as 2atr")
        raise argparse.ArgumentTypeError(words.format(text=repr(text)))
    unit = _UNITS[found["unit"].lower() if found["unit"] else None]
    return unit, Decimal(found["value"].replace(",", ""))
