"""Entry points of the workers: read the clock, call one function. Safe to run twice."""

from celery import shared_task

from infra import clock
from monitor import retention


@shared_task(name="monitor.tasks.tidy")
def delete_expired() -> None:
    """Delete expired rows."""
    retention.delete_expired(clock.now())
