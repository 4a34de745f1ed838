from django.utils.translation import gettext as _

from aegis.trading_state import TradingState
from orders.management.switching import SwitchCommand


class Command(SwitchCommand):
    help = _(
        "Send no new order, neither buys nor sales, stops included; open orders stay (cancel_all cancels them). "
        "`reduce` still allows sales and stops."
    )
    to = TradingState.HALTED
