import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.lifecycle import UNANSWERED
from aegis.requests import RequestedBy
from orders import risk, serializers
from orders.management.changing import after_cancel, cancel_deferred
from orders.management.console import CommandOutput, DeskCommand, Failure, describe_order, find_order, service, who


class Command(DeskCommand):
    help = _("Cancel what is left of an order.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("number", help=_("the broker's order number of today, or # and our own: #12"))
        parser.add_argument("--dry-run", action="store_true", help=_("show what would be cancelled, and send nothing"))
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        order = find_order(options["number"])
        line, shape = describe_order(order), {"order": serializers.order(order)}
        if order.is_done and order.chase_at is not None and not options["dry_run"]:
            service().end_chase(order, _("cancelled by {name}").format(name=who()))
            lines = [_("it is not re-ordered: {line}").format(line=line)]
            return CommandOutput({"dry_run": False, "order": serializers.order(order)}, lines)
        if order.is_done:
            raise Failure("NOT_OPEN", _("nothing is left to cancel: {line}").format(line=line), shape=shape)
        if options["dry_run"]:
            return CommandOutput({"dry_run": True, **shape}, [_("would cancel: {line}").format(line=line)])
        try:
            service().cancel(order, by=RequestedBy.OPERATOR, who=who())
        except BrokerError as error:
            message = _("not cancelled: {error}").format(error=risk.error_text(error))
            raise Failure("NOT_CANCELLED", message, shape={"broker_code": error.code, **shape}) from error
        if order.state in UNANSWERED:
            return CommandOutput(
                {"dry_run": False, "order": serializers.order(order)}, [cancel_deferred(describe_order(order))]
            )
        lines = [_("cancel sent: {line}").format(line=describe_order(order)), after_cancel(order)]
        return CommandOutput({"dry_run": False, "order": serializers.order(order)}, lines)
