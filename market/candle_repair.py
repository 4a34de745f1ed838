"""Bars with holes are mended from the broker's minute chart (분봉), and what nobody listened to is filled in."""

import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from time import monotonic

from aegis.broker import Broker, BrokerError, ChartMinute, NoSuchStock, Refused
from aegis.candles import Bar, GapRange, doubtful, mended
from aegis.sessions import KST
from aegis.terms import Market
from infra.advisory_lock import advisory_lock
from market import candles

log = logging.getLogger(__name__)

MINUTE = timedelta(minutes=1)
# how long after its end a minute's chart is surely complete
GRACE = timedelta(seconds=5)
# a chart of days past reaches back further; older holes are not worth their calls
REACH = timedelta(days=5)
# what is not done by then is the next turn's
TURN_SECONDS = 20.0
# a chart that is refused for a reason that may pass is asked for again after this; so many such refusals end a turn
PAUSE = timedelta(minutes=1)
REFUSALS_AT_MOST = 3

Hole = tuple[str, Market, date]
_refused_at: dict[Hole, datetime] = {}


def repair(broker: Broker, *, now: datetime) -> int:
    """Mend what has holes; return how many bars were written. One process at a time, the others return at once."""
    with advisory_lock("mending") as is_ours:
        return _mend_in_turn(broker, now) if is_ours else 0


def _mend_in_turn(broker: Broker, now: datetime) -> int:
    ends_at, written, refusals = monotonic() + TURN_SECONDS, 0, 0
    for hole in candles.with_holes(now - REACH):
        if monotonic() > ends_at or refusals == REFUSALS_AT_MOST:
            break
        if _was_refused_lately(hole, now):
            continue
        code, market, day = hole
        try:
            bars = _mend_day(broker, code, market, day, now)
        except Refused as refusal:
            log.warning("the minutes of %s on %s for %s are refused, and wait: %s", code, market, day, refusal)
            _refused_at[hole] = now
            refusals += 1
            continue
        except BrokerError as error:
            log.warning("the minutes of %s on %s cannot be asked for, and wait: %s", code, market, error)
            break
        if bars:
            log.info("%s on %s, %s: %d minutes mended from the chart", code, market, day, len(bars))
        candles.write_mended(bars)
        written += len(bars)
    return written


def _was_refused_lately(hole: Hole, now: datetime) -> bool:
    refused_at = _refused_at.get(hole)
    # not in the future: a rehearsal's clock was set back
    if refused_at is not None and timedelta(0) <= now - refused_at < PAUSE:
        return True
    _refused_at.pop(hole, None)
    return False


def _mend_day(broker: Broker, code: str, market: Market, day: date, now: datetime) -> list[Bar]:
    """Return what is to be written of one stock's day. Raises BrokerError."""
    over = (now - MINUTE - GRACE).astimezone(KST)
    finished = f"{over:%H%M}" if over.date() == day else "2359" if over.date() > day else ""
    return [
        bar
        for stretch in doubtful(candles.days_bars(code, market, day), finished)
        for bar in mended(stretch.bars, _chart(broker, code, market, day, stretch), stretch.floor)
    ]


def _chart(broker: Broker, code: str, market: Market, day: date, stretch: GapRange) -> Sequence[ChartMinute]:
    """Return the chart of a stretch, page by page; a stock that the broker does not know there has no minutes.

    Raises BrokerError; any other refusal speaks of our key, our question or the hour, and may pass.
    """
    since = candles.at_minute(day, stretch.since) if stretch.since else candles.midnight(day)
    last, rows = candles.at_minute(day, stretch.until), list[ChartMinute]()
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
