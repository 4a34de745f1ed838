"""Repairs bars with gaps from the broker's minute chart (분봉), and adds minutes that were not received."""

import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from time import monotonic

from aegis.broker import Broker, BrokerError, ChartMinute, NoSuchStock, Refused
from aegis.candles import Bar, ContradictoryChart, GapRange, doubtful, mended
from aegis.sessions import KST
from aegis.terms import Market
from infra.advisory_lock import advisory_lock
from market import candles

log = logging.getLogger(__name__)

MINUTE = timedelta(minutes=1)
# how long after its end the chart of a minute is complete
GRACE = timedelta(seconds=5)
# the broker's charts reach back further, but older gaps are not worth the calls
REACH = timedelta(days=5)
# a turn ends after this time; the next turn does the rest
TURN_SECONDS = 20.0
# a chart that was refused for a temporary reason is requested again after PAUSE; REFUSALS_AT_MOST end a turn
PAUSE = timedelta(minutes=1)
REFUSALS_AT_MOST = 3

GapKey = tuple[str, Market, date]
_refused_at: dict[GapKey, datetime] = {}


def repair(broker: Broker, *, now: datetime) -> int:
    """Repair bars with gaps; return how many were written. If another process is repairing, return 0 immediately."""
    with advisory_lock("mending") as is_ours:
        return _repair_in_turn(broker, now) if is_ours else 0


def _repair_in_turn(broker: Broker, now: datetime) -> int:
    ends_at, written, refusals = monotonic() + TURN_SECONDS, 0, 0
    for gap in candles.days_with_gaps(now - REACH):
        if monotonic() > ends_at or refusals == REFUSALS_AT_MOST:
            break
        if _was_refused_lately(gap, now):
            continue
        code, market, day = gap
        try:
            bars = _repair_day(broker, code, market, day, now)
        except Refused as refusal:
            log.warning("the minutes of %s on %s for %s were refused; they wait: %s", code, market, day, refusal)
            _refused_at[gap] = now
            refusals += 1
            continue
        except BrokerError as error:
            log.warning("the minutes of %s on %s cannot be read; they wait: %s", code, market, error)
            break
        if bars:
            log.info("%s on %s, %s: %d minutes repaired from the chart", code, market, day, len(bars))
        candles.write_repaired_bars(bars)
        written += len(bars)
    return written


def _was_refused_lately(gap: GapKey, now: datetime) -> bool:
    refused_at = _refused_at.get(gap)
    # a time in the future means that a rehearsal's clock was set back
    if refused_at is not None and timedelta(0) <= now - refused_at < PAUSE:
        return True
    _refused_at.pop(gap, None)
    return False


def _repair_day(broker: Broker, code: str, market: Market, day: date, now: datetime) -> list[Bar]:
    """Return the repaired bars of one stock's day. Raises BrokerError."""
    last_complete = (now - MINUTE - GRACE).astimezone(KST)
    finished = f"{last_complete:%H%M}" if last_complete.date() == day else "2359" if last_complete.date() > day else ""
    bars = list[Bar]()
    for gap_range in doubtful(candles.days_bars(code, market, day), finished):
        try:
            bars += mended(gap_range.bars, _chart(broker, code, market, day, gap_range), gap_range.floor)
        except ContradictoryChart as error:
            log.warning("the chart of %s on %s for %s is not usable; the gap waits: %s", code, market, day, error)
            _refused_at[code, market, day] = now
    return bars


def _chart(broker: Broker, code: str, market: Market, day: date, gap_range: GapRange) -> Sequence[ChartMinute]:
    """Return the chart of a range, page by page. A stock that the broker does not know on the venue has no minutes.

    Raises BrokerError. Any refusal but NoSuchStock concerns our key, our request or the hour, and may be temporary.
    """
    since = candles.at_minute(day, gap_range.since) if gap_range.since else candles.midnight(day)
    last, rows = candles.at_minute(day, gap_range.until), list[ChartMinute]()
    while last > since:
        try:
            page = broker.minutes(code, market, last)
        except NoSuchStock as refusal:
            log.warning("the broker has no minutes of %s on %s for %s: %s", code, market, day, refusal)
            break
        rows.extend(row for row in page if since < row.at <= last)
        if not page or page[-1].at > last:
            break
        last = page[-1].at - MINUTE
    return rows
