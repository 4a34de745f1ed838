"""`manage.py sync_stocks`: updates the stock master from the broker's list of all stocks now, not tomorrow at 07:00."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from infra import clock
from kis.factory import broker
from market import reference_data
from market.models import Stock


class Command(BaseCommand):
    help = _("Update the stock master from the broker's list of all stocks. AEGIS also does this every morning.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = reference_data.sync_listings(broker(), now=clock.now())
        except BrokerError as error:
            template = _("the list of stocks could not be read, and nothing was changed: {error}. Try again later")
            raise CommandError(template.format(error=error)) from error
        boards = Stock.objects.exclude(listed_on=None).values_list("board").annotate(Count("pk")).order_by("board")
        counts = ", ".join(f"{board} {stocks:,}" for board, stocks in boards)
        self.stdout.write(_("{count:,} stocks are listed ({boards})").format(count=count, boards=counts))
