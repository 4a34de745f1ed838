"""The trading state (kill switch): the only writer of it and of its history. People change it, and rules trip it.

A trip leads to REDUCING, so that holdings can still be sold; HALTED is a person's decision. A trip stands until a
person resumes, and evidence from before that does not trip again. Only a trip for missing order lists ends by itself,
once the list has been complete for a while.

A change is one statement on a row that orders only read: it waits for no order, and no order waits for it.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.utils.translation import gettext

from aegis import sessions
from aegis import trading_state as rules
from aegis.lifecycle import UNANSWERED, Status
from aegis.sessions import KST
from aegis.trading_state import DAILY_LOSS, TradingState, TripInputs, TripLimits
from market import queries
from orders import cancel, daily_loss, pretrade_context
from orders.models import OrderSequence, Reconciliation, StopRule, SwitchChange, TradeOrder, TradingSwitch
from orders.risk import denial_texts, trading_state

log = logging.getLogger(__name__)

BY = "AEGIS"
# the cause of a change that ends a trip
LIST_COMPLETE = "LIST_COMPLETE"
# refusals that are further apart than this are not counted as consecutive
CONSECUTIVE_REFUSALS_WITHIN = timedelta(minutes=10)
# how many of the newest orders are read for consecutive refusals
REFUSALS_READ = 200
# lists are read once a minute: an older list says nothing about the present
LIST_FRESH = timedelta(seconds=150)
# how many of the newest worker starts are read
STARTS_READ = 50
LIVE_STOPS = (StopRule.State.ARMED, StopRule.State.TRIGGERED, StopRule.State.ORDERED)
_LISTED = (Reconciliation.Outcome.WHOLE, Reconciliation.Outcome.PARTLY)


def halt(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Let no new order pass, neither a buy nor a sale, and no stop's sale."""
    return set_state(TradingState.HALTED, by=by, reason=reason, at=at)


def reduce(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Let only sales pass, stops among them."""
    return set_state(TradingState.REDUCING, by=by, reason=reason, at=at)


def reduce_unless_halted(*, by: str, reason: str, at: datetime) -> SwitchChange | None:
    """Let only sales pass; return None, with nothing changed, if trading is halted, which is stricter."""
    ensure_exists(at)
    while True:
        expected_version = version()
        if trading_state() is TradingState.HALTED:
            return None
        change = _change_by_person(TradingState.REDUCING, by=by, reason=reason, at=at, seen=expected_version)
        if change is not None:
            return change


def resume(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Let all orders pass again."""
    return set_state(TradingState.ACTIVE, by=by, reason=reason, at=at)


def set_state(to: TradingState, *, by: str, reason: str, at: datetime, is_trip: bool = False) -> SwitchChange:
    """Change the trading state; each change is a row, even one to the same state. Raises ValueError if `by` is empty.

    A change by a rule instead of a person is a trip: it does not reset the evidence for a trip. If a person reduces,
    our resting buys are cancelled, unless AEGIS_CANCEL_BUYS_ON_REDUCE is off.
    """
    if not by.strip():
        raise ValueError("by is empty: who turns the switch gives a name")
    ensure_exists(at)
    if is_trip:
        change = _change(to, by=by, reason=reason, at=at, is_trip=True)
    else:
        change = _change_by_person(to, by=by, reason=reason, at=at)
    if change is None:
        raise RuntimeError("the trading state has no row")
    return change


def _change_by_person(
    to: TradingState, *, by: str, reason: str, at: datetime, seen: int | None = None
) -> SwitchChange | None:
    cancels_buys = to is TradingState.REDUCING and settings.CANCEL_BUYS_ON_REDUCE
    loss = daily_loss.todays(at).won if to is TradingState.ACTIVE else None
    change = _change(
        to, by=by, reason=reason, at=at, is_trip=False, cancels_buys=cancels_buys, day_loss_won=loss, seen=seen
    )
    if change is not None:
        cancel_buys(at)
    return change


# The row is locked for this one statement only. `before` is the state under the lock; with `seen` the change is made
# only if the state is still of that version
_CHANGE = f"""
WITH old AS (
    SELECT id, state FROM trading_switch
    WHERE id = {TradingSwitch.ONLY_PK} AND version = coalesce(%(seen)s::bigint, version)
    FOR UPDATE
),
changed AS (
    UPDATE trading_switch
    SET state = %(to)s, reason = left(%(reason)s, 200), changed_by = %(by)s, changed_at = %(at)s, version = version + 1
    FROM old WHERE trading_switch.id = old.id
    RETURNING old.state AS before
)
INSERT INTO switch_changes (at, by, from_state, to_state, reason, is_trip, causes, cancels_buys, day_loss_won)
SELECT %(at)s, %(by)s, before, %(to)s, left(%(reason)s, 300), %(is_trip)s, %(causes)s, %(cancels_buys)s, %(loss)s
FROM changed
RETURNING id
"""  # noqa: S608


def _change(
    to: TradingState,
    *,
    by: str,
    reason: str,
    at: datetime,
    is_trip: bool,
    causes: frozenset[str] = frozenset(),
    cancels_buys: bool = False,
    day_loss_won: int | None = None,
    seen: int | None = None,
) -> SwitchChange | None:
    """Write the state and its history; return None, with nothing written, if the state changed since version `seen`."""
    params: dict[str, Any] = {
        "to": to.value,
        "by": by[:150],
        "reason": reason,
        "at": at,
        "is_trip": is_trip,
        "causes": " ".join(sorted(causes)),
        "cancels_buys": cancels_buys,
        "loss": day_loss_won,
        "seen": seen,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CHANGE, params)
        inserted = cursor.fetchone()
    return SwitchChange.objects.get(pk=inserted[0]) if inserted else None


def trip(
    why: str, causes: frozenset[str], *, at: datetime, cancels_buys: bool = False, seen: int | None = None
) -> SwitchChange | None:
    """Let only sales pass, by a rule. Return None if a person's choice is as strict, or these causes are in force.

    Return None too if the state changed since version `seen`, for which the rule was evaluated.
    """
    seen = version() if seen is None else seen
    current = evidence_of_state()
    is_strict = current.state is TradingState.HALTED or (
        current.state is TradingState.REDUCING and current.is_by_person
    )
    if is_strict or causes <= current.causes:
        return None
    ensure_exists(at)
    change = _change(
        TradingState.REDUCING,
        by=BY,
        reason=why,
        at=at,
        is_trip=True,
        causes=causes,
        cancels_buys=cancels_buys and settings.CANCEL_BUYS_ON_REDUCE,
        seen=seen,
    )
    if change is not None:
        log.error("the trading state tripped to %s: %s", change.to_state, change.reason)
        cancel_buys(at)
    return change


def version() -> int | None:
    """Return how often the state was changed, None before its row exists."""
    return TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).values_list("version", flat=True).first()


def lock_state() -> TradingState:
    """Return the trading state, and hold up commits of orders until the transaction ends.

    The state itself may change meanwhile: a change waits for nothing.
    """
    bump_version()
    return trading_state()


def bump_version() -> None:
    """Hold up commits of orders until the transaction ends: an order that is being committed is then checked again."""
    pretrade_context.bump_commits()


def cancel_buys(now: datetime) -> int:
    """Request the cancel of our resting buys while the state asks for it; return how many requests are new.

    `orders.cancel_driver` drives each request, which is stored in the order's row, until the order list confirms it.
    After a killed process or a database error the next `watch` requests the rest. A buy that is being committed
    meanwhile needs no cancel: its last check sees the state.
    """
    change = next((change for change in _changes_in_force() if change.cancels_buys), None)
    if change is None or trading_state() is not TradingState.REDUCING:
        return 0
    try:
        return cancel.cancel_resting_buys(f"{change.by}: {change.reason}".strip(": "), at=now)
    except DatabaseError as error:
        log.error("the cancel of resting buys is not requested yet: %s", error)
        return 0


def _changes_in_force() -> list[SwitchChange]:
    """Return the changes that led to the present REDUCING, newest first: a person's, or all trips since ACTIVE."""
    changes: list[SwitchChange] = []
    for change in SwitchChange.objects.order_by("-id")[:50]:
        if change.to_state != TradingState.REDUCING:
            break
        changes.append(change)
        if not change.is_trip:
            break
    return changes


def check_trips(now: datetime) -> SwitchChange | None:
    """Trip the trading state if the evidence asks for it, or end a trip that only missing lists caused.

    Return the change, None if there is none.
    """
    cancel_buys(now)
    expected_version = version()
    current = evidence(now)
    if cause := rules.trip_for(current, trip_limits()):
        return trip(
            denial_texts(cause.why),
            cause.causes,
            at=now,
            cancels_buys=DAILY_LOSS in cause.causes,
            seen=expected_version,
        )
    if not rules.may_clear(current, trip_limits()):
        return None
    template = gettext("the order list has been complete for {minutes} minutes: trading resumes automatically")
    change = _change(
        TradingState.ACTIVE,
        by=BY,
        reason=template.format(minutes=int(rules.LIST_COMPLETE_FOR.total_seconds() // 60)),
        at=now,
        is_trip=True,
        causes=frozenset({LIST_COMPLETE}),
        seen=expected_version,
    )
    if change is not None:
        log.warning("the trading state is %s again: %s", change.to_state, change.reason)
    return change


def armed_stops() -> int:
    """Return how many stops are armed or selling: HALTED stops them, REDUCING does not."""
    return StopRule.objects.filter(state__in=LIVE_STOPS).count()


def explain_halt(armed: int | None = None) -> str:
    """Return the warning for a person who is about to halt; `armed` is the number of stops if it is known already."""
    template = gettext(
        "{count} stops are armed. Halting stops them too: nothing is sold until you resume. Sales only lets them sell, "
        "and is what you want in a fall"
    )
    return template.format(count=armed_stops() if armed is None else armed)


def explain_reduce() -> str:
    """Return the note for a person who is about to let only sales pass."""
    return gettext("{count} stops are armed, and go on selling: only sales pass").format(count=armed_stops())


# --- evidence --------------------------------------------------------------------------------------------------------


def trip_limits() -> TripLimits:
    """Return when the state trips, by the settings."""
    return TripLimits(
        loss_won=settings.MAX_DAILY_LOSS_WON,
        loss_percent=settings.MAX_DAILY_LOSS_PERCENT,
        refusals=settings.MAX_REFUSALS,
        list_missing_minutes=settings.MAX_FAILED_RECONCILIATIONS,
    )


def evidence_of_state() -> TripInputs:
    """Return the trading state, whether a person chose it, and which causes are in force."""
    changes = _changes_in_force()
    is_by_person = bool(changes) and not changes[-1].is_trip
    causes = frozenset(cause for change in changes for cause in change.causes.split())
    return TripInputs(state=trading_state(), is_by_person=is_by_person, causes=causes)


def evidence(now: datetime) -> TripInputs:
    """Return the evidence for a trip since a person last changed the state."""
    current = evidence_of_state()
    last_change = SwitchChange.objects.filter(is_trip=False).order_by("-id").first()
    since = last_change.at if last_change else None
    list_missing_for, complete_for = _list_durations(now, since)
    loss = daily_loss.todays(now)
    return TripInputs(
        state=current.state,
        is_by_person=current.is_by_person,
        causes=current.causes,
        loss_won=loss.won,
        loss_at_resume=_loss_when_turned(now),
        total_yesterday=loss.total_yesterday,
        refused=_refused_codes(now, since),
        list_missing_for=list_missing_for,
        complete_for=complete_for,
        cleared_today=_clears_today(now),
    )


def _loss_when_turned(now: datetime) -> int:
    """Return today's loss in won when a person last resumed, 0 if that was before today's trading."""
    began_at = daily_loss.began_at(now)
    change = SwitchChange.objects.filter(is_trip=False, to_state=TradingState.ACTIVE).order_by("-id").first()
    return (change.day_loss_won or 0) if change and began_at and change.at >= began_at else 0


def _clears_today(now: datetime) -> int:
    midnight = now.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    return SwitchChange.objects.filter(causes=LIST_COMPLETE, at__gte=midnight).count()


def _refused_codes(now: datetime, since: datetime | None) -> tuple[str, ...]:
    """Return the stocks of the newest consecutive orders that the broker or the exchange refused in a short time."""
    today = now.astimezone(KST).date()
    sent_orders = TradeOrder.objects.filter(order_date=today, origin=TradeOrder.Origin.AEGIS, sent_at__isnull=False)
    orders = sent_orders.exclude(status__in=UNANSWERED).exclude(never_arrived=True)
    if since:
        orders = orders.filter(created_at__gt=since)
    codes: list[str] = []
    newest_at = None
    for code, status, at in orders.order_by("-id").values_list("stock_code", "status", "created_at")[:REFUSALS_READ]:
        newest_at = newest_at or at
        if status != Status.REJECTED or newest_at - at > CONSECUTIVE_REFUSALS_WITHIN:
            break
        codes.append(code)
    return tuple(codes)


def _list_durations(now: datetime, since: datetime | None) -> tuple[timedelta, timedelta]:
    """Return for how long no order list was complete in today's trading hours, and for how long every list was.

    Both are clock times: a read that never ends writes no row, but its minutes count. The broker's maintenance at night
    and at weekends does not count, and neither does the time when the workers were stopped.
    """
    zero = timedelta(0)
    reconciliations = Reconciliation.objects.filter(at__lte=now)
    opens_at = sessions.first_start(queries.today(now), now)
    if opens_at is None or not queries.is_any_market_open(now) or not reconciliations.exists():
        return zero, zero
    starts_at = max(opens_at, since) if since else opens_at
    listed_at = _newest_at(reconciliations.filter(outcome__in=_LISTED, at__gt=starts_at))
    failed_at = _newest_at(reconciliations.filter(outcome=Reconciliation.Outcome.FAILED, at__gt=starts_at))
    missing_since = _missing_since(reconciliations, listed_at or starts_at)
    is_failing = failed_at is not None and (listed_at is None or failed_at > listed_at)
    if is_failing or now - missing_since > LIST_FRESH:
        return max(zero, now - missing_since), zero
    return zero, _complete_for(now, [at for at in (starts_at, failed_at, _tripped_at()) if at]) if listed_at else zero


def _newest_at(reconciliations: QuerySet[Reconciliation]) -> datetime | None:
    return reconciliations.values_list("at", flat=True).first()


def _missing_since(reconciliations: QuerySet[Reconciliation], listed_at: datetime) -> datetime:
    """Return since when no list was complete: since `listed_at`, or later if the workers were stopped meanwhile.

    A start after a short pause does not count: a worker that restarts again and again does not excuse a missing list.
    """
    starts = reconciliations.filter(outcome=Reconciliation.Outcome.BEGUN, at__gt=listed_at)
    for at in starts.values_list("at", flat=True)[:STARTS_READ]:
        previous_at = _newest_at(reconciliations.filter(at__lt=at))
        if previous_at is None or at - previous_at > LIST_FRESH:
            return at
    return listed_at


def _complete_for(now: datetime, after: Sequence[datetime]) -> timedelta:
    """Return for how long the list has been complete since the latest of these times, as far as it matters.

    A period without a list ends it: an earlier complete list says nothing about that period.
    """
    starts_at = max(*after, now - 2 * (LIST_FRESH + rules.LIST_COMPLETE_FOR))
    reconciliations = Reconciliation.objects.filter(outcome__in=_LISTED, at__gt=starts_at, at__lte=now)
    since = now
    for at in reconciliations.values_list("at", flat=True):
        if since - at > LIST_FRESH:
            break
        since = at
    return now - since


def _tripped_at() -> datetime | None:
    """Return the time of the newest trip in force, None if there is none."""
    return max((change.at for change in _changes_in_force() if change.is_trip), default=None)


def ensure_exists(at: datetime) -> None:
    """Create the rows of the trading state (ACTIVE) and of the order sequence if they do not exist."""
    TradingSwitch.objects.get_or_create(pk=TradingSwitch.ONLY_PK, defaults={"changed_at": at})
    OrderSequence.objects.get_or_create(pk=OrderSequence.ONLY_PK)
