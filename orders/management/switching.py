"""`halt`, `reduce` and `resume`: the trading state, changed by hand."""

import argparse
import sys
from typing import Any

from django.db import DatabaseError
from django.utils.translation import gettext as _

from aegis.risk import TradingState
from infra import clock
from orders import kill_switch, serializers
from orders.management.console import CommandOutput, DeskCommand, Failure, add_confirmation, confirm, who


def say_armed(to: TradingState) -> None:
    """Say on standard error how many stops are armed, and what becomes of them, before the state is changed.

    Whoever is not asked is told, too. That they cannot be counted keeps nobody from halting.
    """
    try:
        words = kill_switch.explain_halt() if to is TradingState.HALTED else kill_switch.explain_reduce()
    except DatabaseError as error:
        words = _("how many stops are armed is not known: {error}").format(error=str(error).strip())
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


class SwitchCommand(DeskCommand):
    """One position of the switch."""

    to: TradingState

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("reason", nargs="*", help=_("why, for whoever asks later"))
        if self.to is not TradingState.REDUCING:
            add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        if self.to is TradingState.ACTIVE:
            confirm(self.name, yes=options["yes"], about=lambda: _("trading is to go on"))
        to = self.to
        if to is TradingState.HALTED and not (options["yes"] or options["json"]) and sys.stdin.isatty():
            to = self._asked()
        elif to is not TradingState.ACTIVE:
            say_armed(to)
        change = kill_switch.set_state(to, by=who(), reason=" ".join(options["reason"]), at=clock.now())
        words = _("the switch stands on {state}; it stood on {before}").format(
            state=change.get_to_state_display(), before=change.get_from_state_display()
        )
        return CommandOutput({"switch": serializers.turned(change)}, [words])

    def _asked(self) -> TradingState:
        """Return which of the two a person at a terminal wants. Raises Failure if it is neither."""
        say_armed(TradingState.HALTED)
        sys.stderr.write(_("type reduce for sales only (recommended), halt for nothing at all: "))
        sys.stderr.flush()
        chosen = {"reduce": TradingState.REDUCING, "halt": TradingState.HALTED}.get(sys.stdin.readline().strip())
        if chosen is None:
            raise Failure("UNCONFIRMED", _("not confirmed: nothing was done"))
        return chosen
