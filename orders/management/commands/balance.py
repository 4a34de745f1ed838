import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from kis import clock
from kis.wiring import broker
from portfolio.fetcher import KISFetcher
from portfolio.service import PortfolioService


class Command(BaseCommand):
    help = _("Show cash and holdings as last seen.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sync", action="store_true", help=_("ask the broker first"))

    def handle(self, **options: Any) -> None:
        if options["sync"]:
            try:
                KISFetcher(broker(), clock.now).sync_portfolio()
            except BrokerError as error:
                raise CommandError(_("the balance could not be asked: {error}").format(error=error)) from error
        service = PortfolioService()
        snapshot = service.get_snapshot()
        if snapshot is None:
            raise CommandError(_("no balance yet: try again with --sync"))
        self.stdout.write(
            _("total {total:,} won, deposit {deposit:,} (D+2 {d2:,}), today {profit:+,}, as of {at}").format(
                total=snapshot.total_asset,
                deposit=snapshot.deposit,
                d2=snapshot.deposit_d2,
                profit=snapshot.net_profit_today,
                at=f"{snapshot.timestamp.astimezone():%m-%d %H:%M:%S}",
            )
        )
        for holding in service.get_portfolio():
            self.stdout.write(
                _("{name} ({code}) {qty:,} shares, average {average:,}, now {price:,}, {rate:+}%").format(
                    name=holding.stock_name,
                    code=holding.stock_code,
                    qty=holding.quantity,
                    average=holding.avg_price,
                    price=holding.current_price,
                    rate=holding.profit_rate,
                )
            )
