"""What the trading commands share: arguments with clear errors, exit codes, and how an order is told.

Exit codes: 0 done, 1 refused (by AEGIS or the broker), 2 wrong usage, 3 the outcome is not known yet.
"""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.lifecycle import Status
from aegis.terms import Market, OrderKind, Side
from kis import clock
from kis.wiring import broker
from orders import guards
from orders.models import TradeOrder
from orders.service import Draft, Intent, OrderDenied, OrderService

UNKNOWN_OUTCOME = 3


def shares(text: str) -> int:
    """Read a quantity of shares from the command line."""
    return _positive(text, _("quantity {text} is not a whole number of shares above zero: write it as 10"))


def won(text: str) -> int:
    """Read a price in won from the command line; commas are allowed."""
    return _positive(text, _("price {text} is not a whole number of won above zero: write it as 52000"))


def _positive(text: str, sentence: str) -> int:
    digits = text.replace(",", "")
    if not digits.isascii() or not digits.isdigit() or int(digits) <= 0:
        raise argparse.ArgumentTypeError(sentence.format(text=repr(text)))
    return int(digits)


def service() -> OrderService:
    return OrderService(broker(), clock.now)


def describe(order: TradeOrder) -> str:
    """Return an order in one line."""
    price = f"{order.price:,}" if order.price else _("market price")
    return _("{name} ({code}) {side} {qty:,} shares at {price}, {market} {kind}, number {number}, {status}").format(
        name=order.stock_name,
        code=order.stock_code,
        side=order.get_order_type_display(),
        qty=order.qty,
        price=price,
        market=order.market,
        kind=order.order_kind,
        number=order.order_no or "-",
        status=order.get_status_display(),
    )


class TradeCommand(BaseCommand):
    """`buy` and `sell`, but for their side."""

    side: Side
    strategies: tuple[str, ...]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("code", help=_("stock code, six digits"))
        parser.add_argument("qty", type=shares, help=_("number of shares"))
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--strategy", choices=self.strategies, default="", help=_("how the price is chosen"))
        how.add_argument("--price", type=won, help=_("limit price in won; such an order is not chased"))
        how.add_argument("--at-market", action="store_true", help=_("at market; on NXT at the best opposite quote"))
        parser.add_argument("--market", type=Market, choices=list(Market), help=_("venue; by default the hour decides"))
        parser.add_argument("--request-id", help=_("the same id again returns the same order"))
        parser.add_argument("--dry-run", action="store_true", help=_("judge and price it, but send nothing"))

    def handle(self, **options: Any) -> None:
        strategy = options["strategy"]
        if not strategy and options["price"] is None and not options["at_market"]:
            strategy = self.strategies[0]
        intent = Intent(
            code=options["code"],
            side=self.side,
            qty=options["qty"],
            strategy=strategy,
            price=options["price"],
            market=options["market"],
            **({"request_id": options["request_id"]} if options["request_id"] else {}),
        )
        try:
            if options["dry_run"]:
                self.stdout.write(self._told(service().draft(intent)))
                return
            order = service().place(intent)
        except OrderDenied as denied:
            words = "\n".join(f"  - {guards.say(reason)}" for reason in denied.reasons)
            raise CommandError(_("not ordered:") + "\n" + words) from denied
        except BrokerError as error:
            raise CommandError(_("not ordered, the broker could not be asked: {error}").format(error=error)) from error
        self._report(order)

    def _told(self, draft: Draft) -> str:
        request = draft.request
        return _("would {side} {qty:,} shares of {name} at {price} ({market} {kind}); last price {last:,} won").format(
            side=_("buy") if request.side is Side.BUY else _("sell"),
            qty=request.qty,
            name=draft.stock.name,
            price=f"{request.price:,}" if OrderKind(request.kind).is_priced else _("market price"),
            market=request.market,
            kind=request.kind.value,
            last=draft.quote.price,
        )

    def _report(self, order: TradeOrder) -> None:
        line = describe(order)
        if order.state is Status.REJECTED:
            raise CommandError(_("refused: {line}: {why}").format(line=line, why=order.refusal))
        if order.state is Status.UNKNOWN:
            sentence = _("outcome unknown, it is being looked up; do not order again: {line}")
            raise CommandError(sentence.format(line=line), returncode=UNKNOWN_OUTCOME)
        self.stdout.write(_("ordered: {line}").format(line=line))
