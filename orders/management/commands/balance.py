import argparse
from typing import Any

from django.utils.translation import gettext as _

from infra import clock
from kis.factory import broker
from orders import serializers
from orders.management.console import CommandOutput, DeskCommand, Failure, short
from portfolio.fetcher import KISFetcher
from portfolio.models import AccountSnapshot, Portfolio
from portfolio.service import PortfolioService


class Command(DeskCommand):
    help = _("Show cash and holdings as last seen.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sync", action="store_true", help=_("ask the broker first"))
        super().add_arguments(parser)

    def tell(self, **options: Any) -> CommandOutput:
        if options["sync"]:
            KISFetcher(broker(), clock.now).sync_portfolio()
        service = PortfolioService()
        snapshot = service.get_snapshot()
        if snapshot is None:
            raise Failure("NO_BALANCE", _("no balance yet: try again with --sync"))
        holdings = list(service.get_portfolio())
        shape = {
            "account": serializers.account(snapshot),
            "holdings": [serializers.holding(holding) for holding in holdings],
        }
        return CommandOutput(shape, [_account(snapshot), *(_holding(holding) for holding in holdings)])


def _account(snapshot: AccountSnapshot) -> str:
    return _("total {total:,} won, deposit {deposit:,} (D+2 {d2:,}), today {profit:+,}, as of {at}").format(
        total=snapshot.total_asset,
        deposit=snapshot.deposit,
        d2=snapshot.deposit_d2,
        profit=snapshot.net_profit_today,
        at=short(snapshot.timestamp),
    )


def _holding(holding: Portfolio) -> str:
    return _("{name} ({code}) {qty:,} shares, average {average:,}, now {price:,}, {rate:+}%").format(
        name=holding.stock_name,
        code=holding.stock_code,
        qty=holding.quantity,
        average=holding.avg_price,
        price=holding.current_price,
        rate=holding.profit_rate,
    )
