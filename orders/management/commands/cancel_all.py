import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.lifecycle import OPEN
from kis import clock
from kis.wiring import broker
from orders import shapes, switch
from orders.management.console import DeskCommand, Failure, Told, describe, service, stock_code, who
from orders.models import TradeOrder
from orders.reconcile import reconcile
from orders.service import Swept


class Command(DeskCommand):
    help = _("The emergency brake: cancel everything that is open at the broker, on every venue.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--code", help=_("only orders of this stock"))
        parser.add_argument("--external", action="store_true", help=_("those placed by hand too"))
        parser.add_argument("--halt", action="store_true", help=_("halt first, so that nothing new follows"))
        parser.add_argument("--dry-run", action="store_true", help=_("show what would be cancelled, and send nothing"))
        super().add_arguments(parser)

    def tell(self, **options: Any) -> Told:
        code = None if options["code"] is None else stock_code(options["code"])
        if options["dry_run"]:
            return _would(code=code, external=options["external"])
        if options["halt"]:
            switch.halt(by=who(), reason=self.name, at=clock.now())
        swept = service().cancel_all(external=options["external"], code=code)
        if swept.failed:
            _look_again(swept)
        lines = [*([_("halted: nothing new leaves")] if options["halt"] else []), *_lines(swept)]
        if swept.failed or swept.unseen:
            raise Failure("NOT_ALL", "\n".join(lines), shape=dict(shapes.swept(swept)))
        return Told({"dry_run": False, **shapes.swept(swept)}, lines)


def _would(*, code: str | None, external: bool) -> Told:
    rows = TradeOrder.objects.filter(status__in=OPEN).order_by("-id")
    rows = rows if external else rows.filter(origin=TradeOrder.Origin.AEGIS)
    rows = rows.filter(stock_code=code) if code else rows
    lines = [_("would cancel: {line}").format(line=describe(row)) for row in rows]
    return Told({"dry_run": True, "orders": [shapes.order(row) for row in rows]}, lines or [_("nothing is open")])


def _look_again(swept: Swept) -> None:
    """Drop from the failures what turns out to be over: a cancel is refused, too, where the order just filled."""
    try:
        reconcile(broker(), clock.now)
    except BrokerError as error:
        swept.unseen = swept.unseen or str(error)
        return
    numbers = list(swept.failed)
    for row in TradeOrder.objects.filter(order_no__in=numbers).order_by("order_date"):
        if row.order_no and row.is_done and row.order_date == clock.now().date():
            swept.failed.pop(row.order_no, None)


def _lines(swept: Swept) -> list[str]:
    lines = [_("cancelled: {count} ({numbers})").format(count=len(swept.cancelled), numbers=_join(swept.cancelled))]
    if swept.left:
        words = _("left alone, placed by hand: {numbers}; --external cancels them too")
        lines.append(words.format(numbers=_join(swept.left)))
    for number, why in swept.failed.items():
        lines.append(_("NOT cancelled: {number}: {why}").format(number=number, why=why))
    if swept.unseen:
        words = _("not all that is open is known ({why}): run it again, or look at the broker's own screen")
        lines.append(words.format(why=swept.unseen))
    return lines


def _join(numbers: list[str]) -> str:
    return ", ".join(numbers) or "-"
