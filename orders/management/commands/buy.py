from django.utils.translation import gettext as _

from aegis.terms import Side
from orders.management.trading import TradeCommand


class Command(TradeCommand):
    help = _("Buy shares.")
    side = Side.BUY
    strategies = ("buy_normal", "buy_urgent")
