"""The chase of an unfilled order: wait, check, cancel, confirm, re-order closer to the market, finally at market.

Source: spec §9.6. This module decides; `orders/chase.py` executes. A decision depends on rows alone, so any worker can
take the next step after another has died.

A family of orders ends with its trade date. Only shares that our own confirmed cancel released, or that provably never
reached the broker, are ordered again. In an auction (단일가) a family takes one more step and then keeps its place
until the result is in the list.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from aegis.broker import Quote
from aegis.denials import gettext_noop
from aegis.lifecycle import DONE, OPEN, Status
from aegis.requests import EndCause
from aegis.sessions import KST

# a chase ends after this many orders of one family that never reached the broker
MAX_LOST = 3
# how long after an auction's end its fills may still be missing from the list
AUCTION_RESULT_AFTER = timedelta(seconds=10)


class ChaseBy(StrEnum):
    """How an order moves closer to the market: by a cancel and a new order (spec §9.6), or by an amend (정정)."""

    CANCEL = "CANCEL"
    AMEND = "AMEND"


class ChaseStep(StrEnum):
    """The steps that call the broker. Each is a Celery task of its own."""

    CHECK = "CHECK"  # read the order list: how many shares are filled?
    CANCEL = "CANCEL"
    AMEND = "AMEND"
    CONFIRM = "CONFIRM"  # read the order list: did the cancel, or the amend, take effect?
    REORDER = "REORDER"


class Action(StrEnum):
    """The action of a decision: a step, or none."""

    CHECK = "CHECK"
    CANCEL = "CANCEL"
    AMEND = "AMEND"
    CONFIRM = "CONFIRM"
    REORDER = "REORDER"
    WAIT = "WAIT"  # not due, or no step is allowed yet
    REST = "REST"  # the chase is over, without a reason to record
    END = "END"  # the chase is over, `why` is the reason

    @property
    def step(self) -> ChaseStep | None:
        return ChaseStep(self.value) if self.value in ChaseStep.__members__ else None


@dataclass(frozen=True, slots=True)
class Plan:
    """How an order is chased: seconds between checks, number of re-orders, ticks closer with each.

    `market_after`: one more re-order follows, at market.
    """

    wait_seconds: float
    max_retries: int
    step_ticks: int
    market_after: bool


@dataclass(frozen=True, slots=True)
class ChaseSession:
    """The present session of an order's venue.

    `is_open`: it takes orders; `takes_market`: it takes market orders too. `auction_since`, `auction_until`: the
    current auction, None outside an auction. `is_over`: an order of this venue and kind can no longer trade today.
    """

    is_open: bool = True
    takes_market: bool = True
    auction_since: datetime | None = None
    auction_until: datetime | None = None
    is_over: bool = False


CONTINUOUS = ChaseSession()


@dataclass(frozen=True, slots=True)
class ChaseState:
    """The state of a chased order by its rows. Quantities are shares.

    `confirmed_at` is when the broker last confirmed its figures on a complete list. `remaining_qty` is the root's
    quantity minus the shares that the family has filled or holds open. `released_qty` are the shares that our own
    confirmed cancel of this order took, the most that may be ordered again. `cancel_sent_at` is when a cancel or an
    amend of ours was sent that has no known end yet; `resend_at` is when the cancel may be sent again, None for an
    amend. `retries` counts the family's re-orders and amends that reached the broker, `lost` those that did not: they
    use up no retry.
    """

    status: Status
    retries: int
    trade_date: date
    created_at: datetime
    due_at: datetime | None
    confirmed_at: datetime | None
    remaining_qty: int
    has_successor: bool
    cancel_sent_at: datetime | None = None
    resend_at: datetime | None = None
    end_cause: EndCause | None = None
    released_qty: int = 0
    never_arrived: bool = False
    lost: int = 0
    is_at_market: bool = False
    by: ChaseBy = ChaseBy.CANCEL


@dataclass(frozen=True, slots=True)
class ChaseDecision:
    """The decision about one order. `why` is a sentence to translate.

    `retry` is the place in the plan, from 1, of the order that this step creates or prepares, 0 if none follows.
    `until` is when to decide again, None for the usual pause.
    """

    action: Action
    why: str = ""
    retry: int = 0
    until: datetime | None = None


def next_step(
    order: ChaseState, plan: Plan, *, now: datetime, may_order: bool = True, session: ChaseSession = CONTINUOUS
) -> ChaseDecision:
    """Return what to do with an order at `now`; `may_order` is false while the trading state forbids new orders."""
    if order.due_at is None:
        return ChaseDecision(Action.REST)
    if now < order.due_at:
        return ChaseDecision(Action.WAIT, until=order.due_at)
    if order.trade_date < now.astimezone(KST).date():
        return ChaseDecision(Action.END, gettext_noop("its trade date is over"))
    if order.status in OPEN:
        return _open_step(order, plan, now=now, may_order=may_order, session=session)
    if _is_surplus(order):
        return ChaseDecision(Action.REST)
    if order.status not in DONE:
        return ChaseDecision(Action.CHECK, gettext_noop("its outcome is not known yet"))
    return _ended_step(order, plan, may_order=may_order, session=session)


def _ended_step(order: ChaseState, plan: Plan, *, may_order: bool, session: ChaseSession) -> ChaseDecision:
    is_lost = order.status is Status.REJECTED and order.never_arrived
    if not is_lost and order.status is not Status.CANCELLED:
        return ChaseDecision(Action.END, gettext_noop("the order ended, and not by our cancel"))
    if not is_lost and order.end_cause is None:
        return ChaseDecision(Action.CONFIRM, gettext_noop("the order list does not show yet what ended it"))
    if not is_lost and (order.end_cause is not EndCause.OWN_CANCEL or order.released_qty <= 0):
        return ChaseDecision(Action.END, gettext_noop("the order ended, and not by our cancel"))
    if why := _exhausted(order, plan):
        return ChaseDecision(Action.END, why)
    if session.is_over:
        return ChaseDecision(Action.END, gettext_noop("its venue has no session left today"))
    if why := _obstacle(may_order=may_order, session=session):
        return ChaseDecision(Action.WAIT, why)
    return ChaseDecision(Action.REORDER, retry=_retry(order, plan, session))


def _is_surplus(order: ChaseState) -> bool:
    """Whether its shares are no longer needed: the family has them all, or another order replaces it.

    It happens when an earlier fill, or an order given up as lost, is discovered late.
    """
    return order.has_successor or order.remaining_qty <= 0


def _place_in_plan(order: ChaseState) -> int:
    return order.retries + 1


def _retry(order: ChaseState, plan: Plan, session: ChaseSession) -> int:
    """Return the place in the plan of the next order: in an auction it skips to the plan's market order, if any."""
    place = _place_in_plan(order)
    if session.auction_since is not None and session.takes_market and plan.market_after:
        return max(place, plan.max_retries + 1)
    return place


def _obstacle(*, may_order: bool, session: ChaseSession) -> str:
    """Return why no step is taken now, empty if one may be taken. Resting orders stay where they are."""
    if not may_order:
        return gettext_noop("the trading state forbids new orders")
    return "" if session.is_open else gettext_noop("its venue takes no orders at this hour")


def _open_step(
    order: ChaseState, plan: Plan, *, now: datetime, may_order: bool, session: ChaseSession
) -> ChaseDecision:
    if order.cancel_sent_at is not None:
        return _pending_cancel_step(order, now, session)
    if session.is_over:
        return ChaseDecision(Action.WAIT, gettext_noop("its venue has no session left today"))
    if why := _obstacle(may_order=may_order, session=session):
        return ChaseDecision(Action.WAIT, why)
    if _keeps_its_place(order, plan, session):
        assert session.auction_until is not None
        why = gettext_noop("it keeps its place until the auction's result is in the list")
        return ChaseDecision(Action.WAIT, why, until=session.auction_until + AUCTION_RESULT_AFTER)
    if order.confirmed_at is None or order.due_at is None or order.confirmed_at < order.due_at:
        return ChaseDecision(Action.CHECK, gettext_noop("it is due: first see what is filled"))
    if _is_surplus(order) or _exhausted(order, plan):
        return ChaseDecision(Action.CANCEL)
    retry = _retry(order, plan, session)
    # an amend keeps the order kind, so the step to a market order is a cancel and a new order
    is_amend = order.by is ChaseBy.AMEND and not goes_to_market(retry, plan)
    return ChaseDecision(Action.AMEND if is_amend else Action.CANCEL, retry=retry)


def _keeps_its_place(order: ChaseState, plan: Plan, session: ChaseSession) -> bool:
    """Whether there is an auction now in which the family has no step left."""
    if session.auction_since is None or _is_surplus(order):
        return False
    is_the_auctions_step = order.retries > 0 and order.created_at >= session.auction_since
    return is_the_auctions_step or bool(_exhausted(order, plan))


def _exhausted(order: ChaseState, plan: Plan) -> str:
    """Return why no order may follow this one, empty if one may follow."""
    is_last = plan.market_after and order.is_at_market and not order.never_arrived
    if is_last or _place_in_plan(order) > plan.max_retries + plan.market_after:
        return gettext_noop("every retry is used up")
    return gettext_noop("too many orders of it never reached the broker") if order.lost >= MAX_LOST else ""


def _pending_cancel_step(order: ChaseState, now: datetime, session: ChaseSession) -> ChaseDecision:
    assert order.cancel_sent_at is not None
    if order.confirmed_at is None or order.confirmed_at < order.cancel_sent_at:
        return ChaseDecision(Action.CONFIRM, gettext_noop("see whether the cancel took effect"))
    # a second cancel during an auction would remove the order from the auction
    may_resend = session.is_open and session.auction_since is None and not session.is_over
    if order.resend_at is not None and now >= order.resend_at and may_resend:
        return ChaseDecision(Action.CANCEL, gettext_noop("the cancel was lost: cancelling twice harms nothing"))
    return ChaseDecision(Action.CONFIRM, gettext_noop("the cancel is on its way"))


def why_held(quote: Quote) -> str:
    """Return why a chase pauses at this quote, empty if it continues: a stock that is held makes no price."""
    if quote.is_halted:
        return gettext_noop("the stock is halted by the exchange")
    return gettext_noop("a volatility interruption holds the stock") if quote.in_vi else ""


def goes_to_market(retry: int, plan: Plan) -> bool:
    """Whether re-order number `retry`, from 1, is the last one, at market.

    That re-order has no pricing style and no price (`orders.reorders`). It is a market order, or a limit at the best
    opposite quote where the venue takes none, as NXT (`aegis.sessions.kind_for`), or if cash is short.
    """
    return plan.market_after and retry > plan.max_retries
