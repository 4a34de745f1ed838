"""Executes the chase: each step that `aegis.chase` decides is one function, one Celery task, its own broker calls.

CHECK reads the order list; CANCEL asks for the quote and for the cash or shares of the re-order, and cancels (or AMEND
amends); CONFIRM reads the list again; REORDER asks for a fresh quote and orders what the cancel released. The deadline,
the step and the claim are columns of the order's row: a worker may die at any line, and a message that arrives twice,
late or never changes nothing.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError
from django.utils.translation import gettext

from aegis import chase as rules
from aegis import sessions
from aegis.amends import can_amend
from aegis.broker import Broker, BrokerError, HeldBack, Refused
from aegis.chase import Action, ChaseBy, ChaseDecision, ChaseSession, ChaseState, ChaseStep
from aegis.denials import gettext_noop
from aegis.lifecycle import UNSETTLED, Status
from aegis.order_events import OrderEventKind
from aegis.requests import LIVE, EndCause, RequestedBy, RequestKind, resend_after
from aegis.sessions import KST
from aegis.terms import Market, OrderKind
from infra import log_context, sql
from market import queries
from orders import journal, reconcile, requests, risk, settle
from orders.amend import Amender
from orders.cancel import Canceller
from orders.intents import OrderDenied
from orders.models import BrokerRequest, TradeOrder
from orders.reorders import Preview, Reorders, reorder_of
from orders.requests import Grounds

log = logging.getLogger(__name__)

CLAIM = timedelta(seconds=30)
STEPS_AT_ONCE = 8
# while a stock or its venue does not trade, a due chase decides again after this
PAUSE = timedelta(seconds=10)
# for a cancel that the list does not show yet, the list is read again after the first; after the second, less often
CONFIRM_AGAIN = timedelta(seconds=1)
CONFIRM_SLOWLY_AFTER = timedelta(seconds=30)
# a message that is only a little late is on its way: the sweep restarts what is overdue by more than this
OVERDUE = timedelta(seconds=3)
# the requests of one step to the next price: a cancel and a new order
REQUESTS_OF_A_STEP = 2

_DUE = "chase_at <= %(due_by)s AND (chase_claimed_until IS NULL OR chase_claimed_until < %(now)s)"
_DUE_ORDERS = f"SELECT id, chase_step FROM trade_orders WHERE {_DUE} ORDER BY chase_at"  # noqa: S608
_RELEASE = "UPDATE trade_orders SET chase_claimed_until = NULL WHERE id = %(pk)s AND chase_claimed_until = %(claim)s"


def due_orders(now: datetime) -> list[int]:
    """Return the orders whose next step is due and that no worker has claimed."""
    return [pk for pk, _ in sql.query(_DUE_ORDERS, {"due_by": now, "now": now})]


def overdue_steps(now: datetime) -> list[tuple[int, ChaseStep]]:
    """Return the orders whose step is overdue, and that step: their message was lost."""
    return [(pk, ChaseStep(step)) for pk, step in sql.query(_DUE_ORDERS, {"due_by": now - OVERDUE, "now": now})]


def run_due_steps(pk: int, broker: Broker, now: Callable[[], datetime]) -> Action:
    """Take all steps of one order that are due now; return the last action. Tests and tools call it."""
    action = Action.REST
    for _ in range(STEPS_AT_ONCE):
        result = run_step(pk, broker, now)
        action = result.action
        if result.next_step is None or result.next_pk != pk or result.seconds:
            break
    return action


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step: the action taken, and the step that follows, with its order and its delay in seconds.

    The seconds are market time. `next_step` is None if nothing follows: the chase is over, another worker has claimed
    the order, or the broker did not answer and the sweep restarts the step.
    """

    action: Action
    next_pk: int = 0
    next_step: ChaseStep | None = None
    seconds: float = 0.0


@log_context.with_order_context
def run_step(pk: int, broker: Broker, now: Callable[[], datetime], step: ChaseStep | None = None) -> StepResult:
    """Take one step of one order, if it is due and no other worker has claimed it.

    `step` is the step of the message. If the rows ask for another step by now, that step is returned to be sent next.
    After a BrokerError the next sweep tries again.
    """
    order = _claim(pk, now())
    if order is None:
        return StepResult(Action.REST)
    claim = order.chase_claimed_until
    try:
        decision = next_decision(order, now())
        if step is not None and decision.action.step not in (None, step):
            return _continue_with(order, decision.action.step)
        return _Step(order, decision, broker, now).take()
    except BrokerError as error:
        log.warning("order %s: its chase waits: %s", pk, error)
        return StepResult(Action.WAIT)
    finally:
        sql.execute(_RELEASE, {"pk": pk, "claim": claim})


def _claim(pk: int, now: datetime) -> TradeOrder | None:
    """Claim an order for one step, and return it, None if another worker has it. The claim's end identifies it."""
    params = {"pk": pk, "due_by": now, "now": now, "until": now + CLAIM}
    orders = sql.update_where(TradeOrder, "chase_claimed_until = %(until)s", f"id = %(pk)s AND {_DUE}", params)
    return orders[0] if orders else None


def _continue_with(order: TradeOrder, step: ChaseStep | None) -> StepResult:
    if step is not None and order.chase_step != step:
        journal.update_fields(order, chase_step=step.value)
    return StepResult(Action.WAIT, order.pk, step)


# --- deciding --------------------------------------------------------------------------------------------------------


def next_decision(order: TradeOrder, now: datetime) -> ChaseDecision:
    """Return the decision that follows from the rows."""
    may_order = order.side in risk.trading_state().allowed_sides
    return rules.next_step(_state(order), order.plan, now=now, may_order=may_order, session=_session(order, now))


def _state(order: TradeOrder) -> ChaseState:
    family = _family(order)
    children = [child for child in family if child.pk != order.root_pk and child.origin == TradeOrder.Origin.AEGIS]
    changes = requests.all_changes(order)
    live = [change for change in changes if change.state in LIVE]
    cancels = [
        change for change in live if change.kind == RequestKind.CANCEL and change.requested_by == RequestedBy.CHASE
    ]
    amends = [change for change in live if change.kind == RequestKind.AMEND]
    pending_changes = amends or cancels
    pending = pending_changes[-1] if pending_changes else None
    return ChaseState(
        status=order.state,
        retries=sum(_reached_the_broker(child) for child in children if child.pk != order.pk) + _counts_itself(order),
        trade_date=order.order_date,
        created_at=order.created_at,
        due_at=order.chase_at,
        confirmed_at=order.confirmed_at,
        remaining_qty=remaining_qty(order, family),
        has_successor=any(child.attempt > order.attempt and _replaces_earlier(child) for child in children),
        cancel_sent_at=pending.as_sent().sent_at if pending else None,
        resend_at=pending.as_sent().sent_at + resend_after(len(cancels)) if pending and not amends else None,
        end_cause=EndCause(order.end_cause) if order.end_cause else None,
        released_qty=requests.released_qty(changes),
        never_arrived=order.never_arrived,
        lost=sum(child.never_arrived for child in children),
        is_at_market=OrderKind(order.order_kind).is_market,
        by=_chased_by(order),
    )


def _family(order: TradeOrder) -> list[TradeOrder]:
    return sql.find(TradeOrder, "(id = %(root)s OR root_id = %(root)s)", {"root": order.root_pk})


def _reached_the_broker(order: TradeOrder) -> bool:
    """Whether the broker ever had this order. It never had the new order of a refused amend."""
    return not order.never_arrived and not (order.replaces_id and order.state is Status.REJECTED)


def _replaces_earlier(order: TradeOrder) -> bool:
    """Whether an order replaces those before it. The new order of a partial amend stands beside them."""
    is_of_part = order.replaces_id is not None and BrokerRequest.objects.filter(makes=order, is_whole=False).exists()
    return _reached_the_broker(order) and not is_of_part


def _counts_itself(order: TradeOrder) -> int:
    return int(order.pk != order.root_pk and not order.never_arrived)


def _chased_by(order: TradeOrder) -> ChaseBy:
    """Return how this order moves closer: by an amend only if orders of its venue and kind can be amended."""
    is_amendable = can_amend(Market(order.market), OrderKind(order.order_kind), order.order_date)
    return ChaseBy(order.chase_by) if is_amendable else ChaseBy.CANCEL


def remaining_qty(order: TradeOrder, family: Sequence[TradeOrder]) -> int:
    """Return the root's quantity minus the shares that the family has filled or that its other orders hold open."""
    root = next(member for member in family if member.pk == order.root_pk)
    moving = requests.moving_qty([member.pk for member in family]) if any(m.replaces_id for m in family) else {}
    others = [member for member in family if member.pk != order.pk and member.state in UNSETTLED]
    open_elsewhere = sum(max(0, other.open_qty - moving.get(other.pk, 0)) for other in others)
    return root.qty - sum(member.filled_qty for member in family) - open_elsewhere


def _session(order: TradeOrder, now: datetime) -> ChaseSession:
    phases, venue = queries.today(now), Market(order.market)
    auction = sessions.auction_at(phases, venue, now)
    today = now.astimezone(KST).date()
    return ChaseSession(
        is_open=sessions.is_market_open(venue, phases, now),
        takes_market=OrderKind.MARKET in sessions.legal_kinds(venue, phases, now),
        auction_since=datetime.combine(today, auction.starts_at, KST) if auction else None,
        auction_until=datetime.combine(today, auction.ends_at, KST) if auction else None,
        is_over=settle.has_ended(order, now, phases),
    )


# --- taking a step ---------------------------------------------------------------------------------------------------


class _Step:
    """One step of one order's chase, under its claim."""

    def __init__(self, order: TradeOrder, decision: ChaseDecision, broker: Broker, now: Callable[[], datetime]) -> None:
        self._order = order
        self._decision = decision
        self._broker = broker
        self._now = now

    def take(self) -> StepResult:
        handlers: dict[Action, Callable[[], StepResult]] = {
            Action.CHECK: self._check,
            Action.CANCEL: self._cancel,
            Action.AMEND: self._amend,
            Action.CONFIRM: self._confirm,
            Action.REORDER: self._reorder,
            Action.WAIT: self._wait,
            Action.REST: self._rest,
            Action.END: lambda: self._end(gettext(self._decision.why)),
        }
        return handlers[self._decision.action]()

    # --- without a call

    def _wait(self) -> StepResult:
        decision, now = self._decision, self._now()
        if self._order.chase_at is None or self._order.chase_at <= now:
            return self._pause(gettext(decision.why), until=decision.until)
        return _next_of(self._order, Action.WAIT, now)

    def _rest(self) -> StepResult:
        if self._order.chase_at is not None:
            journal.update_fields(self._order, chase_at=None)
        return StepResult(Action.REST)

    def _pause(self, why: str, until: datetime | None = None) -> StepResult:
        """Leave the order as it is, and decide again a little later."""
        now = self._now()
        later = max(until or now + PAUSE, now + CONFIRM_AGAIN)
        newest = self._order.events.order_by("-id").values_list("kind", "detail").first()
        if newest != (OrderEventKind.CHASE_PAUSED, why[:300]):
            journal.append_event(self._order, OrderEventKind.CHASE_PAUSED, why, at=now)
        return self._put_off(ChaseStep.CHECK, later - now)

    def _put_off(self, step: ChaseStep, pause: timedelta) -> StepResult:
        """Take `step` after a pause, unless the chase was ended meanwhile."""
        chased = TradeOrder.objects.filter(pk=self._order.pk, chase_at__isnull=False)
        if not chased.update(chase_at=self._now() + pause, chase_step=step.value):
            return StepResult(Action.WAIT)
        return StepResult(Action.WAIT, self._order.pk, step, pause.total_seconds())

    def _end(self, why: str) -> StepResult:
        """End the chase, and record the reason."""
        order = self._order
        is_idle = order.cancel_requested_by == RequestedBy.CHASE and not requests.live_changes(order)
        journal.update_fields(
            order, chase_at=None, chase_note=why[:200], **({"cancel_due_at": None} if is_idle else {})
        )
        journal.append_event(self._order, OrderEventKind.CHASE_ENDED, why, at=self._now())
        return StepResult(Action.END)

    # --- reading the list

    def _check(self) -> StepResult:
        reconcile.reconcile_now(self._broker, self._now)
        result = self._decide_again(Action.CHECK)
        if result.next_step is not ChaseStep.CHECK:
            return result
        order = self._order  # the list did not confirm its figures: it lacks the order, or fills of it
        is_long = order.missing_since is not None or order.unlisted_since is not None
        return self._put_off(ChaseStep.CHECK, PAUSE if is_long else CONFIRM_AGAIN)

    def _confirm(self) -> StepResult:
        """Check whether a cancel or an amend has ended; while the list does not show it, read the list again soon."""
        order = self._order
        reconcile.reconcile_now(self._broker, self._now)
        result = self._decide_again(Action.CONFIRM)
        if result.next_step is ChaseStep.CONFIRM:
            waited = self._now() - self._changed_at()
            return self._put_off(ChaseStep.CONFIRM, CONFIRM_AGAIN if waited < CONFIRM_SLOWLY_AFTER else PAUSE)
        new_order = order.replaced_by.filter(origin=TradeOrder.Origin.AEGIS, chase_at__isnull=False).first()
        if result.next_step is None and new_order is not None:
            return _next_of(new_order, Action.CONFIRM, self._now())
        return result

    def _changed_at(self) -> datetime:
        """Return when the newest cancel or amend without a known end was sent, or when the order ended."""
        order = self._order
        if order.is_done:
            return order.status_at
        return max((change.as_sent().sent_at for change in requests.live_changes(order)), default=self._now())

    def _decide_again(self, action: Action) -> StepResult:
        """Decide again by the list that was just read; return the next step."""
        sql.refresh(self._order)
        decision = next_decision(self._order, self._now())
        if decision.action.step is None:
            return _Step(self._order, decision, self._broker, self._now).take()
        return replace(_continue_with(self._order, decision.action.step), action=action)

    # --- asking the broker for something

    def _cancel(self) -> StepResult:
        """Cancel; if a re-order is to follow, only if that could be sent."""
        order, retry = self._order, self._decision.retry
        if why := self._why_rate_limited(REQUESTS_OF_A_STEP if retry else 1):
            return self._pause(why)
        try:
            grounds = self._grounds_for_cancel(retry)
        except OrderDenied as error:
            return self._pause_or_end(error)
        if isinstance(grounds, str):
            return self._pause(grounds)
        try:
            Canceller(self._broker, self._now).cancel(order, by=RequestedBy.CHASE, grounds=grounds)
        except HeldBack as error:
            return self._pause(error.message)
        except Refused as error:
            log.info("order %s: cancel refused, the next order list shows why: %s", order.pk, error)
            # only a list that is read after this shows what is open; a chase that was ended meanwhile stays ended
            TradeOrder.objects.filter(pk=order.pk, chase_at__isnull=False).update(chase_at=self._now())
            return self._then(ChaseStep.CHECK, Action.CANCEL)
        return self._then(ChaseStep.CONFIRM, Action.CANCEL)

    def _grounds_for_cancel(self, retry: int) -> Grounds | str:
        """Return the grounds for the cancel's last check, or why no step is taken now. Raises OrderDenied."""
        order = self._order
        if retry:
            preview = self._preview(retry)
            return preview.why_held or Grounds(preview.draft.quoted_at, follows=order.pk)
        quoted_at = self._now()
        why = rules.why_held(self._broker.quote(order.stock_code, Market(order.market)))
        return gettext(why) if why else Grounds(quoted_at, follows=order.pk)

    def _preview(self, retry: int) -> Preview:
        preview = Reorders(self._broker, self._now).preview(self._order, retry)
        return replace(preview, why_held=gettext(preview.why_held)) if preview.why_held else preview

    def _amend(self) -> StepResult:
        """Amend the order to its next price."""
        order, retry = self._order, self._decision.retry
        if why := self._why_rate_limited(1):
            return self._pause(why)
        try:
            preview = self._preview(retry)
            if preview.why_held:
                return self._pause(preview.why_held)
            draft = preview.draft
            if not draft.request.kind.is_priced or draft.request.kind.value != order.order_kind:
                return self._cancel()
            if draft.request.price == order.price:
                return self._wait_for_next_check(gettext_noop("its next price equals its present price"))
            new_order = Amender(self._broker, self._now).follow(order, draft)
        except OrderDenied as error:
            return self._pause_or_end(error)
        if new_order.state is Status.REJECTED and not new_order.never_arrived:
            # an order that cannot be amended is cancelled and re-ordered
            journal.update_fields(order, chase_by=ChaseBy.CANCEL.value)
        return self._then(ChaseStep.CONFIRM, Action.AMEND)

    def _wait_for_next_check(self, why: str) -> StepResult:
        order = self._order
        return self._pause(gettext(why), until=self._now() + timedelta(seconds=order.wait_seconds))

    def _reorder(self) -> StepResult:
        """Order the shares again that our own cancel released, at most those that the family still wants."""
        order, retry = self._order, self._decision.retry
        # a cancel has reserved the request of its re-order, so that the rate never keeps a family without an open order
        if order.never_arrived and (why := self._why_rate_limited(1)):
            return self._pause(why)
        released = order.qty if order.never_arrived else requests.released_qty(requests.all_changes(order))
        qty = min(released, remaining_qty(order, _family(order)))
        try:
            successor = Reorders(self._broker, self._now).reorder(order, qty, retry)
        except IntegrityError:
            log.info("order %s: its re-order is already on its way", order.pk)
            if reorder_of(order) is not None:  # the chase continues with that order
                journal.update_fields(order, chase_at=None)
            return StepResult(Action.REST)
        except OrderDenied as error:
            return self._pause_or_end(error)
        journal.update_fields(order, chase_at=None)
        if successor.state is Status.REJECTED and not successor.never_arrived:
            return _Step(successor, self._decision, self._broker, self._now)._end(successor.refusal)
        return _next_of(successor, Action.REORDER, self._now())

    def _then(self, step: ChaseStep, action: Action) -> StepResult:
        journal.update_fields(self._order, chase_step=step.value)
        return StepResult(action, self._order.pk, step)

    def _why_rate_limited(self, needed: int) -> str:
        """Return why the stock's automatic requests must slow down, empty if they need not."""
        limit = settings.MAX_AUTO_REQUESTS_PER_MINUTE
        count = requests.automatic_in_a_minute(self._order.stock_code, self._now())
        if not limit or count + self._pending_reorders() + needed <= limit:
            return ""
        template = gettext(
            "{count} automatic requests of this stock within a minute (AEGIS_MAX_AUTO_REQUESTS_PER_MINUTE)"
        )
        return template.format(count=count)

    def _pending_reorders(self) -> int:
        """Return how many other orders of the stock were cancelled by their chase and are not re-ordered yet."""
        steps = [ChaseStep.CONFIRM.value, ChaseStep.REORDER.value]
        orders = TradeOrder.objects.filter(
            stock_code=self._order.stock_code, chase_at__isnull=False, chase_step__in=steps
        )
        return orders.exclude(pk=self._order.pk).exclude(chase_by=ChaseBy.AMEND.value).count()

    def _pause_or_end(self, error: OrderDenied) -> StepResult:
        """Pause the chase if all denials are transient, else end it."""
        why = risk.denial_texts(error.reasons)
        if all(denial.is_transient for denial in error.reasons):
            return self._pause(why)
        return self._end(why)


def _next_of(order: TradeOrder, action: Action, now: datetime) -> StepResult:
    """Return the next step by an order's row, with the delay until it is due."""
    if order.chase_at is None:
        return StepResult(action)
    seconds = max(0.0, (order.chase_at - now).total_seconds())
    return StepResult(action, order.pk, ChaseStep(order.chase_step), seconds)


def first_check(order: TradeOrder, now: datetime) -> StepResult:
    """Return the first step of the chase of an order that was just placed."""
    return _next_of(order, Action.CHECK, now)
