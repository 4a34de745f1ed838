from django.utils.translation import gettext as _

from aegis.risk import TradingState
from orders.management.switching import SwitchCommand


class Command(SwitchCommand):
    help = _("Let sales pass, stops included, and nothing else; resting buys are cancelled.")
    to = TradingState.REDUCING
