"""Entry points of the workers: read the clock, call one function. Safe to run twice."""

from celery import shared_task

from infra import clock
from monitor import retention as tidying


@shared_task
def tidy() -> None:
    """Delete expired rows."""
    tidying.delete_expired(clock.now())
