from django.utils.translation import gettext as _

from aegis.terms import Side
from orders.management.trading import TradeCommand


class Command(TradeCommand):
    help = _("Sell shares.")
    side = Side.SELL
    strategies = ("sell_profit", "sell_stop", "sell_emergency")
