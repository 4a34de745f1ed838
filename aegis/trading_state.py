"""The trading state (거래 스위치): ACTIVE, REDUCING or HALTED, and when it trips to REDUCING by itself.

`orders.kill_switch` stores the state, gathers the inputs of trips and changes the state.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.terms import Side


class TradingState(StrEnum):
    """The state of the kill switch. REDUCING passes sales, those of stops too; HALTED passes no new order.

    `allowed_sides` are the sides of new orders that pass. No trip leads to HALTED.
    """

    allowed_sides: frozenset[Side]

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


TradingState.ACTIVE.allowed_sides = frozenset(Side)
TradingState.REDUCING.allowed_sides = frozenset({Side.SELL})
TradingState.HALTED.allowed_sides = frozenset()


DAILY_LOSS, REFUSALS, LIST_MISSING = DenialCode.DAILY_LOSS, DenialCode.REFUSALS, DenialCode.LIST_MISSING
# a trip for missing lists ends once every list was complete for this long, at most MAX_CLEARED_A_DAY times a day
LIST_COMPLETE_FOR = timedelta(minutes=2)
MAX_CLEARED_A_DAY = 3


@dataclass(frozen=True, slots=True)
class TripLimits:
    """When the state trips to REDUCING by itself; 0 disables a limit.

    Losses in won and in percent of yesterday's total, consecutive refused orders, minutes without a complete list.
    """

    loss_won: int = 0
    loss_percent: Decimal = Decimal(0)
    refusals: int = 0
    list_missing_minutes: int = 0


@dataclass(frozen=True, slots=True)
class TripInputs:
    """The inputs of a trip, since the operator last changed the state.

    `is_by_person`: the operator chose the present state. `causes` are the codes of the trips in force. `loss_won` is
    the loss of today's trading, `loss_at_resume` the loss when the operator last resumed (0 if that was on another
    trading day). `refused` are the stocks of the newest consecutive refused orders. `list_missing_for` is how long no
    complete order list was read while a market was open, `complete_for` how long every list was complete.
    `cleared_today` is the number of trips that ended by themselves today.
    """

    state: TradingState
    is_by_person: bool = False
    causes: frozenset[str] = frozenset()
    loss_won: int = 0
    loss_at_resume: int = 0
    total_yesterday: int = 0
    refused: tuple[str, ...] = ()
    list_missing_for: timedelta = timedelta(0)
    complete_for: timedelta = timedelta(0)
    cleared_today: int = 0


@dataclass(frozen=True, slots=True)
class Trip:
    """Why the state trips to REDUCING."""

    why: tuple[Denial, ...]

    @property
    def causes(self) -> frozenset[str]:
        return frozenset(denial.code for denial in self.why)


def trip_for(inputs: TripInputs, limits: TripLimits) -> Trip | None:
    """Return why the state trips to REDUCING, None if it does not. A cause that is already in force is not a new trip.

    A trip never leads to HALTED, so holdings can always be sold, and it never replaces a stricter state that the
    operator chose.
    """
    if inputs.state is TradingState.HALTED or (inputs.state is TradingState.REDUCING and inputs.is_by_person):
        return None
    why = tuple(denial for denial in _reasons_to_trip(inputs, limits) if denial.code not in inputs.causes)
    return Trip(why) if why else None


def may_clear(inputs: TripInputs, limits: TripLimits) -> bool:
    """Whether a trip ends by itself: only missing lists caused it, and the list was complete for LIST_COMPLETE_FOR."""
    return (
        inputs.state is TradingState.REDUCING
        and not inputs.is_by_person
        and inputs.causes == {LIST_MISSING}
        and inputs.complete_for >= LIST_COMPLETE_FOR
        and inputs.cleared_today < MAX_CLEARED_A_DAY
        and not _reasons_to_trip(inputs, limits)
    )


def _reasons_to_trip(inputs: TripInputs, limits: TripLimits) -> list[Denial]:
    causes = (_refused(inputs, limits), _list_missing(inputs, limits), _losing(inputs, limits))
    return [denial for denial in causes if denial is not None]


def _losing(inputs: TripInputs, limits: TripLimits) -> Denial | None:
    """The operator who resumes above the limit has accepted that loss: the limit then counts from there."""
    by_percent = int(inputs.total_yesterday * limits.loss_percent / 100)
    bounds = [bound for bound in (limits.loss_won, by_percent) if bound > 0]
    if not bounds:
        return None
    limit = min(bounds)
    accepted_loss = inputs.loss_at_resume if inputs.loss_at_resume >= limit else 0
    if inputs.loss_won - accepted_loss < limit:
        return None
    return Denial(
        DAILY_LOSS,
        gettext_noop("{loss:,} won are lost today, {since:,} since the switch was last turned: at most {most:,}"),
        {"loss": inputs.loss_won, "since": inputs.loss_won - accepted_loss, "most": limit},
    )


def _refused(inputs: TripInputs, limits: TripLimits) -> Denial | None:
    """Refusals of one stock prove nothing about others, so each stock counts for at most half of the limit."""
    by_stock = Counter(inputs.refused)
    most_of_one = (limits.refusals + 1) // 2
    count = sum(min(number, most_of_one) for number in by_stock.values())
    if not limits.refusals or len(by_stock) < 2 or count < limits.refusals:
        return None
    return Denial(
        REFUSALS,
        gettext_noop("the broker refused {count} orders of {stocks} stocks in a row: something is wrong with them"),
        {"count": len(inputs.refused), "stocks": len(by_stock)},
    )


def _list_missing(inputs: TripInputs, limits: TripLimits) -> Denial | None:
    if not limits.list_missing_minutes or inputs.list_missing_for < timedelta(minutes=limits.list_missing_minutes):
        return None
    return Denial(
        LIST_MISSING,
        gettext_noop("no complete order list for {minutes} minutes: the state of our orders is not known"),
        {"minutes": int(inputs.list_missing_for.total_seconds() // 60)},
    )
