"""Requests to the broker as rows. `orders.journal` writes the row of a new order's request with the order itself.

A request's row is committed before its bytes leave. The last check before they do is one statement: it looks at all
that may have changed since the request was judged, and marks the request as sent, or does neither.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Sum
from django.utils.translation import gettext

from aegis.broker import Acceptance, BrokerError, HeldBack, LastCheck, NotSent, OrderRecord, OutcomeUnknown
from aegis.requests import LIVE, MOVES, RequestedBy, RequestKind, RequestState
from aegis.risk import TradingState, gettext_noop
from aegis.sessions import KST
from aegis.terms import Side
from infra import db_limits, sql
from market import calendar
from orders.models import STOP_ID, BrokerRequest, TradeOrder, TradingSwitch

# an order, an amend or a chase's cancel leaves within this of the quote that it was judged by, or not at all
MAX_QUOTE_AGE = timedelta(seconds=20)
_OPEN = ["PENDING", "PARTIAL"]


def create(
    order: TradeOrder,
    kind: RequestKind,
    *,
    by: RequestedBy,
    at: datetime,
    who: str = "",
    qty: int | None = None,
    price: int = 0,
    makes: TradeOrder | None = None,
) -> BrokerRequest:
    """Commit a request that is about to leave; `qty` None stands for all that is open, `makes` for an amend's row."""
    return BrokerRequest.objects.create(
        order=order,
        kind=kind,
        state_at=at,
        requested_at=at,
        requested_by=by,
        who=who[:150],
        qty=order.open_qty if qty is None else qty,
        is_whole=qty is None,
        price=price,
        makes=makes,
    )


# --- the last check before sending -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a request was judged by, and what must still hold when it leaves.

    `quoted_at`: when its quote was asked for. `follows`: the order whose chase it serves, which must not have ended.
    `stop`: the stop (its key and generation) that it sells or cancels for, which must still be at it, while a sale
    passes the trading state; `changed_by_others`: how many orders of that sale were known to be changed by somebody
    else, of which there must not be more. `skip` names conditions that do not concern it: an amend that only lowers
    risk passes every trading state.
    """

    quoted_at: datetime
    follows: int | None = None
    stop: tuple[int, int] | None = None
    changed_by_others: int = 0
    skip: frozenset[str] = frozenset()


def stop_of(request_id: str) -> tuple[int, int] | None:
    """Return which stop, and which generation of it, a request id names; None for any other."""
    pk, _, generation = request_id.removeprefix(STOP_ID).partition(":")
    is_stop = request_id.startswith(STOP_ID) and pk.isdecimal() and generation.isdecimal()
    return (int(pk), int(generation)) if is_stop else None


# how many orders of a stop's sale somebody else ended, or requested the cancel of. The index of beginnings has these
# bounds; by LIKE a statement that is prepared once would read all orders
CHANGED_BY_OTHERS = """
    SELECT count(*) FROM trade_orders AS sale
    WHERE sale.request_id ~>=~ %(sale_from)s AND sale.request_id ~<~ %(sale_to)s
      AND (sale.end_cause IN ('EXTERNAL_CANCEL', 'EXTERNAL_AMEND')
           OR sale.cancel_wanted_by NOT IN ('', 'STOP', 'CHASE'))
"""
# each condition that may have changed since the request was judged, by the name under which a denial reports it
_CONDITIONS = {
    "STATE": "coalesce((SELECT state FROM trading_switch WHERE id = %(switch)s), 'ACTIVE') = ANY(%(passing)s)",
    "SESSION": """CASE WHEN EXISTS (SELECT FROM trading_days WHERE date = %(today)s)
        THEN EXISTS (SELECT FROM trading_sessions
                     WHERE day_id = %(today)s AND market = %(market)s AND starts_at <= %(time)s AND %(time)s < ends_at
                       AND %(kind)s = ANY(string_to_array(order_kinds, ' ')))
        ELSE %(is_open_by_library)s END""",
    "BLACKLIST": """NOT %(is_buy)s OR NOT EXISTS (
        SELECT FROM blacklist WHERE stock_code = %(code)s AND (until IS NULL OR until >= %(today)s))""",
    "QUOTE": "%(quoted_at)s >= %(oldest_quote)s",
    "CHASE": "%(follows)s::bigint IS NULL OR (SELECT chase_at FROM trade_orders WHERE id = %(follows)s) IS NOT NULL",
    "STOP": """%(stop)s::bigint IS NULL OR NOT EXISTS (
        SELECT FROM stop_rules WHERE id = %(stop)s AND (state <> ALL(%(selling)s) OR generation <> %(generation)s))""",
    "SALE": f"%(stop)s::bigint IS NULL OR ({CHANGED_BY_OTHERS}) <= %(changed_by_others)s::bigint",
}


def sale_bounds(stop: int) -> dict[str, str]:
    """Return the bounds between which the request ids of all orders of a stop's sale are."""
    beginning = f"{STOP_ID}{stop}"
    return {"sale_from": f"{beginning}:", "sale_to": f"{beginning};"}


# the code of a request that is not this sender's any more
TAKEN = "TAKEN"
WHY_HELD_BACK = {
    "STATE": gettext_noop("the trading state changed before it was sent"),
    "SESSION": gettext_noop("the venue's session changed before it was sent"),
    "BLACKLIST": gettext_noop("its stock was put on the blacklist before it was sent"),
    "QUOTE": gettext_noop("the quote that it was judged by was too old before it was sent"),
    "CHASE": gettext_noop("its chase was ended before it was sent"),
    "STOP": gettext_noop("its stop was disarmed before it was sent"),
    "SALE": gettext_noop("somebody else changed an order of its stop before it was sent"),
    TAKEN: gettext_noop("it was resolved, or sent by another process, before it was sent"),
}

# `sent_at` may be set already by this very sender, whose first try was turned away unread. The mark must be seen at
# once and need not survive a crash of the database: an unsent and an unknown request are both resolved by the list.
# `IS TRUE` keeps it to the primary key: in the index of unsettled orders each order of the day leaves a dead entry
_CLAIM_NEW = f"""
WITH fast AS ({sql.FAST}),
claimed AS (
    UPDATE trade_orders SET sent_at = %(at)s FROM fast
    WHERE id = %(order)s AND (status = 'SUBMITTING') IS TRUE AND sent_at IS NOT DISTINCT FROM %(seen)s
      AND ({{conditions}})
    RETURNING id
)
UPDATE broker_requests SET state = 'SENT', sent_at = %(at)s, state_at = %(at)s FROM claimed
WHERE order_id = claimed.id AND kind = 'NEW' AND state IN ('REQUESTED', 'SENT')
"""  # noqa: S608
_CLAIM_CHANGE = """
UPDATE broker_requests SET state = 'SENT', sent_at = %(at)s, state_at = %(at)s
WHERE id = %(request)s AND state IN ('REQUESTED', 'SENT') AND sent_at IS NOT DISTINCT FROM %(seen)s
  AND EXISTS (SELECT FROM trade_orders WHERE id = %(order)s AND status = ANY(%(open)s) AND order_date = %(today)s)
  AND ({conditions})
"""


LOWERS_RISK = frozenset({"STATE", "BLACKLIST"})
# a stop cancels whatever stands against its sale, at any hour and price
OF_STOPS_CANCEL = frozenset(_CONDITIONS) - {"STATE", "STOP"}


def _conditions(grounds: Grounds | None) -> dict[str, str]:
    """Return the conditions that concern a request; without grounds none does."""
    skip = grounds.skip if grounds else _CONDITIONS.keys()
    return {name: condition for name, condition in _CONDITIONS.items() if name not in skip}


def _statement(claim: str, grounds: Grounds | None) -> str:
    """Return the statement of a claim with the conditions that concern it."""
    return claim.format(conditions=" AND ".join(["true", *(f"({each})" for each in _conditions(grounds).values())]))


def new_order_check(order: TradeOrder, grounds: Grounds, now: Any) -> LastCheck:
    """Return the last check of a new order: it claims the order for this sender, once, or raises HeldBack."""
    return _Claim(_statement(_CLAIM_NEW, grounds), order, grounds, now)


def change_check(request: BrokerRequest, order: TradeOrder, grounds: Grounds | None, now: Any) -> LastCheck:
    """Return the last check of a cancel or an amend. Without grounds, as of a person's cancel, nothing holds it."""
    return _Claim(_statement(_CLAIM_CHANGE, grounds), order, grounds, now, request=request)


class _Claim:
    """One sender's claim on one request. Called again by the client that was turned away unread, it claims again.

    The statements are the same for each set of conditions, so that the database prepares them once.
    """

    def __init__(
        self, statement: str, order: TradeOrder, grounds: Grounds | None, now: Any, request: BrokerRequest | None = None
    ) -> None:
        self._statement = statement
        self._order = order
        self._grounds = grounds
        self._now = now
        self._request = request
        self._sent_at = request.sent_at if request else order.sent_at

    def __call__(self) -> None:
        at = self._now()
        today = at.astimezone(KST).date()
        values = {"at": at, "seen": self._sent_at, "order": self._order.pk, "open": _OPEN, "today": today}
        values |= {"request": self._request.pk} if self._request else {}
        values |= _values(self._order, self._grounds, at, is_new=self._request is None) if self._grounds else {}
        if not self._mark(values):
            why = self._why(values)
            raise HeldBack(gettext(WHY_HELD_BACK[why]), code=why)
        self._sent_at = at
        if self._request is None:
            self._order.sent_at = at

    def _mark(self, values: Mapping[str, Any]) -> bool:
        """Mark the request as sent, if all conditions hold. Raises NotSent if the database does not say so in time."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(self._statement, values)
                return bool(cursor.rowcount == 1)
        except db_limits.AWAY as error:
            # the session was ended, or a lock not had in time: what becomes of it is recorded by a new connection
            connection.close_if_unusable_or_obsolete()
            words = gettext("the database did not confirm in time that it may leave: {error}")
            raise NotSent(words.format(error=str(error).partition("\n")[0])) from error

    def _why(self, values: Mapping[str, Any]) -> str:
        """Return the name of the first condition that does not hold."""
        conditions = _conditions(self._grounds)
        if not conditions:
            return TAKEN
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(f'({each})' for each in conditions.values())}", values)
            holds = dict(zip(conditions, cursor.fetchone(), strict=True))
        return next((name for name, is_so in holds.items() if not is_so), TAKEN)


def _values(order: TradeOrder, grounds: Grounds, at: datetime, *, is_new: bool) -> dict[str, Any]:
    local, side = at.astimezone(KST), Side(order.order_type)
    stop, generation = grounds.stop or (None, None)
    serves = Side.SELL if stop else side
    return {
        "switch": TradingSwitch.ONLY_PK,
        "passing": [state.value for state in TradingState if state.lets_pass(serves)],
        "today": local.date(),
        "time": local.time(),
        "market": order.market,
        "kind": order.order_kind,
        "is_open_by_library": calendar.takes(order.market, order.order_kind, at),
        "is_buy": side is Side.BUY,
        "code": order.stock_code,
        "quoted_at": grounds.quoted_at,
        "oldest_quote": at - MAX_QUOTE_AGE,
        "follows": grounds.follows,
        "stop": stop,
        "generation": generation,
        # a stop sells once in a generation, and cancels before that and after it
        "selling": ["TRIGGERED"] if is_new else ["TRIGGERED", "ORDERED"],
        "changed_by_others": grounds.changed_by_others,
        **sale_bounds(stop or 0),
    }


# --- what became of it -----------------------------------------------------------------------------------------------


def record_acknowledged(request: BrokerRequest, acceptance: Acceptance, *, at: datetime) -> None:
    """Record the number that the broker's reply gave a cancel or an amend."""
    fields = {"branch": acceptance.branch, "order_no": acceptance.order_no}
    _move(request, RequestState.ACKNOWLEDGED, at=at, **fields)


def record_failure(request: BrokerRequest, error: BrokerError, *, at: datetime) -> None:
    """Record that a request was refused, surely never left, or has an unknown outcome."""
    state = RequestState.REJECTED
    if isinstance(error, NotSent):
        state = RequestState.NOT_SENT
    elif isinstance(error, OutcomeUnknown):
        state = RequestState.UNKNOWN
    _move(request, state, at=at, code=error.code[:12], message=error.message[:200])


def record_confirmed(request: BrokerRequest, line: OrderRecord, qty: int, *, at: datetime) -> bool:
    """Record that a line of the order list is this request's, and the shares it took; False if that is known."""
    fields = {"branch": line.branch[:5], "order_no": line.order_no}
    return _move(request, RequestState.CONFIRMED, at=at, confirmed_at=at, confirmed_qty=qty, **fields)


def record_lapsed(changes: Sequence[BrokerRequest], *, before: datetime) -> list[BrokerRequest]:
    """Give up the live cancels and amends whose deadline was before then; return them."""
    late = [each for each in changes if each.state in LIVE and each.as_sent().deadline < before]
    return [request for request in late if _move(request, RequestState.LAPSED, at=request.state_at)]


def _move(request: BrokerRequest, to: RequestState, *, at: datetime, **fields: Any) -> bool:
    """Move a request on, if it is where a move to there begins; False if it is not."""
    begins = [state.value for state, ends in MOVES.items() if to in ends]
    changes = {"state": to.value, "state_at": at, **fields}
    moved = BrokerRequest.objects.filter(pk=request.pk, state__in=begins).update(**changes) == 1
    if moved:
        for name, value in changes.items():
            setattr(request, name, value)
    return moved


# --- reading ---------------------------------------------------------------------------------------------------------


def all_changes(order: TradeOrder) -> list[BrokerRequest]:
    """Return the cancels and amends of an order, oldest first."""
    return list(order.requests.exclude(kind=RequestKind.NEW).order_by("id"))


def live_changes(order: TradeOrder) -> Sequence[BrokerRequest]:
    """Return the cancels and amends of an order whose end is not known yet, oldest first."""
    return list(order.requests.filter(state__in=LIVE).exclude(kind=RequestKind.NEW).order_by("id"))


def has_live_changes(order: TradeOrder) -> bool:
    """Whether the end of any cancel or amend of an order's family is not known yet."""
    live = BrokerRequest.objects.filter(order__in=order.family, state__in=LIVE)
    return live.exclude(kind=RequestKind.NEW).exists()


def orders_with_live_changes() -> set[int | None]:
    """Return the orders that have a cancel or an amend whose end is not known yet."""
    live = BrokerRequest.objects.filter(state__in=LIVE).exclude(kind=RequestKind.NEW)
    return set(live.values_list("order_id", flat=True))


def moving_qty(orders: Sequence[int]) -> dict[int, int]:
    """Return the shares that amends on their way take from these orders: they count in the order that they lead to."""
    amends = BrokerRequest.objects.filter(order_id__in=orders, kind=RequestKind.AMEND, state__in=LIVE)
    return dict(amends.values_list("order_id").annotate(Sum("qty")).order_by())


def confirmed_qty(changes: Sequence[BrokerRequest]) -> int:
    """Return the shares that confirmed cancels and amends of ours took from an order."""
    return sum(each.confirmed_qty for each in changes if each.state == RequestState.CONFIRMED)


def released_qty(changes: Sequence[BrokerRequest]) -> int:
    """Return the shares that an order's chase released by its own confirmed cancels: no more may be ordered again."""
    ours = (RequestKind.CANCEL, RequestState.CONFIRMED, RequestedBy.CHASE)
    return sum(each.confirmed_qty for each in changes if (each.kind, each.state, each.requested_by) == ours)


def automatic_in_a_minute(code: str, now: datetime) -> int:
    """Return how many requests chases have sent for a stock within the last minute, rejected ones included."""
    sent = BrokerRequest.objects.filter(order__stock_code=code, requested_at__gt=now - timedelta(minutes=1))
    return sent.filter(requested_by=RequestedBy.CHASE).count()
