"""REST requests: headers, token, call limit, TR id and parameters are checked; then handler, then event log."""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from simulator.api.catalogue import BY_PATH
from simulator.api.error_codes import RefusalFields, RequestRefused
from simulator.api.gateway import IssueRefused, key_of
from simulator.api.request import ApiReply, Body, Call, Operation
from simulator.broker import Firm
from simulator.faults.injection import (
    ConnectionDropped,
    RawAnswer,
    RefusalOverride,
    ResponseOverride,
    apply_after,
    apply_before,
    apply_during,
    change_rows,
    codes_in,
    prevents_execution,
)
from simulator.faults.table import AFTER, BEFORE, CALL, GATEWAY_FAULTS, ROWS

Params = dict[str, str]

# headers that only tests add: their values are recorded with the request in the ledger and have no effect
TAG_HEADER = "aegis-intent"
PROCESS_HEADER = "aegis-process"
# the faults that apply to calls without a TR id; other faults stay in force for calls with one
_BEFORE_OAUTH = ("request_lost", "delay_before", "gateway")
_AFTER_OAUTH = ("answer_lost", "delay", "error_500", "bad_gateway")


class Rest:
    """Answers REST calls for one firm."""

    def __init__(self, firm: Firm, clock: Callable[[], datetime]) -> None:
        self._firm = firm
        self._clock = clock

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request. The market is advanced to the current time first."""
        raw = await request.read()
        now = self._clock()
        self._firm.advance(now)
        # some clients join host and path with a double slash
        path = request.path.replace("//", "/")
        try:
            if path.startswith("/oauth2/") and request.method == "POST":
                return await self._oauth_with_faults(path, raw, now)
            if path == "/uapi/hashkey" and request.method == "POST":
                return _hashkey(raw)
            rows = [row for row in BY_PATH.get((request.method, path), ()) if self._is_offered(row)]
            if not rows:
                return web.Response(status=404, body=b"", headers={"Content-Type": "text/plain"})
            return await self._call(request, rows, raw, now)
        except ConnectionDropped as dropped:
            return await _drop_connection(request, dropped)

    # --- calls with a TR id

    async def _call(self, request: web.Request, rows: list[Operation], raw: bytes, now: datetime) -> web.Response:
        received, headers = time.time(), request.headers
        tr_id, tag = headers.get("tr_id", ""), headers.get(TAG_HEADER, "")
        key = key_of(headers.get("appkey", ""))
        answer: ApiReply | RawAnswer
        try:
            call = self._read(request, rows, raw, now, key)
            answer = await self._carry_out(call, request.path)
        except RequestRefused as refused:
            answer = _refusal(refused.fields(is_paper=self._firm.settings.is_paper))
        except RefusalOverride as refusal:
            answer = _refusal(refusal.fields)
        except ResponseOverride as override:
            answer = override.answer
        except ConnectionDropped:
            self._record(request, now, received, key, {"status": 0}, tag)
            raise
        if isinstance(answer, RawAnswer):
            self._record(request, now, received, key, {"status": answer.status}, tag)
            return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})
        outcome = {"status": answer.status, **{name: answer.body.get(name, "") for name in ("rt_cd", "msg_cd")}}
        self._record(request, now, received, key, outcome, tag)
        return _response(answer, tr_id, headers.get("gt_uid", ""))

    def _record(
        self, request: web.Request, now: datetime, received: float, key: str, outcome: dict[str, Any], tag: str
    ) -> None:
        self._firm.exchange.record(
            "request",
            now,
            received=received,
            key=key,
            method=request.method,
            path=request.path,
            tr_id=request.headers.get("tr_id", ""),
            **outcome,
            **({"tag": tag} if tag else {}),
            **({"process": request.headers[PROCESS_HEADER]} if PROCESS_HEADER in request.headers else {}),
        )

    def _read(self, request: web.Request, rows: list[Operation], raw: bytes, now: datetime, key: str) -> Call:
        """Return the call of a request. Raises RequestRefused."""
        headers = request.headers
        self._admit(headers, key, now)
        operation = self._operation(rows, headers.get("tr_id", ""))
        params = _params(request, raw)
        _check_required(operation, params)
        return Call(
            firm=self._firm,
            operation=operation,
            tr_id=headers.get("tr_id", ""),
            params=params,
            key=key,
            now=now,
            tr_cont=headers.get("tr_cont", "").strip(),
            tag=headers.get(TAG_HEADER, ""),
        )

    async def _carry_out(self, call: Call, path: str) -> ApiReply | RawAnswer:
        """Execute a call, with the faults that apply before, during and after it."""
        faults = self._firm.faults
        scope = _scope(call, path)
        if fault := faults.take(BEFORE, None if call.operation.is_account else GATEWAY_FAULTS, **scope):
            if fault.name == "delay_before":
                await asyncio.sleep(float(fault.parameters["seconds"]))
                self._firm.advance(self._clock())
                call = replace(call, now=self._clock())
            call = apply_before(fault, call)
        if fault := faults.take(CALL, **scope):
            call = apply_during(fault, call)
        after_fault = faults.take(AFTER, **scope)
        if after_fault is not None and prevents_execution(after_fault):
            return apply_after(after_fault, call, ApiReply({}))
        reply = self._handle(call, scope)
        if after_fault is None:
            return reply
        if after_fault.name == "delay":
            await asyncio.sleep(float(after_fault.parameters["seconds"]))
            return reply
        return apply_after(after_fault, call, reply)

    def _handle(self, call: Call, scope: Mapping[str, str]) -> ApiReply:
        """Execute a call, and apply a fault to the rows of its reply."""
        reply = call.operation.handler(call)
        codes = codes_in(reply, scope["code"])
        rows_scope: dict[str, str | frozenset[str]] = {**scope, "code": codes}
        fault = self._firm.faults.take(ROWS, **rows_scope) if codes else None
        return change_rows(fault, reply, scope["code"]) if fault else reply

    def _admit(self, headers: Mapping[str, str], key: str, now: datetime) -> None:
        """Raise RequestRefused unless key, secret and token are valid and the call limit has room."""
        if not headers.get("appkey"):
            raise RequestRefused("app key missing")
        if not headers.get("appsecret"):
            raise RequestRefused("app secret missing")
        if not self._firm.gateway.accepts_secret(key, headers["appsecret"]):
            raise RequestRefused("secret of another key")
        self._firm.gateway.check_token(headers.get("authorization", ""), key, now)
        self._firm.gateway.count_call(key, time.monotonic())

    def _is_offered(self, row: Operation) -> bool:
        """Return whether an operation is offered. Those that only the specification has need that setting."""
        return bool(row.live) or self._firm.settings.specification

    def _operation(self, rows: list[Operation], tr_id: str) -> Operation:
        """Return the operation of a path and a TR id. Raises RequestRefused."""
        if not tr_id:
            raise RequestRefused("tr_id missing")
        is_paper = self._firm.settings.is_paper
        for row in rows:
            if tr_id in row.ids(is_paper=is_paper, specification=self._firm.settings.specification):
                return row
        # a live id, or a live-only id with the paper prefix V
        if is_paper and any(tr_id in row.live or _live_id(tr_id) in row.live for row in rows):
            raise RequestRefused("not a paper TR")
        if not is_paper and tr_id.startswith("V"):
            raise RequestRefused("not a live TR")
        raise RequestRefused("no such service")

    # --- calls without a TR id

    async def _oauth_with_faults(self, path: str, raw: bytes, now: datetime) -> web.Response:
        faults = self._firm.faults
        if fault := faults.take(BEFORE, _BEFORE_OAUTH, path=path, tr_id="", account="", code=""):
            if fault.name == "request_lost":
                raise ConnectionDropped(after_seconds=float(fault.parameters["seconds"]))
            if fault.name == "delay_before":
                await asyncio.sleep(float(fault.parameters["seconds"]))
            if fault.name == "gateway":
                parameters = fault.parameters
                return _json(
                    {"error_description": parameters["msg1"], "error_code": parameters["msg_cd"]},
                    int(parameters["status"]),
                )
        after_fault = faults.take(AFTER, _AFTER_OAUTH, path=path, tr_id="", account="", code="")
        answer = self._oauth(path, raw, now)
        if after_fault is None:
            return answer
        if after_fault.name == "answer_lost":
            raise ConnectionDropped
        if after_fault.name == "delay":
            await asyncio.sleep(float(after_fault.parameters["seconds"]))
        if after_fault.name in ("error_500", "bad_gateway"):
            return web.Response(status=500 if after_fault.name == "error_500" else 502)
        return answer

    def _oauth(self, path: str, raw: bytes, now: datetime) -> web.Response:
        try:
            body = _oauth_body(raw)
            answer = _OAUTH[path](self._firm, body, now)
        except KeyError:
            return web.Response(status=404, body=b"", headers={"Content-Type": "text/plain"})
        except IssueRefused as refused:
            self._firm.exchange.record("oauth refused", now, path=path, code=refused.code, received=time.time())
            return _json({"error_description": refused.text, "error_code": refused.code}, 403)
        return _json(answer, 200)


def _live_id(tr_id: str) -> str:
    """Return the live id of a paper id: V replaces T, or C in the oldest ids."""
    return f"T{tr_id[1:]}" if tr_id.startswith("VTT") else f"C{tr_id[1:]}" if tr_id.startswith("V") else tr_id


async def _drop_connection(request: web.Request, dropped: ConnectionDropped) -> web.StreamResponse:
    """Drop the connection, after a wait or after half a reply."""
    await asyncio.sleep(dropped.after_seconds)
    response = web.StreamResponse(headers={"Content-Type": "application/json;charset=UTF-8"})
    if dropped.torn:
        response.content_length = len(dropped.torn)
        await response.prepare(request)
        await response.write(dropped.torn[: len(dropped.torn) // 2])
    if request.transport is not None:
        request.transport.close() if dropped.torn else request.transport.abort()
    return response


def _refusal(fields: RefusalFields) -> ApiReply:
    return ApiReply({"rt_cd": fields.rt_cd, "msg_cd": fields.msg_cd, "msg1": fields.msg1}, status=fields.status)


def _scope(call: Call, path: str) -> dict[str, str]:
    """Return the values of a call that a fault's scope can match."""
    params = call.params
    account = f"{params['CANO']}-{params.get('ACNT_PRDT_CD', '')}" if "CANO" in params else ""
    code = params.get("PDNO") or params.get("FID_INPUT_ISCD") or ""
    if not code and "ORGN_ODNO" in params and params["ORGN_ODNO"].isdigit():
        world = call.firm.exchange.world
        order = world.orders.get((world.today(), int(params["ORGN_ODNO"])))
        code = order.code if order else ""
    return {"path": path, "tr_id": call.tr_id, "account": account, "code": code, "operation": call.operation.name}


def _credentials(firm: Firm, body: Body, secret_name: str) -> str:
    """Return the hashed app key. Raises IssueRefused."""
    for name, code, text in (
        ("grant_type", "EGW00115", "권한부여 타입(grant_type)은 필수입니다."),
        ("appkey", "EGW00102", "AppKey는 필수입니다."),
        (secret_name, "EGW00104", "AppSecret은 필수입니다."),
    ):
        if name not in body:
            raise IssueRefused(code, text)
    if body["grant_type"] != "client_credentials":
        raise IssueRefused("EGW00116", "지원하지 않는 권한부여 타입(grant_type)입니다.")
    if not body["appkey"]:
        raise IssueRefused("EGW00103", "유효하지 않은 AppKey입니다.")
    key = key_of(str(body["appkey"]))
    if firm.gateway.is_revoked(key):
        raise IssueRefused("EGW00103", "유효하지 않은 AppKey입니다.")
    if not body[secret_name] or not firm.gateway.accepts_secret(key, str(body[secret_name])):
        raise IssueRefused("EGW00105", "유효하지 않은 AppSecret입니다.")
    return key


def _token(firm: Firm, body: Body, now: datetime) -> Body:
    token = firm.gateway.issue_token(_credentials(firm, body, "appsecret"), now)
    return {
        "access_token": token.text,
        "access_token_token_expired": f"{token.expires_at:%Y-%m-%d %H:%M:%S}",
        "token_type": "Bearer",
        "expires_in": min(86400, round((token.expires_at - now).total_seconds())),
    }


def _revoke(firm: Firm, body: Body, now: datetime) -> Body:
    firm.gateway.revoke_token(str(body.get("token", "")), now)
    return {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"}


def _approval(firm: Firm, body: Body, now: datetime) -> Body:
    return {"approval_key": firm.gateway.approve(_credentials(firm, body, "secretkey"), now)}


_OAUTH: dict[str, Callable[[Firm, Body, datetime], Body]] = {
    "/oauth2/tokenP": _token,
    "/oauth2/revokeP": _revoke,
    "/oauth2/Approval": _approval,
}


def _oauth_body(raw: bytes) -> Body:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise IssueRefused("EGW00101", "유효하지 않은 요청입니다.")
    return body


def _params(request: web.Request, raw: bytes) -> Params:
    """Return a call's parameters: a query in any case, or a JSON body with upper-case keys. Raises RequestRefused."""
    if request.method == "GET":
        return {name.upper(): value for name, value in request.query.items()}
    try:
        body = json.loads(raw)
    except ValueError:
        raise RequestRefused("bad json") from None
    if not isinstance(body, dict) or any(not isinstance(value, str) for value in body.values()):
        raise RequestRefused("body not built")
    return body


def _check_required(operation: Operation, params: Params) -> None:
    for name in operation.required:
        if name not in params:
            raise RequestRefused("field missing" if operation.method == "GET" else "body not built", name)


def _hashkey(raw: bytes) -> web.Response:
    try:
        body = json.loads(raw)
    except ValueError:
        return _json({"error_description": "유효하지 않은 요청입니다.", "error_code": "EGW00101"}, 403)
    return _json({"BODY": body, "HASH": sha256(raw).hexdigest()}, 200)


def _json(body: Any, status: int, extra: Mapping[str, str] | None = None) -> web.Response:
    # header names are sent as written: the broker's sample client reads lower-case names only
    headers = CIMultiDict({"Content-Type": "application/json;charset=UTF-8", **(extra or {})})
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(status=status, body=text.encode(), headers=headers)


def _response(reply: ApiReply, tr_id: str, gt_uid: str) -> web.Response:
    extra = {"tr_id": tr_id, "tr_cont": reply.tr_cont, "gt_uid": gt_uid or secrets.token_hex(16).upper()}
    return _json(reply.body, reply.status, extra)
