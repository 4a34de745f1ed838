"""Entry points of the workers: read the clock, get the broker, call one function. Safe to run twice.

Each says what its calls serve, so that the limiter knows their rank (`kis.serving`). Every step of a stop's sale goes
to the stops' workers.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from celery import Task, current_task, shared_task

from aegis.chase import ChaseStep
from aegis.requests import RequestedBy
from infra import clock
from kis.catalogue import Urgency
from kis.factory import broker, stream_status
from kis.serving import serving
from orders import (
    cancel_driver,
    database_age,
    kill_switch,
    market_halts,
    order_messages,
    periodic_sync,
    price_polling,
    stop_polling,
)
from orders import chase as chasing
from orders import reconcile as reconciling
from orders import stops as stopping
from orders.models import TradeOrder

# an order that nobody took in this time is not sent: the market it was meant for is gone
SUBMIT_SECONDS = 30
# a step that nobody took in this time is begun again by the sweep
CHASE_SECONDS = 60
# a requested cancel that nobody took in this time is handed on again by the sweep
CANCEL_SECONDS = 30
# of a worker's threads, tasks that may wait for the broker's list of orders take this many at once: a list that takes
# nine seconds leaves the others to stops and to new orders
MOST_WAITING = 6
# a stop's next step that is further off is left to the sweep
STOP_COUNTDOWN_SECONDS = 15
# a task that finds them taken is sent again after this
WAITING_SECONDS = 1.0

Words = ParamSpec("Words")
_cancels, _lists = threading.BoundedSemaphore(MOST_WAITING), threading.BoundedSemaphore(MOST_WAITING)


def _few_at_once(turns: threading.BoundedSemaphore) -> Callable[[Callable[Words, None]], Callable[Words, None]]:
    """Let this worker run a task on few of its threads; a message that finds them taken is sent again."""

    def decorated(function: Callable[Words, None]) -> Callable[Words, None]:
        @wraps(function)
        def run(*args: Words.args, **kwargs: Words.kwargs) -> None:
            if not turns.acquire(blocking=False):
                _send_again()
                return
            try:
                function(*args, **kwargs)
            finally:
                turns.release()

        return run

    return decorated


def _send_again() -> None:
    """Send the message of the task that runs again; one that has expired by then is dropped."""
    task: Task = current_task
    if task.request.called_directly:
        return
    options = {"expires": task.request.expires, **_options_of(task.request.delivery_info)}
    task.apply_async(task.request.args, task.request.kwargs, countdown=WAITING_SECONDS, **options)


def _options_of(delivery: dict[str, Any]) -> dict[str, Any]:
    """Return the queue and the priority that a message came with."""
    return {"queue": delivery["routing_key"], "priority": delivery.get("priority") or 0}


@shared_task(ignore_result=False, expires=SUBMIT_SECONDS)
@serving(Urgency.ORDER)
def submit(**words: Any) -> order_messages.Answer:
    """Place the order that `words` ask for; see `orders.order_messages` and docs/strategies.md.

    One request id is one order.
    """
    answer = order_messages.submit(words, broker(), clock.now)
    _begin_chase(answer["order"]["id"] if answer["order"] else None)
    return answer


def _begin_chase(order_pk: int | None) -> None:
    """Send the first check of an order that was just placed; without the message the sweep begins it."""
    order = TradeOrder.objects.filter(pk=order_pk).first() if order_pk else None
    if order is not None:
        _send_next(chasing.first_check(order, clock.now()))


@shared_task
def begin() -> None:
    """Take stock when the workers start: calendar, balance, orders. Over an older database trading begins halted."""
    database_age.halt_if_older(clock.now())
    periodic_sync.begin(broker(), clock.now)


# --- the chase: check → cancel (or amend) → confirm → re-order, each a task that sends the next ----------------------

# a message with a longer countdown would be delivered a second time meanwhile: the sweep begins that step
MAX_COUNTDOWN_SECONDS = 300


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_check(order_pk: int) -> None:
    """See what of an order is filled once its wait is over."""
    _take(order_pk, ChaseStep.CHECK)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_cancel(order_pk: int) -> None:
    """Cancel an unfilled order, if what is to follow it could go."""
    _take(order_pk, ChaseStep.CANCEL)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_amend(order_pk: int) -> None:
    """Amend an unfilled order to its next price."""
    _take(order_pk, ChaseStep.AMEND)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_confirm(order_pk: int) -> None:
    """See whether the broker's list confirms the cancel or the amend."""
    _take(order_pk, ChaseStep.CONFIRM)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_reorder(order_pk: int) -> None:
    """Order again what the cancel released."""
    _take(order_pk, ChaseStep.REORDER)


_TASK_OF = {
    ChaseStep.CHECK: chase_check,
    ChaseStep.CANCEL: chase_cancel,
    ChaseStep.AMEND: chase_amend,
    ChaseStep.CONFIRM: chase_confirm,
    ChaseStep.REORDER: chase_reorder,
}


def _take(order_pk: int, step: ChaseStep) -> None:
    with serving(Urgency.CHASE):
        _send_next(chasing.run_step(order_pk, broker(), clock.now, step))


def _send_next(taken: chasing.Taken) -> None:
    """Send the task of the next step; in Celery's events it is a child of the task that runs."""
    if taken.next_step is None:
        return
    countdown = clock.real_seconds(taken.seconds)
    if countdown <= MAX_COUNTDOWN_SECONDS:
        _TASK_OF[taken.next_step].apply_async(
            (taken.next_pk,), countdown=countdown or None, expires=countdown + CHASE_SECONDS
        )


@shared_task
def sweep() -> None:
    """Restart the chases whose message was lost."""
    for pk, step in chasing.overdue(clock.now()):
        _TASK_OF[step].delay(pk)


# --- cancels and stops: on workers of their own ----------------------------------------------------------------------


@shared_task
def sweep_cancels() -> None:
    """Hand on the cancels that the list does not confirm: they are driven, or reported."""
    for pk in cancel_driver.due(clock.now()):
        drive_cancel.delay(pk)


@shared_task(expires=CANCEL_SECONDS)
@_few_at_once(_cancels)
def drive_cancel(order_pk: int) -> None:
    """Take a requested cancel on until the broker's list confirms it, and report it in time."""
    with serving(_urgency_of_cancel(order_pk)):
        cancel_driver.drive(order_pk, broker(), clock.now)


def _urgency_of_cancel(order_pk: int) -> Urgency:
    """Return the rank of a requested cancel: that of a stop, of a person or `cancel_all`, or of a chase."""
    by = TradeOrder.objects.filter(pk=order_pk).values_list("cancel_wanted_by", flat=True).first()
    ranks = {RequestedBy.STOP.value: Urgency.STOP, RequestedBy.CHASE.value: Urgency.CHASE}
    return ranks.get(by or "", Urgency.CANCEL)


@shared_task
@serving(Urgency.STOP)
def stop(stop_pk: int) -> None:
    """Take one triggered stop as far as it goes now, and send its next step if that is soon."""
    stopping.run_step(stop_pk, broker(), clock.now)
    if (seconds := stopping.seconds_to_next_step(stop_pk, clock.now())) is not None:
        countdown = clock.real_seconds(seconds)
        if countdown <= STOP_COUNTDOWN_SECONDS:
            stop.apply_async((stop_pk,), countdown=countdown or None)


@shared_task
@serving(Urgency.STOP)
def ask_for_stop(stop_pk: int) -> None:
    """Ask the broker what a stop's stock trades at, where its feed told a price that the day cannot have."""
    if stop_polling.ask(stop_pk, broker(), clock.now):
        stop.delay(stop_pk)


@shared_task
def sweep_stops() -> None:
    """Hand every stop whose step is due to a worker: what a lost message forgot, the row remembers."""
    for pk in stopping.overdue(clock.now()):
        stop.delay(pk)


@shared_task
def watch_stops() -> None:
    """Keep armed stops in step with their shares, and ask for prices that no feed tells."""
    for pk in stop_polling.watch(broker(), stream_status(), clock.now):
        stop.delay(pk)


# --- the broker's list -----------------------------------------------------------------------------------------------


@shared_task
@_few_at_once(_lists)
def reconcile() -> None:
    """Hold our orders against the broker's list."""
    reconciling.reconcile(broker(), clock.now)
    database_age.note()


@shared_task
@_few_at_once(_lists)
def look() -> None:
    """The same, only where an order waits to be confirmed."""
    if periodic_sync.is_look_wanted(clock.now()):
        reconciling.reconcile_now(broker(), clock.now)


@shared_task
def sync_balance(*, while_open: bool) -> None:
    """Take over the broker's balance; one schedule entry serves the open hours, another the rest."""
    periodic_sync.sync_balance(broker(), clock.now, while_open=while_open)


@shared_task
def sync_after_fills() -> None:
    """Take over the balance where something was filled since the last."""
    periodic_sync.sync_after_fills(broker(), clock.now)


@shared_task
def sync_prices() -> None:
    """Ask what our stocks trade at where no feed tells."""
    price_polling.poll(broker(), stream_status(), clock.now)


@shared_task
def watch_switch() -> None:
    """Trip the trading switch where losses, refusals, blindness or a falling market ask for it."""
    kill_switch.watch(clock.now())
    market_halts.watch(clock.now())
