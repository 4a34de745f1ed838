from django.utils.translation import gettext as _

from aegis.trading_state import TradingState
from orders.management.switching import SwitchCommand


class Command(SwitchCommand):
    help = _("Trade again after halt, reduce or a trip of the switch.")
    to = TradingState.ACTIVE
