import argparse
import re
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from aegis.codes import plain
from aegis.stops import StopKind, StopUnit
from kis import clock
from orders import shapes, stops
from orders.management.console import WRONG_USAGE, DeskCommand, Failure, Told, short, stock_code, who
from orders.models import StopRule

_THRESHOLD = re.compile(r"(?P<value>[\d,]+(?:\.\d+)?)(?P<unit>%|atr)?", re.IGNORECASE)
_UNITS = {None: StopUnit.PRICE, "%": StopUnit.PERCENT, "atr": StopUnit.ATR}


class Command(DeskCommand):
    help = _("List the stops; or arm one on a holding, or disarm one.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("code", nargs="?", help=_("the stock to guard"))
        how = parser.add_mutually_exclusive_group()
        at = _("65000 (won), 5%% (of the average price) or 2atr (true ranges)")
        how.add_argument("--loss", metavar="AT", help=_("arm a stop loss: at {at}").format(at=at))
        how.add_argument("--profit", metavar="AT", help=_("arm a take profit: the same"))
        how.add_argument("--trailing", metavar="AT", help=_("arm a trailing stop: so far under the highest price"))
        how.add_argument("--disarm", metavar="N", type=int, help=_("disarm stop N"))
        parser.add_argument(
            "--sources", metavar="VENUES", help=_("the venues that may trigger it: KRX, NXT or KRX,NXT")
        )
        words = _("arm it even if it triggers at once, at the price of now")
        parser.add_argument("--confirm-immediate", action="store_true", help=words)
        parser.add_argument("--all", action="store_true", help=_("list those that are over too"))
        super().add_arguments(parser)

    def tell(self, **options: Any) -> Told:
        wanted = {
            StopKind.STOP_LOSS: options["loss"],
            StopKind.TAKE_PROFIT: options["profit"],
            StopKind.TRAILING: options["trailing"],
        }
        named = [(kind, text) for kind, text in wanted.items() if text is not None]
        if bool(named) != (options["code"] is not None):
            words = _("to arm a stop, name the stock and one of --loss, --profit and --trailing")
            raise Failure("USAGE", words, exit_code=WRONG_USAGE)
        try:
            if named:
                choices = {"sources": options["sources"] or "", "may_trigger_now": options["confirm_immediate"]}
                return _armed(options["code"], *named[0], **choices)
            if options["disarm"] is not None:
                return _disarmed(options["disarm"])
        except ValidationError as error:
            raise Failure("NOT_DONE", " ".join(error.messages)) from error
        return _listed(is_all=options["all"])


def _armed(code: str, kind: StopKind, text: str, *, sources: str, may_trigger_now: bool) -> Told:
    found = _THRESHOLD.fullmatch(plain(text))
    if found is None:
        words = _("threshold {text} is none: write won as 65000, percent as 5%, true ranges as 2atr")
        raise Failure("USAGE", words.format(text=repr(text)), exit_code=WRONG_USAGE)
    unit = _UNITS[found["unit"].lower() if found["unit"] else None]
    value = Decimal(found["value"].replace(",", ""))
    row = stops.arm(
        stock_code(code),
        kind,
        unit,
        value,
        by=who(),
        at=clock.now(),
        sources=sources,
        may_trigger_now=may_trigger_now,
    )
    return Told({"stop": shapes.stop(row)}, [_("armed: {line}").format(line=_line(row))])


def _disarmed(pk: int) -> Told:
    row = StopRule.objects.filter(pk=pk).first()
    if row is None:
        raise Failure("NO_STOP", _("there is no stop {number}: `stops` lists them").format(number=pk))
    stops.disarm(row, why=who(), at=clock.now())
    row.refresh_from_db()
    return Told({"stop": shapes.stop(row)}, [_("disarmed: {line}").format(line=_line(row))])


def _listed(*, is_all: bool) -> Told:
    rows = StopRule.objects.all() if is_all else StopRule.objects.filter(state__in=stops.LIVE)
    lines = [_line(row) for row in rows] or [_("no stop is armed")]
    return Told({"stops": [shapes.stop(row) for row in rows]}, lines)


def _line(row: StopRule) -> str:
    words = _("#{number} {name} ({code}) {kind} at {limit:,} won ({value} {unit}): {state} since {at}")
    line = words.format(
        number=row.pk,
        name=row.stock_name,
        code=row.stock_code,
        kind=row.get_kind_display(),
        # what is over says what triggered it: without shares it has no limit any more
        limit=row.trigger_price if row.triggered_at else stops.limit(row),
        value=f"{row.value.normalize():f}",
        unit=row.get_unit_display(),
        state=row.get_state_display(),
        at=short(row.state_at),
    )
    return f"{line}; {row.note}" if row.note else line
