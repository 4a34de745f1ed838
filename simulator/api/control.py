"""Control commands for tests and rehearsals, which no broker has: read the ledger, move prices, set the clock."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Any

from aiohttp import web

from aegis import ticks
from aegis.account import Account
from aegis.sessions import KST
from aegis.terms import Market, OrderKind, Side
from infra import clock
from simulator.api.error_codes import RequestRefused
from simulator.api.gateway import key_of
from simulator.api.list_printing import BadPrinting
from simulator.broker import Firm
from simulator.exchange.listings import STOCKS
from simulator.exchange.order_entry import ChangeRequest
from simulator.exchange.orders import NewOrder
from simulator.faults.table import NOW, BadFault, Fault, listing
from simulator.feed.hub import FeedHub

# the codes (MKOP_CLS_CODE) at the start and the end of a market-wide halt
_OPERATIONS = {"circuit_breaker": ("174", "175"), "sell_sidecar": ("387", "388"), "buy_sidecar": ("397", "398")}
_EXTERNAL = "by hand"  # the ledger's tag of external orders, which no API client sent
HELP = {
    "GET /simulator/": "this list",
    "GET /simulator/ledger?account=12345678-01": "an account's true cash, holdings, orders and executions",
    "GET /simulator/events?since=N": "the ledger's events from number N on",
    "POST /simulator/trades": '{"keep": true|false}: start or stop recording every trade of the day',
    "GET /simulator/trades?code=CODE&market=KRX": "those trades: moment, won, shares",
    "POST /simulator/quotes/CODE": (
        '{"price": won, "freeze": true|false, "step": n, "halt": true|false, "vi": "static"|"dynamic"}, each optional: '
        "trade to a price tick by tick through the order book; stop or resume the crowd's moves of the stock; let the "
        "whole crowd act n times; halt or resume trading; interrupt the stock for two minutes"
    ),
    "POST /simulator/clock": (
        '{"now": "2026-11-23T10:00:00", "speed": 1.0}: set market time (KST if no offset is given) for every '
        "process that shares the clock file"
    ),
    "POST /simulator/basis": '{"percent": -0.6}: fix the basis of futures to KOSPI200; null lets it move',
    "POST /simulator/market": (
        '{"halt": "circuit_breaker"|"sell_sidecar"|"buy_sidecar"}: starts one; {"resume": the same} ends it. A circuit '
        "breaker stops all trading; a sidecar is announced only: it stops program trading, which is not simulated"
    ),
    "GET /simulator/faults": "all faults with their help, and those in force",
    "POST /simulator/faults": '{"name": ..., "count": n, ...} puts one in force; {"clear": true} or {"clear": id} ends',
    "POST /simulator/orders": (
        '{"account": "12345678-01", "code": "005930", "side": "BUY", "quantity": 1, "price": 71500, "kind": "00", '
        '"market": "KRX"}: an external order, placed in the broker\'s own app; {"account": ..., "cancel": number, '
        '"quantity": n} cancels it; {"account": ..., "amend": number, "price": 71400, "quantity": n} amends it; '
        "the default quantity is the whole rest"
    ),
    "POST /simulator/printing": (
        '{"amended": "cancelled"|"untouched", "closed": "cancelled"|"open", "unpriced": "standing"|"zero"}, each '
        "optional: how the order lists print an amended original, an order that expired at the session's end, and the "
        "price of an order kind without one; the answer shows all modes in force"
    ),
    "POST /simulator/shares": (
        '{"account": "12345678-01", "code": "005930", "ratio": 2.0}: split or bonus issue of the '
        'holding; or {"quantity": n, "cost": won}: shares transferred in'
    ),
    "POST /simulator/keys": (
        '{"key": app key, "revoked": true|false, "occupied": true|false, "drop": true, "hts_id": "..."}, each but the '
        "key optional: revoke the key as the broker does, or restore it; let another program hold its one session; "
        "end its session; link it to a customer's HTS ID, which gets the notices of all accounts that the key uses"
    ),
    "POST /simulator/reset": '{"seed": n} resets the world; {"account": "12345678-01"} only that account',
}


class BadCommand(Exception):
    """A command that cannot be executed. The message names the field, its value and the valid values."""


CommandResult = dict[str, Any]


class ControlApi:
    """Executes commands for one firm. Called in the server's own thread."""

    def __init__(self, firm: Firm, feed: FeedHub) -> None:
        self._firm = firm
        self._feed = feed

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one command."""
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else {}
            if not isinstance(body, dict):
                raise BadCommand('the body must be a JSON object, as {"price": 71500}')
            result = self.carry_out(request.method, request.path, dict(request.query), body)
        except ValueError as error:
            return _json({"error": f"the body is no JSON: {error}"}, 400)
        except BadCommand as error:
            return _json({"error": str(error)}, 400)
        except OSError as error:
            return _json({"error": f"the simulator cannot write its files ({error}): is the disk full?"}, 507)
        if result is None:
            return _json({"error": f"{request.method} {request.path} is no command", "commands": HELP}, 404)
        return _json(result, 200)

    def carry_out(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> CommandResult | None:
        """Run the command of a path and return its answer, None if there is no such command. Raises BadCommand."""
        parts = path.strip("/").split("/")[1:]
        now = clock.now()
        if method == "GET" and not parts:
            return {"commands": HELP}
        commands: dict[tuple[str, str], Callable[[], CommandResult]] = {
            ("GET", "ledger"): lambda: self.ledger(query.get("account", ""), now),
            ("GET", "events"): lambda: self._events(query.get("since", "0")),
            ("POST", "trades"): lambda: self._keep_trades(body),
            ("GET", "trades"): lambda: self._trades(query.get("code", ""), query.get("market", Market.KRX.value)),
            ("POST", "quotes"): lambda: self._quote(parts[1] if len(parts) > 1 else "", body, now),
            ("POST", "clock"): lambda: self._clock(body),
            ("POST", "basis"): lambda: self._basis(body),
            ("POST", "market"): lambda: self._market(body, now),
            ("GET", "faults"): lambda: listing(self._firm.faults),
            ("POST", "faults"): lambda: self._fault(body, now),
            ("POST", "orders"): lambda: self._order(body, now),
            ("POST", "printing"): lambda: self._printing(body),
            ("POST", "shares"): lambda: self._shares(body, now),
            ("POST", "keys"): lambda: self._keys(body),
            ("POST", "reset"): lambda: self._reset(body, now),
        }
        command = commands.get((method, parts[0] if parts else ""))
        return command() if command else None

    def ledger(self, account: str, now: datetime) -> CommandResult:
        self._firm.advance(now)
        return self._firm.exchange.account_report(_read_account(account))

    def _events(self, since: str) -> CommandResult:
        if not since.isdigit():
            raise BadCommand(f"since={since!r}: a number of an event, 0 or more, is needed")
        return {"events": self._firm.exchange.ledger.events()[int(since) :]}

    def _keep_trades(self, body: dict[str, Any]) -> CommandResult:
        is_recorded = _read_bool("keep", body.get("keep"))
        for venue in self._firm.exchange.venues.values():
            venue.tape.log = [] if is_recorded else None
        return {"keep": is_recorded}

    def _trades(self, code: str, market: str) -> CommandResult:
        venue = next((v for (c, m), v in self._firm.exchange.venues.items() if (c, m.value) == (code, market)), None)
        if venue is None:
            raise BadCommand(f"code {code!r} is not listed on market {market!r} here")
        return {"trades": [(at.isoformat(), price, qty) for at, price, qty in venue.tape.log or ()]}

    def _quote(self, code: str, body: dict[str, Any], now: datetime) -> CommandResult:
        if code not in self._firm.exchange.listed:
            raise BadCommand(f"code {code!r} is not listed here; listed are {', '.join(self._firm.exchange.listed)}")
        self._firm.advance(now)
        if "price" in body:
            self.set_price(code, body["price"], now)
        if "freeze" in body:
            self._freeze(code, body["freeze"], now)
        if "step" in body:
            self.step(body["step"], now)
        if "halt" in body:
            self._firm.session_clock.halt(code, _read_bool("halt", body["halt"]), now)
        if "vi" in body:
            self._interrupt(code, body["vi"], now)
        venue = self._firm.exchange.venue(code)
        return {
            "code": code,
            "price": venue.tape.last,
            "frozen": code in self._firm.exchange.world.frozen,
            "asks": venue.book.depth(Side.SELL, 10),
            "bids": venue.book.depth(Side.BUY, 10),
        }

    def _market(self, body: dict[str, Any], now: datetime) -> CommandResult:
        action = next((name for name in ("halt", "resume") if name in body), "")
        codes = _OPERATIONS.get(str(body.get(action)))
        if codes is None:
            raise BadCommand(f"{action or 'halt'} {body.get(action)!r}: one of {', '.join(_OPERATIONS)} is needed")
        self._firm.advance(now)
        operation = codes[action == "resume"]
        stops_all = body[action] == "circuit_breaker"
        self._firm.session_clock.set_market_operation(operation, now, halted=action == "halt" if stops_all else None)
        return {"operation": operation, "halted": len(self._firm.exchange.world.halted)}

    def set_price(self, code: str, price: Any, now: datetime) -> None:
        """Trade a stock to `price` won. Raises BadCommand."""
        venue, instrument = self._firm.exchange.venue(code), STOCKS[code].instrument
        if not isinstance(price, int) or isinstance(price, bool):
            raise BadCommand(f"price {price!r}: a whole number of won is needed")
        if not venue.lowest <= price <= venue.highest:
            raise BadCommand(f"price {price}: {code} moves between {venue.lowest} and {venue.highest} today")
        if not ticks.is_on_tick(price, instrument):
            valid_price = ticks.adjust_price_to_tick(price, "down", instrument)
            raise BadCommand(f"price {price} is not on the tick grid; {valid_price} is")
        self._firm.session_clock.set_price(code, price, now)

    def _freeze(self, code: str, frozen: Any, now: datetime) -> None:
        self._firm.exchange.record("freeze", now, code=code, frozen=_read_bool("freeze", frozen))

    def _interrupt(self, code: str, kind: Any, now: datetime) -> None:
        if kind not in _INTERRUPTIONS:
            raise BadCommand(f'vi {kind!r}: "static" or "dynamic" is needed')
        if not self._firm.session_clock.interrupt(code, _INTERRUPTIONS[kind], now):
            raise BadCommand(f"vi {kind!r}: {code} does not trade continuously at {now:%H:%M:%S}")

    def _basis(self, body: dict[str, Any]) -> CommandResult:
        percent = body.get("percent")
        if percent is not None and (isinstance(percent, bool) or not isinstance(percent, int | float)):
            raise BadCommand(f"percent {percent!r}: a number, or null, is needed")
        self._firm.index_model.basis_percent = percent
        return {"percent": percent}

    def step(self, count: Any, now: datetime) -> None:
        """Let the crowd act `count` times. Raises BadCommand."""
        if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= 10_000:
            raise BadCommand(f"step {count!r}: a number from 1 to 10000 is needed")
        self._firm.session_clock.step(count, now)

    def _fault(self, body: dict[str, Any], now: datetime) -> CommandResult:
        faults = self._firm.faults
        if "clear" in body:
            faults.clear(None if body["clear"] is True else body["clear"])
            return {"active": [fault.as_dict() for fault in faults.active()]}
        try:
            fault = faults.add(body)
        except BadFault as error:
            raise BadCommand(str(error)) from None
        if fault.point == NOW:
            self._apply_now(fault, now)
        return fault.as_dict()

    def _apply_now(self, fault: Fault, now: datetime) -> None:
        """Apply a fault that acts at once. `balance_lag` stays in force; the others end."""
        exchange = self._firm.exchange
        fault.strikes += 1
        if fault.name == "balance_lag":
            exchange.lagging_accounts = deepcopy(exchange.world.accounts)
            return
        if fault.name == "drop_sockets":
            self._feed.cut()
        else:
            event = "token expired" if fault.name == "expire_tokens" else "revoke"
            for token in list(exchange.world.tokens.values()):
                exchange.record(event, now, token=token.text)
        self._firm.faults.clear(fault.number)

    def _order(self, body: dict[str, Any], now: datetime) -> CommandResult:
        """Place, cancel or amend an external order, as the customer does in the broker's own app."""
        account = _read_account(str(body.get("account", "")))
        self._firm.advance(now)
        try:
            if "cancel" in body or "amend" in body:
                order = self._firm.order_entry.change(self._change(account, body), now)
            else:
                order = self._firm.order_entry.place(_new_order(account, body), now)
        except RequestRefused as error:
            refusal = error.fields(is_paper=self._firm.settings.is_paper)
            raise BadCommand(f"the desk refuses: {refusal.msg1} ({refusal.msg_cd}, {error})") from None
        return {"number": f"{order.number:010d}", "status": order.status, "filled": order.filled}

    def _change(self, account: str, body: dict[str, Any]) -> ChangeRequest:
        """Return the change request for a cancel or an amend of an order's rest or a part of it. Raises BadCommand."""
        if "cancel" in body and "amend" in body:
            raise BadCommand(f"cancel {body['cancel']!r} and amend {body['amend']!r}: only one of them is possible")
        name = "cancel" if "cancel" in body else "amend"
        number, quantity = _read_int(body, name), _read_int(body, "quantity", 0)
        if "quantity" in body and not quantity:
            raise BadCommand("quantity 0: a number of 1 or more is needed, or none for the whole rest")
        world = self._firm.exchange.world
        order = world.orders.get((world.today(), number))
        if order is None or order.account != account:
            numbers = ", ".join(str(order.number) for order in world.open_orders(account)) or "none"
            raise BadCommand(f"{name} {number}: an open order of {account} is needed; open are {numbers}")
        needs_price = name == "amend" and order.kind.is_priced
        return ChangeRequest(
            account=account,
            number=number,
            is_cancel=name == "cancel",
            kind=order.kind,
            quantity=quantity,
            price=_read_int(body, "price") if needs_price else 0,
            is_whole_rest="quantity" not in body,
            tag=_EXTERNAL,
        )

    def _keys(self, body: dict[str, Any]) -> CommandResult:
        if not isinstance(body.get("key"), str) or not body["key"]:
            raise BadCommand("key: an app key, a text of one character or more, is needed")
        key = key_of(body["key"])
        if "revoked" in body:
            self._firm.gateway.revoke_key(key, revoked=_read_bool("revoked", body["revoked"]))
        if "occupied" in body:
            self._feed.occupy(key, occupied=_read_bool("occupied", body["occupied"]))
        if "hts_id" in body:
            self._firm.exchange.link_hts(str(body["hts_id"]), key)
        if body.get("drop") or body.get("revoked"):
            self._feed.hang_up(key)
        return {"revoked": self._firm.gateway.is_revoked(key), "sessions": self._feed.sessions_of(key)}

    def _printing(self, body: dict[str, Any]) -> CommandResult:
        try:
            self._firm.printing = self._firm.printing.with_modes(body)
        except BadPrinting as error:
            raise BadCommand(str(error)) from None
        return asdict(self._firm.printing)

    def _shares(self, body: dict[str, Any], now: datetime) -> CommandResult:
        """Change a holding without a trade: a split, a bonus issue, a transfer."""
        account, code = _read_account(str(body.get("account", ""))), str(body.get("code", ""))
        self._firm.advance(now)
        exchange = self._firm.exchange
        if code not in exchange.listed:
            raise BadCommand(f"code {code!r} is not listed here; listed are {', '.join(exchange.listed)}")
        holding = exchange.account(account).holdings.get(code)
        before = holding.quantity if holding else 0
        if "ratio" in body:
            ratio = body["ratio"]
            if isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio <= 0:
                raise BadCommand(f"ratio {ratio!r}: a number above 0 is needed")
            quantity, cost = int(before * ratio), 0
        else:
            quantity = _read_int(body, "quantity")
            cost = _read_int(body, "cost", 0)
        exchange.record("shares", now, account=account, code=code, quantity=quantity, cost=cost)
        return {"account": account, "code": code, "quantity": quantity, "before": before}

    def _clock(self, body: dict[str, Any]) -> CommandResult:
        try:
            moment = datetime.fromisoformat(str(body.get("now")))
        except ValueError:
            raise BadCommand(f"now {body.get('now')!r}: a moment as 2026-11-23T10:00:00 is needed") from None
        speed = body.get("speed", 1.0)
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 < speed <= 3600:
            raise BadCommand(f"speed {speed!r}: a number above 0 and up to 3600 is needed")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=KST)
        try:
            clock.set_now(moment, speed=float(speed))
        except RuntimeError as error:
            raise BadCommand(str(error)) from None
        self._firm.advance(clock.now())
        return {"now": clock.now().isoformat(), "speed": speed}

    def _reset(self, body: dict[str, Any], now: datetime) -> CommandResult:
        seed = body.get("seed", self._firm.settings.seed)
        if not isinstance(seed, int):
            raise BadCommand(f"seed {seed!r}: a whole number is needed")
        account = _read_account(str(body["account"])) if "account" in body else None
        self._firm.reset(seed, account, now)
        return {"reset": account or "the world", "seed": seed}


def _new_order(account: str, body: dict[str, Any]) -> NewOrder:
    return NewOrder(
        account=account,
        code=str(body.get("code", "")),
        side=_read_choice(body, "side", Side, ""),
        market=_read_choice(body, "market", Market, "KRX"),
        kind=_read_choice(body, "kind", OrderKind, "00"),
        quantity=_read_int(body, "quantity"),
        price=_read_int(body, "price", 0),
        tag=_EXTERNAL,
    )


def _read_choice(body: dict[str, Any], name: str, values: type[StrEnum], default: str) -> Any:
    try:
        return values(str(body.get(name, default)))
    except ValueError:
        raise BadCommand(f"{name} {body.get(name)!r}: one of {', '.join(values)} is needed") from None


def _read_int(body: dict[str, Any], name: str, default: int | None = None) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadCommand(f"{name} {value!r}: a whole number is needed")
    return value


_INTERRUPTIONS = {"static": "1", "dynamic": "2"}


def _read_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadCommand(f"{name} {value!r}: true or false is needed")
    return value


def _read_account(text: str) -> str:
    try:
        return str(Account.parse(text))
    except ValueError as error:
        raise BadCommand(str(error)) from None


def _json(body: object, status: int) -> web.Response:
    return web.json_response(body, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False))
