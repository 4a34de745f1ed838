"""Starts a rehearsal: sets its clock to the morning of a trading day, and chooses the exchange's ledger.

The clock only moves forward: orders of past days keep their dates and numbers in the ledger and in our tables, so a
repeated day would have two orders with one number. Each database has a ledger of its own.
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
from ops.models import Installation
from orders.models import TradeOrder
from simulator.exchange.calendar import phases_on

# by then the order books have filled after the opening auction
AFTER_OPENING = timedelta(seconds=5)
LONGEST_CLOSURE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class RehearsalHours:
    """KRX's regular session of one day, in Korean time."""

    opens_at: datetime
    closes_at: datetime


def hours(day: date) -> RehearsalHours | None:
    """Return the day's regular session by the simulator's calendar, or None if it has none."""
    for phase in phases_on(day):
        if phase.market is Market.KRX and phase.name is PhaseName.REGULAR:
            return RehearsalHours(_at(day, phase.starts_at), _at(day, phase.ends_at))
    return None


def whole_day(day: date) -> RehearsalHours | None:
    """Return the day from NXT's pre-market to KRX's close, or None if a part is missing, as on a late open."""
    session = hours(day)
    pre_markets = [
        phase for phase in phases_on(day) if (phase.market, phase.name) == (Market.NXT, PhaseName.PRE_MARKET)
    ]
    if session is None or not pre_markets:
        return None
    return RehearsalHours(_at(day, pre_markets[0].starts_at), session.closes_at)


def _at(day: date, moment: time) -> datetime:
    return datetime.combine(day, moment, KST)


def opening_time(
    now: datetime, *, is_first: bool, is_fresh: bool, hours: Callable[[date], RehearsalHours | None] = hours
) -> datetime | None:
    """Return the time to set the market's clock to, or None if the clock, which shows `now`, may continue.

    The first rehearsal of a home starts on today's morning if today trades, even if that time is past. A fresh
    rehearsal starts on the next morning that the clock has not reached. Any other continues if `now` is in the
    regular session, and starts like a fresh one if not. Raises ValueError if the calendar has no such day.
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
    raise ValueError(f"the calendar has no trading day in the month after {now.date()}")


def start_rehearsal(*, is_fresh: bool) -> Path:
    """Set the clock, and return the file of our database's ledger; a ledger that is lost is replaced by a new one."""
    is_first = not (HOME / "clock.json").exists()
    installation = Installation.objects.get()
    is_new = installation.ledger_id is None or not _ledger(installation.ledger_id).exists()
    now = clock.now()
    # the clock's file may be lost, or older than the database, while the orders are not
    if is_new or is_first or is_fresh:
        now = max(now, _after_last_order() or now)
    moment = opening_time(now, is_first=is_first, is_fresh=is_fresh, hours=whole_day if is_fresh else hours)
    if moment is not None:
        clock.set_now(moment)
    if is_new:
        installation.ledger_id, installation.ledger_since = uuid.uuid4(), clock.now().date()
        installation.save(update_fields=["ledger_id", "ledger_since"])
    assert installation.ledger_id is not None  # set above if it was None
    ledger = _ledger(installation.ledger_id)
    ledger.parent.mkdir(parents=True, exist_ok=True)
    return ledger


def ledger_start_date() -> date:
    """Return the first day of the current ledger: earlier days belong to another ledger."""
    installation = Installation.objects.filter(ledger_since__isnull=False).first()
    return installation.ledger_since if installation and installation.ledger_since else date.min


def _ledger(ledger_id: uuid.UUID) -> Path:
    return HOME / "simulator" / f"{ledger_id}.jsonl"


def _after_last_order() -> datetime | None:
    """Return the end of the last day that has orders: neither a new ledger nor a new clock may repeat that day."""
    last = TradeOrder.objects.aggregate(last=Max("order_date"))["last"]
    return datetime.combine(last + timedelta(days=1), time.min, KST) if last else None
