import argparse
from typing import Any

from django.utils.translation import gettext as _

from orders import serializers
from orders.management.changing import OrderChange, amend, describe_change, preview
from orders.management.console import (
    FAILED,
    OUTCOME_UNKNOWN,
    WRONG_USAGE,
    CommandOutput,
    DeskCommand,
    Failure,
    add_confirmation,
    confirm,
    find_order,
    who,
)
from orders.management.trading import parse_won, shares


class Command(DeskCommand):
    help = _("Amend an open order: move it to another price, in whole or in part, or reduce it.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("number", help=_("the broker's order number of today, or # and our own: #12"))
        parser.add_argument("--price", type=parse_won, help=_("new price in won; its chase ends"))
        parser.add_argument(
            "--qty", type=shares, help=_("with --price: how many shares move; alone: how many stay open")
        )
        parser.add_argument("--dry-run", action="store_true", help=_("judge it, but send nothing"))
        add_confirmation(parser)
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        change = OrderChange(options["price"], options["qty"])
        if change == OrderChange():
            message = _("name a new --price, or with --qty how many shares it is about, or both")
            raise Failure("USAGE", message, exit_code=WRONG_USAGE)
        order = find_order(options["number"])
        if options["dry_run"]:
            draft = preview(order, change)
            shape = {"order": serializers.order(order), "draft": serializers.priced_order(draft) if draft else None}
            return CommandOutput(
                {"dry_run": True, **shape}, [_("would amend {change}").format(change=describe_change(order, change))]
            )
        confirm(self.name, yes=options["yes"], about=lambda: describe_change(order, change))
        result = amend(order, change, who=who())
        order.refresh_from_db()
        amended = result.row if result.row and result.row.pk != order.pk else None
        shape = {"order": serializers.order(order), "amended": serializers.order(amended) if amended else None}
        if result.is_done:
            return CommandOutput({"dry_run": False, **shape}, [result.text])
        exit_code = OUTCOME_UNKNOWN if result.code == "UNKNOWN" else FAILED
        raise Failure(
            result.code,
            result.text,
            exit_code=exit_code,
            shape={**shape, "broker_code": result.broker_code},
        )
