import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.broker import OpenOrder
from aegis.risk import TradingState
from aegis.terms import Side
from infra import clock
from market import queries
from orders import kill_switch, serializers
from orders.cancel_all import row_of
from orders.management.console import CommandOutput, DeskCommand, Failure, service, stock_code, who
from orders.management.switching import say_armed
from orders.models import TradeOrder
from orders.service import CancelAllResult


class Command(DeskCommand):
    help = _("The emergency brake: cancel everything that is open at the broker, on every venue.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--code", help=_("only orders of this stock"))
        parser.add_argument("--external", action="store_true", help=_("external orders too"))
        first = parser.add_mutually_exclusive_group()
        first.add_argument(
            "--reduce", action="store_true", help=_("let only sales pass first, so that stops go on selling")
        )
        first.add_argument(
            "--halt", action="store_true", help=_("halt first, so that nothing new follows, no stop either")
        )
        parser.add_argument("--dry-run", action="store_true", help=_("show what would be cancelled, and send nothing"))
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        code = None if options["code"] is None else stock_code(options["code"])
        if options["dry_run"]:
            return _would(code=code, external=options["external"])
        before = self._change_state(**options)
        swept = service().cancel_all(external=options["external"], code=code, who=who())
        lines = [*before, *_lines(swept)]
        if swept.failed or swept.unconfirmed or swept.unseen:
            raise Failure("NOT_ALL", "\n".join(lines), shape=dict(serializers.swept(swept)))
        return CommandOutput({"dry_run": False, **serializers.swept(swept)}, lines)

    def _change_state(self, *, halt: bool, reduce: bool, **options: Any) -> list[str]:
        if halt:
            say_armed(TradingState.HALTED)
            kill_switch.halt(by=who(), reason=self.name, at=clock.now())
            return [_("halted: nothing new leaves")]
        if reduce:
            say_armed(TradingState.REDUCING)
            is_done = kill_switch.reduce_unless_halted(by=who(), reason=self.name, at=clock.now())
            return [_("only sales pass") if is_done else _("trading is halted already, and stays so")]
        return []


def _would(*, code: str | None, external: bool) -> CommandOutput:
    """Ask the broker what the real command asks it."""
    shown = service().would_cancel(external=external, code=code)
    found = [(each, row_of(each)) for each in shown.orders]
    lines = [_("would cancel: {line}").format(line=_open_line(each, row)) for each, row in found]
    shape = [serializers.open_order(each, row) for each, row in found]
    told = {"dry_run": True, "orders": shape, "unseen": shown.why}
    if shown.why:
        raise Failure("NOT_ALL", "\n".join([*lines, _unseen(shown.why)]), shape=told)
    return CommandOutput(told, lines or [_("nothing is open")])


def _open_line(each: OpenOrder, row: TradeOrder | None) -> str:
    stock = queries.get_stock(each.code)
    words = _("{name} ({code}) {side}, {qty:,} shares open, {market}, number {number}, ours {ours}")
    return words.format(
        name=stock.name if stock else each.code,
        code=each.code,
        side=_("buy") if each.side is Side.BUY else _("sell"),
        qty=each.qty,
        market=each.placed.market,
        number=each.placed.order_no,
        ours=f"#{row.pk}" if row else "-",
    )


def _lines(swept: CancelAllResult) -> list[str]:
    words = _("no longer open by the broker's list: {count} ({numbers})")
    lines = [words.format(count=len(swept.cancelled), numbers=_join(swept.cancelled))]
    for number, why in swept.unconfirmed.items():
        lines.append(_("NOT confirmed: {number}: {why}").format(number=number, why=why))
    if swept.left:
        words = _("left alone, external: {numbers}; --external cancels them too")
        lines.append(words.format(numbers=_join(swept.left)))
    for number, why in swept.failed.items():
        lines.append(_("NOT cancelled: {number}: {why}").format(number=number, why=why))
    if swept.unseen:
        lines.append(_unseen(swept.unseen))
    return lines


def _unseen(why: str) -> str:
    words = _("not all that is open is known ({why}): run it again, or look at the broker's own screen")
    return words.format(why=why)


def _join(numbers: list[str]) -> str:
    return ", ".join(numbers) or "-"
