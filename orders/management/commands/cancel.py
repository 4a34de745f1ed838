import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.sessions import KST
from kis import clock
from kis.fields import order_number
from orders.management.trading import describe, service
from orders.models import TradeOrder


class Command(BaseCommand):
    help = _("Cancel what is left of an order.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("number", help=_("the broker's order number of today, or # and our own: #12"))

    def handle(self, number: str, **options: Any) -> None:
        order = self._find(number)
        if order.order_no is None:
            sentence = _("the order has no number yet, so it cannot be cancelled: {line}")
            raise CommandError(sentence.format(line=describe(order)))
        if not order.is_open:
            raise CommandError(_("nothing is left to cancel: {line}").format(line=describe(order)))
        try:
            service().cancel(order)
        except BrokerError as error:
            raise CommandError(_("not cancelled: {error}").format(error=error)) from error
        self.stdout.write(_("cancel sent: {line}").format(line=describe(order)))

    def _find(self, number: str) -> TradeOrder:
        if number.startswith("#") and number[1:].isdigit():
            order = TradeOrder.objects.filter(pk=int(number[1:])).first()
        else:
            today = clock.now().astimezone(KST).date()
            order = TradeOrder.objects.filter(order_date=today, order_no=order_number(number)).first()
        if order is None:
            raise CommandError(_("there is no order {number}: `orders` lists them").format(number=number))
        return order
