"""The base of the commands: output and errors as one JSON object or as lines, exit codes, confirmation.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the outcome is not known yet. docs/commands.md documents the
JSON as stable.
"""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Never, TypeVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Model, QuerySet
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.codes import NotACode, plain
from aegis.sessions import KST
from infra import clock
from kis.environment import EnvironmentName
from kis.factory import broker
from kis.rest_values import order_number
from market.codes import ManyStocks, explain, resolve
from orders import risk, serializers
from orders.models import TradeOrder
from orders.service import OrderDenied, OrderService

Row = TypeVar("Row", bound=Model)

DONE, FAILED, WRONG_USAGE, OUTCOME_UNKNOWN = range(4)


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """The output of a command: a shape for programs, lines for the operator."""

    shape: Mapping[str, Any]
    lines: Sequence[str]


@dataclass
class Failure(Exception):
    """A command failed. `code` is stable, `message` is for the operator, and `shape` adds fields to the JSON."""

    code: str
    message: str
    exit_code: int = FAILED
    shape: Mapping[str, Any] = field(default_factory=dict)


class DeskCommand(BaseCommand):
    """A command of the desk: `tell` does the work, and this class prints its output or its error."""

    def tell(self, **options: Any) -> CommandOutput:
        """Run the command and return its output. May raise Failure, OrderDenied and BrokerError."""
        raise NotImplementedError

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help=_("print one JSON object, errors too"))

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        report_error: Callable[[str], Never] = parser.error

        def error(message: str) -> Never:
            if self._wants_json:
                self._print(subcommand, WRONG_USAGE, {"error": {"code": "USAGE", "message": message}})
                raise SystemExit(WRONG_USAGE)
            report_error(message)

        parser.error = error  # type: ignore[method-assign] # only this parser reports errors like this
        return parser

    _wants_json = False

    def run_from_argv(self, argv: list[str]) -> None:
        # a usage error must be JSON too, and it occurs before the options are parsed
        self._wants_json = "--json" in argv
        super().run_from_argv(argv)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            output = self._run(options)
        except Failure as failure:
            if not options["json"]:
                raise CommandError(failure.message, returncode=failure.exit_code) from failure
            error = {"code": failure.code, "message": failure.message}
            self._print(self.name, failure.exit_code, {"error": error, **failure.shape})
            raise SystemExit(failure.exit_code) from failure
        if options["json"]:
            self._print(self.name, DONE, output.shape)
        else:
            for line in output.lines:
                self.stdout.write(line)

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    def _run(self, options: dict[str, Any]) -> CommandOutput:
        try:
            return self.tell(**options)
        except OrderDenied as error:
            lines = "\n".join(f"  - {risk.denial_text(reason)}" for reason in error.reasons)
            reasons = [serializers.reason(reason) for reason in error.reasons]
            raise Failure("DENIED", _("not ordered:") + "\n" + lines, shape={"reasons": reasons}) from error
        except BrokerError as error:
            message = _("the broker could not be asked: {error}").format(error=risk.error_text(error))
            raise Failure("BROKER", message, shape={"broker_code": error.code}) from error

    def _print(self, name: str, exit_code: int, shape: Mapping[str, Any]) -> None:
        payload = {"command": name, "ok": exit_code == DONE, "exit_code": exit_code, **shape}
        self.stdout.write(json.dumps(payload, ensure_ascii=False))


def who() -> str:
    """Return the operator's user name on this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def service() -> OrderService:
    return OrderService(broker(), clock.now)


def add_confirmation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help=_("ask for no confirmation on the live broker"))


def confirm(word: str, *, yes: bool, about: Callable[[], str]) -> None:
    """On live trading, require the operator to type `word`. Raises Failure if they do not, or without a terminal.

    `about` returns the text that is shown before. `yes` skips the confirmation.
    """
    if settings.KIS_ENVIRONMENT.name is not EnvironmentName.LIVE or yes:
        return
    if not sys.stdin.isatty():
        raise Failure(
            "UNCONFIRMED",
            _("this is real money, and there is no terminal to confirm it: add --yes"),
            exit_code=WRONG_USAGE,
        )
    sys.stderr.write(about() + "\n" + _("real money: type {word} to go on: ").format(word=word))
    sys.stderr.flush()
    if sys.stdin.readline().strip() != word:
        raise Failure("UNCONFIRMED", _("not confirmed: nothing was done"))


def stock_code(text: str) -> str:
    """Return the code of the stock that the operator named, by code or by full name. Raises Failure."""
    try:
        return resolve(text)
    except (NotACode, ManyStocks) as error:
        raise Failure("USAGE", explain(error), exit_code=WRONG_USAGE) from error


def find_order(number: str) -> TradeOrder:
    """Return an order by the broker's number of today, or by # and our own number: #12. Raises Failure."""
    number = plain(number)
    if number.startswith("#") and number.isascii() and number[1:].isdecimal():
        rows = list(TradeOrder.objects.filter(pk=int(number[1:])))
    elif number.isascii() and number.isdecimal() and len(number) <= 10:
        today = clock.now().astimezone(KST).date()
        rows = list(TradeOrder.objects.filter(order_date=today, order_no=order_number(number)).order_by("id"))
    else:
        template = _("order {number} is no number: write the broker's of today as 12, or our own as #12")
        raise Failure("USAGE", template.format(number=repr(number)), exit_code=WRONG_USAGE)
    if not rows:
        raise Failure("NO_ORDER", _("there is no order {number}: `orders` lists them").format(number=number))
    if len(rows) > 1:
        # each branch has its own numbers
        template = _("{number} is the number of several orders today ({orders}): write our own")
        orders = ", ".join(f"#{row.pk}" for row in rows)
        raise Failure("USAGE", template.format(number=number, orders=orders), exit_code=WRONG_USAGE)
    return rows[0]


def describe_order(order: TradeOrder) -> str:
    """Return the description of an order, in one line."""
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


def strategy_suffix(order: TradeOrder) -> str:
    """Return an order's strategy id as the end of a line, empty if it has none."""
    return _(", for {strategy_id}").format(strategy_id=order.strategy_id) if order.strategy_id else ""


def short(at: datetime) -> str:
    return f"{at.astimezone(KST):%m-%d %H:%M:%S}"


def add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--code", help=_("only of this stock"))
    parser.add_argument("--strategy-id", metavar="TEXT", help=_("only of this strategy"))
    parser.add_argument("--day", type=_day, metavar="YYYY-MM-DD", help=_("only of this day"))
    parser.add_argument("--most", type=int, default=20, help=_("how many lines (20)"))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        message = _("day {text} is no date: write it as 2026-11-23").format(text=repr(text))
        raise argparse.ArgumentTypeError(message) from None


def filtered(rows: QuerySet[Row], options: Mapping[str, Any], *, day: str, strategy_id: str) -> list[Row]:
    """Return the rows that match the options of `add_filters`; `day` and `strategy_id` name the columns."""
    if options["code"] is not None:
        rows = rows.filter(stock_code=stock_code(options["code"]))
    if options["strategy_id"] is not None:
        rows = rows.filter(**{strategy_id: plain(options["strategy_id"])})
    if options["day"]:
        rows = rows.filter(**{day: options["day"]})
    return list(rows[: max(1, options["most"])])
