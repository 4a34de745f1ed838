"""A rehearsal's world: a clock that shows a trading day's morning at any hour, and the exchange's ledger.

Time only goes forward: orders of past days keep their dates and numbers in the ledger and in our tables,
and a day that came twice would have two orders of one number. The ledger belongs to the database: another
database, another ledger.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from django.db.models import Max

from aegis.sessions import KST, PhaseName
from aegis.terms import Market
from config.env import HOME
from infra import clock
from ops.models import Belonging
from orders.models import TradeOrder
from simulator.exchange.calendar import phases_on

# the books have filled after the opening auction
AFTER_OPENING = timedelta(seconds=5)
LONGEST_CLOSURE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class RehearsalHours:
    """KRX's regular session of one day, in Korean time."""

    opens_at: datetime
    closes_at: datetime


def hours(day: date) -> RehearsalHours | None:
    """Return the day's regular session by the simulator's calendar, None where there is none."""
    for phase in phases_on(day):
        if phase.market is Market.KRX and phase.name is PhaseName.REGULAR:
            return RehearsalHours(_at(day, phase.starts_at), _at(day, phase.ends_at))
    return None


def whole_day(day: date) -> RehearsalHours | None:
    """Return the day from NXT's pre-market to KRX's close, None where it has not all of it, as on a late open."""
    session = hours(day)
    first = [each for each in phases_on(day) if (each.market, each.name) == (Market.NXT, PhaseName.PRE_MARKET)]
    if session is None or not first:
        return None
    return RehearsalHours(_at(day, first[0].starts_at), session.closes_at)


def _at(day: date, moment: time) -> datetime:
    return datetime.combine(day, moment, KST)


def opening(
    now: datetime, *, is_first: bool, is_fresh: bool, hours: Callable[[date], RehearsalHours | None] = hours
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


def begin(*, is_fresh: bool) -> Path:
    """Set the clock, and return the file of the ledger that goes with our database, new where it is lost."""
    is_first = not (HOME / "clock.json").exists()
    known = Belonging.objects.get()
    is_new = known.world is None or not _ledger(known.world).exists()
    now = clock.now()
    if is_new:
        now = max(now, _after_last_order() or now)
    moment = opening(now, is_first=is_first, is_fresh=is_fresh, hours=whole_day if is_fresh else hours)
    if moment is not None:
        clock.set_now(moment)
    if is_new:
        known.world, known.world_since = uuid.uuid4(), clock.now().date()
        known.save(update_fields=["world", "world_since"])
    assert known.world is not None  # it is new otherwise
    ledger = _ledger(known.world)
    ledger.parent.mkdir(parents=True, exist_ok=True)
    return ledger


def since() -> date:
    """Return the first day of the present ledger: days before it were another's."""
    known = Belonging.objects.filter(world_since__isnull=False).first()
    return known.world_since if known and known.world_since else date.min


def _ledger(world: uuid.UUID) -> Path:
    return HOME / "simulator" / f"{world}.jsonl"


def _after_last_order() -> datetime | None:
    """Return the end of the last day that has orders: a new ledger must not repeat it."""
    last = TradeOrder.objects.aggregate(last=Max("order_date"))["last"]
    return datetime.combine(last + timedelta(days=1), time.min, KST) if last else None
