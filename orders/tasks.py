"""Celery tasks: read the clock, get the broker, call one function. Safe to run twice.

Each task declares the priority of its calls, by which the rate limiter ranks them (`kis.serving`). Every step of a
stop's sale runs on the stop workers.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from celery import Task, current_task, shared_task

from aegis.chase import ChaseStep
from aegis.requests import RequestedBy
from infra import clock
from kis.catalogue import CallPriority
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

# an order that no worker takes within this time is not sent: its price is out of date
SUBMIT_SECONDS = 30
# the sweep restarts a step that no worker takes within this time
CHASE_SECONDS = 60
# the sweep sends a requested cancel again that no worker takes within this time
CANCEL_SECONDS = 30
# the maximum number of a worker's threads for tasks that may wait for the broker's order list: while a list takes nine
# seconds, the other threads serve stops and new orders
MAX_WAITING_THREADS = 6
# the sweep runs a stop's next step that is due later than this
STOP_COUNTDOWN_SECONDS = 15
# a task that finds no free place is sent again after this
WAITING_SECONDS = 1.0

Words = ParamSpec("Words")
_cancels, _lists = threading.BoundedSemaphore(MAX_WAITING_THREADS), threading.BoundedSemaphore(MAX_WAITING_THREADS)


def _few_at_once(turns: threading.BoundedSemaphore) -> Callable[[Callable[Words, None]], Callable[Words, None]]:
    """Limit the threads of this worker that run a task; a message that finds no free place is sent again."""

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
    """Send the message of the current task again; Celery drops it if it has expired by then."""
    task: Task = current_task
    if task.request.called_directly:
        return
    options = {"expires": task.request.expires, **_options_of(task.request.delivery_info)}
    task.apply_async(task.request.args, task.request.kwargs, countdown=WAITING_SECONDS, **options)


def _options_of(delivery_info: dict[str, Any]) -> dict[str, Any]:
    """Return the queue and the priority of a message."""
    return {"queue": delivery_info["routing_key"], "priority": delivery_info.get("priority") or 0}


@shared_task(ignore_result=False, expires=SUBMIT_SECONDS)
@serving(CallPriority.ORDER)
def submit(**params: Any) -> order_messages.Answer:
    """Place the order of `params`; see `orders.order_messages` and docs/strategies.md.

    A repeated request id returns the same order.
    """
    answer = order_messages.submit(params, broker(), clock.now)
    _begin_chase(answer["order"]["id"] if answer["order"] else None)
    return answer


def _begin_chase(order_pk: int | None) -> None:
    """Send the first check of a new order; if the message is lost, the sweep starts the check."""
    order = TradeOrder.objects.filter(pk=order_pk).first() if order_pk else None
    if order is not None:
        _send_next(chasing.first_check(order, clock.now()))


@shared_task
def begin() -> None:
    """Sync calendar, balance and orders when the workers start. On an older database, trading starts halted."""
    database_age.halt_if_older(clock.now())
    periodic_sync.begin(broker(), clock.now)


# --- the chase: check → cancel (or amend) → confirm → re-order, each a task that sends the next ----------------------

# a message with a longer countdown would be delivered twice: the sweep starts such a step
MAX_COUNTDOWN_SECONDS = 300


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_check(order_pk: int) -> None:
    """Check the fills of an order after its wait."""
    _take(order_pk, ChaseStep.CHECK)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_cancel(order_pk: int) -> None:
    """Cancel an unfilled order if its re-order could be sent."""
    _take(order_pk, ChaseStep.CANCEL)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_amend(order_pk: int) -> None:
    """Amend an unfilled order to its next price."""
    _take(order_pk, ChaseStep.AMEND)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_confirm(order_pk: int) -> None:
    """Check whether the broker's list confirms the cancel or the amend."""
    _take(order_pk, ChaseStep.CONFIRM)


@shared_task(expires=CHASE_SECONDS)
@_few_at_once(_lists)
def chase_reorder(order_pk: int) -> None:
    """Re-order the shares that the cancel released."""
    _take(order_pk, ChaseStep.REORDER)


_TASK_OF = {
    ChaseStep.CHECK: chase_check,
    ChaseStep.CANCEL: chase_cancel,
    ChaseStep.AMEND: chase_amend,
    ChaseStep.CONFIRM: chase_confirm,
    ChaseStep.REORDER: chase_reorder,
}


def _take(order_pk: int, step: ChaseStep) -> None:
    with serving(CallPriority.CHASE):
        _send_next(chasing.run_step(order_pk, broker(), clock.now, step))


def _send_next(result: chasing.StepResult) -> None:
    """Send the task of the next step; in Celery's events it is a child of the current task."""
    if result.next_step is None:
        return
    countdown = clock.real_seconds(result.seconds)
    if countdown <= MAX_COUNTDOWN_SECONDS:
        _TASK_OF[result.next_step].apply_async(
            (result.next_pk,), countdown=countdown or None, expires=countdown + CHASE_SECONDS
        )


@shared_task
def sweep() -> None:
    """Restart the chases whose message was lost."""
    for pk, step in chasing.overdue_steps(clock.now()):
        _TASK_OF[step].delay(pk)


# --- cancels and stops: on workers of their own ----------------------------------------------------------------------


@shared_task
def sweep_cancels() -> None:
    """Send a task for each cancel that the list has not confirmed in time; it repeats or reports the cancel."""
    for pk in cancel_driver.due_cancels(clock.now()):
        drive_cancel.delay(pk)


@shared_task(expires=CANCEL_SECONDS)
@_few_at_once(_cancels)
def drive_cancel(order_pk: int) -> None:
    """Repeat a requested cancel until the broker's list confirms it, and report it if that takes too long."""
    with serving(_priority_of_cancel(order_pk)):
        cancel_driver.drive(order_pk, broker(), clock.now)


def _priority_of_cancel(order_pk: int) -> CallPriority:
    """Return the priority of a requested cancel: that of a stop, of an operator or `cancel_all`, or of a chase."""
    by = TradeOrder.objects.filter(pk=order_pk).values_list("cancel_requested_by", flat=True).first()
    ranks = {RequestedBy.STOP.value: CallPriority.STOP, RequestedBy.CHASE.value: CallPriority.CHASE}
    return ranks.get(by or "", CallPriority.CANCEL)


@shared_task
@serving(CallPriority.STOP)
def stop(stop_pk: int) -> None:
    """Run the due steps of one triggered stop, and send its next step if that is due soon."""
    stopping.run_sale_step(stop_pk, broker(), clock.now)
    if (seconds := stopping.seconds_to_next_step(stop_pk, clock.now())) is not None:
        countdown = clock.real_seconds(seconds)
        if countdown <= STOP_COUNTDOWN_SECONDS:
            stop.apply_async((stop_pk,), countdown=countdown or None)


@shared_task
@serving(CallPriority.STOP)
def ask_for_stop(stop_pk: int) -> None:
    """Ask the broker for the price of a stop's stock after its feed reported a price beyond the day's limits."""
    if stop_polling.ask(stop_pk, broker(), clock.now):
        stop.delay(stop_pk)


@shared_task
def sweep_stops() -> None:
    """Send a task for every stop with a step that is due; this replaces lost messages."""
    for pk in stopping.overdue_stops(clock.now()):
        stop.delay(pk)


@shared_task
def watch_stops() -> None:
    """Sync armed stops with their holdings, and ask for the prices of stocks without a feed."""
    for pk in stop_polling.check_stops(broker(), stream_status(), clock.now):
        stop.delay(pk)


# --- the broker's list -----------------------------------------------------------------------------------------------


@shared_task
@_few_at_once(_lists)
def reconcile() -> None:
    """Reconcile our orders with the broker's list."""
    reconciling.reconcile(broker(), clock.now)
    database_age.note()


@shared_task
@_few_at_once(_lists)
def look() -> None:
    """Reconcile only if an order or a fill notice waits for its confirmation."""
    if periodic_sync.is_reconciliation_due(clock.now()):
        reconciling.reconcile_now(broker(), clock.now)


@shared_task
def sync_balance(*, while_open: bool) -> None:
    """Take over the broker's balance; one schedule entry serves open markets, another one closed markets."""
    periodic_sync.sync_balance(broker(), clock.now, while_open=while_open)


@shared_task
def sync_after_fills() -> None:
    """Take over the balance if there was a fill since the last one."""
    periodic_sync.sync_after_fills(broker(), clock.now)


@shared_task
def sync_prices() -> None:
    """Ask for the prices of our stocks without a feed."""
    price_polling.poll(broker(), stream_status(), clock.now)


@shared_task
def watch_switch() -> None:
    """Trip the kill switch on losses, refusals, missing order lists or a falling market."""
    kill_switch.check_trips(clock.now())
    market_halts.check_halts(clock.now())
