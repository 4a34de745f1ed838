import argparse
from typing import Any

from django.utils.translation import gettext as _

from aegis.execution_quality import Savings
from infra import clock
from orders import execution_quality, serializers
from orders.management.console import CommandOutput, DeskCommand
from orders.management.trading import whole


class Command(DeskCommand):
    help = _("What orders cost against the arrival price, and against a market order at that time.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        template = _("days {text} is not a whole number above zero: write it as 30")
        parser.add_argument(
            "--days", type=lambda text: whole(text, template), default=1, help=_("how many days back (1)")
        )
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        report = execution_quality.report(clock.now(), days=options["days"])
        shape = {
            "since": report.since.isoformat(),
            "trading_days": report.trading_days,
            "families": [serializers.family(line) for line in report.lines],
            "savings": [serializers.savings(line) for line in report.savings],
            "total": serializers.savings(report.total),
        }
        return CommandOutput(shape, _lines(report))


def _lines(report: execution_quality.QualityReport) -> list[str]:
    if not report.lines:
        return [_("nothing was ordered since {since}").format(since=report.since)]
    head = _(
        "against arrival and against a market order then; plus is money lost, ~ a market price guessed at one tick"
    )
    return [
        head,
        *(_family(line) for line in report.lines),
        "",
        _("savings by strategy"),
        *(_savings(line) for line in [*report.savings, report.total]),
    ]


def _family(line: execution_quality.QualityLine) -> str:
    root, family, quality = line.root, line.family, line.quality
    head = f"#{root.pk} {root.order_date} {root.stock_name} {root.get_order_type_display()} {family.style}"
    if quality is None:
        return _("{start}: {qty:,} asked, nothing filled").format(start=head, qty=family.asked_qty)
    arrival, market = quality.against_arrival, quality.against_market
    template = _(
        "{start}: {filled:,} of {qty:,} at {average:,.2f}, {ticks:+} ticks {won:+,} won {bp:+}bp; "
        "market{guess}{price:,.2f} {market_ticks:+} ticks {market_won:+,} won {market_bp:+}bp; fees {fees:,}"
    )
    return template.format(
        start=head,
        filled=family.filled_qty,
        qty=family.asked_qty,
        average=quality.average,
        ticks=arrival.ticks,
        won=arrival.won,
        bp=arrival.bp,
        guess="~" if quality.is_estimated else " ",
        price=quality.market_price,
        market_ticks=market.ticks,
        market_won=market.won,
        market_bp=market.bp,
        fees=family.fees + family.tax,
    )


def _savings(line: Savings) -> str:
    template = _(
        "{style}: {families} orders, filled {filled}%, {arrival:+}% against arrival, {market:+}% against market "
        "({estimated} guessed), {saved:+,} won saved; "
        "a year of 4 x 1,000,000 won a day: {usual:+,}, of such days: {own:+,}"
    )
    return template.format(
        style=line.style or _("all"),
        families=line.families,
        filled=line.fill_pct,
        arrival=line.arrival_pct,
        market=line.market_pct,
        estimated=line.estimated,
        saved=line.saved_won,
        usual=line.yearly_usual_won,
        own=line.yearly_own_won,
    )
