import argparse
from typing import Any

from django.utils.translation import gettext as _

from orders import serializers
from orders.management.console import CommandOutput, DeskCommand, add_filters, filtered, short, strategy_suffix
from orders.models import TradeExecution


class Command(DeskCommand):
    help = _("List fills, newest first, with what they cost.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--voided", action="store_true", help=_("voided fills too"))
        add_filters(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        rows = TradeExecution.objects.select_related("order").order_by("-executed_at", "-id")
        if not options["voided"]:
            rows = rows.filter(voided_at__isnull=True)
        executions = filtered(rows, options, day="order__order_date", strategy_id="order__strategy_id")
        lines = [_line(row) for row in executions] or [_("no fills")]
        return CommandOutput({"executions": [serializers.execution(row) for row in executions]}, lines)


def _line(row: TradeExecution) -> str:
    template = _(
        "{at} {name} ({code}) {side} {qty:,} shares at {price:,.2f}, commission {fee:,}, tax {tax:,}, by {source}"
    )
    line = template.format(
        at=short(row.executed_at),
        name=row.order.stock_name,
        code=row.stock_code,
        side=row.order.get_order_type_display(),
        qty=row.exec_qty,
        price=row.exec_price,
        fee=row.fee,
        tax=row.tax,
        source=row.get_source_display(),
    )
    return line + strategy_suffix(row.order) + (" " + _("(not true)") if row.voided_at else "")
