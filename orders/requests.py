"""Broker requests as rows. `orders.journal` writes the row of a new order's request together with the order.

A request's row is committed before its bytes are sent. The last check before sending is one statement: it checks
everything that may have changed since the risk checks and marks the request as sent, or it does nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Sum
from django.utils.translation import gettext

from aegis.broker import Acceptance, BrokerError, HeldBack, LastCheck, NotSent, OrderRecord, OutcomeUnknown
from aegis.denials import gettext_noop
from aegis.requests import LIVE, MOVES, RequestedBy, RequestKind, RequestState
from aegis.sessions import KST
from aegis.terms import Side
from aegis.trading_state import TradingState
from infra import db_limits, sql
from market import calendar
from orders.models import STOP_ID, BlacklistedStock, BrokerRequest, TradeOrder, TradingSwitch

# an order, an amend or a chase's cancel is not sent if its quote was requested longer ago than this
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
    """Commit the row of a request before it is sent.

    `qty` is in shares, None for all open shares. `price` is in won. `makes` is the new order that an amend produces.
    """
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
    """The basis of a request's risk checks, which must still hold when the request is sent.

    `quoted_at`: when its quote was requested. `follows`: the order whose chase it serves; that chase must not have
    ended. `stop`: the key and the generation of the stop that it sells or cancels for. The stop must still be selling
    in this generation, and the trading state is checked as for a sale. `changed_by_others`: the known number of orders
    of that sale that others changed, which must not have grown. `skip` names conditions that do not apply: an amend
    that only lowers risk passes every trading state.
    """

    quoted_at: datetime
    follows: int | None = None
    stop: tuple[int, int] | None = None
    changed_by_others: int = 0
    skip: frozenset[str] = frozenset()


def stop_of(request_id: str) -> tuple[int, int] | None:
    """Return the key and the generation of the stop that a request id names; None for any other request id."""
    pk, _, generation = request_id.removeprefix(STOP_ID).partition(":")
    is_stop = request_id.startswith(STOP_ID) and pk.isdecimal() and generation.isdecimal()
    return (int(pk), int(generation)) if is_stop else None


def grounds_of(order: TradeOrder, *, follows: int | None = None) -> Grounds:
    """Return the grounds for the last check of a new order. Raises ValueError if the order has no quote."""
    if order.quoted_at is None:
        raise ValueError(gettext("order {order} has no quote").format(order=order.pk))
    return Grounds(order.quoted_at, follows, stop_of(order.request_id))


# The number of orders of a stop's sale that ended externally, or whose cancel neither a stop nor a chase requested. The
# prefix index supports these bounds; with LIKE, a prepared statement would read all orders
CHANGED_BY_OTHERS = """
    SELECT count(*) FROM trade_orders AS sale
    WHERE sale.request_id ~>=~ %(sale_from)s AND sale.request_id ~<~ %(sale_to)s
      AND (sale.end_cause IN ('EXTERNAL_CANCEL', 'EXTERNAL_AMEND')
           OR sale.cancel_requested_by NOT IN ('', 'STOP', 'CHASE'))
"""
# each condition that may have changed since the risk checks, by its name in WHY_HELD_BACK
_CONDITIONS = {
    "STATE": "coalesce((SELECT state FROM trading_switch WHERE id = %(switch)s), 'ACTIVE') = ANY(%(passing)s)",
    "SESSION": """CASE WHEN EXISTS (SELECT FROM trading_days WHERE date = %(today)s)
        THEN EXISTS (SELECT FROM trading_sessions
                     WHERE day_id = %(today)s AND market = %(market)s AND starts_at <= %(time)s AND %(time)s < ends_at
                       AND %(kind)s = ANY(string_to_array(order_kinds, ' ')))
        ELSE %(is_open_by_library)s END""",
    "BLACKLIST": f"""NOT %(is_buy)s OR NOT EXISTS (
        SELECT FROM blacklist WHERE stock_code = %(code)s AND {BlacklistedStock.IN_FORCE})""",
    "QUOTE": "%(quoted_at)s >= %(oldest_quote)s",
    "CHASE": "%(follows)s::bigint IS NULL OR (SELECT chase_at FROM trade_orders WHERE id = %(follows)s) IS NOT NULL",
    "STOP": """%(stop)s::bigint IS NULL OR NOT EXISTS (
        SELECT FROM stop_rules WHERE id = %(stop)s AND (state <> ALL(%(selling)s) OR generation <> %(generation)s))""",
    "SALE": f"%(stop)s::bigint IS NULL OR ({CHANGED_BY_OTHERS}) <= %(changed_by_others)s::bigint",
}


def sale_bounds(stop: int) -> dict[str, str]:
    """Return the bounds of the request ids of all orders of a stop's sale: the lower inclusive, the upper exclusive."""
    prefix = f"{STOP_ID}{stop}"
    return {"sale_from": f"{prefix}:", "sale_to": f"{prefix};"}


# the code of a request that this sender may no longer send
CLAIM_LOST = "TAKEN"
WHY_HELD_BACK = {
    "STATE": gettext_noop("the trading state changed before it was sent"),
    "SESSION": gettext_noop("the venue's session changed before it was sent"),
    "BLACKLIST": gettext_noop("its stock was put on the blacklist before it was sent"),
    "QUOTE": gettext_noop("the quote that it was judged by was too old before it was sent"),
    "CHASE": gettext_noop("its chase was ended before it was sent"),
    "STOP": gettext_noop("its stop was disarmed before it was sent"),
    "SALE": gettext_noop("an order of its stop was changed externally before it was sent"),
    CLAIM_LOST: gettext_noop("it was resolved, or sent by another process, before it was sent"),
}

# `sent_at` may already be set by this sender, if the gateway turned its first attempt away unread. The mark must be
# visible at once but need not survive a crash of the database: the list resolves unsent and unknown requests alike.
# `IS TRUE` makes the planner use the primary key: the index of unsettled orders has a dead entry for each order of the
# day
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
# a stop cancels every order that blocks its sale, at any hour and price
SKIPPED_FOR_STOP_CANCEL = frozenset(_CONDITIONS) - {"STATE", "STOP"}


def _conditions(grounds: Grounds | None) -> dict[str, str]:
    """Return the conditions that apply to a request; none without grounds."""
    skip = grounds.skip if grounds else _CONDITIONS.keys()
    return {name: condition for name, condition in _CONDITIONS.items() if name not in skip}


def _statement(claim: str, grounds: Grounds | None) -> str:
    """Return the statement of a claim with the conditions that apply to it."""
    return claim.format(
        conditions=" AND ".join(["true", *(f"({condition})" for condition in _conditions(grounds).values())])
    )


def new_order_check(order: TradeOrder, grounds: Grounds, now: Any) -> LastCheck:
    """Return the last check before sending a new order: it claims the order for this sender, or raises HeldBack."""
    return _Claim(_statement(_CLAIM_NEW, grounds), order, grounds, now)


def change_check(request: BrokerRequest, order: TradeOrder, grounds: Grounds | None, now: Any) -> LastCheck:
    """Return the last check before sending a cancel or an amend.

    Without grounds, as for an operator's cancel, no condition applies.
    """
    return _Claim(_statement(_CLAIM_CHANGE, grounds), order, grounds, now, request=request)


# the trading states that each side passes
_PASSING_STATES = {side: [state.value for state in TradingState if side in state.allowed_sides] for side in Side}


class _Claim:
    """One sender's claim on one request. The client calls it again after the gateway turned the request away unread.

    The statement depends only on the set of conditions, so the database prepares each once.
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
        params = self._params()
        if not self._mark(params):
            name = self._failed_condition(params)
            raise HeldBack(gettext(WHY_HELD_BACK[name]), code=name)
        self._sent_at = params["at"]
        if self._request is None:
            self._order.sent_at = params["at"]

    def _params(self) -> dict[str, Any]:
        """Return the parameters of the statement at this moment: the claim's own, and those of the conditions."""
        at = self._now()
        local = at.astimezone(KST)
        params = {"at": at, "seen": self._sent_at, "order": self._order.pk, "open": _OPEN, "today": local.date()}
        if self._request:
            params["request"] = self._request.pk
        if self._grounds is None:
            return params
        order, side, grounds = self._order, Side(self._order.order_type), self._grounds
        stop, generation = grounds.stop or (None, None)
        return params | {
            "switch": TradingSwitch.ONLY_PK,
            "passing": _PASSING_STATES[Side.SELL if stop else side],
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
            # a stop sells once in a generation, and cancels before and after the sale
            "selling": ["TRIGGERED", "ORDERED"] if self._request else ["TRIGGERED"],
            "changed_by_others": grounds.changed_by_others,
            **sale_bounds(stop or 0),
        }

    def _mark(self, params: Mapping[str, Any]) -> bool:
        """Mark the request as sent if all conditions hold. Raises NotSent if the database does not answer in time."""
        try:
            with connection.cursor() as cursor:
                cursor.execute(self._statement, params)
                return bool(cursor.rowcount == 1)
        except db_limits.CONNECTION_ERRORS as error:
            # the session was ended, or a lock timed out: the outcome is recorded by a new connection
            connection.close_if_unusable_or_obsolete()
            template = gettext("the database did not confirm in time that it may leave: {error}")
            raise NotSent(template.format(error=str(error).partition("\n")[0])) from error

    def _failed_condition(self, params: Mapping[str, Any]) -> str:
        """Return the name of the first condition that does not hold."""
        conditions = _conditions(self._grounds)
        if not conditions:
            return CLAIM_LOST
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(f'({condition})' for condition in conditions.values())}", params)
            results = dict(zip(conditions, cursor.fetchone(), strict=True))
        return next((name for name, holds in results.items() if not holds), CLAIM_LOST)


# --- outcomes --------------------------------------------------------------------------------------------------------


def record_acknowledged(request: BrokerRequest, acceptance: Acceptance, *, at: datetime) -> None:
    """Record the number that the broker's reply gave a cancel or an amend."""
    fields = {"branch": acceptance.branch, "order_no": acceptance.order_no}
    _move(request, RequestState.ACKNOWLEDGED, at=at, **fields)


def record_failure(request: BrokerRequest, error: BrokerError, *, at: datetime) -> None:
    """Record that a request was refused, was provably not sent, or has an unknown outcome."""
    state = RequestState.REJECTED
    if isinstance(error, NotSent):
        state = RequestState.NOT_SENT
    elif isinstance(error, OutcomeUnknown):
        state = RequestState.UNKNOWN
    _move(request, state, at=at, code=error.code[:12], message=error.message[:200])


def record_confirmed(request: BrokerRequest, line: OrderRecord, qty: int, *, at: datetime) -> bool:
    """Record the order list's line of this request and the shares it took; False if it is already confirmed."""
    fields = {"branch": line.branch[:5], "order_no": line.order_no}
    return _move(request, RequestState.CONFIRMED, at=at, confirmed_at=at, confirmed_qty=qty, **fields)


def record_lapsed(changes: Sequence[BrokerRequest], *, before: datetime) -> list[BrokerRequest]:
    """Mark the live cancels and amends whose deadline was before `before` as lapsed, and return them."""
    overdue = [change for change in changes if change.state in LIVE and change.as_sent().deadline < before]
    return [request for request in overdue if _move(request, RequestState.LAPSED, at=request.state_at)]


def _move(request: BrokerRequest, to: RequestState, *, at: datetime, **fields: Any) -> bool:
    """Move a request to another state; False if its current state does not allow the move."""
    from_states = [state.value for state, targets in MOVES.items() if to in targets]
    values = {"state": to.value, "state_at": at, **fields}
    is_moved = BrokerRequest.objects.filter(pk=request.pk, state__in=from_states).update(**values) == 1
    if is_moved:
        for name, value in values.items():
            setattr(request, name, value)
    return is_moved


# --- reading ---------------------------------------------------------------------------------------------------------


def all_changes(order: TradeOrder) -> list[BrokerRequest]:
    """Return the cancels and amends of an order, oldest first."""
    return list(order.requests.exclude(kind=RequestKind.NEW).order_by("id"))


def live_changes(order: TradeOrder) -> Sequence[BrokerRequest]:
    """Return the cancels and amends of an order that are not settled yet, oldest first."""
    return list(order.requests.filter(state__in=LIVE).exclude(kind=RequestKind.NEW).order_by("id"))


def has_live_changes(order: TradeOrder) -> bool:
    """Whether any cancel or amend of an order's family is not settled yet."""
    live = BrokerRequest.objects.filter(order__in=order.family, state__in=LIVE)
    return live.exclude(kind=RequestKind.NEW).exists()


def orders_with_live_changes() -> set[int | None]:
    """Return the keys of the orders that have a cancel or an amend that is not settled yet."""
    live = BrokerRequest.objects.filter(state__in=LIVE).exclude(kind=RequestKind.NEW)
    return set(live.values_list("order_id", flat=True))


def moving_qty(orders: Sequence[int]) -> dict[int, int]:
    """Return the shares that live amends move away from these orders, by order; the new orders count them."""
    amends = BrokerRequest.objects.filter(order_id__in=orders, kind=RequestKind.AMEND, state__in=LIVE)
    return dict(amends.values_list("order_id").annotate(Sum("qty")).order_by())


def confirmed_qty(changes: Sequence[BrokerRequest]) -> int:
    """Return the shares that confirmed cancels and amends of ours took from an order."""
    return sum(change.confirmed_qty for change in changes if change.state == RequestState.CONFIRMED)


def released_qty(changes: Sequence[BrokerRequest]) -> int:
    """Return the shares that an order's chase released by its own confirmed cancels: the limit of a re-order."""
    own_cancel = (RequestKind.CANCEL, RequestState.CONFIRMED, RequestedBy.CHASE)
    return sum(
        change.confirmed_qty for change in changes if (change.kind, change.state, change.requested_by) == own_cancel
    )


def automatic_in_a_minute(code: str, now: datetime) -> int:
    """Return how many requests chases have sent for a stock within the last minute, rejected ones included."""
    sent = BrokerRequest.objects.filter(order__stock_code=code, requested_at__gt=now - timedelta(minutes=1))
    return sent.filter(requested_by=RequestedBy.CHASE).count()
