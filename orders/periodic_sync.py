"""The day's routine: what is due is read from the tables, so a missed turn is made up by the next."""

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
# a balance was asked for a little before its row was written
BALANCE_OVERLAP = timedelta(seconds=2)


def begin(broker: Broker, now: Callable[[], datetime]) -> None:
    """Learn which days trade, what we hold, and what became of our orders."""
    reference_data.sync_calendar_of_the_day(broker, now=now())
    KISFetcher(broker, now).sync_portfolio()
    reconcile(broker, now)


def is_look_wanted(now: datetime) -> bool:
    """Whether an order waits to be confirmed, or a notice for its order: for a while, then each minute's turn will do.

    A notice of an order that is in no list, or in a line of it that nobody can read, would have it asked for ever.
    """
    open_questions = Q(state=RawNotice.State.WAITING) | Q(state=RawNotice.State.DOUBTFUL)
    notices = RawNotice.objects.filter(open_questions, received_at__gte=now - NOTICE_PATIENCE)
    orders = TradeOrder.objects.filter(
        Q(lookup_at__isnull=True) | Q(lookup_at__lte=now),
        look_wanted=True,
        order_date__gte=now.astimezone(KST).date() - ASKED_FOR,
    )
    return orders.exists() or notices.exists()


def sync_balance(broker: Broker, now: Callable[[], datetime], *, while_open: bool) -> None:
    """Take over the balance if the market is as open as this turn is meant for (spec §0.4).

    In the open hours the base prices of what is held are asked for, once a day, for the day's loss.
    """
    if queries.is_any_market_open(now()) is while_open:
        KISFetcher(broker, now).sync_portfolio()
        if while_open:
            daily_loss.sync_base_prices(broker, now)


def sync_after_fills(broker: Broker, now: Callable[[], datetime]) -> None:
    """Take over the balance soon after a fill: our own count moved the shares, and only the broker knows the cash."""
    fill = TradeExecution.objects.order_by("-id").values_list("recorded_at", flat=True).first()
    snapshot = PortfolioService().get_snapshot()
    if fill is not None and (snapshot is None or fill > snapshot.timestamp - BALANCE_OVERLAP):
        KISFetcher(broker, now).sync_portfolio()


def our_stocks(now: datetime) -> set[str]:
    """Return the codes of what we hold or ordered lately."""
    held = {holding.stock_code for holding in PortfolioService().get_portfolio()}
    ordered = TradeOrder.objects.filter(created_at__gte=now - RECENT).values_list("stock_code", flat=True)
    return held | set(ordered)
