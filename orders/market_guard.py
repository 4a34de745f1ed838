"""Carries out what `aegis.market_guard` judges: an index that falls turns the switch to sales only, a halt stops all.

The only writer of `market_halts`. Indexes are read from `market_macro`, which the feed and the broker's answers
fill alike, so that a fall is seen with the socket down too.
"""

import logging
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext

from aegis import market_guard as rules
from aegis.guards import TradingState, gettext_noop
from aegis.market_guard import FallLimits, HaltKind, Points
from aegis.sessions import KST
from market import service as market
from market.models import MarketMacro
from orders import switch
from orders.guards import say
from orders.models import MarketHalt, SwitchChange

log = logging.getLogger(__name__)

INDEXES = {"kospi": "KOSPI", "kosdaq": "KOSDAQ", "kospi200": "KOSPI200"}
HALTED = {
    HaltKind.CIRCUIT_BREAKER: gettext_noop("circuit breaker: the market stands still"),
    HaltKind.SELL_SIDECAR: gettext_noop("sidecar against sales: programs may not sell"),
    HaltKind.BUY_SIDECAR: gettext_noop("sidecar against buys: programs may not buy"),
}
BY = "AEGIS"


def limits() -> FallLimits:
    """Return how far an index may fall, as set."""
    return FallLimits(
        from_open_percent=Decimal(str(settings.MAX_INDEX_FALL_PERCENT)),
        percent=Decimal(str(settings.MAX_INDEX_DROP_PERCENT)),
        seconds=settings.INDEX_DROP_SECONDS,
    )


# --- indexes -------------------------------------------------------------------------------------


def watch_indexes(now: datetime) -> SwitchChange | None:
    """Let only sales pass where an index has fallen too far; return the turn, None where the switch stays.

    What a person saw when they last turned the switch does not count again: a fall is measured from there.
    """
    turned = SwitchChange.objects.filter(is_trip=False, at__date=now.astimezone(KST).date()).order_by("-id").first()
    seen = _seen(turned.at if turned else None, now)
    for field, name in INDEXES.items():
        points = [Points(row.time, getattr(row, field)) for row in seen if getattr(row, field)]
        why = rules.fallen(name, points, points[0].points if points else None, limits())
        if why is not None:
            return _reduce(say(why), now)
    return None


def _seen(since: datetime | None, now: datetime) -> list[MarketMacro]:
    """Return today's minutes of KRX's session, from the one in which a person last turned the switch."""
    starts = [phase.starts_at for phase in market.today(now) if phase.market == "KRX" and phase.name == "REGULAR"]
    if not starts:
        return []
    began = datetime.combine(now.astimezone(KST), min(starts), KST)
    if since is not None:
        began = max(began, since.replace(second=0, microsecond=0))
    return list(MarketMacro.objects.filter(time__gte=began, time__lte=now).order_by("time"))


@transaction.atomic
def _reduce(why: str, now: datetime) -> SwitchChange | None:
    if switch.locked() is not TradingState.ACTIVE:
        return None
    log.error("the trading switch trips to sales only: %s", why)
    return switch.turn(TradingState.REDUCING, by=BY, reason=why, at=now, is_trip=True)


# --- halts ---------------------------------------------------------------------------------------


@transaction.atomic
def begin_halt(kind: HaltKind, at: datetime) -> MarketHalt | None:
    """Note that the market stands still and halt; None where that is known already, by whomever."""
    state = switch.locked()
    halt, is_new = MarketHalt.objects.get_or_create(kind=kind, ended_at=None, defaults={"began_at": at})
    if not is_new:
        return None
    log.error("market halt: %s", kind)
    if state is not TradingState.HALTED:
        reason = gettext(HALTED[kind])
        halt.change = switch.turn(TradingState.HALTED, by=BY, reason=reason, at=at, is_trip=True)
        halt.save(update_fields=["change"])
    return halt


@transaction.atomic
def end_halt(kind: HaltKind, at: datetime, *, is_heard: bool = True) -> MarketHalt | None:
    """Note that a halt is over, and turn the switch back to where it stood; None where none is known.

    A switch that a person turned meanwhile stays as it is, and a second halt keeps it halted.
    """
    switch.locked()
    halt = MarketHalt.objects.select_for_update().filter(kind=kind, ended_at=None).first()
    if halt is None:
        return None
    halt.ended_at, halt.end_heard = at, is_heard
    halt.save(update_fields=["ended_at", "end_heard"])
    log.warning("market halt over: %s%s", kind, "" if is_heard else ", by the clock: nobody told of its end")
    other = MarketHalt.objects.filter(ended_at=None, change=None).first()
    if other is not None:
        other.change = halt.change
        other.save(update_fields=["change"])
    elif halt.change is not None and SwitchChange.objects.order_by("-id").first() == halt.change:
        reason = gettext("the market trades again")
        switch.turn(TradingState(halt.change.from_state), by=BY, reason=reason, at=at, is_trip=True)
    return halt


def end_forgotten(now: datetime) -> None:
    """End halts that have lasted longer than any: their end was not heard."""
    for halt in MarketHalt.objects.filter(ended_at=None):
        kind = HaltKind(halt.kind)
        if now - halt.began_at > kind.lasts_at_most:
            end_halt(kind, now, is_heard=False)


def hear(phase_code: str, at: datetime) -> None:
    """Take in the market's operation code (MKOP_CLS_CODE) of one frame; most say nothing of halts."""
    if kind := rules.BEGINS.get(phase_code):
        begin_halt(kind, at)
    elif kind := rules.ENDS.get(phase_code):
        end_halt(kind, at)


def watch(now: datetime) -> None:
    """Look at what the market as a whole asks for."""
    watch_indexes(now)
    end_forgotten(now)
