"""Entry points of the workers: read the clock, get the broker, call one function. Safe to run twice."""

from typing import Any

from celery import shared_task

from kis import clock
from kis.wiring import broker, stream_status
from orders import chase as chasing
from orders import intake, market_guard, polling, routine, stop_watch, switch
from orders import reconcile as reconciling
from orders import stops as stopping

# an order that nobody took in this time is not sent: the market it was meant for is gone
SUBMIT_SECONDS = 30


@shared_task(ignore_result=False, expires=SUBMIT_SECONDS)
def submit(**words: Any) -> intake.Answer:
    """Place the order that `words` ask for; see `orders.intake` and docs/strategies.md. One request id, one order."""
    return intake.submit(words, broker(), clock.now)


@shared_task
def begin() -> None:
    """Take stock when the workers start: calendar, balance, orders."""
    routine.begin(broker(), clock.now)


@shared_task
def chase(order_pk: int) -> None:
    """Take one order's chase as far as it goes now."""
    chasing.advance(order_pk, broker(), clock.now)


@shared_task
def sweep() -> None:
    """Hand every order whose step is due to a worker: what a lost message forgot, the row remembers."""
    for pk in chasing.due(clock.now()):
        chase.delay(pk)


@shared_task
def stop(stop_pk: int) -> None:
    """Take one triggered stop as far as it goes now."""
    stopping.advance(stop_pk, broker(), clock.now)


@shared_task
def ask_for_stop(stop_pk: int) -> None:
    """Ask the broker what a stop's stock trades at, where its feed told a price that the day cannot have."""
    if stop_watch.ask(stop_pk, broker(), clock.now):
        stop.delay(stop_pk)


@shared_task
def sweep_stops() -> None:
    """Hand every stop whose step is due to a worker: what a lost message forgot, the row remembers."""
    for pk in stopping.due(clock.now()):
        stop.delay(pk)


@shared_task
def watch_stops() -> None:
    """Keep armed stops in step with their shares, and ask for prices that no feed tells."""
    for pk in stop_watch.watch(broker(), stream_status(), clock.now):
        stop.delay(pk)


@shared_task
def reconcile() -> None:
    """Hold our orders against the broker's list."""
    reconciling.reconcile(broker(), clock.now)


@shared_task
def look() -> None:
    """The same, only where an order waits to be confirmed."""
    if routine.is_look_wanted(clock.now()):
        reconciling.look(broker(), clock.now)


@shared_task
def sync_balance(*, while_open: bool) -> None:
    """Take over the broker's balance; one schedule entry serves the open hours, another the rest."""
    routine.sync_balance(broker(), clock.now, while_open=while_open)


@shared_task
def sync_after_fills() -> None:
    """Take over the balance where something was filled since the last."""
    routine.sync_after_fills(broker(), clock.now)


@shared_task
def sync_calendar() -> None:
    """Learn which days trade, once a day."""
    routine.sync_calendar(broker(), clock.now)


@shared_task
def sync_daily_prices() -> None:
    """Fetch the last final day's prices where they are missing."""
    routine.sync_daily_prices(broker(), clock.now)


@shared_task
def sync_stocks() -> None:
    """Learn once a day what our stocks are."""
    routine.sync_stocks(broker(), clock.now)


@shared_task
def sync_prices() -> None:
    """Ask what our stocks trade at where no feed tells."""
    polling.poll(broker(), stream_status(), clock.now)


@shared_task
def watch_switch() -> None:
    """Trip the trading switch where losses, refusals, blindness or a falling market ask for it."""
    switch.watch(clock.now())
    market_guard.watch(clock.now())
