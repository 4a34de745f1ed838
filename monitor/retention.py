"""Deletes expired rows, table by table, in small batches, while no market is open.

The history of an order is kept for good: its row, events, executions and notices. Expired rows are old messages, and
details that the day's figures sum up. The settings say how many days each table keeps; 0 keeps its rows for good.
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

# rows of one statement: keeps its locks and its write-ahead log small
BATCH = 2_000
# the next turn deletes the rest
TURN_SECONDS = 30.0

# (before, at_most): deletes at most `at_most` rows older than `before`, and returns their number. It reads their keys
# first: if the planner takes the table for empty, as after a night of deletes, a delete with a subquery reads the table
# once for each row
DeleteBatch = Callable[[datetime, int], int]
RETENTION_RULES: tuple[tuple[str, str, DeleteBatch], ...] = (
    ("messages", "KEEP_MESSAGES_DAYS", delivery.delete_before),
    ("confirmations", "KEEP_MESSAGES_DAYS", Confirmation.objects.delete_lapsed),
    ("reconciliations", "KEEP_RECONCILIATIONS_DAYS", reconcile.delete_before),
    ("notices", "KEEP_NOTICES_DAYS", fills.delete_notices_before),
    ("books", "KEEP_BOOKS_DAYS", order_books.delete_before),
    ("snapshots", "KEEP_SNAPSHOTS_DAYS", ledger.thin_snapshots),
)


def delete_expired(now: datetime) -> Mapping[str, int]:
    """Delete expired rows; return the number of deleted rows by table. One process at a time."""
    if queries.is_any_market_open(now):
        return {}
    with advisory_lock("tidy") as is_ours, db_limits.extended_limits(TURN_SECONDS):
        counts = _delete_by_table(now) if is_ours else {}
    if counts:
        log.info("deleted: %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _delete_by_table(now: datetime) -> dict[str, int]:
    ends_at = monotonic() + TURN_SECONDS
    counts = {}
    for name, setting, delete in RETENTION_RULES:
        days = getattr(settings, setting)
        if days and (count := _delete_in_batches(delete, now - timedelta(days=days), ends_at)):
            counts[name] = count
    return counts


def _delete_in_batches(delete: DeleteBatch, before: datetime, ends_at: float) -> int:
    total = 0
    while monotonic() < ends_at:
        count = delete(before, BATCH)
        total += count
        if count < BATCH:
            break
    return total
