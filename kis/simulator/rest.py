"""The REST door: headers, token, call limit, TR ids, parameters; then one handler, then the ledger."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from kis.simulator.calls import Body, Call, Operation, Reply
from kis.simulator.firm import Firm
from kis.simulator.gate import IssueRefused, key_of
from kis.simulator.operations import BY_PATH
from kis.simulator.refusals import Refused

Params = dict[str, str]

# a header that only tests add: what it says is kept beside the request in the ledger, and nothing reads it
TAG_HEADER = "aegis-intent"


class Rest:
    """Answers REST calls for one house."""

    def __init__(self, firm: Firm, clock: Callable[[], datetime]) -> None:
        self._firm = firm
        self._clock = clock

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request. The market is brought to the present first."""
        raw = await request.read()
        now = self._clock()
        self._firm.advance(now)
        if request.path.startswith("/oauth2/") and request.method == "POST":
            return self._oauth(request.path, raw, now)
        if request.path == "/uapi/hashkey" and request.method == "POST":
            return _hashkey(raw)
        rows = BY_PATH.get((request.method, request.path))
        if rows is None:
            return web.Response(status=404, body=b"", headers={"Content-Type": "text/plain"})
        return self._call(request, rows, raw, now)

    # --- calls with a TR id

    def _call(self, request: web.Request, rows: tuple[Operation, ...], raw: bytes, now: datetime) -> web.Response:
        received = time.time()
        headers = request.headers
        key = key_of(headers.get("appkey", ""))
        tr_id = headers.get("tr_id", "")
        try:
            self._admit(headers, key, now)
            operation = self._operation(rows, tr_id)
            params = _params(request, raw)
            _check_required(operation, params)
            call = Call(
                firm=self._firm,
                operation=operation,
                tr_id=tr_id,
                params=params,
                key=key,
                now=now,
                tr_cont=headers.get("tr_cont", "").strip(),
                tag=headers.get(TAG_HEADER, ""),
            )
            reply = operation.handler(call)
        except Refused as refused:
            words = refused.words(is_paper=self._firm.settings.is_paper)
            body = {"rt_cd": words.rt_cd, "msg_cd": words.msg_cd, "msg1": words.msg1}
            reply = Reply(body, status=words.status)
        tag = headers.get(TAG_HEADER, "")
        self._firm.exchange.record(
            "request",
            now,
            received=received,
            key=key,
            method=request.method,
            path=request.path,
            tr_id=tr_id,
            status=reply.status,
            rt_cd=reply.body.get("rt_cd", ""),
            msg_cd=reply.body.get("msg_cd", ""),
            **({"tag": tag} if tag else {}),
        )
        return _response(reply, tr_id, headers.get("gt_uid", ""))

    def _admit(self, headers: Mapping[str, str], key: str, now: datetime) -> None:
        """Raises Refused unless key, secret and token are there, and the call limit has room."""
        if not headers.get("appkey"):
            raise Refused("app key missing")
        if not headers.get("appsecret"):
            raise Refused("app secret missing")
        self._firm.gate.check_token(headers.get("authorization", ""), key, now)
        self._firm.gate.count_call(key, time.monotonic())

    def _operation(self, rows: tuple[Operation, ...], tr_id: str) -> Operation:
        """Return the operation that a path and a TR id name together. Raises Refused."""
        if not tr_id:
            raise Refused("tr_id missing")
        is_paper = self._firm.settings.is_paper
        for row in rows:
            if tr_id in (row.paper if is_paper else row.live):
                return row
        if is_paper and any(tr_id in row.live for row in rows):
            raise Refused("not a paper TR")
        if not is_paper and tr_id.startswith("V"):
            raise Refused("not a live TR")
        raise Refused("no such service")

    # --- calls without

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


def _credentials(body: Body, secret_name: str) -> str:
    """Return the app key's name here. Raises IssueRefused."""
    if body.get("grant_type", "") not in ("client_credentials",):
        raise IssueRefused("EGW00116", "지원하지 않는 권한부여 타입(grant_type)입니다.")
    if not body.get("appkey"):
        raise IssueRefused("EGW00103", "유효하지 않은 AppKey입니다.")
    if not body.get(secret_name):
        raise IssueRefused("EGW00105", "유효하지 않은 AppSecret입니다.")
    return key_of(str(body["appkey"]))


def _token(firm: Firm, body: Body, now: datetime) -> Body:
    token = firm.gate.issue_token(_credentials(body, "appsecret"), now)
    return {
        "access_token": token.text,
        "access_token_token_expired": f"{token.expires_at:%Y-%m-%d %H:%M:%S}",
        "token_type": "Bearer",
        "expires_in": min(86400, round((token.expires_at - now).total_seconds())),
    }


def _revoke(firm: Firm, body: Body, now: datetime) -> Body:
    firm.gate.revoke_token(str(body.get("token", "")), now)
    return {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"}


def _approval(firm: Firm, body: Body, now: datetime) -> Body:
    return {"approval_key": firm.gate.approve(_credentials(body, "secretkey"), now)}


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
    """Return a call's parameters: the query in any case, or a JSON body whose keys must be upper-case."""
    if request.method == "GET":
        return {name.upper(): value for name, value in request.query.items()}
    try:
        body = json.loads(raw)
    except ValueError:
        raise Refused("bad json") from None
    if not isinstance(body, dict) or any(not isinstance(value, str) for value in body.values()):
        raise Refused("body not built")
    return body


def _check_required(operation: Operation, params: Params) -> None:
    for name in operation.required:
        if name not in params:
            raise Refused("field missing" if operation.method == "GET" else "body not built", name)


def _hashkey(raw: bytes) -> web.Response:
    try:
        body = json.loads(raw)
    except ValueError:
        return _json({"error_description": "유효하지 않은 요청입니다.", "error_code": "EGW00101"}, 403)
    return _json({"BODY": body, "HASH": sha256(raw).hexdigest()}, 200)


def _json(body: Any, status: int, extra: Mapping[str, str] | None = None) -> web.Response:
    # names are sent as written: the sample client reads only the all-lower-case ones
    headers = CIMultiDict({"Content-Type": "application/json;charset=UTF-8", **(extra or {})})
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(status=status, body=text.encode(), headers=headers)


def _response(reply: Reply, tr_id: str, gt_uid: str) -> web.Response:
    extra = {"tr_id": tr_id, "tr_cont": reply.tr_cont, "gt_uid": gt_uid or secrets.token_hex(16).upper()}
    return _json(reply.body, reply.status, extra)
