"""The beat schedule as a reviewed table. Missing rows are written at start; an operator's edits stay.

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
        "cancel-sweep", "orders.tasks.sweep_cancels", 2, _("requested cancels that the list does not confirm")
    ),
    ScheduleEntry("stop-sweep", "orders.tasks.sweep_stops", 2, _("triggered stops whose next step is due")),
    ScheduleEntry(
        "stop-watch", "orders.tasks.watch_stops", 5, _("armed stops whose feed is silent, or whose shares changed")
    ),
    ScheduleEntry("look", "orders.tasks.look", 5, _("orders and notices that wait for the broker's word")),
    ScheduleEntry(
        "reconcile", "orders.tasks.reconcile", 60, _("unfilled orders against the broker's list (spec §5.1)")
    ),
    ScheduleEntry(
        "switch",
        "orders.tasks.watch_switch",
        5,
        _("losses, refusals, blindness and falling indexes that trip the trading switch"),
    ),
    ScheduleEntry(
        "balance-open", "orders.tasks.sync_balance", 60, _("balance in market hours (spec §0.4)"), {"while_open": True}
    ),
    ScheduleEntry("balance-after-fills", "orders.tasks.sync_after_fills", 5, _("cash, soon after a fill")),
    ScheduleEntry("balance-closed", "orders.tasks.sync_balance", 600, _("balance outside them"), {"while_open": False}),
    ScheduleEntry("calendar", "market.tasks.sync_calendar", 600, _("which days trade; asks once a day")),
    ScheduleEntry("daily-prices", "market.tasks.sync_daily_prices", 600, _("after the close (spec §5.1)")),
    ScheduleEntry("stocks", "market.tasks.sync_stocks", 600, _("the stock master of our stocks; asks once a day")),
    ScheduleEntry(
        "listings", "market.tasks.sync_listings", 600, _("the list of every stock, once a day from seven on")
    ),
    ScheduleEntry("prices", "orders.tasks.sync_prices", 5, _("prices of what we hold, where no feed tells them")),
    ScheduleEntry("macro", "market.tasks.sync_macro", 60, _("indexes, the basis, who holds futures")),
    ScheduleEntry(
        "candle-mending", "market.tasks.mend_candles", 5, _("bars with holes, from the broker's minute chart")
    ),
    ScheduleEntry(
        "candle-partitions", "market.tasks.make_partitions", 3600, _("months of candles, made ahead of time")
    ),
    ScheduleEntry(
        "tidy", "monitor.tasks.tidy", 3600, _("old messages, looks and snapshots go, while no market is open")
    ),
    ScheduleEntry("backfill", "market.tasks.backfill", 30, _("the past of daily prices, where somebody wants it")),
)


def write() -> int:
    """Write the rows that are missing and return their number. Periods and pauses that an operator set stay."""
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
        if row.task != entry.task:  # this version renamed the task
            row.task = entry.task
            row.save()
    return written
