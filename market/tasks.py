"""Celery tasks: each reads the clock, gets the broker and calls one function. They are safe to run twice."""

from celery import shared_task

from aegis.sessions import KST
from infra import clock
from kis.factory import broker
from market import candle_repair, daily_prices, interest, macro, partitions, queries, reference_data


@shared_task
def mend_candles() -> None:
    """Repair bars with gaps from the broker's chart."""
    candle_repair.repair(broker(), now=clock.now())


@shared_task
def make_partitions() -> None:
    """Create the monthly partitions of candles in advance."""
    partitions.ensure_ahead(clock.now().astimezone(KST).date())


@shared_task
def backfill() -> None:
    """Continue the backfill of daily prices."""
    now = clock.now()
    daily_prices.continue_backfill(broker(), last=queries.last_final_day(now), now=now)


@shared_task
def sync_listings() -> None:
    """Update the stock master from the broker's list of stocks, once a day."""
    reference_data.sync_listings_of_the_day(broker(), now=clock.now())


@shared_task
def sync_macro() -> None:
    """Request the figures of the whole market that the current minute lacks."""
    macro.sync_macro(broker(), now=clock.now())


@shared_task
def sync_calendar() -> None:
    """Update the trading calendar from the broker, once a day."""
    reference_data.sync_calendar_of_the_day(broker(), now=clock.now())


@shared_task
def sync_daily_prices() -> None:
    """Fetch the last final day's prices if they are missing."""
    now = clock.now()
    daily_prices.sync_missing(broker(), interest.codes(now), now=now)


@shared_task
def sync_stocks() -> None:
    """Update the stocks of interest from the broker, once a day: names, sectors, venues, halts."""
    now = clock.now()
    reference_data.sync_stocks(broker(), interest.codes(now), now=now)
