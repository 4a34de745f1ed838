"""The beat schedule as a reviewed table. Missing rows are written at start; an operator's periods and pauses stay.

Every task reads from the tables what is due, so a lost run costs one period and nothing else. `expires` is just below
the period, so a worker that stalled does not find a queue of outdated runs.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext_noop as _


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """One periodic task; `every` in seconds."""

    name: str
    task: str
    every: int
    why: str
    arguments: dict[str, Any] = field(default_factory=dict)


SCHEDULE: tuple[ScheduleEntry, ...] = (
    ScheduleEntry("chase-sweep", "orders.tasks.sweep", 2, _("orders whose chase step is due")),
    ScheduleEntry(
        "cancel-sweep", "orders.tasks.sweep_cancels", 2, _("requested cancels not yet confirmed by the order list")
    ),
    ScheduleEntry("stop-sweep", "orders.tasks.sweep_stops", 2, _("triggered stops whose next step is due")),
    ScheduleEntry(
        "stop-watch", "orders.tasks.watch_stops", 5, _("armed stops whose feed is silent, or whose shares changed")
    ),
    ScheduleEntry("look", "orders.tasks.look", 5, _("orders and notices that the order list must settle")),
    ScheduleEntry(
        "reconcile", "orders.tasks.reconcile", 60, _("unfilled orders against the broker's list (spec §5.1)")
    ),
    ScheduleEntry(
        "switch",
        "orders.tasks.watch_switch",
        5,
        _("losses, refusals, missing order lists and falling indexes that trip the kill switch"),
    ),
    ScheduleEntry(
        "balance-open", "orders.tasks.sync_balance", 60, _("balance in market hours (spec §0.4)"), {"while_open": True}
    ),
    ScheduleEntry("balance-after-fills", "orders.tasks.sync_after_fills", 5, _("cash, soon after a fill")),
    ScheduleEntry(
        "balance-closed", "orders.tasks.sync_balance", 600, _("balance outside market hours"), {"while_open": False}
    ),
    ScheduleEntry("calendar", "market.tasks.sync_calendar", 600, _("trading days; asks once a day")),
    ScheduleEntry("daily-prices", "market.tasks.sync_daily_prices", 600, _("after the close (spec §5.1)")),
    ScheduleEntry("stocks", "market.tasks.sync_stocks", 600, _("the stock master of our stocks; asks once a day")),
    ScheduleEntry("listings", "market.tasks.sync_listings", 600, _("the list of all stocks, once a day from 07:00")),
    ScheduleEntry("prices", "orders.tasks.sync_prices", 5, _("prices of holdings without a realtime feed")),
    ScheduleEntry("macro", "market.tasks.sync_macro", 60, _("indexes, the basis, futures positions by investor")),
    ScheduleEntry(
        "candle-mending", "market.tasks.mend_candles", 5, _("bars with gaps, repaired from the broker's minute chart")
    ),
    ScheduleEntry("candle-partitions", "market.tasks.make_partitions", 3600, _("partitions for coming months")),
    ScheduleEntry(
        "tidy",
        "monitor.tasks.tidy",
        3600,
        _("deletes old messages, reconciliations and snapshots while no market is open"),
    ),
    ScheduleEntry("backfill", "market.tasks.backfill", 30, _("requested backfills of daily prices")),
)


def write_schedule() -> int:
    """Write missing rows and return their number. Tasks and descriptions follow the code; periods and pauses stay."""
    # models can be imported only after the apps are ready; SCHEDULE is read before that
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    written = 0
    for entry in SCHEDULE:
        interval, _is_new = IntervalSchedule.objects.get_or_create(every=entry.every, period=IntervalSchedule.SECONDS)
        row, is_new = PeriodicTask.objects.get_or_create(
            name=entry.name,
            defaults={
                "task": entry.task,
                "interval": interval,
                "kwargs": json.dumps(entry.arguments),
                "expire_seconds": max(1, entry.every - 1),
                "description": entry.why,
            },
        )
        written += is_new
        # another version may have named or described the task differently
        if (row.task, row.description) != (entry.task, entry.why):
            row.task, row.description = entry.task, entry.why
            row.save()
    return written
