from django.utils.translation import gettext as _

from aegis.trading_state import TradingState
from orders.management.switching import SwitchCommand


class Command(SwitchCommand):
    help = _("Allow only sales, stops included; resting buys are cancelled.")
    to = TradingState.REDUCING
