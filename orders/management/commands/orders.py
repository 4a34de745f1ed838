import argparse
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from aegis.lifecycle import UNSETTLED
from orders.management.trading import describe
from orders.models import TradeOrder


class Command(BaseCommand):
    help = _("List orders, newest first.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--open", action="store_true", help=_("only those that are not settled"))
        parser.add_argument("--most", type=int, default=20, help=_("how many lines (20)"))

    def handle(self, **options: Any) -> None:
        rows = TradeOrder.objects.order_by("-id")
        if options["open"]:
            rows = rows.filter(status__in=UNSETTLED)
        rows = rows[: max(1, options["most"])]
        if not rows:
            self.stdout.write(_("no orders"))
        for order in rows:
            filled = _("filled {filled:,}").format(filled=order.filled_qty)
            self.stdout.write(f"#{order.pk} {order.created_at.astimezone():%m-%d %H:%M:%S} {describe(order)}, {filled}")
