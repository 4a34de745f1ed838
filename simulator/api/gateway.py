"""The gateway (API 게이트웨이): app keys, tokens and the call limit.

App keys are stored as hashes only, because a rehearsal may use the real ones and the ledger is a file. Any key and
secret of one character or more are accepted; the first secret that a key is used with becomes its secret.
"""

import secrets
import uuid
from collections import deque
from datetime import datetime, timedelta
from hashlib import sha256

from simulator.api.error_codes import RequestRefused
from simulator.exchange.exchange import Exchange
from simulator.exchange.state import IssuedToken

TOKEN_LIFE = timedelta(hours=24)
SAME_TOKEN = timedelta(hours=6)
ISSUE_GAP = timedelta(minutes=1)
WINDOW_SECONDS = 1.0


class IssueRefused(Exception):
    """A refusal of the token endpoints, which have their own error format."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text


def key_of(app_key: str) -> str:
    """Return the hash by which an app key is stored."""
    return sha256(app_key.encode()).hexdigest()[:16]


class Gateway:
    """Access tokens, approval keys and the call limit of one server."""

    def __init__(self, exchange: Exchange, *, calls_per_second: int) -> None:
        self._exchange = exchange
        self.calls_per_second = calls_per_second
        self._calls: dict[str, deque[float]] = {}
        self._secrets: dict[str, str] = {}
        self._revoked: set[str] = set()

    def accepts_secret(self, key: str, secret: str) -> bool:
        """Return whether `secret` is the first secret that the app key was used with."""
        return self._secrets.setdefault(key, key_of(secret)) == key_of(secret)

    def revoke_key(self, key: str, *, revoked: bool) -> None:
        """Revoke an app key or restore it. A revoked key gets no token and no approval key, and its own are invalid."""
        (self._revoked.add if revoked else self._revoked.discard)(key)

    def is_revoked(self, key: str) -> bool:
        return key in self._revoked

    def issue_token(self, key: str, now: datetime) -> IssuedToken:
        """Return an access token, the same one for six hours. Raises IssueRefused less than a minute after the last."""
        newest = self._exchange.world.newest_token.get(key)
        if newest is not None and newest.issued_at <= now:
            if now - self._last_asked(newest) < ISSUE_GAP:
                raise IssueRefused("EGW00133", "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)")
            if now - newest.issued_at < SAME_TOKEN and not newest.revoked and now < newest.expires_at:
                newest.last_requested_at = now
                return newest
        # the broker's token is a signed JWT of about this length; this one is random
        text = f"eyJ{secrets.token_urlsafe(240)}"
        expires_at = (now + TOKEN_LIFE).replace(microsecond=0)
        self._exchange.record("token", now, key=key, token=text, expires=expires_at.isoformat())
        return self._exchange.world.tokens[text]

    def _last_asked(self, token: IssuedToken) -> datetime:
        return token.last_requested_at or token.issued_at

    def revoke_token(self, text: str, now: datetime) -> None:
        """Revoke a token. Raises IssueRefused if it was never issued."""
        if text not in self._exchange.world.tokens:
            raise IssueRefused("EGW00121", "유효하지 않은 token 입니다.")
        self._exchange.record("revoke", now, token=text)

    def approve(self, key: str, now: datetime) -> str:
        """Return a new approval key (접속키) for the WebSocket."""
        approval = str(uuid.uuid4())
        self._exchange.record("approval", now, key=key, approval=approval)
        return approval

    def approved_key(self, approval: str, now: datetime) -> str | None:
        """Return the app key of an approval key, None if it is unknown, a day old or of a revoked app key."""
        record = self._exchange.world.approvals.get(approval)
        if record is None or now - record.issued_at >= TOKEN_LIFE or record.key in self._revoked:
            return None
        return record.key

    def check_token(self, authorization: str, key: str, now: datetime) -> None:
        """Raise RequestRefused unless the header has a valid token of this app key."""
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise RequestRefused("not a bearer")
        token = self._exchange.world.tokens.get(text.strip())
        if token is None or token.revoked or token.key != key or key in self._revoked:
            raise RequestRefused("token invalid")
        if now >= token.expires_at:
            raise RequestRefused("token expired")

    def count_call(self, key: str, real_seconds: float) -> None:
        """Count a call in the sliding second. Raises RequestRefused over the limit; a refused call does not count."""
        if not self.calls_per_second:
            return
        calls = self._calls.setdefault(key, deque())
        while calls and real_seconds - calls[0] >= WINDOW_SECONDS:
            calls.popleft()
        if len(calls) >= self.calls_per_second:
            raise RequestRefused("too fast")
        calls.append(real_seconds)
