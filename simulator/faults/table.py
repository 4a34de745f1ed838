"""Fault injection on demand: the table of faults, and those in force. `injection` applies them.

A fault is requested by name, with a scope (path, tr_id, account, code), a count or a probability, and its own
parameters. The disturbed code calls `take` at a few named points to get the fault that strikes, if any.
"""

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any

BEFORE, CALL, ROWS, AFTER = "before", "call", "rows", "after"
NOTICE, FRAME, SOCKET, ORDER, NOW = "notice", "frame", "socket", "order", "now"

_LISTS = frozenset({"inquire_daily_ccld", "inquire_psbl_rvsecncl", "inquire_nccs"})
_ORDERS = frozenset({"order_cash_buy", "order_cash_sell", "order_rvsecncl"})


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One row of the table. `point` is where it strikes; `parameters` are its own, with their defaults.

    `operations` are the calls it strikes, by their names in the catalogue; empty means all calls.
    """

    point: str
    help: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    operations: frozenset[str] = frozenset()


KINDS: Mapping[str, FaultKind] = MappingProxyType(
    {
        # HTTP, before anything is done
        "request_lost": FaultKind(
            BEFORE,
            "the connection is cut, after `seconds`, with the request unread: nothing is done",
            {"seconds": 0.0},
        ),
        "delay_before": FaultKind(BEFORE, "the request waits, then is done and answered", {"seconds": 5.0}),
        "gateway": FaultKind(
            BEFORE,
            "the gateway refuses the call unread, with any code",
            {"msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다.", "status": 500},
        ),
        "too_fast": FaultKind(BEFORE, "EGW00201: as if the call limit were reached; nothing is done"),
        "ledger_too_fast": FaultKind(BEFORE, "EGW00215: the ledger's limit for all customers; nothing is done"),
        "timeout_unaccepted": FaultKind(BEFORE, "EGW00301 or EGW00302; nothing was done", {"msg_cd": "EGW00301"}),
        "token_invalid": FaultKind(BEFORE, "EGW00121 though the token is good; nothing is done"),
        "token_ended": FaultKind(BEFORE, "EGW00123 though the token is good; nothing is done"),
        "refusal": FaultKind(
            BEFORE,
            "a business refusal (HTTP 200) with any code and text; nothing is done",
            {"rt_cd": "7", "msg_cd": "APBK0918", "msg1": "장운영시간이 아닙니다.(주문불가)"},
        ),
        "page_fails": FaultKind(BEFORE, "HTTP 500 without a body on every page but the first"),
        "page_repeats": FaultKind(BEFORE, "a later page is the first page again"),
        # HTTP, after it is done
        "answer_lost": FaultKind(AFTER, "the request is done, the connection is cut before the answer"),
        "answer_torn": FaultKind(AFTER, "the request is done, the connection is cut in the middle of the answer"),
        "delay": FaultKind(AFTER, "the request is done at once, the answer is late", {"seconds": 5.0}),
        "timeout_accepted": FaultKind(AFTER, "EGW00301 or EGW00302, though it was done", {"msg_cd": "EGW00301"}),
        "error_500": FaultKind(
            AFTER, "HTTP 500 with an empty body; done unless `executed` is false", {"executed": True}
        ),
        "bad_gateway": FaultKind(
            AFTER, "HTTP 502 with a page of HTML; done unless `executed` is false", {"executed": True}
        ),
        "broken_json": FaultKind(AFTER, "HTTP 200 whose JSON ends in the middle", {"executed": True}),
        "rt_cd_missing": FaultKind(AFTER, "HTTP 200 whose JSON has no rt_cd", {"executed": True}),
        "receipt_without_number": FaultKind(
            AFTER, "the order, amend or cancel is done, the answer's ODNO is blank", operations=_ORDERS
        ),
        "duplicate_rows": FaultKind(AFTER, "every row of the list appears twice"),
        "empty_list": FaultKind(AFTER, "a successful answer with an empty list"),
        "dict_for_list": FaultKind(AFTER, "the first row alone in place of the list"),
        "empty_rows": FaultKind(AFTER, "empty objects follow the rows", {"rows": 3}),
        "stuck_cursor": FaultKind(AFTER, "the continuation key never advances"),
        # HTTP, while it is done
        "list_lag": FaultKind(
            CALL,
            "the order lists show the account's orders as they were `seconds` of market time ago",
            {"seconds": 20.0},
            operations=_LISTS,
        ),
        "cancel_ignored": FaultKind(
            CALL,
            "a cancel or amend is answered with a number, but nothing is done and no row is listed",
            operations=frozenset({"order_rvsecncl"}),
        ),
        # rows of a list: a scope of `code` means the rows' stock, even if the request names none
        "order_missing": FaultKind(ROWS, "rows of the scope's code, or the first row, are not in the list"),
        "row_unreadable": FaultKind(
            ROWS,
            "rows of the scope's code, or the first row, have another value in one field",
            {"field": "ord_dvsn_cd", "value": "??"},
        ),
        # orders
        "refused_later": FaultKind(ORDER, "the exchange refuses the order after it was accepted (RFUS_YN 1)"),
        "overtaken": FaultKind(ORDER, "a fill overtakes the cancel or amend: it is refused, nothing is left"),
        "crumbs": FaultKind(ORDER, "fills are split into pieces of `shares`", {"shares": 1}),
        # fill notices
        "notice_lost": FaultKind(NOTICE, "the notice is never sent"),
        "notice_doubled": FaultKind(NOTICE, "the notice is sent `times` times", {"times": 2}),
        "notice_late": FaultKind(NOTICE, "the notice is sent late", {"seconds": 5.0}),
        "notice_reordered": FaultKind(NOTICE, "`batch` notices are held back and sent in reverse", {"batch": 2}),
        "notice_of_another": FaultKind(NOTICE, "a copy for another account is sent first", {"account": "99999999-01"}),
        "notice_wrong_key": FaultKind(NOTICE, "the notice is encrypted with a key that the client does not have"),
        "notice_garbled": FaultKind(NOTICE, "the notice's data is not base64"),
        "notice_columns": FaultKind(NOTICE, "the notice has more columns, or fewer", {"more": 1}),
        # any data frame
        "frame_lost": FaultKind(FRAME, "the frame is never sent"),
        "frame_count": FaultKind(FRAME, "the record count is wrong", {"count_said": "002"}),
        "frame_cut": FaultKind(FRAME, "the frame ends in the middle"),
        "frame_bytes": FaultKind(FRAME, "a text frame that is not UTF-8"),
        "frame_nulls": FaultKind(FRAME, "values are (null) or empty", {"columns": [2, 12]}),
        "frame_giant": FaultKind(FRAME, "the frame's records repeat until it is huge", {"times": 500}),
        "frame_tr": FaultKind(FRAME, "the frame has another TR id", {"tr": "H0STXXX0"}),
        "frame_columns": FaultKind(FRAME, "a new column, at the end or at an index", {"at": -1, "value": "1"}),
        # sockets
        "stall": FaultKind(SOCKET, "registrations are acknowledged and pings are sent, but no data"),
        "no_pingpong": FaultKind(
            SOCKET,
            "the server does not ping, and closes the session after `hangs_up_after` seconds (0: never)",
            {"hangs_up_after": 0.0},
        ),
        "occupied": FaultKind(SOCKET, "OPSP8996 for every new session"),
        "ghost": FaultKind(SOCKET, "an ended session keeps its key in use", {"seconds": 20.0}),
        "subscription_refused": FaultKind(
            SOCKET,
            "registrations are refused, with any code and text",
            {"msg_cd": "OPSP0007", "msg1": "SUBSCRIBE INTERNAL ERROR"},
        ),
        "approval_refused": FaultKind(SOCKET, "OPSP0011 though the approval key is good"),
        "flapping": FaultKind(SOCKET, "every session is dropped every few seconds", {"every": 3.0}),
        # at once
        "drop_sockets": FaultKind(NOW, "every session is cut, without a closing handshake"),
        "expire_tokens": FaultKind(NOW, "every token expires now (EGW00123)"),
        "revoke_tokens": FaultKind(NOW, "every token is revoked now (EGW00121)"),
        "balance_lag": FaultKind(NOW, "inquire-balance shows accounts as they are now, until the fault is cleared"),
    }
)
GATEWAY_FAULTS = tuple(name for name, kind in KINDS.items() if kind.point == BEFORE and name != "ledger_too_fast")
SCOPE = ("path", "tr_id", "account", "code")


class BadFault(Exception):
    """A fault that is not in the table, or has an invalid parameter. The message names the valid values."""


@dataclass(slots=True)
class Fault:
    """One fault in force. `left` is the number of strikes left, None if unlimited; `ends_at` is in real seconds."""

    number: int
    name: str
    scope: dict[str, str]
    parameters: dict[str, Any]
    probability: float = 1.0
    left: int | None = None
    after: int = 0
    every: int = 1
    ends_at: float | None = None
    matches: int = 0
    strikes: int = 0

    @property
    def point(self) -> str:
        return KINDS[self.name].point

    def as_dict(self) -> dict[str, Any]:
        """Return the fault's entry in the list of faults."""
        return {
            "id": self.number,
            "name": self.name,
            **self.scope,
            **self.parameters,
            "probability": self.probability,
            "left": self.left,
            "after": self.after,
            "every": self.every,
            "struck": self.strikes,
        }


class Faults:
    """The faults in force on one server."""

    def __init__(self, seed: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._random = Random(seed)  # noqa: S311 - for faults, not for secrets
        self._numbers = itertools.count(1)
        self._active: list[Fault] = []

    def add(self, body: Mapping[str, Any]) -> Fault:
        """Put a fault in force. Raises BadFault."""
        options = dict(body)
        name = options.pop("name", None)
        if name not in KINDS:
            raise BadFault(f"name {name!r}: one of {', '.join(KINDS)} is needed")
        kind = KINDS[name]
        fault = Fault(next(self._numbers), name, {}, dict(kind.parameters))
        fault.probability = _number(options, "probability", 1.0, 0.0, 1.0)
        count = options.pop("count", None)
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise BadFault(f"count {count!r}: a whole number of 1 or more is needed, or none at all")
        fault.left = count
        fault.after = int(_number(options, "after", 0, 0, 10**9))
        if "every" not in kind.parameters:
            fault.every = int(_number(options, "every", 1, 1, 10**9))
        if "lasts" in options:
            fault.ends_at = self._clock() + _number(options, "lasts", 0, 0, 10**9)
        for key, value in options.items():
            # a fault's own parameter has precedence over a scope of the same name
            if key in kind.parameters:
                fault.parameters[key] = value
            elif key in SCOPE:
                fault.scope[key] = str(value)
            else:
                valid_names = [*kind.parameters, *SCOPE, "count", "probability", "after", "every", "lasts"]
                raise BadFault(f"{key!r} is nothing that {name} knows; it knows {', '.join(valid_names)}")
        self._active.append(fault)
        return fault

    def take(
        self, point: str, names: tuple[str, ...] | None = None, /, **context: str | frozenset[str]
    ) -> Fault | None:
        """Return the first fault that strikes at `point`, counted as struck; None if no fault strikes.

        A value of the context may be a set: the fault's scope then matches any member.
        """
        for fault in list(self._active):
            if fault.point != point or (names is not None and fault.name not in names):
                continue
            if self._is_over(fault) or not self._is_in_scope(fault, context):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.matches += 1
            if fault.matches % fault.every:
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            fault.strikes += 1
            if fault.left is not None:
                fault.left -= 1
            return fault
        return None

    def has(self, name: str) -> bool:
        """Return whether a fault of this name is in force, without counting it."""
        return any(fault.name == name and not self._is_over(fault) for fault in list(self._active))

    def find(self, name: str) -> Fault | None:
        """Return the fault of this name that is in force, without counting it."""
        return next((fault for fault in self.active() if fault.name == name), None)

    def clear(self, number: int | None = None) -> None:
        """End one fault, or all faults."""
        self._active = [] if number is None else [fault for fault in self._active if fault.number != number]

    def active(self) -> list[Fault]:
        return [fault for fault in list(self._active) if not self._is_over(fault)]

    def _is_over(self, fault: Fault) -> bool:
        is_over = fault.left == 0 or (fault.ends_at is not None and self._clock() >= fault.ends_at)
        if is_over and fault in self._active:
            self._active.remove(fault)
        return is_over

    def _is_in_scope(self, fault: Fault, context: Mapping[str, str | frozenset[str]]) -> bool:
        operations = KINDS[fault.name].operations
        if operations and context.get("operation") not in operations:
            return False
        return all(_matches(key, scope_value, context.get(key, "")) for key, scope_value in fault.scope.items())


def _matches(key: str, scope_value: str, value: str | frozenset[str]) -> bool:
    if isinstance(value, frozenset):
        return scope_value in value
    return value == scope_value or (key == "path" and value.endswith(scope_value))


def _number(options: dict[str, Any], name: str, default: float, lowest: float, highest: float) -> float:
    value = options.pop(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise BadFault(f"{name} {value!r}: a number from {lowest} to {highest} is needed")
    return float(value)


def listing(faults: Faults) -> dict[str, Any]:
    """Return all kinds with their help, and the faults in force."""
    return {
        "usage": (
            'POST {"name": ..., "count": n, "probability": 0..1, "after": n, "every": n, "lasts": seconds, '
            '"path"|"tr_id"|"account"|"code": scope, parameters}; POST {"clear": true} or {"clear": id} ends them'
        ),
        "faults": {
            name: {"strikes": kind.point, "help": kind.help, "parameters": dict(kind.parameters)}
            for name, kind in KINDS.items()
        },
        "active": [fault.as_dict() for fault in faults.active()],
    }
