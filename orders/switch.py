"""The kill switch: the only writer of its position and of its history. People turn it; it trips by itself.

Once tripped it stays until a person resumes, and what that person has seen does not trip it again.
"""

import logging
from datetime import date, datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F

from aegis import guards as rules
from aegis.guards import Evidence, TradingState, TripLimits
from aegis.lifecycle import UNANSWERED, Status
from aegis.sessions import KST
from market import service as market
from orders.guards import say_all
from orders.models import Reconciliation, SwitchChange, TradeOrder, TradingSwitch
from portfolio.models import AccountSnapshot

log = logging.getLogger(__name__)


def halt(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Let nothing new leave, bought or sold."""
    return turn(TradingState.HALTED, by=by, reason=reason, at=at)


def reduce(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Let sales pass and nothing else."""
    return turn(TradingState.REDUCING, by=by, reason=reason, at=at)


def resume(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Trade again."""
    return turn(TradingState.ACTIVE, by=by, reason=reason, at=at)


@transaction.atomic
def turn(to: TradingState, *, by: str, reason: str, at: datetime, is_trip: bool = False) -> SwitchChange:
    """Turn the switch; each turn is a row, that to where it stands too. Raises ValueError where nobody is named.

    A turn by rules instead of a person is a trip: it forgives nothing that speaks for tripping.
    """
    if not by.strip():
        raise ValueError("by is empty: who turns the switch gives a name")
    return _turn(_locked(at), to, by=by, reason=reason, at=at, is_trip=is_trip)


def locked() -> TradingState:
    """Return where the switch stands, and hold it so to the end of the transaction: no order is committed meanwhile."""
    overtake()
    state = TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).values_list("state", flat=True).first()
    return TradingState(state or TradingState.ACTIVE)


def overtake() -> None:
    """Hold the switch, and have whatever waits behind judged anew, by what is so once this transaction is over."""
    TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).update(intents=F("intents") + 1)


def watch(now: datetime) -> SwitchChange | None:
    """Trip the switch where the evidence asks for it; return the change, None where it stays."""
    trip = rules.trip(evidence(now), limits())
    if trip is None:
        return None
    with transaction.atomic():
        row = _locked(now)
        # somebody may have turned it since the evidence was gathered
        trip = rules.trip(evidence(now), limits())
        if trip is None:
            return None
        change = _turn(row, trip.to, by="AEGIS", reason=say_all(trip.why), at=now, is_trip=True)
    log.error("the trading switch tripped to %s: %s", change.to_state, change.reason)
    return change


def limits() -> TripLimits:
    """Return when it trips, as set."""
    return TripLimits(
        loss_won=settings.MAX_DAILY_LOSS_WON,
        loss_percent=settings.MAX_DAILY_LOSS_PERCENT,
        refusals=settings.MAX_REFUSALS,
        failures=settings.MAX_FAILED_RECONCILIATIONS,
    )


def evidence(now: datetime) -> Evidence:
    """Return what speaks for tripping, since a person last turned the switch."""
    state = TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).values_list("state", flat=True).first()
    turned = SwitchChange.objects.filter(is_trip=False).order_by("-id").first()
    since = turned.at if turned else None
    today = now.astimezone(KST).date()
    return Evidence(
        state=TradingState(state or TradingState.ACTIVE),
        refusals=_refusals(today, since),
        failures=_failures(now, since),
        **_losses(today, since),
    )


def _losses(today: date, since: datetime | None) -> dict[str, int]:
    """Return today's loss by the broker's own total, and what it was when the switch was last turned.

    Money taken out by transfer looks like a loss: the balance does not tell it apart.
    """
    seen = AccountSnapshot.objects.filter(timestamp__date=today).order_by("-timestamp")
    newest = seen.first()
    if newest is None:
        return {}
    turned_at = seen.filter(timestamp__lte=since).first() if since else None
    return {
        "loss_won": max(0, -newest.net_profit_today),
        "loss_when_turned": max(0, -turned_at.net_profit_today) if turned_at else 0,
        "total_yesterday": newest.total_asset - newest.net_profit_today,
    }


def _refusals(today: date, since: datetime | None) -> int:
    """Return how many of the newest orders, in a row, the broker or the exchange refused today."""
    sent = TradeOrder.objects.filter(order_date=today, origin=TradeOrder.Origin.AEGIS, sent_at__isnull=False)
    answered = sent.exclude(status__in=UNANSWERED).exclude(never_arrived=True)
    if since:
        answered = answered.filter(created_at__gt=since)
    newest = answered.order_by("-id").values_list("status", flat=True)[: settings.MAX_REFUSALS]
    return _leading(newest, Status.REJECTED)


def _failures(now: datetime, since: datetime | None) -> int:
    """Return how many of the newest reconciliations, in a row, failed in today's trading hours.

    The broker's nights and weekends of maintenance are none of its business.
    """
    if not market.is_any_market_open(now):
        return 0
    opened = datetime.combine(now.astimezone(KST), min(phase.starts_at for phase in market.today(now)), KST)
    looks = Reconciliation.objects.filter(at__gt=max(opened, since) if since else opened)
    looks = looks.exclude(outcome=Reconciliation.Outcome.BEGUN)
    newest = looks.order_by("-id").values_list("outcome", flat=True)[: settings.MAX_FAILED_RECONCILIATIONS]
    return _leading(newest, Reconciliation.Outcome.FAILED)


def _leading(newest: Any, what: str) -> int:
    """Return how many of the first are `what`."""
    count = 0
    for each in newest:
        if each != what:
            break
        count += 1
    return count


def make(at: datetime) -> None:
    """Make the switch where there is none yet: trading."""
    TradingSwitch.objects.get_or_create(pk=TradingSwitch.ONLY_PK, defaults={"changed_at": at})


def _locked(at: datetime) -> TradingSwitch:
    make(at)
    overtake()
    return TradingSwitch.objects.select_for_update().get(pk=TradingSwitch.ONLY_PK)


def _turn(row: TradingSwitch, to: TradingState, *, by: str, reason: str, at: datetime, is_trip: bool) -> SwitchChange:
    change = SwitchChange.objects.create(
        at=at, by=by[:150], from_state=row.state, to_state=to.value, reason=reason[:300], is_trip=is_trip
    )
    row.state, row.reason, row.changed_by, row.changed_at = to.value, reason[:200], by[:150], at
    row.save(update_fields=["state", "reason", "changed_by", "changed_at"])
    return change
