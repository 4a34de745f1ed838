"""Faults on demand: what goes wrong, where, how often. The table here; the mischief in `mischief`.

A fault is asked for by name, with a scope (path, tr_id, account, code), a count or a probability, and
parameters of its own. The code it disturbs asks at a few named points whether one of them strikes.
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

    `operations` are the calls it strikes, by their names in the catalogue; none means any call.
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
            "the line is cut, perhaps after a wait, the request unread: nothing is done",
            {"seconds": 0.0},
        ),
        "delay_before": FaultKind(BEFORE, "the request waits, then is done and answered", {"seconds": 5.0}),
        "gateway": FaultKind(
            BEFORE,
            "the gateway turns the call away unread, with any code",
            {"msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다.", "status": 500},
        ),
        "too_fast": FaultKind(BEFORE, "EGW00201: as if the call limit were reached; nothing is done"),
        "ledger_too_fast": FaultKind(BEFORE, "EGW00215: the ledger's limit for all customers; nothing is done"),
        "timeout_unaccepted": FaultKind(BEFORE, "EGW00301 or EGW00302; nothing was done", {"msg_cd": "EGW00301"}),
        "token_invalid": FaultKind(BEFORE, "EGW00121 though the token is good; nothing is done"),
        "token_ended": FaultKind(BEFORE, "EGW00123 though the token is good; nothing is done"),
        "refusal": FaultKind(
            BEFORE,
            "a business refusal (HTTP 200) in any words; nothing is done",
            {"rt_cd": "7", "msg_cd": "APBK0918", "msg1": "장운영시간이 아닙니다.(주문불가)"},
        ),
        "page_fails": FaultKind(BEFORE, "HTTP 500 without a body on every page but the first"),
        "page_repeats": FaultKind(BEFORE, "a later page is the first page once more"),
        # HTTP, after it is done
        "answer_lost": FaultKind(AFTER, "the request is done, the line is cut before the answer"),
        "answer_torn": FaultKind(AFTER, "the request is done, the line is cut in the middle of the answer"),
        "delay": FaultKind(AFTER, "the request is done at once, the answer comes late", {"seconds": 5.0}),
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
        "duplicate_rows": FaultKind(AFTER, "every row of the list comes twice"),
        "empty_list": FaultKind(AFTER, "the list is empty, successfully"),
        "dict_for_list": FaultKind(AFTER, "the list is its first row alone, not in a list"),
        "empty_rows": FaultKind(AFTER, "empty objects follow the rows", {"rows": 3}),
        "stuck_cursor": FaultKind(AFTER, "the continuation key never moves on"),
        # HTTP, in how it is done
        "list_lag": FaultKind(
            CALL,
            "the order lists show the account's orders as they were so many seconds of market time ago",
            {"seconds": 20.0},
            operations=_LISTS,
        ),
        "cancel_ignored": FaultKind(
            CALL,
            "a cancel or amend is answered with a number, but nothing is done and no line is listed",
            operations=frozenset({"order_rvsecncl"}),
        ),
        # rows of a list: a scope of `code` means their stock, whether or not the request names one
        "order_missing": FaultKind(ROWS, "rows of the scope's code, or the first row, are not in the list"),
        "row_unreadable": FaultKind(
            ROWS,
            "rows of the scope's code, or the first row, have another value in one field",
            {"field": "ord_dvsn_cd", "value": "??"},
        ),
        # orders
        "refused_later": FaultKind(ORDER, "the exchange refuses the order after it was accepted (RFUS_YN 1)"),
        "overtaken": FaultKind(ORDER, "a fill overtakes the cancel or amend: it is refused, nothing is left"),
        "crumbs": FaultKind(ORDER, "fills come in pieces of so many shares", {"shares": 1}),
        # fill notices
        "notice_lost": FaultKind(NOTICE, "the notice is never sent"),
        "notice_doubled": FaultKind(NOTICE, "the notice is sent so many times", {"times": 2}),
        "notice_late": FaultKind(NOTICE, "the notice comes late", {"seconds": 5.0}),
        "notice_reordered": FaultKind(NOTICE, "so many notices are held back and sent in reverse", {"batch": 2}),
        "notice_of_another": FaultKind(NOTICE, "a copy for another account comes first", {"account": "99999999-01"}),
        "notice_wrong_key": FaultKind(NOTICE, "the notice is encrypted with a key nobody was told"),
        "notice_garbled": FaultKind(NOTICE, "what should be base64 is not"),
        "notice_columns": FaultKind(NOTICE, "the notice has more columns, or fewer", {"more": 1}),
        # any data frame
        "frame_lost": FaultKind(FRAME, "the frame is never sent"),
        "frame_count": FaultKind(FRAME, "the record count is wrong", {"count_said": "002"}),
        "frame_cut": FaultKind(FRAME, "the frame ends in the middle"),
        "frame_bytes": FaultKind(FRAME, "a text frame that is not UTF-8"),
        "frame_nulls": FaultKind(FRAME, "values are (null) or empty", {"columns": [2, 12]}),
        "frame_giant": FaultKind(FRAME, "the frame's records repeat until it is huge", {"times": 500}),
        "frame_tr": FaultKind(FRAME, "the frame bears another TR id", {"tr": "H0STXXX0"}),
        "frame_columns": FaultKind(FRAME, "a new column, at the end or at an index", {"at": -1, "value": "1"}),
        # sockets
        "stall": FaultKind(SOCKET, "acknowledged, pinged, but no data"),
        "no_pingpong": FaultKind(
            SOCKET, "the server does not ping, and hangs up after so many seconds (0: never)", {"hangs_up_after": 0.0}
        ),
        "occupied": FaultKind(SOCKET, "OPSP8996 to whoever registers"),
        "ghost": FaultKind(SOCKET, "a session that ended keeps its key busy", {"seconds": 20.0}),
        "subscription_refused": FaultKind(
            SOCKET,
            "registrations are refused, in any code and words",
            {"msg_cd": "OPSP0007", "msg1": "SUBSCRIBE INTERNAL ERROR"},
        ),
        "approval_refused": FaultKind(SOCKET, "OPSP0011 though the approval key is good"),
        "flapping": FaultKind(SOCKET, "every session is dropped again and again", {"every": 3.0}),
        # at once
        "drop_sockets": FaultKind(NOW, "every session is cut, without a closing handshake"),
        "expire_tokens": FaultKind(NOW, "every token ends now (EGW00123)"),
        "revoke_tokens": FaultKind(NOW, "every token is revoked now (EGW00121)"),
        "balance_lag": FaultKind(NOW, "inquire-balance shows accounts as they are now, while this lasts"),
    }
)
NOT_OF_THE_LEDGER = tuple(name for name, kind in KINDS.items() if kind.point == BEFORE and name != "ledger_too_fast")
SCOPE = ("path", "tr_id", "account", "code")


class BadFault(Exception):
    """A fault that is not in the table, or asked for in a way that makes no sense."""


@dataclass(slots=True)
class Fault:
    """One fault in force. `left` is None for as long as it lasts; `ends_at` is in real seconds."""

    number: int
    name: str
    scope: dict[str, str]
    parameters: dict[str, Any]
    probability: float = 1.0
    left: int | None = None
    after: int = 0
    every: int = 1
    ends_at: float | None = None
    met: int = 0
    struck: int = 0

    @property
    def point(self) -> str:
        return KINDS[self.name].point

    def words(self) -> dict[str, Any]:
        """Return the fault as the list of faults shows it."""
        return {
            "id": self.number,
            "name": self.name,
            **self.scope,
            **self.parameters,
            "probability": self.probability,
            "left": self.left,
            "after": self.after,
            "every": self.every,
            "struck": self.struck,
        }


class Faults:
    """The faults in force on one server."""

    def __init__(self, seed: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._random = Random(seed)  # noqa: S311 - mischief, not secrecy
        self._numbers = itertools.count(1)
        self._active: list[Fault] = []

    def add(self, words: Mapping[str, Any]) -> Fault:
        """Put a fault in force. Raises BadFault that names what is wrong."""
        wanted = dict(words)
        name = wanted.pop("name", None)
        if name not in KINDS:
            raise BadFault(f"name {name!r}: one of {', '.join(KINDS)} is needed")
        kind = KINDS[name]
        fault = Fault(next(self._numbers), name, {}, dict(kind.parameters))
        fault.probability = _number(wanted, "probability", 1.0, 0.0, 1.0)
        count = wanted.pop("count", None)
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise BadFault(f"count {count!r}: a whole number of 1 or more is needed, or none at all")
        fault.left = count
        fault.after = int(_number(wanted, "after", 0, 0, 10**9))
        if "every" not in kind.parameters:
            fault.every = int(_number(wanted, "every", 1, 1, 10**9))
        if "lasts" in wanted:
            fault.ends_at = self._clock() + _number(wanted, "lasts", 0, 0, 10**9)
        for key, value in wanted.items():
            # a parameter of the fault's own goes before a scope of the same name
            if key in kind.parameters:
                fault.parameters[key] = value
            elif key in SCOPE:
                fault.scope[key] = str(value)
            else:
                known = [*kind.parameters, *SCOPE, "count", "probability", "after", "every", "lasts"]
                raise BadFault(f"{key!r} is nothing that {name} knows; it knows {', '.join(known)}")
        self._active.append(fault)
        return fault

    def take(
        self, point: str, names: tuple[str, ...] | None = None, /, **context: str | frozenset[str]
    ) -> Fault | None:
        """Return the first fault that strikes at `point`, counted as struck; None when nothing goes wrong.

        A fault's scope matches one text of the context, or one of several.
        """
        for fault in list(self._active):
            if fault.point != point or (names is not None and fault.name not in names):
                continue
            if self._is_over(fault) or not self._fits(fault, context):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.met += 1
            if fault.met % fault.every:
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            fault.struck += 1
            if fault.left is not None:
                fault.left -= 1
            return fault
        return None

    def has(self, name: str) -> bool:
        """Whether a fault of this name is in force, without counting it."""
        return any(fault.name == name and not self._is_over(fault) for fault in list(self._active))

    def of(self, name: str) -> Fault | None:
        """Return the fault of this name that is in force, without counting it."""
        return next((fault for fault in self.active() if fault.name == name), None)

    def clear(self, number: int | None = None) -> None:
        """End one fault, or all."""
        self._active = [] if number is None else [fault for fault in self._active if fault.number != number]

    def active(self) -> list[Fault]:
        return [fault for fault in list(self._active) if not self._is_over(fault)]

    def _is_over(self, fault: Fault) -> bool:
        over = fault.left == 0 or (fault.ends_at is not None and self._clock() >= fault.ends_at)
        if over and fault in self._active:
            self._active.remove(fault)
        return over

    def _fits(self, fault: Fault, context: Mapping[str, str | frozenset[str]]) -> bool:
        operations = KINDS[fault.name].operations
        if operations and context.get("operation") not in operations:
            return False
        return all(_matches(key, wanted, context.get(key, "")) for key, wanted in fault.scope.items())


def _matches(key: str, wanted: str, given: str | frozenset[str]) -> bool:
    if isinstance(given, frozenset):
        return wanted in given
    return given == wanted or (key == "path" and given.endswith(wanted))


def _number(words: dict[str, Any], name: str, default: float, lowest: float, highest: float) -> float:
    value = words.pop(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise BadFault(f"{name} {value!r}: a number from {lowest} to {highest} is needed")
    return float(value)


def listing(faults: Faults) -> dict[str, Any]:
    """Return every kind with its help, and what is in force."""
    return {
        "usage": (
            'POST {"name": ..., "count": n, "probability": 0..1, "after": n, "every": n, "lasts": seconds, '
            '"path"|"tr_id"|"account"|"code": scope, parameters}; POST {"clear": true} or {"clear": id} ends them'
        ),
        "faults": {
            name: {"strikes": kind.point, "help": kind.help, "parameters": dict(kind.parameters)}
            for name, kind in KINDS.items()
        },
        "active": [fault.words() for fault in faults.active()],
    }
