"""`buy` and `sell`: the arguments of an order, with errors that show a valid form."""

import argparse
import re
from dataclasses import replace
from typing import Any

from django.utils.translation import gettext as _

from aegis.chase import Plan
from aegis.codes import plain, without_commas
from aegis.lifecycle import Status
from aegis.stops import StopKind
from aegis.terms import Market, OrderKind, Side
from orders import risk, serializers
from orders.intents import MAX_TICK_OFFSET, STRATEGY_ID_LENGTH
from orders.management.console import (
    OUTCOME_UNKNOWN,
    WRONG_USAGE,
    CommandOutput,
    DeskCommand,
    Failure,
    add_confirmation,
    confirm,
    describe_order,
    service,
    stock_code,
)
from orders.management.thresholds import threshold
from orders.models import REQUEST_ID_LENGTH, TradeOrder
from orders.service import NO_CHASE, EntryStop, OrderIntent, PricedOrder, default_plan


def shares(text: str) -> int:
    """Read a quantity of shares from the command line."""
    return whole(text, _("quantity {text} is not a whole number of shares above zero: write it as 10"))


def parse_won(text: str) -> int:
    """Read a price in won from the command line; commas are allowed."""
    return whole(text, _("price {text} is not a whole number of won above zero: write it as 52000"))


def ticks(text: str) -> int:
    return whole(text, _("step {text} is not a whole number of ticks above zero: write it as 1"))


def retries(text: str) -> int:
    return whole(text, _("retries {text} is not a whole number, 0 or more: write it as 3"), least=0)


def offset(text: str) -> int:
    """Read an offset in ticks from the command line; a negative one is cheaper."""
    number = plain(text).replace("\u2212", "-")  # the typographic minus sign
    if not re.fullmatch(r"[+-]?[0-9]{1,4}", number) or abs(int(number)) > MAX_TICK_OFFSET:
        template = _("offset {text} is not a whole number of ticks from -{most} to {most}: write it as -3")
        raise argparse.ArgumentTypeError(template.format(text=repr(text), most=MAX_TICK_OFFSET))
    return int(number)


def strategy_id(text: str) -> str:
    """Read a strategy id from the command line: the caller's own text."""
    name = plain(text)
    if not 0 < len(name) <= STRATEGY_ID_LENGTH or not name.isprintable():
        template = _("strategy id {text} is not 1 to {most} printable letters: write it as my-strategy")
        raise argparse.ArgumentTypeError(template.format(text=repr(text), most=STRATEGY_ID_LENGTH))
    return name


def whole(text: str, sentence: str, least: int = 1) -> int:
    """Read a whole number of at least `least`; `sentence` is the error message, with {text}."""
    digits = without_commas(plain(text))
    if not digits.isascii() or not digits.isdigit() or len(digits) > 12 or int(digits) < least:
        raise argparse.ArgumentTypeError(sentence.format(text=repr(text)))
    return int(digits)


def seconds(text: str) -> float:
    number = plain(text)
    digits = number.replace(".", "", 1)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 6 or float(number) <= 0:
        template = _("wait {text} is not a number of seconds above zero: write it as 30")
        raise argparse.ArgumentTypeError(template.format(text=repr(text)))
    return float(number)


def venue(text: str) -> Market:
    try:
        return Market(plain(text).upper())
    except ValueError:
        message = _("market {text} is no venue: use one of {known}").format(text=repr(text), known=", ".join(Market))
        raise argparse.ArgumentTypeError(message) from None


def kind(text: str) -> OrderKind:
    """Read an order kind (주문구분) by its code, as 11, or by its name, as limit_ioc."""
    kinds_by_text = {member.value: member for member in OrderKind} | {member.name: member for member in OrderKind}
    if (name := plain(text).upper()) in kinds_by_text:
        return kinds_by_text[name]
    names = ", ".join(f"{member.value} {member.name.lower()}" for member in OrderKind)
    message = _("kind {text} is no order code: use one of {known}").format(text=repr(text), known=names)
    raise argparse.ArgumentTypeError(message)


def request_id(text: str) -> str:
    if not 0 < len(text) <= REQUEST_ID_LENGTH or not text.isprintable() or text != text.strip():
        template = _("request id {text} is not 1 to {most} letters without spaces at its ends")
        raise argparse.ArgumentTypeError(template.format(text=repr(text), most=REQUEST_ID_LENGTH))
    if text.startswith(TradeOrder.OWN_IDS):
        template = _("request id {text} begins as AEGIS's own do ({own}): begin it otherwise")
        raise argparse.ArgumentTypeError(template.format(text=repr(text), own=", ".join(TradeOrder.OWN_IDS)))
    return text


class TradeCommand(DeskCommand):
    """The common part of `buy` and `sell`; subclasses set the side and the pricing styles."""

    side: Side
    strategies: tuple[str, ...]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("code", help=_("stock code, as 005930, or the stock's whole name"))
        parser.add_argument("qty", type=shares, help=_("number of shares"))
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--strategy", choices=self.strategies, default="", help=_("how the price is chosen"))
        group.add_argument(
            "--price", type=parse_won, help=_("limit price in won; such an order is not chased unless asked to")
        )
        group.add_argument("--at-market", action="store_true", help=_("at market; on NXT at the best opposite quote"))
        parser.add_argument(
            "--offset",
            type=offset,
            metavar="TICKS",
            help=_("ticks from what --strategy counts from, in place of its own; -3 is three ticks cheaper"),
        )
        parser.add_argument(
            "--strategy-id", type=strategy_id, metavar="TEXT", help=_("who wants it: a text of your own")
        )
        parser.add_argument("--market", type=venue, metavar="VENUE", help=_("venue; by default the hour decides"))
        parser.add_argument(
            "--kind", type=kind, metavar="CODE", help=_("order code, as 11 or limit_ioc; by default the hour decides")
        )
        parser.add_argument(
            "--trigger", type=parse_won, default=0, metavar="WON", help=_("trigger price of a stop-limit order")
        )
        if self.side is Side.BUY:
            stop = parser.add_argument_group(_("stops that each fill arms, for the shares filled"))
            format_help = _("65000 (won), 5%% (of the average price) or 2atr (true ranges)")
            stop.add_argument(
                "--stop-loss", type=threshold, metavar="AT", help=_("a stop loss: at {at}").format(at=format_help)
            )
            stop.add_argument("--take-profit", type=threshold, metavar="AT", help=_("a take profit: the same"))
            stop.add_argument("--trailing", type=threshold, metavar="AT", help=_("a trailing stop: the same"))
        chase = parser.add_argument_group(_("the chase of the unfilled shares; by default by the settings"))
        chase.add_argument("--wait", type=seconds, metavar="SECONDS", help=_("seconds before each step"))
        chase.add_argument("--retries", type=retries, metavar="N", help=_("maximum number of re-orders"))
        chase.add_argument("--step", type=ticks, metavar="TICKS", help=_("ticks closer with each re-order"))
        chase.add_argument("--no-market", action="store_true", help=_("do not end with a market order"))
        chase.add_argument("--no-chase", action="store_true", help=_("leave it where it rests"))
        parser.add_argument("--request-id", type=request_id, help=_("the same id again returns the same order"))
        parser.add_argument("--dry-run", action="store_true", help=_("judge and price it, but send nothing"))
        add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        intent = self._intent(options)
        if options["dry_run"]:
            draft = service().draft(intent)
            lines = [_preview_line(draft), *([risk.denial_text(draft.changed)] if draft.changed else [])]
            return CommandOutput({"dry_run": True, "draft": serializers.priced_order(draft)}, lines)
        confirm(self.name, yes=options["yes"], about=lambda: _preview_line(service().draft(intent)))
        return _result(service().place(intent))

    def _intent(self, options: dict[str, Any]) -> OrderIntent:
        strategy = options["strategy"]
        names_no_price = options["at_market"] or (options["kind"] and not options["kind"].is_priced)
        if options["offset"] is not None and (options["price"] is not None or names_no_price):
            message = _(
                "--offset counts from what --strategy names: give it without --price, --at-market or such a --kind"
            )
            raise Failure("USAGE", message, exit_code=WRONG_USAGE)
        if not strategy and options["price"] is None and not names_no_price:
            strategy = self.strategies[0]
        return OrderIntent(
            code=stock_code(options["code"]),
            side=self.side,
            qty=options["qty"],
            strategy=strategy,
            price=options["price"],
            market=options["market"],
            plan=_plan(options),
            kind=options["kind"],
            trigger=options["trigger"],
            strategy_id=options["strategy_id"] or "",
            tick_offset=options["offset"],
            stops=_stops(options),
            **({"request_id": options["request_id"]} if options["request_id"] else {}),
        )


def _stops(options: dict[str, Any]) -> tuple[EntryStop, ...]:
    thresholds = {
        StopKind.STOP_LOSS: options.get("stop_loss"),
        StopKind.TAKE_PROFIT: options.get("take_profit"),
        StopKind.TRAILING: options.get("trailing"),
    }
    try:
        return tuple(EntryStop(kind, *threshold) for kind, threshold in thresholds.items() if threshold is not None)
    except ValueError as error:
        raise Failure("USAGE", str(error), exit_code=WRONG_USAGE) from error


def _plan(options: dict[str, Any]) -> Plan | None:
    """Return the order's own chase plan, None if the settings decide."""
    fields = {"wait_seconds": options["wait"], "max_retries": options["retries"], "step_ticks": options["step"]}
    changes = {name: value for name, value in fields.items() if value is not None}
    if options["no_market"]:
        changes["market_after"] = False
    if options["no_chase"] and changes:
        message = _("--no-chase leaves nothing to chase: give it without --wait, --retries, --step and --no-market")
        raise Failure("USAGE", message, exit_code=WRONG_USAGE)
    if options["no_chase"]:
        return NO_CHASE
    return replace(default_plan(), **changes) if changes else None


def _preview_line(draft: PricedOrder) -> str:
    request = draft.request
    return _("would {side} {qty:,} shares of {name} at {price} ({market} {kind}); last price {last:,} won").format(
        side=_("buy") if request.side is Side.BUY else _("sell"),
        qty=request.qty,
        name=draft.stock.name,
        price=f"{request.price:,}" if request.kind.is_priced else _("market price"),
        market=request.market,
        kind=request.kind.value,
        last=draft.quote.price,
    )


def _result(order: TradeOrder) -> CommandOutput:
    line, shape = describe_order(order), {"order": serializers.order(order)}
    if order.state is Status.REJECTED:
        raise Failure("REFUSED", _("refused: {line}: {why}").format(line=line, why=order.refusal), shape=shape)
    if order.state is Status.UNKNOWN:
        message = _("outcome unknown, it is being looked up; do not order again: {line}").format(line=line)
        raise Failure("UNKNOWN", message, exit_code=OUTCOME_UNKNOWN, shape=shape)
    return CommandOutput({"dry_run": False, **shape}, [_("ordered: {line}").format(line=line)])
