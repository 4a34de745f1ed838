"""`halt`, `reduce` and `resume`: the kill switch, turned by hand."""

import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.guards import TradingState
from kis import clock
from orders import shapes, switch
from orders.management.console import DeskCommand, Told, add_confirmation, confirm, who


class SwitchCommand(DeskCommand):
    """One position of the switch."""

    to: TradingState

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("reason", nargs="*", help=_("why, for whoever asks later"))
        if self.to is TradingState.ACTIVE:
            add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> Told:
        if self.to is TradingState.ACTIVE:
            confirm(self.name, yes=options["yes"], about=lambda: _("trading is to go on"))
        change = switch.turn(self.to, by=who(), reason=" ".join(options["reason"]), at=clock.now())
        words = _("the switch stands on {state}; it stood on {before}").format(
            state=change.get_to_state_display(), before=change.get_from_state_display()
        )
        return Told({"switch": shapes.turned(change)}, [words])
