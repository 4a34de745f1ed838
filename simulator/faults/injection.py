"""Fault injection: applies faults to HTTP replies and WebSocket frames.

Pure: takes replies and texts, returns changed ones.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from simulator.api.error_codes import RefusalFields, RequestRefused
from simulator.api.request import ApiReply, Call
from simulator.faults.table import Fault

HTML = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
_TIMEOUTS = {"EGW00301": "connection timed out", "EGW00302": "transaction timed out"}
_LISTS = ("output1", "output")


class ConnectionDropped(Exception):
    """The connection is dropped after `after_seconds`, without a reply or in the middle of `torn`."""

    def __init__(self, torn: bytes = b"", after_seconds: float = 0.0) -> None:
        super().__init__("line cut")
        self.torn = torn
        self.after_seconds = after_seconds


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer that is not the broker's JSON."""

    status: int
    body: bytes
    content_type: str = "text/html"


def apply_before(fault: Fault, call: Call) -> Call:
    """Apply a fault to a call before it is executed. Raises an exception if the client gets another reply instead."""
    strike = _BEFORE.get(fault.name)
    return strike(fault, call) if strike else call


def _drop(fault: Fault, call: Call) -> Call:
    raise ConnectionDropped(after_seconds=float(fault.parameters["seconds"]))


def _refuse_with(name: str) -> Callable[[Fault, Call], Call]:
    def strike(fault: Fault, call: Call) -> Call:
        raise RequestRefused(name)

    return strike


def _refuse(fault: Fault, call: Call) -> Call:
    parameters = fault.parameters
    rt_cd, status = parameters.get("rt_cd", "1"), parameters.get("status", 200)
    raise RefusalOverride(RefusalFields(rt_cd, parameters["msg_cd"], parameters["msg1"], status))


def _time_out(fault: Fault, call: Call) -> Call:
    raise RequestRefused(_TIMEOUTS.get(fault.parameters["msg_cd"], "connection timed out"))


def _fail_page(fault: Fault, call: Call) -> Call:
    if call.tr_cont == "N":
        raise ResponseOverride(RawAnswer(500, b""))
    return call


def _repeat_page(fault: Fault, call: Call) -> Call:
    return replace(call, tr_cont="")


class RefusalOverride(Exception):
    """A refusal with the fault's own code and text."""

    def __init__(self, fields: RefusalFields) -> None:
        super().__init__(fields.msg_cd)
        self.fields = fields


class ResponseOverride(Exception):
    """An answer that replaces the broker's."""

    def __init__(self, answer: RawAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


_BEFORE: dict[str, Callable[[Fault, Call], Call]] = {
    "request_lost": _drop,
    "gateway": _refuse,
    "refusal": _refuse,
    "too_fast": _refuse_with("too fast"),
    "ledger_too_fast": _refuse_with("ledger too fast"),
    "token_invalid": _refuse_with("token invalid"),
    "token_ended": _refuse_with("token expired"),
    "timeout_unaccepted": _time_out,
    "page_fails": _fail_page,
    "page_repeats": _repeat_page,
}


def apply_during(fault: Fault, call: Call) -> Call:
    """Return the changed call, which is executed instead."""
    if fault.name == "cancel_ignored":
        return replace(call, is_ignored=True)
    return replace(call, as_of=call.now - timedelta(seconds=float(fault.parameters["seconds"])))


def codes_in(reply: ApiReply, code: str) -> frozenset[str]:
    """Return the stock codes of a reply's rows. A row without one counts as `code`, the request's."""
    return frozenset(str(row.get("pdno", code)) for row in _rows(reply))


def change_rows(fault: Fault, reply: ApiReply, code: str) -> ApiReply:
    """Apply a fault to the rows of its scope's stock, or to the first row. `code` as in `codes_in`."""
    target_code, rows = fault.scope.get("code"), []
    for index, row in enumerate(_rows(reply)):
        is_target = row.get("pdno", code) == target_code if target_code else index == 0
        if is_target and fault.name == "row_unreadable":
            rows.append({**row, str(fault.parameters["field"]): fault.parameters["value"]})
        elif not is_target:
            rows.append(row)
    return replace(reply, body={**reply.body, _list_name(reply): rows})


def _rows(reply: ApiReply) -> list[Any]:
    return list(reply.body.get(_list_name(reply), ()))


def _list_name(reply: ApiReply) -> str:
    return next((name for name in _LISTS if isinstance(reply.body.get(name), list)), "")


def prevents_execution(fault: Fault) -> bool:
    """Return whether a fault of the reply also prevents the execution of the request."""
    return fault.parameters.get("executed") is False


def apply_after(fault: Fault, call: Call, reply: ApiReply) -> ApiReply | RawAnswer:
    """Apply a fault to the reply of an executed call. Raises ConnectionDropped."""
    if fault.name == "answer_lost":
        raise ConnectionDropped
    if fault.name == "answer_torn":
        raise ConnectionDropped(torn=json.dumps(reply.body, ensure_ascii=False).encode())
    if fault.name == "error_500":
        return RawAnswer(500, b"")
    if fault.name == "bad_gateway":
        return RawAnswer(502, HTML.encode())
    if fault.name == "broken_json":
        text = json.dumps(reply.body, ensure_ascii=False)
        return RawAnswer(200, text[: len(text) * 2 // 3].encode(), "application/json;charset=UTF-8")
    if fault.name == "timeout_accepted":
        error_name = _TIMEOUTS.get(fault.parameters["msg_cd"], "connection timed out")
        refusal = RequestRefused(error_name).fields(is_paper=call.is_paper)
        body = {"rt_cd": refusal.rt_cd, "msg_cd": refusal.msg_cd, "msg1": refusal.msg1}
        return ApiReply(body, status=refusal.status)
    if fault.name == "rt_cd_missing":
        return replace(reply, body={name: value for name, value in reply.body.items() if name != "rt_cd"})
    if fault.name == "stuck_cursor":
        return _repeat_cursor(call, reply)
    if fault.name == "receipt_without_number":
        return replace(reply, body={**reply.body, "output": {**reply.body["output"], "ODNO": ""}})
    return _change_list(fault, reply)


def _repeat_cursor(call: Call, reply: ApiReply) -> ApiReply:
    body = dict(reply.body)
    for name in body:
        if name.startswith("ctx_area_nk"):
            # the key that the client sent; on the first page the true key, or "1" if there is none
            key = call.params.get(name.upper(), "").strip() or str(body[name]).strip() or "1"
            body[name] = key.ljust(len(body[name]))
    return replace(reply, body=body, tr_cont="M")


def _change_list(fault: Fault, reply: ApiReply) -> ApiReply:
    name, rows = _list_name(reply), _rows(reply)
    if not name:
        return reply
    value: Any = rows
    if fault.name == "empty_list":
        value = []
    elif fault.name == "duplicate_rows":
        value = [row for row in rows for _ in range(2)]
    elif fault.name == "dict_for_list":
        value = rows[0] if rows else {}
    elif fault.name == "empty_rows":
        value = rows + [{} for _ in range(int(fault.parameters["rows"]))]
    return replace(reply, body={**reply.body, name: value})


# --- frames


def change_notice_columns(row: list[str], more: int) -> list[str]:
    """Return a notice with `more` extra columns in the middle, or fewer at the end if `more` is negative."""
    if more < 0:
        return row[:more]
    return [*row[:18], *[""] * more, *row[18:]]


def garbled() -> str:
    return f"!{secrets.token_hex(40)}!"


def change_frame_values(fault: Fault, count: int, values: list[str]) -> list[str]:
    """Return the changed values of a frame's records, before encryption."""
    width = max(1, len(values) // max(1, count))
    records = [values[start : start + width] for start in range(0, len(values), width)]
    for record in records:
        if fault.name == "frame_nulls":
            for column in map(int, fault.parameters["columns"]):
                if -len(record) <= column < len(record):  # feeds differ in width
                    record[column] = "(null)"
        if fault.name == "frame_columns":
            at = int(fault.parameters["at"])
            record.insert(len(record) if at < 0 else at, str(fault.parameters["value"]))
    return [value for record in records for value in record]


def change_frame(fault: Fault, text: str) -> str | bytes | None:
    """Return the changed data frame: text, bytes that are not UTF-8, or None if it is lost."""
    mark, tr_id, count, data = text.split("|", 3)
    if fault.name == "frame_lost":
        return None
    if fault.name == "frame_count":
        return f"{mark}|{tr_id}|{fault.parameters['count_said']}|{data}"
    if fault.name == "frame_cut":
        return text[: len(text) * 2 // 3]
    if fault.name == "frame_bytes":
        return text.encode()[:-3] + b"\xc7\xd1\xff"
    if fault.name == "frame_tr":
        return f"{mark}|{fault.parameters['tr']}|{count}|{data}"
    if fault.name == "frame_giant":
        times = int(fault.parameters["times"])
        return f"{mark}|{tr_id}|{int(count) * times:03d}|{'^'.join([data] * times)}"
    return text
