"""Access token (접근토큰) and approval key (웹소켓 접속키): one of each per app key, for all processes.

The token is kept in Redis. The first process that finds it missing, old or refused issues a new one under a lock; all
others use that one. The broker issues a token at most once a minute. It expires at `access_token_token_expired`, in
Korean time. Source: protocol notes §3.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
import redis

from aegis.broker import BrokerError, NotSent, Refused
from aegis.sessions import KST
from infra import clock
from kis.environment import Credentials, Environment
from kis.errors import CODES

# a token is renewed so long before its end
RENEW_AHEAD = timedelta(minutes=30)
ISSUE_LOCK_SECONDS = 75
ISSUE_PATIENCE_SECONDS = 70.0
ISSUE_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AccessToken:
    value: str = field(repr=False)
    ends_at: datetime

    def is_fresh(self, now: datetime) -> bool:
        return now < self.ends_at - RENEW_AHEAD

    def is_alive(self, now: datetime) -> bool:
        return now < self.ends_at


def store_key(environment: Environment, credentials: Credentials, name: str) -> str:
    """Return a key in Redis that belongs to one app key in one environment, and shows neither."""
    digest = hashlib.sha256(credentials.app_key.encode()).hexdigest()[:12]
    return f"aegis:kis:{environment.name}:{digest}:{name}"


class Tokens:
    """The access token of one app key."""

    def __init__(
        self,
        environment: Environment,
        credentials: Credentials,
        http: httpx.Client,
        store: redis.Redis,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._environment = environment
        self._credentials = credentials
        self._http = http
        self._store = store
        self._sleep = sleep
        self._key = store_key(environment, credentials, "token")
        self._mine: AccessToken | None = None

    def get(self) -> str:
        """Return a valid token. Raises NotSent or Refused if none can be issued."""
        now = clock.now()
        if self._mine is None or not self._mine.is_fresh(now):
            self._mine = self._shared()
        if self._mine is None or not self._mine.is_fresh(now):
            self._mine = self._replace(self._mine)
        return self._mine.value

    def invalidate(self, value: str) -> None:
        """Replace a token that the broker no longer accepts. If many callers report it at once, one issues a new one.

        Raises NotSent or Refused.
        """
        shared = self._shared()
        if shared is None or shared.value == value:
            shared = self._replace(AccessToken(value, ends_at=clock.now()))
        self._mine = shared

    def _shared(self) -> AccessToken | None:
        try:
            payload = self._store.get(self._key)
        except redis.RedisError:
            return self._mine
        if payload is None:
            return self._mine if self._mine and self._mine.is_alive(clock.now()) else None
        stored = json.loads(payload)
        return AccessToken(stored["value"], datetime.fromisoformat(stored["ends_at"]))

    def _replace(self, bad: AccessToken | None) -> AccessToken:
        lock = self._store.lock(f"{self._key}:lock", timeout=ISSUE_LOCK_SECONDS)
        try:
            if not lock.acquire(blocking_timeout=ISSUE_LOCK_SECONDS):
                raise NotSent("another process is issuing an access token and does not finish")
            try:
                shared = self._shared()
                if shared is not None and shared.is_fresh(clock.now()) and (bad is None or shared.value != bad.value):
                    return shared
                token = self._issue(bad)
                self._keep(token)
                return token
            finally:
                # the lock ends by itself if Redis fails now, and has ended if the issue took longer than it lasts
                with contextlib.suppress(redis.RedisError):
                    lock.release()
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it no token may be issued: {error}") from error

    def _issue(self, bad: AccessToken | None) -> AccessToken:
        """Issue a token. While the broker issues none, return the old one if it has not expired."""
        gives_up_at = time.monotonic() + ISSUE_PATIENCE_SECONDS
        while True:
            try:
                token = self._ask()
                if bad is None or token.value != bad.value or bad.is_alive(clock.now()):
                    return token
                # for six hours the broker returns the same token again, even if it is invalid: revoke it first
                self._revoke(bad)
            except Refused as refusal:
                if bad is not None and bad.is_alive(clock.now()):
                    return bad
                if refusal.code != "EGW00133":
                    raise
                if time.monotonic() + ISSUE_PAUSE_SECONDS > gives_up_at:
                    raise NotSent(refusal.message, code=refusal.code, call="tokenP") from refusal
                self._sleep(ISSUE_PAUSE_SECONDS)
            except BrokerError:
                if bad is not None and bad.is_alive(clock.now()):
                    return bad
                raise

    def _revoke(self, token: AccessToken) -> None:
        body = {
            "appkey": self._credentials.app_key,
            "appsecret": self._credentials.app_secret,
            "token": token.value,
        }
        with contextlib.suppress(BrokerError):  # the token is invalid anyway, and a new one is issued next
            _post(self._http, f"{self._environment.rest_url}/oauth2/revokeP", body, call="revokeP")

    def _ask(self) -> AccessToken:
        body = {
            "grant_type": "client_credentials",
            "appkey": self._credentials.app_key,
            "appsecret": self._credentials.app_secret,
        }
        reply = _post(self._http, f"{self._environment.rest_url}/oauth2/tokenP", body, call="tokenP")
        try:
            ends_at = datetime.strptime(reply["access_token_token_expired"], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007
            return AccessToken(reply["access_token"], ends_at.replace(tzinfo=KST))
        except (KeyError, ValueError) as error:
            raise NotSent(f"the token reply cannot be read: {error!r}", call="tokenP") from error

    def _keep(self, token: AccessToken) -> None:
        payload = json.dumps({"value": token.value, "ends_at": token.ends_at.isoformat()})
        self._store.set(self._key, payload, ex=int(timedelta(days=1).total_seconds()))


def approval_key(environment: Environment, credentials: Credentials, http: httpx.Client) -> str:
    """Issue a key that opens a WebSocket. It is needed only to connect: a new key closes no connection.

    Raises Refused or NotSent.
    """
    body = {
        "grant_type": "client_credentials",
        "appkey": credentials.app_key,
        "secretkey": credentials.app_secret,
    }
    reply = _post(http, f"{environment.rest_url}/oauth2/Approval", body, call="Approval")
    try:
        return str(reply["approval_key"])
    except KeyError:
        raise NotSent("the reply has no field approval_key", call="Approval") from None


def _post(http: httpx.Client, url: str, body: dict[str, str], *, call: str) -> dict[str, str]:
    """Post to an auth address, whose errors have no envelope. Raises Refused or NotSent, as nothing is executed."""
    try:
        response = http.post(url, json=body)
        reply = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotSent(f"the broker's auth server did not answer: {error!r}", call=call) from error
    if not isinstance(reply, dict):
        raise NotSent("the auth server's reply is not an object", call=call)
    code = reply.get("error_code") or reply.get("msg_cd")
    if code:
        raise _refusal(str(code), str(reply.get("error_description") or reply.get("msg1") or ""), call)
    return reply


def _refusal(code: str, message: str, call: str) -> BrokerError:
    entry = CODES.get(code)
    return Refused(f"{message} ({entry.advice})" if entry else message, code=code, call=call)
