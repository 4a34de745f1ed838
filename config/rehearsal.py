"""The rehearsal's clock: at any hour of any day, a trading day's morning. Time only goes forward.

Orders of past days keep their dates and numbers in the simulator's ledger and in our tables; a day that
came twice would have two orders of one number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from aegis.sessions import KST, PhaseName
from aegis.terms import Market
from kis.simulator.calendar import phases_on

# the books have filled after the opening auction
AFTER_OPENING = timedelta(seconds=5)
LONGEST_CLOSURE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Hours:
    """KRX's regular session of one day, in Korean time."""

    opens_at: datetime
    closes_at: datetime


def hours(day: date) -> Hours | None:
    """Return the day's regular session by the simulator's calendar, None where there is none."""
    for phase in phases_on(day):
        if phase.market is Market.KRX and phase.name is PhaseName.REGULAR:
            return Hours(_at(day, phase.starts_at), _at(day, phase.ends_at))
    return None


def _at(day: date, moment: time) -> datetime:
    return datetime.combine(day, moment, KST)


def opening(
    now: datetime, *, is_first: bool, is_fresh: bool, hours: Callable[[date], Hours | None] = hours
) -> datetime | None:
    """Return where to set the market's clock, which shows `now`; None where it may run on.

    The first rehearsal ever begins on today's morning if today trades, even if that is past. A fresh one
    begins on a morning not yet seen. Any other goes on while the regular session lasts.
    """
    day = now.astimezone(KST).date()
    today = hours(day)
    if today and not is_first and not is_fresh and today.opens_at <= now < today.closes_at:
        return None
    last = day + LONGEST_CLOSURE
    while day <= last:
        session = hours(day)
        if session and (is_first or now < session.opens_at):
            return session.opens_at + AFTER_OPENING
        day += timedelta(days=1)
    raise ValueError(f"the calendar knows no trading day in the month after {now.date()}")
