"""`halt`, `reduce` and `resume`: change the trading state manually."""

import argparse
import sys
from typing import Any

from django.db import DatabaseError
from django.utils.translation import gettext as _

from aegis.trading_state import TradingState
from infra import clock
from orders import kill_switch, serializers
from orders.management.console import CommandOutput, DeskCommand, Failure, add_confirmation, confirm, who


def print_armed_stops(to: TradingState) -> None:
    """Print to standard error how many stops are armed and what happens to them, before the state changes.

    It is printed without a confirmation too. A database error is printed and does not prevent the change.
    """
    try:
        text = kill_switch.explain_halt() if to is TradingState.HALTED else kill_switch.explain_reduce()
    except DatabaseError as error:
        text = _("how many stops are armed is not known: {error}").format(error=str(error).strip())
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class SwitchCommand(DeskCommand):
    """A command that changes the trading state to `to`."""

    to: TradingState

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("reason", nargs="*", help=_("the reason, for the record"))
        if self.to is not TradingState.REDUCING:
            add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        if self.to is TradingState.ACTIVE:
            confirm(self.name, yes=options["yes"], about=lambda: _("trading will resume"))
        to = self.to
        if to is TradingState.HALTED and not (options["yes"] or options["json"]) and sys.stdin.isatty():
            to = self._ask_state()
        elif to is not TradingState.ACTIVE:
            print_armed_stops(to)
        change = kill_switch.set_state(to, by=who(), reason=" ".join(options["reason"]), at=clock.now())
        text = _("the trading state is {state}; it was {before}").format(
            state=change.get_to_state_display(), before=change.get_from_state_display()
        )
        return CommandOutput({"switch": serializers.turned(change)}, [text])

    def _ask_state(self) -> TradingState:
        """Ask the operator for REDUCING or HALTED. Raises Failure if the answer is neither."""
        print_armed_stops(TradingState.HALTED)
        sys.stderr.write(_("type reduce to allow only sales (recommended), halt to allow no orders: "))
        sys.stderr.flush()
        state = {"reduce": TradingState.REDUCING, "halt": TradingState.HALTED}.get(sys.stdin.readline().strip())
        if state is None:
            raise Failure("UNCONFIRMED", _("not confirmed: nothing was done"))
        return state
