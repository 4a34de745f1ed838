"""Periodic synchronisation with the broker. The tables decide what is due, so a missed run is made up by the next."""

from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import Q

from aegis.broker import Broker
from aegis.sessions import KST
from market import queries, reference_data
from orders import daily_loss
from orders.models import RawNotice, TradeExecution, TradeOrder
from orders.reconcile import ASKED_FOR, reconcile
from portfolio.fetcher import KISFetcher
from portfolio.service import PortfolioService

RECENT = timedelta(days=7)
NOTICE_PATIENCE = timedelta(minutes=10)
# a balance row is written up to this long after the broker was asked
BALANCE_OVERLAP = timedelta(seconds=2)


def begin(broker: Broker, now: Callable[[], datetime]) -> None:
    """Read the trading calendar, the balance and the order list."""
    reference_data.sync_calendar_of_the_day(broker, now=now())
    KISFetcher(broker, now).sync_portfolio()
    reconcile(broker, now)


def is_reconciliation_due(now: datetime) -> bool:
    """Whether an order waits for its confirmation, or a recent fill notice is not settled yet.

    A notice counts for `NOTICE_PATIENCE` only; after that the reconciliation of each minute is enough. The notice of an
    order that no list shows, or only an unparsed line shows, would otherwise cause requests for ever.
    """
    is_unsettled = Q(state=RawNotice.State.WAITING) | Q(state=RawNotice.State.DOUBTFUL)
    notices = RawNotice.objects.filter(is_unsettled, received_at__gte=now - NOTICE_PATIENCE)
    orders = TradeOrder.objects.filter(
        Q(lookup_at__isnull=True) | Q(lookup_at__lte=now),
        needs_reconciliation=True,
        order_date__gte=now.astimezone(KST).date() - ASKED_FOR,
    )
    return orders.exists() or notices.exists()


def sync_balance(broker: Broker, now: Callable[[], datetime], *, while_open: bool) -> None:
    """Take over the balance, if whether any market is open equals `while_open` (spec §0.4).

    While a market is open, also fetch the base prices of the holdings once a day, for the daily loss.
    """
    if queries.is_any_market_open(now()) is while_open:
        KISFetcher(broker, now).sync_portfolio()
        if while_open:
            daily_loss.sync_base_prices(broker, now)


def sync_after_fills(broker: Broker, now: Callable[[], datetime]) -> None:
    """Take over the balance soon after a fill: we count the shares ourselves, but only the broker knows the cash."""
    fill = TradeExecution.objects.order_by("-id").values_list("recorded_at", flat=True).first()
    snapshot = PortfolioService().get_snapshot()
    if fill is not None and (snapshot is None or fill > snapshot.timestamp - BALANCE_OVERLAP):
        KISFetcher(broker, now).sync_portfolio()


def our_stocks(now: datetime) -> set[str]:
    """Return the codes of the stocks that are held, or were ordered in the last seven days."""
    held_codes = {holding.stock_code for holding in PortfolioService().get_portfolio()}
    ordered_codes = TradeOrder.objects.filter(created_at__gte=now - RECENT).values_list("stock_code", flat=True)
    return held_codes | set(ordered_codes)
