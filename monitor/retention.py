"""What nobody needs any more goes, table by table, in small batches, while no market is open.

An order's history stays for good: its row, events, executions and notices. What goes was told long ago, or tells of a
minute that the day's figures sum up. How long each is kept, in days, is the operator's; 0 keeps it for good.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from time import monotonic

from django.conf import settings

from infra import db_limits
from infra.advisory_lock import advisory_lock
from market import order_books, queries
from notify import delivery
from notify.models import Confirmation
from orders import fills, reconcile
from portfolio import ledger

log = logging.getLogger(__name__)

# rows of one statement: its locks and its log stay small
BATCH = 2_000
# what is not gone by then is the next turn's
TURN_SECONDS = 30.0

# deletes at most so many rows of before a moment; returns how many. Their keys are read first: where the planner
# takes a table for empty, as after a night like this, a batch with a subquery read the table once for each row
Forget = Callable[[datetime, int], int]
DUTIES: tuple[tuple[str, str, Forget], ...] = (
    ("messages", "KEEP_MESSAGES_DAYS", delivery.delete_before),
    ("confirmations", "KEEP_MESSAGES_DAYS", Confirmation.objects.delete_lapsed),
    ("reconciliations", "KEEP_RECONCILIATIONS_DAYS", reconcile.delete_before),
    ("notices", "KEEP_NOTICES_DAYS", fills.delete_notices_before),
    ("books", "KEEP_BOOKS_DAYS", order_books.delete_before),
    ("snapshots", "KEEP_SNAPSHOTS_DAYS", ledger.thin_snapshots),
)


def delete_expired(now: datetime) -> Mapping[str, int]:
    """Delete what is older than its table keeps; return how many rows, by table. One process at a time."""
    if queries.is_any_market_open(now):
        return {}
    with advisory_lock("tidy") as is_ours, db_limits.longer(TURN_SECONDS):
        gone = _tidy_in_turn(now) if is_ours else {}
    if gone:
        log.info("tidied: %s", ", ".join(f"{name} {count}" for name, count in gone.items()))
    return gone


def _tidy_in_turn(now: datetime) -> dict[str, int]:
    ends_at = monotonic() + TURN_SECONDS
    gone = {}
    for name, setting, forget in DUTIES:
        days = getattr(settings, setting)
        if days and (count := _forget_all(forget, now - timedelta(days=days), ends_at)):
            gone[name] = count
    return gone


def _forget_all(forget: Forget, before: datetime, ends_at: float) -> int:
    total = 0
    while monotonic() < ends_at:
        count = forget(before, BATCH)
        total += count
        if count < BATCH:
            break
    return total
