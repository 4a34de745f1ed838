from django.utils.translation import gettext as _

from aegis.risk import TradingState
from orders.management.switching import SwitchCommand


class Command(SwitchCommand):
    help = _(
        "Let nothing new leave, bought or sold, stops included; what is open stays (cancel_all cancels it). "
        "`reduce` lets sales and stops pass."
    )
    to = TradingState.HALTED
