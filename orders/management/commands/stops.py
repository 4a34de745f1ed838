import argparse
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from aegis.stops import StopKind
from infra import clock
from kis.factory import broker
from orders import serializers, stop_polling, stops
from orders.management.console import WRONG_USAGE, CommandOutput, DeskCommand, Failure, short, stock_code, who
from orders.management.thresholds import threshold
from orders.models import StopRule
from orders.stop_rows import LIVE


class Command(DeskCommand):
    help = _("List the stops; or arm one on a holding, or disarm one.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("code", nargs="?", help=_("the stock to guard"))
        group = parser.add_mutually_exclusive_group()
        format_help = _("65000 (won), 5%% (of the average price) or 2atr (true ranges)")
        group.add_argument("--loss", metavar="AT", help=_("arm a stop loss: at {at}").format(at=format_help))
        group.add_argument("--profit", metavar="AT", help=_("arm a take profit: the same"))
        group.add_argument("--trailing", metavar="AT", help=_("arm a trailing stop: this far below the highest price"))
        group.add_argument(
            "--disarm", metavar="N", type=int, help=_("disarm stop N; the order that it has is cancelled")
        )
        group.add_argument(
            "--rearm", metavar="N", type=int, help=_("arm stop N again after an external change of its order")
        )
        parser.add_argument("--shares", metavar="Q", type=int, help=_("guard Q shares instead of the whole holding"))
        parser.add_argument(
            "--sources", metavar="VENUES", help=_("the venues that may trigger it: KRX, NXT or KRX,NXT")
        )
        immediate_help = _("arm it even if it triggers at once at the current price")
        parser.add_argument("--confirm-immediate", action="store_true", help=immediate_help)
        parser.add_argument("--all", action="store_true", help=_("list ended stops too"))
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        texts_by_kind = {
            StopKind.STOP_LOSS: options["loss"],
            StopKind.TAKE_PROFIT: options["profit"],
            StopKind.TRAILING: options["trailing"],
        }
        thresholds = [(kind, text) for kind, text in texts_by_kind.items() if text is not None]
        if bool(thresholds) != (options["code"] is not None):
            message = _("to arm a stop, name the stock and one of --loss, --profit and --trailing")
            raise Failure("USAGE", message, exit_code=WRONG_USAGE)
        try:
            if thresholds:
                stop_options = {
                    "quantity": options["shares"],
                    "sources": options["sources"] or "",
                    "may_trigger_now": options["confirm_immediate"],
                }
                return _arm(options["code"], *thresholds[0], **stop_options)
            if options["disarm"] is not None:
                return _disarm(options["disarm"])
            if options["rearm"] is not None:
                return _rearm(options["rearm"], may_trigger_now=options["confirm_immediate"])
        except ValidationError as error:
            raise Failure("NOT_DONE", " ".join(error.messages)) from error
        return _list(is_all=options["all"])


def _arm(code: str, kind: StopKind, text: str, **choices: Any) -> CommandOutput:
    try:
        unit, value = threshold(text)
    except argparse.ArgumentTypeError as error:
        raise Failure("USAGE", str(error), exit_code=WRONG_USAGE) from error
    code = stock_code(code)
    quote = stop_polling.quote_before(code, choices["sources"], broker(), clock.now)
    row = stops.arm(code, kind, unit, value, by=who(), at=clock.now(), quote=quote, **choices)
    return CommandOutput({"stop": serializers.stop_rule(row)}, [_("armed: {line}").format(line=_line(row))])


def _disarm(pk: int) -> CommandOutput:
    row = _find_stop(pk)
    stops.disarm(row, why=who(), at=clock.now())
    row.refresh_from_db()
    return CommandOutput({"stop": serializers.stop_rule(row)}, [_("disarmed: {line}").format(line=_line(row))])


def _rearm(pk: int, *, may_trigger_now: bool) -> CommandOutput:
    row = _find_stop(pk)
    quote = stop_polling.quote_before(row.stock_code, row.sources, broker(), clock.now)
    stops.rearm(row, by=who(), at=clock.now(), may_trigger_now=may_trigger_now, quote=quote)
    row.refresh_from_db()
    return CommandOutput({"stop": serializers.stop_rule(row)}, [_("armed: {line}").format(line=_line(row))])


def _find_stop(pk: int) -> StopRule:
    row = StopRule.objects.filter(pk=pk).first()
    if row is None:
        raise Failure("NO_STOP", _("there is no stop {number}: `stops` lists them").format(number=pk))
    return row


def _list(*, is_all: bool) -> CommandOutput:
    rows = StopRule.objects.all() if is_all else StopRule.objects.filter(state__in=LIVE)
    lines = [_line(row) for row in rows] or [_("no stop is armed")]
    return CommandOutput({"stops": [serializers.stop_rule(row) for row in rows]}, lines)


def _line(row: StopRule) -> str:
    template = _("#{number} {name} ({code}) {kind} at {limit:,} won ({value} {unit}): {state} since {at}")
    line = template.format(
        number=row.pk,
        name=row.stock_name,
        code=row.stock_code,
        kind=row.get_kind_display(),
        # a triggered stop shows the price that triggered it: without shares it has no limit any more
        limit=row.trigger_price if row.triggered_at else stops.current_limit(row),
        value=f"{row.value.normalize():f}",
        unit=row.get_unit_display(),
        state=row.get_state_display(),
        at=short(row.state_at),
    )
    return f"{line}; {row.note}" if row.note else line
