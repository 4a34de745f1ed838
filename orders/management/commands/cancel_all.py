import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.broker import OpenOrder
from aegis.terms import Side
from aegis.trading_state import TradingState
from infra import clock
from market import queries
from orders import kill_switch, serializers
from orders.cancel_all import row_of
from orders.management.console import CommandOutput, DeskCommand, Failure, service, stock_code, who
from orders.management.switching import print_armed_stops
from orders.models import TradeOrder
from orders.service import CancelAllResult


class Command(DeskCommand):
    help = _("The emergency brake: cancel everything that is open at the broker, on every venue.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--code", help=_("only orders of this stock"))
        parser.add_argument("--external", action="store_true", help=_("external orders too"))
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--reduce", action="store_true", help=_("allow only sales first, so that stops still sell"))
        group.add_argument(
            "--halt", action="store_true", help=_("halt first, so that no new order is sent, stops included")
        )
        parser.add_argument("--dry-run", action="store_true", help=_("show what would be cancelled, and send nothing"))
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        code = None if options["code"] is None else stock_code(options["code"])
        if options["dry_run"]:
            return _dry_run(code=code, external=options["external"])
        state_lines = self._change_state(**options)
        result = service().cancel_all(external=options["external"], code=code, who=who())
        lines = [*state_lines, *_lines(result)]
        if result.failed or result.unconfirmed or result.unseen:
            raise Failure("NOT_ALL", "\n".join(lines), shape=dict(serializers.swept(result)))
        return CommandOutput({"dry_run": False, **serializers.swept(result)}, lines)

    def _change_state(self, *, halt: bool, reduce: bool, **options: Any) -> list[str]:
        if halt:
            print_armed_stops(TradingState.HALTED)
            kill_switch.halt(by=who(), reason=self.name, at=clock.now())
            return [_("halted: no new order is sent")]
        if reduce:
            print_armed_stops(TradingState.REDUCING)
            is_done = kill_switch.reduce_unless_halted(by=who(), reason=self.name, at=clock.now())
            return [_("only sales pass") if is_done else _("trading is halted already, and stays so")]
        return []


def _dry_run(*, code: str | None, external: bool) -> CommandOutput:
    """Return what would be cancelled, by the same request to the broker as the real command."""
    open_list = service().would_cancel(external=external, code=code)
    pairs = [(item, row_of(item)) for item in open_list.orders]
    lines = [_("would cancel: {line}").format(line=_open_line(item, row)) for item, row in pairs]
    shape = [serializers.open_order(item, row) for item, row in pairs]
    payload = {"dry_run": True, "orders": shape, "unseen": open_list.why}
    if open_list.why:
        raise Failure("NOT_ALL", "\n".join([*lines, _unseen(open_list.why)]), shape=payload)
    return CommandOutput(payload, lines or [_("nothing is open")])


def _open_line(item: OpenOrder, row: TradeOrder | None) -> str:
    stock = queries.get_stock(item.code)
    template = _("{name} ({code}) {side}, {qty:,} shares open, {market}, number {number}, ours {ours}")
    return template.format(
        name=stock.name if stock else item.code,
        code=item.code,
        side=_("buy") if item.side is Side.BUY else _("sell"),
        qty=item.qty,
        market=item.placed.market,
        number=item.placed.order_no,
        ours=f"#{row.pk}" if row else "-",
    )


def _lines(result: CancelAllResult) -> list[str]:
    template = _("no longer open by the broker's list: {count} ({numbers})")
    lines = [template.format(count=len(result.cancelled), numbers=_join(result.cancelled))]
    for number, why in result.unconfirmed.items():
        lines.append(_("NOT confirmed: {number}: {why}").format(number=number, why=why))
    if result.left:
        template = _("left alone, external: {numbers}; --external cancels them too")
        lines.append(template.format(numbers=_join(result.left)))
    for number, why in result.failed.items():
        lines.append(_("NOT cancelled: {number}: {why}").format(number=number, why=why))
    if result.unseen:
        lines.append(_unseen(result.unseen))
    return lines


def _unseen(why: str) -> str:
    template = _("not all that is open is known ({why}): run it again, or look at the broker's own screen")
    return template.format(why=why)


def _join(numbers: list[str]) -> str:
    return ", ".join(numbers) or "-"
