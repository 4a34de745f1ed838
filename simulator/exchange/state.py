"""The broker's state: accounts, orders, fills, day closes. Only events change it.

The exchange decides, records the event, then applies it here. A restart applies the same events again and rebuilds
the same world.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from aegis.terms import Market, OrderKind, Side
from simulator.exchange.accounts import AccountHolding, BrokerAccount
from simulator.exchange.event_log import Event
from simulator.exchange.orders import Execution, Order, OrderStatus, Request
from simulator.exchange.trade_tape import TapeBar

OrderId = tuple[date, int]


@dataclass(slots=True)
class IssuedToken:
    """An access token (접근토큰) of one app key."""

    text: str
    key: str
    issued_at: datetime
    expires_at: datetime
    revoked: bool = False
    last_requested_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval key (접속키) of one app key, for the WebSocket."""

    key: str
    issued_at: datetime


@dataclass(slots=True)
class VolatilityInterruption:
    """A volatility interruption (VI): a two-minute auction. Kinds: 1 static, 2 dynamic."""

    day: date
    code: str
    kind: str
    price: int
    standard: int
    began: str
    count: int
    ended: str = ""


@dataclass(slots=True)
class World:
    """The state of one market and its broker. `day` is the current trading day, None before the first event."""

    seed: int = 0
    day: date | None = None
    first_day: date | None = None
    next_number: int = 1
    bases: dict[str, int] = field(default_factory=dict)
    closes: dict[str, dict[date, TapeBar]] = field(default_factory=dict)
    accounts: dict[str, BrokerAccount] = field(default_factory=dict)
    orders: dict[OrderId, Order] = field(default_factory=dict)
    executions: dict[str, list[Execution]] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    halted: set[str] = field(default_factory=set)
    operation: str = ""  # the market's operation code, during or after a market-wide halt of today
    interruptions: list[VolatilityInterruption] = field(default_factory=list)
    account_keys: dict[str, set[str]] = field(default_factory=dict)
    hts_keys: dict[str, set[str]] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, dict[str, TapeBar]] = field(default_factory=dict)
    # by "code:venue": event number and price, if the price has changed since the last mark
    last_prices: dict[str, tuple[int, int]] = field(default_factory=dict)
    step: int = 0
    tokens: dict[str, IssuedToken] = field(default_factory=dict)
    newest_token: dict[str, IssuedToken] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    _open_by_account: dict[str, dict[int, Order]] = field(default_factory=dict)
    _by_account: dict[str, list[Order]] = field(default_factory=dict)
    # today's orders after each of their events
    _states: dict[OrderId, list[tuple[datetime, Order]]] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Apply one event. Events that change nothing here are ignored."""
        change = _CHANGES.get(event["event"])
        if change is not None:
            change(self, event)

    # --- reading

    def open_orders(self, account: str) -> list[Order]:
        return list(self._open_by_account.get(account, {}).values())

    def all_open(self) -> list[Order]:
        """Return every open order, oldest first."""
        return sorted(
            (order for orders in self._open_by_account.values() for order in orders.values()),
            key=lambda order: order.number,
        )

    def orders_of(self, account: str) -> list[Order]:
        """Return all orders of an account, oldest first."""
        return self._by_account.get(account, [])

    def orders_as_of(self, account: str, moment: datetime) -> list[Order]:
        """Return all orders of an account as they were at a moment of today, oldest first."""
        orders = []
        for order in self.orders_of(account):
            states = self._states.get((order.date, order.number), [(moment, order)])
            orders += [state for at, state in reversed(states) if at <= moment][:1]
        return orders

    def today(self) -> date:
        assert self.day is not None, "the world begins with its first day"
        return self.day

    # --- changes

    def _begin(self, event: Event) -> None:
        self.seed = event["seed"]
        self.first_day = date.fromisoformat(event["date"])

    def _start_day(self, event: Event) -> None:
        self.day = date.fromisoformat(event["date"])
        # after the clock was set back, the day may already have order numbers
        self.next_number = 1 + max((number for day, number in self.orders if day == self.day), default=0)
        self.bases = dict(event["bases"])
        self.marks = {}
        self.interruptions = []
        self._states = {}
        self.operation = ""
        self.bars = {}
        self.last_prices = {}
        self.step = 0
        for account in self.accounts.values():
            account.roll(self.day, event["totals"].get(account.number, account.total_yesterday))

    def _close_day(self, event: Event) -> None:
        day = date.fromisoformat(event["date"])
        for code, bar in event["bars"].items():
            self.closes.setdefault(code, {})[day] = TapeBar(*bar)

    def _open_account(self, event: Event) -> None:
        self.accounts[event["account"]] = BrokerAccount(event["account"])

    def _add_order(self, event: Event) -> None:
        order = order_from_payload(event["order"])
        self.orders[order.date, order.number] = order
        self._by_account.setdefault(order.account, []).append(order)
        self.next_number = max(self.next_number, order.number + 1)
        if order.is_open:
            self._open_by_account.setdefault(order.account, {})[order.number] = order
        self._keep_state(order, event)

    def _fill(self, event: Event) -> None:
        order = self._order(event)
        amount = event["price"] * event["quantity"]
        order.filled += event["quantity"]
        order.amount += amount
        order.fee += event["fee"]
        order.tax += event["tax"]
        execution = Execution(
            date=order.date,
            number=order.number,
            sequence=event["sequence"],
            quantity=event["quantity"],
            price=event["price"],
            time=event["time"],
            market=Market(event["market"]),
        )
        self.executions.setdefault(order.account, []).append(execution)
        self.accounts[order.account].fill(
            side=order.side,
            code=order.code,
            quantity=event["quantity"],
            amount=amount,
            costs=event["fee"] + event["tax"],
            due=date.fromisoformat(event["due"]),
        )
        self.last_prices[f"{order.code}:{execution.market}"] = event["n"], execution.price
        if not order.remaining:
            self._finish(order, OrderStatus.FILLED if order.filled == order.quantity else OrderStatus.CANCELLED)
        self._keep_state(order, event)

    def _withdraw(self, event: Event) -> None:
        order = self._order(event)
        order.cancelled += event["quantity"]
        if event["status"] == OrderStatus.REPLACED:
            order.replaced += event["quantity"]
        elif event["status"] == OrderStatus.EXPIRED:
            order.expired += event["quantity"]
        if not order.remaining:
            self._finish(order, OrderStatus(event["status"]))
        self._keep_state(order, event)

    def _reject(self, event: Event) -> None:
        order = self._order(event)
        order.rejected += event["quantity"]
        self._finish(order, OrderStatus.REJECTED)
        self._keep_state(order, event)

    def _change(self, event: Event) -> None:
        """Apply a triggered stop, a moved SOR order, or a conditional limit order that left its price."""
        order = self._order(event)
        order.venue = Market(event.get("venue", order.venue))
        order.triggered = event.get("triggered", order.triggered)
        order.book_price = event.get("book_price", order.book_price)
        self._keep_state(order, event)

    def _keep_state(self, order: Order, event: Event) -> None:
        state = datetime.fromisoformat(event["at"]), copy(order)
        self._states.setdefault((order.date, order.number), []).append(state)

    def _use_up_number(self, event: Event) -> None:
        self.next_number = max(self.next_number, event["number"] + 1)

    def _finish(self, order: Order, status: OrderStatus) -> None:
        order.status = status
        self._open_by_account.get(order.account, {}).pop(order.number, None)

    def _settle(self, event: Event) -> None:
        self.accounts[event["account"]].settle(date.fromisoformat(event["date"]))

    def _adjust(self, event: Event) -> None:
        """Apply a change of shares without a trade: a split, a bonus issue, a transfer."""
        holdings = self.accounts[event["account"]].holdings
        holding = holdings.setdefault(event["code"], AccountHolding(event["code"]))
        cost = holding.cost + event.get("cost", 0)
        holding.quantity = event["quantity"]
        if holding.quantity:
            holding.average = (Decimal(cost) / holding.quantity).quantize(Decimal("0.0001"))

    def _freeze(self, event: Event) -> None:
        (self.frozen.add if event["frozen"] else self.frozen.discard)(event["code"])

    def _set_price(self, event: Event) -> None:
        self.last_prices[f"{event['code']}:{event['market']}"] = event["n"], event["price"]

    def _halt(self, event: Event) -> None:
        (self.halted.add if event["halted"] else self.halted.discard)(event["code"])

    def _market_operation(self, event: Event) -> None:
        self.operation = event["code"]

    def _interrupt(self, event: Event) -> None:
        params = {name: event[name] for name in ("code", "kind", "price", "standard", "began")}
        count = 1 + sum(vi.code == event["code"] for vi in self.interruptions)
        self.interruptions.append(VolatilityInterruption(day=self.today(), count=count, **params))

    def _resume(self, event: Event) -> None:
        for vi in self.interruptions:
            if vi.code == event["code"] and not vi.ended:
                vi.ended = event["ended"]

    def _link(self, event: Event) -> None:
        if "account" in event:
            self.account_keys.setdefault(event["account"], set()).add(event["key"])
        else:
            self.hts_keys.setdefault(event["hts"], set()).add(event["key"])

    def _mark(self, event: Event) -> None:
        self.step = event["step"]
        self.marks.update(event["venues"])
        self.last_prices = {name: (n, price) for name, (n, price) in self.last_prices.items() if n > event["n"]}
        for name, bar in event["bars"].items():
            self.bars.setdefault(name, {})[event["minute"]] = TapeBar(*bar)

    def _issue_token(self, event: Event) -> None:
        token = IssuedToken(
            text=event["token"],
            key=event["key"],
            issued_at=datetime.fromisoformat(event["at"]),
            expires_at=datetime.fromisoformat(event["expires"]),
        )
        self.tokens[token.text] = self.newest_token[token.key] = token

    def _revoke_token(self, event: Event) -> None:
        self.tokens[event["token"]].revoked = True

    def _expire_token(self, event: Event) -> None:
        self.tokens[event["token"]].expires_at = datetime.fromisoformat(event["at"])

    def _approve(self, event: Event) -> None:
        self.approvals[event["approval"]] = Approval(event["key"], datetime.fromisoformat(event["at"]))

    def _order(self, event: Event) -> Order:
        return self.orders[date.fromisoformat(event["date"]), event["number"]]

    def _reset(self, event: Event) -> None:
        """Delete the whole state, or one account."""
        account = event.get("account")
        if account is None:
            fresh = World()
            for slot in fields(self):
                setattr(self, slot.name, getattr(fresh, slot.name))
            return
        self.accounts.pop(account, None)
        self._open_by_account.pop(account, None)
        self.executions.pop(account, None)
        for order in self._by_account.pop(account, []):
            del self.orders[order.date, order.number]


_CHANGES: dict[str, Callable[[World, Event], None]] = {
    "world": World._begin,
    "day": World._start_day,
    "close": World._close_day,
    "account": World._open_account,
    "order": World._add_order,
    "fill": World._fill,
    "cancel": World._withdraw,
    "reject": World._reject,
    "change": World._change,
    "ignored": World._use_up_number,
    "settlement": World._settle,
    "shares": World._adjust,
    "freeze": World._freeze,
    "halt": World._halt,
    "market_operation": World._market_operation,
    "interruption": World._interrupt,
    "resumption": World._resume,
    "price": World._set_price,
    "link": World._link,
    "mark": World._mark,
    "token": World._issue_token,
    "revoke": World._revoke_token,
    "token expired": World._expire_token,
    "approval": World._approve,
    "reset": World._reset,
}

_ORDER_TYPES: dict[str, Callable[[Any], Any]] = {
    "date": date.fromisoformat,
    "request": Request,
    "side": Side,
    "market": Market,
    "venue": Market,
    "kind": OrderKind,
    "status": OrderStatus,
}


def order_from_payload(payload: dict[str, Any]) -> Order:
    """Return the order of a ledger payload. In older ledgers `book_price` is missing; it is then the price."""
    payload = {"book_price": payload["price"], **payload}
    return Order(
        **{name: _ORDER_TYPES[name](value) if name in _ORDER_TYPES else value for name, value in payload.items()}
    )


def order_to_payload(order: Order) -> dict[str, Any]:
    """Return the ledger payload of an order."""
    payload = {slot.name: getattr(order, slot.name) for slot in fields(order)}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in payload.items()}
