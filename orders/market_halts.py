"""Applies the rules of `aegis.market_halts`: a falling index trips to sales only, a circuit breaker is recorded.

The only writer of `market_halts`. Indexes are read from `market_macro`, which both the feed and the broker's answers
fill, so that a fall is seen even if the socket is down.
"""

import logging
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings

from aegis import market_halts as rules
from aegis import sessions
from aegis.market_halts import FallLimits, HaltKind, IndexDay, Points
from aegis.sessions import KST
from aegis.terms import Market
from market import queries
from market.models import MarketCandle, MarketMacro
from orders import kill_switch
from orders.models import MarketHalt, SwitchChange
from orders.risk import denial_text

log = logging.getLogger(__name__)

INDEXES = {"kospi": "KOSPI", "kosdaq": "KOSDAQ", "kospi200": "KOSPI200"}
# a market's circuit breaker is that of its own index
BREAKER_INDEXES = ("kospi", "kosdaq")
# an older point says nothing about the present
INDEX_FRESH = timedelta(minutes=3)


def fall_limits() -> FallLimits:
    """Return how far an index may fall, by the settings."""
    return FallLimits(
        from_open_percent=Decimal(str(settings.MAX_INDEX_FALL_PERCENT)),
        percent=Decimal(str(settings.MAX_INDEX_DROP_PERCENT)),
        seconds=settings.INDEX_DROP_SECONDS,
    )


# --- indexes -------------------------------------------------------------------------------------


def watch_indexes(now: datetime) -> SwitchChange | None:
    """Let only sales pass if an index has fallen too far; return the change, None if the state stays.

    A fall from before a person's last change of the state does not count again: the fall is measured from there.
    """
    version = kill_switch.version()
    change = SwitchChange.objects.filter(is_trip=False, at__date=now.astimezone(KST).date()).order_by("-id").first()
    rows = _index_rows(change.at if change else None, now)
    for field, name in INDEXES.items():
        points = [Points(row.time, getattr(row, field)) for row in rows if getattr(row, field)]
        why = rules.fallen(name, points, points[0].points if points else None, fall_limits())
        if why is not None:
            return kill_switch.trip(denial_text(why), frozenset({why.code}), at=now, seen=version)
    return None


def _index_rows(since: datetime | None, now: datetime) -> list[MarketMacro]:
    """Return the minutes of today's KRX session, from the minute of `since` if it is given."""
    starts_at = sessions.krx_open(queries.today(now), now)
    if starts_at is None:
        return []
    if since is not None:
        starts_at = max(starts_at, since.replace(second=0, microsecond=0))
    return list(MarketMacro.objects.filter(time__gte=starts_at, time__lte=now).order_by("time"))


# --- halts ---------------------------------------------------------------------------------------


def begin_halt(kind: HaltKind, at: datetime) -> MarketHalt | None:
    """Record that the market is halted; return None if that is recorded already.

    A circuit breaker holds new orders back while its row is open (`aegis.risk.check_circuit_breaker`). A sidecar is
    recorded for information. Neither changes the trading state, and no resting order is cancelled.
    """
    halt, is_new = MarketHalt.objects.get_or_create(kind=kind, ended_at=None, defaults={"began_at": at})
    if not is_new:
        return None
    log.error("market halt: %s", kind)
    return halt


def end_halt(kind: HaltKind, at: datetime, *, is_heard: bool = True) -> MarketHalt | None:
    """Record that a halt is over; return None if none is open."""
    halt = MarketHalt.objects.filter(kind=kind, ended_at=None).first()
    if halt is None or not MarketHalt.objects.filter(pk=halt.pk, ended_at=None).update(ended_at=at, end_heard=is_heard):
        return None
    log.warning("market halt over: %s%s", kind, "" if is_heard else ", without a notice of its end")
    halt.ended_at, halt.end_heard = at, is_heard
    return halt


def end_forgotten(now: datetime) -> None:
    """End halts whose end was not reported: the venue trades again, or the halt is longer than its kind can last."""
    for halt in MarketHalt.objects.filter(ended_at=None):
        kind = HaltKind(halt.kind)
        if now - halt.began_at > kind.max_duration or (kind is HaltKind.CIRCUIT_BREAKER and _has_traded_since(halt)):
            end_halt(kind, now, is_heard=False)


def _has_traded_since(halt: MarketHalt) -> bool:
    """Whether KRX traded after the minute in which a circuit breaker was reported."""
    next_minute = halt.began_at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    bars = MarketCandle.objects.filter(venue=Market.KRX, interval=MarketCandle.Interval.MINUTE, volume__gt=0)
    return bars.filter(time__gte=next_minute).exclude(source=MarketCandle.Source.CHART).exists()


def hear(phase_code: str, at: datetime) -> None:
    """Record the halt that the market's operation code (MKOP_CLS_CODE) of a frame reports; most codes report none."""
    if kind := rules.BEGINS.get(phase_code):
        if kind is HaltKind.CIRCUIT_BREAKER and _is_stale(at):
            log.warning("operation code %s seems stale: no circuit breaker begins", phase_code)
            return
        begin_halt(kind, at)
    elif kind := rules.ENDS.get(phase_code):
        end_halt(kind, at)


def _is_stale(at: datetime) -> bool:
    midnight = at.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    ended = MarketHalt.objects.filter(kind=HaltKind.CIRCUIT_BREAKER, ended_at__gte=midnight)
    return rules.is_stale(_index_days(at, midnight), had_one_today=ended.exists())


def _index_days(at: datetime, midnight: datetime) -> list[IndexDay]:
    """Return KOSPI and KOSDAQ now, if the point is fresh, and at the last close."""
    now = MarketMacro.objects.filter(time__gte=at - INDEX_FRESH, time__lte=at).order_by("-time").first()
    close = MarketMacro.objects.filter(time__lt=midnight).order_by("-time").first()
    return [IndexDay(getattr(now, name, None), getattr(close, name, None)) for name in BREAKER_INDEXES]


def check_halts(now: datetime) -> None:
    """Trip if an index has fallen too far, and end halts whose end was not reported."""
    watch_indexes(now)
    end_forgotten(now)
