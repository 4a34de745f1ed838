"""`manage.py sync_stocks`: the stock master from the broker's list of every stock, now instead of tomorrow at seven."""

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
    help = _("Bring the stock master in step with the broker's list of every stock. Each morning this is done anyway.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = reference_data.sync_listings(broker(), now=clock.now())
        except BrokerError as error:
            words = _(
                "the list of stocks could not be taken over, and nothing was changed: {error}. Try it again later"
            )
            raise CommandError(words.format(error=error)) from error
        boards = Stock.objects.exclude(listed_on=None).values_list("board").annotate(Count("pk")).order_by("board")
        told = ", ".join(f"{board} {stocks:,}" for board, stocks in boards)
        self.stdout.write(_("{count:,} stocks are listed ({boards})").format(count=count, boards=told))
