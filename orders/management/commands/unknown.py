import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.codes import plain
from kis.rest_values import order_number
from orders import serializers, unknown
from orders.management.console import (
    WRONG_USAGE,
    CommandOutput,
    DeskCommand,
    Failure,
    add_confirmation,
    confirm,
    describe,
    find_order,
    service,
    short,
    who,
)
from orders.models import TradeOrder

LAST_EVENTS = 5


class Command(DeskCommand):
    help = _("List the orders whose outcome is unknown, with the evidence; or decide one.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--decide", metavar="#N", help=_("the order to decide, by # and our own number: #12"))
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--is", dest="order_no", metavar="NUMBER", help=_("it is this order of the broker's"))
        how.add_argument("--never-arrived", action="store_true", help=_("the broker never got it, or does not have it"))
        add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        chosen = options["order_no"] is not None or options["never_arrived"]
        if bool(options["decide"]) != chosen:
            words = _("to decide, name the order and its fate: --decide #12 with --is NUMBER or --never-arrived")
            raise Failure("USAGE", words, exit_code=WRONG_USAGE)
        return self._decided(options) if chosen else _listed()

    def _decided(self, options: dict[str, Any]) -> CommandOutput:
        order = find_order(options["decide"])
        number = order_number(plain(options["order_no"])) if options["order_no"] is not None else None
        confirm("decide", yes=options["yes"], about=lambda: describe(order))
        try:
            order = service().decide(order, number, by=who())
        except ValueError as error:
            raise Failure("UNDECIDABLE", str(error), shape={"order": serializers.order(order)}) from error
        return CommandOutput({"order": serializers.order(order)}, [_("decided: {line}").format(line=describe(order))])


def _listed() -> CommandOutput:
    rows = list(unknown.undecided())
    lines = [line for row in rows for line in _lines(row)] or [_("no outcome is unknown")]
    return CommandOutput({"unknown": [_shape(row) for row in rows]}, lines)


def _events(row: TradeOrder) -> list[Any]:
    return list(reversed(row.events.order_by("-id")[:LAST_EVENTS]))


def _shape(row: TradeOrder) -> dict[str, Any]:
    return {
        "order": serializers.order(row),
        "absent_looks": row.absent_looks,
        "candidates": [serializers.candidate(each) for each in row.candidates],
        "events": [serializers.event(each) for each in _events(row)],
    }


def _lines(row: TradeOrder) -> list[str]:
    head = f"#{row.pk} {short(row.created_at)} {describe(row)}"
    looks = _("missing from {looks} complete lists of the broker's").format(looks=row.absent_looks)
    events = [f"  {short(each.at)} {each}" for each in _events(row)]
    words = _("  could be {order_no}: {market} {placed_at}, {qty:,} at {price:,}, filled {filled_qty:,}")
    return [head, "  " + looks, *events, *(words.format(**each) for each in row.candidates)]
