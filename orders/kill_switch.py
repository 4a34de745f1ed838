"""The trading state (kill switch): the only writer of it and of its history. People change it, and it trips by itself.

What trips by itself trips to REDUCING, so that what is held can be sold; HALTED is a person's decision. A trip stands
until a person resumes, and what that person has seen does not trip again. Only a trip for want of the order list ends
by itself, once the list is complete for a while.

A change is one statement on a row that orders only read: it waits for no order, and no order waits for it.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.utils.translation import gettext

from aegis import risk as rules
from aegis import sessions
from aegis.lifecycle import UNANSWERED, Status
from aegis.risk import DAILY_LOSS, Evidence, TradingState, TripLimits
from aegis.sessions import KST
from market import queries
from orders import cancel, daily_loss, pretrade_context
from orders.models import OrderSequence, Reconciliation, StopRule, SwitchChange, TradeOrder, TradingSwitch
from orders.risk import say_all, trading_state

log = logging.getLogger(__name__)

BY = "AEGIS"
# the cause of a change that ends a trip
LIST_COMPLETE = "LIST_COMPLETE"
# refusals further apart than this are no row
REFUSED_WITHIN = timedelta(minutes=10)
# the newest orders that are looked through for refusals in a row
REFUSALS_READ = 200
# lists are read once a minute: one that is older says nothing of now
LIST_FRESH = timedelta(seconds=150)
# the newest starts of the workers that are looked through
STARTS_READ = 50
LIVE_STOPS = (StopRule.State.ARMED, StopRule.State.TRIGGERED, StopRule.State.ORDERED)
_LISTED = (Reconciliation.Outcome.WHOLE, Reconciliation.Outcome.PARTLY)


def halt(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Let nothing new leave, bought or sold, stops included."""
    return set_state(TradingState.HALTED, by=by, reason=reason, at=at)


def reduce(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Let sales pass, stops included, and nothing else."""
    return set_state(TradingState.REDUCING, by=by, reason=reason, at=at)


def reduce_unless_halted(*, by: str, reason: str, at: datetime) -> SwitchChange | None:
    """Let only sales pass; None, and nothing changed, if trading is halted: that is stricter."""
    ensure_exists(at)
    while True:
        seen = version()
        if trading_state() is TradingState.HALTED:
            return None
        change = _change_by_person(TradingState.REDUCING, by=by, reason=reason, at=at, seen=seen)
        if change is not None:
            return change


def resume(*, by: str, reason: str, at: datetime) -> SwitchChange:
    """Trade again."""
    return set_state(TradingState.ACTIVE, by=by, reason=reason, at=at)


def set_state(to: TradingState, *, by: str, reason: str, at: datetime, is_trip: bool = False) -> SwitchChange:
    """Change the trading state; each change is a row, one to the same state too. Raises ValueError without a name.

    A change by rules instead of a person is a trip: it forgives nothing that speaks for tripping. A person who reduces
    has our resting buys cancelled, unless AEGIS_CANCEL_BUYS_ON_REDUCE is off.
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


# The row is locked for this one statement only. `before` is what it was under the lock; with `seen` the change is made
# only if nobody changed the state since
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
    """Write the state and its history; None, and nothing written, if the state changed since version `seen`."""
    values = {
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
        cursor.execute(_CHANGE, values)
        written = cursor.fetchone()
    return SwitchChange.objects.get(pk=written[0]) if written else None


def trip(
    why: str, causes: frozenset[str], *, at: datetime, cancels_buys: bool = False, seen: int | None = None
) -> SwitchChange | None:
    """Let only sales pass, by a rule; None if the state is a person's stricter choice, or has these causes already.

    None too if the state changed since version `seen`, at which the rule was judged.
    """
    seen = version() if seen is None else seen
    found = evidence_of_state()
    is_stricter = found.state is TradingState.HALTED or (found.state is TradingState.REDUCING and found.is_by_person)
    if is_stricter or causes <= found.causes:
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
    """Return how often the state was changed, None before it was made."""
    return TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).values_list("version", flat=True).first()


def lock_state() -> TradingState:
    """Return the trading state, and hold up commits of orders to the end of the transaction.

    The state itself may change meanwhile: whoever changes it waits for nobody.
    """
    bump_version()
    return trading_state()


def bump_version() -> None:
    """Hold up commits of orders to the end of the transaction: what is being committed is then judged anew."""
    pretrade_context.bump_commits()


def cancel_buys(now: datetime) -> int:
    """Have our resting buys cancelled while the state asks for it; return how many cancels were not wanted before.

    The wish is a row's state that `orders.cancel_driver` drives until the order list confirms it. What a killed process
    or a refusing database leaves is made up by the next `watch`. A buy that is being committed meanwhile needs none:
    its last check sees the state.
    """
    why = next((change for change in _standing() if change.cancels_buys), None)
    if why is None or trading_state() is not TradingState.REDUCING:
        return 0
    try:
        return cancel.cancel_resting_buys(f"{why.by}: {why.reason}".strip(": "), at=now)
    except DatabaseError as error:
        log.error("resting buys are not marked for their cancel yet: %s", error)
        return 0


def _standing() -> list[SwitchChange]:
    """Return the changes that made the present REDUCING, newest first: a person's, or all trips since ACTIVE."""
    found: list[SwitchChange] = []
    for change in SwitchChange.objects.order_by("-id")[:50]:
        if change.to_state != TradingState.REDUCING:
            break
        found.append(change)
        if not change.is_trip:
            break
    return found


def watch(now: datetime) -> SwitchChange | None:
    """Trip the trading state if the evidence asks for it, or end a trip that was one for want of the list only.

    Returns the change, None if there is none.
    """
    cancel_buys(now)
    seen = version()
    found = evidence(now)
    if wanted := rules.trip(found, limits()):
        return trip(say_all(wanted.why), wanted.causes, at=now, cancels_buys=DAILY_LOSS in wanted.causes, seen=seen)
    if not rules.may_clear(found, limits()):
        return None
    words = gettext("the order list is complete again for {minutes} minutes: trading goes on by itself")
    change = _change(
        TradingState.ACTIVE,
        by=BY,
        reason=words.format(minutes=int(rules.LIST_COMPLETE_FOR.total_seconds() // 60)),
        at=now,
        is_trip=True,
        causes=frozenset({LIST_COMPLETE}),
        seen=seen,
    )
    if change is not None:
        log.warning("the trading state is %s again: %s", change.to_state, change.reason)
    return change


def armed_stops() -> int:
    """Return how many stops are armed, or are selling: HALTED stops them, REDUCING does not."""
    return StopRule.objects.filter(state__in=LIVE_STOPS).count()


def explain_halt(armed: int | None = None) -> str:
    """Return what a person must know who is about to halt; `armed` stops, if they are counted already."""
    words = gettext(
        "{count} stops are armed. Halting stops them too: nothing is sold until you resume. Sales only lets them sell, "
        "and is what you want in a fall"
    )
    return words.format(count=armed_stops() if armed is None else armed)


def explain_reduce() -> str:
    """Return what a person must know who is about to let only sales pass."""
    return gettext("{count} stops are armed, and go on selling: only sales pass").format(count=armed_stops())


# --- evidence --------------------------------------------------------------------------------------------------------


def limits() -> TripLimits:
    """Return when it trips, as set."""
    return TripLimits(
        loss_won=settings.MAX_DAILY_LOSS_WON,
        loss_percent=settings.MAX_DAILY_LOSS_PERCENT,
        refusals=settings.MAX_REFUSALS,
        blind_minutes=settings.MAX_FAILED_RECONCILIATIONS,
    )


def evidence_of_state() -> Evidence:
    """Return the trading state, whose choice it is, and which causes stand."""
    standing = _standing()
    is_by_person = bool(standing) and not standing[-1].is_trip
    causes = frozenset(cause for change in standing for cause in change.causes.split())
    return Evidence(state=trading_state(), is_by_person=is_by_person, causes=causes)


def evidence(now: datetime) -> Evidence:
    """Return what speaks for a trip, since a person last changed the state."""
    found = evidence_of_state()
    turned = SwitchChange.objects.filter(is_trip=False).order_by("-id").first()
    since = turned.at if turned else None
    blind_for, complete_for = _lists(now, since)
    loss = daily_loss.todays(now)
    return Evidence(
        state=found.state,
        is_by_person=found.is_by_person,
        causes=found.causes,
        loss_won=loss.won,
        loss_when_turned=_loss_when_turned(now),
        total_yesterday=loss.total_yesterday,
        refused=_refused(now, since),
        blind_for=blind_for,
        complete_for=complete_for,
        cleared_today=_cleared_on(now),
    )


def _loss_when_turned(now: datetime) -> int:
    """Return what today's trading had lost when a person last resumed, 0 if that was before it began."""
    began = daily_loss.began_at(now)
    turned = SwitchChange.objects.filter(is_trip=False, to_state=TradingState.ACTIVE).order_by("-id").first()
    return (turned.day_loss_won or 0) if turned and began and turned.at >= began else 0


def _cleared_on(now: datetime) -> int:
    midnight = now.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    return SwitchChange.objects.filter(causes=LIST_COMPLETE, at__gte=midnight).count()


def _refused(now: datetime, since: datetime | None) -> tuple[str, ...]:
    """Return the stocks of the newest orders, in a row, that the broker or the exchange refused within a while."""
    today = now.astimezone(KST).date()
    sent = TradeOrder.objects.filter(order_date=today, origin=TradeOrder.Origin.AEGIS, sent_at__isnull=False)
    answered = sent.exclude(status__in=UNANSWERED).exclude(never_arrived=True)
    if since:
        answered = answered.filter(created_at__gt=since)
    found: list[str] = []
    newest_at = None
    for code, status, at in answered.order_by("-id").values_list("stock_code", "status", "created_at")[:REFUSALS_READ]:
        newest_at = newest_at or at
        if status != Status.REJECTED or newest_at - at > REFUSED_WITHIN:
            break
        found.append(code)
    return tuple(found)


def _lists(now: datetime, since: datetime | None) -> tuple[timedelta, timedelta]:
    """Return for how long no complete order list was read in today's trading hours, and for how long every one was.

    Both are times by the clock: a reading that never ends writes no row, and its minutes count. The broker's nights and
    weekends of maintenance do not, nor does the time in which the workers were stopped.
    """
    nothing = timedelta(0)
    looks = Reconciliation.objects.filter(at__lte=now)
    opened = sessions.first_start(queries.today(now), now)
    if opened is None or not queries.is_any_market_open(now) or not looks.exists():
        return nothing, nothing
    begins = max(opened, since) if since else opened
    listed = _newest_at(looks.filter(outcome__in=_LISTED, at__gt=begins))
    failed = _newest_at(looks.filter(outcome=Reconciliation.Outcome.FAILED, at__gt=begins))
    missing_since = _looked_since(looks, listed or begins)
    is_failing = failed is not None and (listed is None or failed > listed)
    if is_failing or now - missing_since > LIST_FRESH:
        return max(nothing, now - missing_since), nothing
    return nothing, _complete_for(now, [at for at in (begins, failed, _tripped_at()) if at]) if listed else nothing


def _newest_at(looks: QuerySet[Reconciliation]) -> datetime | None:
    return looks.values_list("at", flat=True).first()


def _looked_since(looks: QuerySet[Reconciliation], listed: datetime) -> datetime:
    """Return since when no list was complete, `listed` at the latest: later if the workers were stopped meanwhile.

    A start after a short time does not count: a worker that starts again and again is no reason to see nothing.
    """
    starts = looks.filter(outcome=Reconciliation.Outcome.BEGUN, at__gt=listed)
    for at in starts.values_list("at", flat=True)[:STARTS_READ]:
        before = _newest_at(looks.filter(at__lt=at))
        if before is None or at - before > LIST_FRESH:
            return at
    return listed


def _complete_for(now: datetime, after: Sequence[datetime]) -> timedelta:
    """Return for how long the list has been complete after all of these moments, as far as it matters.

    A time without a list ends it: what was complete before says nothing of that time.
    """
    begins = max(*after, now - 2 * (LIST_FRESH + rules.LIST_COMPLETE_FOR))
    listed = Reconciliation.objects.filter(outcome__in=_LISTED, at__gt=begins, at__lte=now)
    since = now
    for at in listed.values_list("at", flat=True):
        if since - at > LIST_FRESH:
            break
        since = at
    return now - since


def _tripped_at() -> datetime | None:
    """Return when the newest trip that stands was."""
    return max((change.at for change in _standing() if change.is_trip), default=None)


def ensure_exists(at: datetime) -> None:
    """Make the rows of the trading state and of the order sequence if there are none yet: trading."""
    TradingSwitch.objects.get_or_create(pk=TradingSwitch.ONLY_PK, defaults={"changed_at": at})
    OrderSequence.objects.get_or_create(pk=OrderSequence.ONLY_PK)
