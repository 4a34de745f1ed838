"""The REST client of the broker, and the only module that calls its REST API.

A call takes a row of the catalogue and parameters, and returns checked output. It ends with a value or with one of the
port's three failures; `Client._judge` decides which. A read is repeated, also if the broker asks for that; a list is
then read from its first page. A command is sent again only if the gateway refused it unread (token, the key's call
limit) or it provably never left (no connection). The ledger's own limit proves neither, so a command that is refused
because of it has an unknown outcome.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx

from aegis.broker import BrokerError, LastCheck, NotSent, OutcomeUnknown
from aegis.terms import Market
from kis.auth import Tokens
from kis.catalogue import TR, CallPriority, Effect
from kis.environment import Credentials, Dialect, Environment
from kis.errors import LEDGER_BUSY, Meaning, ReadAgain, failure, meaning_of
from kis.rest_values import Row
from kis.serving import current_step, priority_of
from kis.throttle import Slot, Throttle

log = logging.getLogger(__name__)

TRIES = 4
PAUSE_SECONDS = 0.3
MAX_PAGES = 200
# a command that waited longer, for a slot or for a token, is not sent: the data that it was decided on is out of date
COMMAND_SECONDS = 20.0
# the longest wait for a slot of the rate limiter, by priority: history can wait, an order cannot. A stop that gets no
# slot in time repeats its whole step, and the other calls wait for that too
DEADLINE_SECONDS = {
    CallPriority.STOP: COMMAND_SECONDS,
    CallPriority.CANCEL: 5.0,
    CallPriority.ORDER: 5.0,
    CallPriority.CHASE: 10.0,
    CallPriority.ACCOUNT: 20.0,
    CallPriority.QUOTE: 30.0,
    CallPriority.BACKFILL: 300.0,
}
# the first call of a stop's step waits for the steps that started before it: one step per thread, four calls per step,
# also at one call a second
STEP_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class BrokerReply:
    """A successful reply to `tr`. `more` is true if another page follows."""

    tr: TR
    body: Mapping[str, Any]
    more: bool = False

    def row(self, name: str = "output") -> Row:
        """Return an output that is one object. Some operations send it as a list of one object."""
        rows = self.rows(name)
        return rows[0] if rows else self._row(name, {})

    def rows(self, name: str = "output") -> list[Row]:
        """Return an output that is a list. Some operations send a single object for one row.

        Raises OutcomeUnknown if the output is missing, or is neither an object nor a list of objects.
        """
        try:
            value = self.body[name]
        except KeyError:
            raise OutcomeUnknown(f"the reply has no field {name}", call=self.tr.name) from None
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, dict):
                raise OutcomeUnknown(f"{name} is no list of rows: {item!r:.80} is no object", call=self.tr.name)
        return [self._row(name, item) for item in items]

    def list_rows(self) -> list[Row]:
        """Return the rows of the operation's list, without the empty objects that fill some pages.

        Raises OutcomeUnknown if it is not a list of objects: a single object does not show whether rows are missing.
        """
        if not isinstance(self.body.get(self.tr.list_output), list):
            raise OutcomeUnknown(f"{self.tr.list_output} is no list of rows", call=self.tr.name)
        return [row for row in self.rows(self.tr.list_output) if any(row.key(self.tr.key))]

    def _row(self, name: str, values: Mapping[str, Any]) -> Row:
        return Row(values, self.tr.name, self.tr.outputs.get(name))


def _pause(attempt: int) -> None:
    """Wait before a call is repeated, longer each time."""
    time.sleep(PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 jitter


class _Retryable(Exception):
    """The call may be sent again: the gateway refused it unread (`meaning` says why), or it never left (None)."""

    def __init__(self, error: BrokerError, meaning: Meaning | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.meaning = meaning


class Client:
    """The client of one app key. Safe to share between threads. Sends no command unless `armed`."""

    def __init__(
        self,
        environment: Environment,
        credentials: Credentials,
        dialect: Dialect,
        http: httpx.Client,
        tokens: Tokens,
        throttle: Throttle,
        ledger_throttle: Throttle,
        *,
        armed: bool = True,
    ) -> None:
        self.environment = environment
        self.credentials = credentials
        self.dialect = dialect
        self._http = http
        self._tokens = tokens
        self._throttle = throttle
        self._ledger_throttle = ledger_throttle
        self._armed = armed

    def call(
        self,
        tr: TR,
        parameters: Mapping[str, str],
        *,
        market: Market = Market.KRX,
        tr_cont: str = "",
        last_check: LastCheck | None = None,
    ) -> BrokerReply:
        """Carry out one operation. `market` matters only in the specification's dialect, whose TR ids depend on it.

        `last_check` runs before each attempt, after all waits, just before the bytes are written.
        Raises NotSent, Refused or OutcomeUnknown, and what `last_check` raises.
        """
        if tr.effect is Effect.COMMAND and not self._armed:
            raise NotSent(
                "live trading is read-only: set AEGIS_LIVE_ORDERS=yes-real-money to send orders", call=tr.name
            )
        address = tr.address(self.environment, self.dialect, market)
        last_error: BrokerError = NotSent("never tried", call=tr.name)
        leaves_by = time.monotonic() + COMMAND_SECONDS if tr.effect is Effect.COMMAND else float("inf")
        for attempt in range(TRIES):
            if attempt:
                _pause(attempt)
            try:
                return self._call_once(tr, address, parameters, tr_cont, leaves_by, last_check)
            except _Retryable as retryable:
                last_error = retryable.error
                if retryable.meaning is Meaning.BUSY:
                    self._throttle_of(last_error.code).slow_down()
            except ReadAgain as error:
                if tr.cursor is not None:
                    raise
                last_error = error
            except OutcomeUnknown as error:
                if error.code == LEDGER_BUSY:
                    self._ledger_throttle.slow_down()
                if tr.effect is Effect.COMMAND:
                    raise
                last_error = error
            log.info("%s: try %d of %d failed: %s", tr.name, attempt + 1, TRIES, last_error)
        raise last_error

    def download(self, name: str) -> bytes:
        """Return a file that the broker publishes. It needs no app key and does not count against the call limit.

        Raises NotSent or OutcomeUnknown.
        """
        try:
            response = self._http.get(f"{self.environment.files_url}/{name}")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(f"no connection to the broker's files: {error!r}", call=name) from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"the download did not come to its end: {error!r}", call=name) from error
        if response.status_code != httpx.codes.OK:
            raise OutcomeUnknown(f"HTTP {response.status_code} instead of the file", call=name)
        return response.content

    def pages(self, tr: TR, parameters: Mapping[str, str], *, market: Market = Market.KRX) -> list[BrokerReply]:
        """Return every page of a list, or raise: a part of a list is never returned.

        A list that changed meanwhile is read again. Raises OutcomeUnknown if the cursor does not advance, or a row
        occurs twice because pages overlap.
        """
        replies = self._all_pages(tr, parameters, market)
        _check_no_duplicates(tr, [row for reply in replies for row in reply.list_rows()])
        return replies

    def _all_pages(self, tr: TR, parameters: Mapping[str, str], market: Market) -> list[BrokerReply]:
        """Return every page of a list. Start again from the first page if the broker asks for that."""
        for attempt in range(1, TRIES):
            try:
                return list(self._pages(tr, parameters, market))
            except ReadAgain as error:
                log.info("%s: reading %d of %d failed: %s", tr.name, attempt, TRIES, error)
                _pause(attempt)
        return list(self._pages(tr, parameters, market))

    def _pages(self, tr: TR, parameters: Mapping[str, str], market: Market) -> Iterator[BrokerReply]:
        fk, nk = f"CTX_AREA_FK{tr.cursor}", f"CTX_AREA_NK{tr.cursor}"
        cursor = {fk: "", nk: ""}
        positions: set[tuple[str, str]] = set()
        for page in range(MAX_PAGES):
            reply = self.call(tr, {**parameters, **cursor}, market=market, tr_cont="N" if page else "")
            yield reply
            if not reply.more:
                return
            cursor = {fk: str(reply.body.get(fk.lower(), "")), nk: str(reply.body.get(nk.lower(), ""))}
            position = (cursor[fk].strip(), cursor[nk].strip())
            if position in positions or not position[1]:
                raise OutcomeUnknown(f"page {page + 1} leads nowhere: the cursor stands still", call=tr.name)
            positions.add(position)
        raise OutcomeUnknown(f"the list does not end after {MAX_PAGES} pages", call=tr.name)

    def _call_once(
        self,
        tr: TR,
        address: tuple[str, str],
        parameters: Mapping[str, str],
        tr_cont: str,
        leaves_by: float,
        last_check: LastCheck | None,
    ) -> BrokerReply:
        path, tr_id = address
        token = self._tokens.get()
        headers = {
            "content-type": "application/json; charset=utf-8",
            "authorization": f"Bearer {token}",
            "appkey": self.credentials.app_key,
            "appsecret": self.credentials.app_secret,
            "tr_id": tr_id,
            "tr_cont": tr_cont,
            "custtype": "P",
        }
        with self._turn(tr) as slot:
            if time.monotonic() > leaves_by:
                raise NotSent(
                    f"it waited over {COMMAND_SECONDS:g} s to leave: what it was judged by is old", call=tr.name
                )
            if last_check is not None:
                last_check()
            slot.mark_sent()
            response = self._send(tr, path, headers, parameters, last_check)
        try:
            return self._judge(tr, response)
        except _Retryable as retryable:
            if retryable.meaning is Meaning.TOKEN:
                self._tokens.invalidate(token)
            raise

    def _turn(self, tr: TR) -> AbstractContextManager[Slot]:
        """Hold the slots that the call needs: one of the app key, and before it, for the ledger, one of the account.

        The call waits with the priority of the work that it serves. Its deadline is the longer one of the operation's
        priority and the work's. The first read of a stop's step waits up to STEP_SECONDS.
        """
        priority, step, is_command = priority_of(tr), current_step(), tr.effect is Effect.COMMAND
        patience = max(DEADLINE_SECONDS[tr.priority], DEADLINE_SECONDS[priority])
        if step is not None and not step.has_called and not is_command:
            patience = STEP_SECONDS
        also = self._ledger_throttle if tr.is_ledger else None
        return self._throttle.slot(
            priority,
            deadline_seconds=patience,
            also=also,
            step=step,
            is_command=is_command,
        )

    def _throttle_of(self, code: str) -> Throttle:
        """Return the rate limiter whose limit a refusal with this code is about."""
        return self._ledger_throttle if code == LEDGER_BUSY else self._throttle

    def _send(
        self,
        tr: TR,
        path: str,
        headers: dict[str, str],
        parameters: Mapping[str, str],
        last_check: LastCheck | None,
    ) -> httpx.Response:
        url = self.environment.rest_url + path
        try:
            if tr.method == "GET":
                return self._http.get(url, headers=headers, params=dict(parameters))
            extensions = {"trace": _recheck_after_connecting(last_check)} if last_check else None
            return self._http.post(url, headers=headers, json=dict(parameters), extensions=extensions)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Retryable(NotSent(f"no connection to the broker: {error!r}", call=tr.name)) from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"no answer from the broker: {error!r}", call=tr.name) from error

    def _judge(self, tr: TR, response: httpx.Response) -> BrokerReply:
        """Decide what an answer means, by its body; the HTTP status is ignored."""
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or not ({"rt_cd", "error_code"} & body.keys()):
            text = response.text[:200]
            raise OutcomeUnknown(f"HTTP {response.status_code} with no readable answer: {text!r}", call=tr.name)
        if str(body.get("rt_cd", "")).strip() == "0":
            return BrokerReply(tr, body, more=response.headers.get("tr_cont", "").strip() in ("F", "M"))
        code = str(body.get("msg_cd") or body.get("error_code") or "").strip()
        message = str(body.get("msg1") or body.get("error_description") or "").strip()
        meaning = meaning_of(code, tr.effect)
        if meaning in (Meaning.TOKEN, Meaning.BUSY):
            raise _Retryable(NotSent(message, code=code, call=tr.name), meaning)
        raise failure(tr, code, message)


def _recheck_after_connecting(last_check: LastCheck) -> Callable[[str, Mapping[str, Any]], None]:
    """Return an httpx trace that repeats the last check after a new connection was opened, because that takes time."""
    is_new = False

    def trace(event: str, info: Mapping[str, Any]) -> None:
        nonlocal is_new
        if event == "connection.connect_tcp.complete":
            is_new = True
        elif event == "http11.send_request_headers.started" and is_new:
            last_check()

    return trace


def _check_no_duplicates(tr: TR, rows: Iterable[Row]) -> None:
    """Raise OutcomeUnknown if a row occurs twice: the pages of the list overlap, so another row may be missing."""
    counts = Counter(row.key(tr.key) for row in rows)
    duplicates = ["/".join(key) for key, count in counts.items() if count > 1]
    if duplicates:
        raise OutcomeUnknown(f"the list has {duplicates[0]} twice: its pages overlap", call=tr.name)
