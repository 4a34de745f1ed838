"""Entry points of the workers: read the clock, get the broker, call one function. Safe to run twice."""

from celery import shared_task

from aegis.sessions import KST
from infra import clock
from kis.factory import broker
from market import candle_repair, daily_prices, interest, macro, partitions, queries, reference_data


@shared_task
def mend_candles() -> None:
    """Mend bars with holes from the broker's chart."""
    candle_repair.repair(broker(), now=clock.now())


@shared_task
def make_partitions() -> None:
    """Make the months of candles ahead of time."""
    partitions.ensure_ahead(clock.now().astimezone(KST).date())


@shared_task
def backfill() -> None:
    """Carry on with the past of daily prices where it is not fetched yet."""
    now = clock.now()
    daily_prices.carry_on(broker(), last=queries.last_final_day(now), now=now)


@shared_task
def sync_listings() -> None:
    """Learn once a day what is listed."""
    reference_data.sync_listings_of_the_day(broker(), now=clock.now())


@shared_task
def sync_macro() -> None:
    """Ask for what the minute's figures of the whole market lack."""
    macro.sync(broker(), now=clock.now())


@shared_task
def sync_calendar() -> None:
    """Learn which days trade, once a day."""
    reference_data.sync_calendar_of_the_day(broker(), now=clock.now())


@shared_task
def sync_daily_prices() -> None:
    """Fetch the last final day's prices if they are missing."""
    now = clock.now()
    daily_prices.sync_missing(broker(), interest.codes(now), now=now)


@shared_task
def sync_stocks() -> None:
    """Learn once a day what the stocks of interest are: names, sectors, who trades them, who is halted."""
    now = clock.now()
    reference_data.sync_stocks(broker(), interest.codes(now), now=now)
