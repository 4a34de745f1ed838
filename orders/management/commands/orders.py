import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.lifecycle import UNSETTLED
from orders import serializers
from orders.management.console import (
    CommandOutput,
    DeskCommand,
    add_filters,
    describe_order,
    filtered,
    short,
    strategy_suffix,
)
from orders.models import TradeOrder


class Command(DeskCommand):
    help = _("List orders, newest first.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--open", action="store_true", help=_("only those that are not settled"))
        add_filters(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        rows = TradeOrder.objects.order_by("-id")
        if options["open"]:
            rows = rows.filter(status__in=UNSETTLED)
        orders = filtered(rows, options, day="order_date", strategy_id="strategy_id")
        return CommandOutput(
            {"orders": [serializers.order(row) for row in orders]}, [_line(row) for row in orders] or [_("no orders")]
        )


def _line(row: TradeOrder) -> str:
    filled = _("filled {filled:,}").format(filled=row.filled_qty)
    return f"#{row.pk} {short(row.created_at)} {describe_order(row)}, {filled}{strategy_suffix(row)}"
