"""`halt`, `reduce` and `resume`: the trading state, changed by hand."""

import argparse
import sys
from typing import Any

from django.utils.translation import gettext as _

from aegis.guards import TradingState
from kis import clock
from orders import shapes, switch
from orders.management.console import DeskCommand, Failure, Told, add_confirmation, confirm, who


class SwitchCommand(DeskCommand):
    """One position of the switch."""

    to: TradingState

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("reason", nargs="*", help=_("why, for whoever asks later"))
        if self.to is not TradingState.REDUCING:
            add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> Told:
        if self.to is TradingState.ACTIVE:
            confirm(self.name, yes=options["yes"], about=lambda: _("trading is to go on"))
        to = self._asked(**options) if self.to is TradingState.HALTED else self.to
        change = switch.turn(to, by=who(), reason=" ".join(options["reason"]), at=clock.now())
        words = _("the switch stands on {state}; it stood on {before}").format(
            state=change.get_to_state_display(), before=change.get_from_state_display()
        )
        lines = [words]
        if to is TradingState.HALTED:
            lines.append(switch.about_halting())
        return Told({"switch": shapes.turned(change)}, lines)

    def _asked(self, **options: Any) -> TradingState:
        """Return which of the two a person at a terminal wants; a script, or --yes, is not asked.

        Raises Failure if it is neither.
        """
        if options["yes"] or options["json"] or not sys.stdin.isatty():
            return TradingState.HALTED
        question = _("type reduce for sales only (recommended), halt for nothing at all: ")
        sys.stderr.write(f"{switch.about_halting()}\n{question}")
        sys.stderr.flush()
        chosen = {"reduce": TradingState.REDUCING, "halt": TradingState.HALTED}.get(sys.stdin.readline().strip())
        if chosen is None:
            raise Failure("UNCONFIRMED", _("not confirmed: nothing was done"))
        return chosen
