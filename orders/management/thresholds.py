"""The threshold of a stop as operators type it: 65000 (won), 5% (of the average price), 2atr (average true ranges)."""

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
    """Return a stop's unit and value. Raises ArgumentTypeError if the text is not a threshold."""
    match = _THRESHOLD.fullmatch(plain(text))
    if match is None or not Decimal(match["value"].replace(",", "")):
        template = _("threshold {text} is none: write won as 65000, percent as 5%, true ranges as 2atr")
        raise argparse.ArgumentTypeError(template.format(text=repr(text)))
    unit = _UNITS[match["unit"].lower() if match["unit"] else None]
    return unit, Decimal(match["value"].replace(",", ""))
