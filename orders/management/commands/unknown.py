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
    describe_order,
    find_order,
    service,
    short,
    who,
)
from orders.models import TradeOrder
from orders.unknown import absence_text

LAST_EVENTS = 5


class Command(DeskCommand):
    help = _("List the orders whose outcome is unknown, with the evidence; or decide one.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--decide", metavar="#N", help=_("the order to decide, by # and our own number: #12"))
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--is", dest="order_no", metavar="NUMBER", help=_("it is this order of the broker's"))
        group.add_argument(
            "--never-arrived", action="store_true", help=_("the broker never got it, or does not have it")
        )
        add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        has_decision = options["order_no"] is not None or options["never_arrived"]
        if bool(options["decide"]) != has_decision:
            message = _("to decide, name the order and its fate: --decide #12 with --is NUMBER or --never-arrived")
            raise Failure("USAGE", message, exit_code=WRONG_USAGE)
        return self._decide(options) if has_decision else _list()

    def _decide(self, options: dict[str, Any]) -> CommandOutput:
        order = find_order(options["decide"])
        number = order_number(plain(options["order_no"])) if options["order_no"] is not None else None
        confirm("decide", yes=options["yes"], about=lambda: describe_order(order))
        try:
            order = service().decide(order, number, by=who())
        except ValueError as error:
            raise Failure("UNDECIDABLE", str(error), shape={"order": serializers.order(order)}) from error
        return CommandOutput(
            {"order": serializers.order(order)}, [_("decided: {line}").format(line=describe_order(order))]
        )


def _list() -> CommandOutput:
    rows = list(unknown.undecided())
    lines = [line for row in rows for line in _lines(row)] or [_("no outcome is unknown")]
    return CommandOutput({"unknown": [_shape(row) for row in rows]}, lines)


def _events(row: TradeOrder) -> list[Any]:
    return list(reversed(row.events.order_by("-id")[:LAST_EVENTS]))


def _shape(row: TradeOrder) -> dict[str, Any]:
    return {
        "order": serializers.order(row),
        "absent_looks": row.not_found_count,
        "candidates": [serializers.candidate(entry) for entry in row.candidates],
        "events": [serializers.event(entry) for entry in _events(row)],
    }


def _lines(row: TradeOrder) -> list[str]:
    head = f"#{row.pk} {short(row.created_at)} {describe_order(row)}"
    absence = absence_text(row)
    events = [f"  {short(entry.at)} {entry}" for entry in _events(row)]
    template = _("  could be {order_no}: {market} {placed_at}, {qty:,} at {price:,}, filled {filled_qty:,}")
    return [head, "  " + absence, *events, *(template.format(**entry) for entry in row.candidates)]
