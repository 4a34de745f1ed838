"""The only speaker of the broker's REST: a catalogue row and parameters in, checked output out.

Each call ends in a value or in one of the port's three failures, and that is decided in one place,
`Client._judge`. A read is repeated, also if the broker asks for that; a list is then read from its
first page. A command is sent again only when the gateway turned it away unread (token, the key's call
limit) or it surely never left (no connection). The ledger's own limit proves neither, so a command
that meets it has an unknown outcome.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx

from aegis.broker import BrokerError, LastCheck, NotSent, OutcomeUnknown
from aegis.terms import Market
from kis.auth import Tokens
from kis.catalogue import TR, Effect, Urgency
from kis.environment import Credentials, Dialect, Environment
from kis.errors import LEDGER_BUSY, AskAgain, Meaning, failure, meaning_of
from kis.rest_values import Row
from kis.serving import current_step, urgency_of
from kis.throttle import Slot, Throttle

log = logging.getLogger(__name__)

TRIES = 4
PAUSE_SECONDS = 0.3
MAX_PAGES = 200
# a command that waited longer, for its turn or for a token, does not leave: what it was judged by is old
COMMAND_SECONDS = 20.0
# the longest wait for a slot of the rate limiter, by rank; history has time, an order has not. A stop that is turned
# away begins anew, and others have to wait for that too
DEADLINE_SECONDS = {
    Urgency.STOP: COMMAND_SECONDS,
    Urgency.CANCEL: 5.0,
    Urgency.ORDER: 5.0,
    Urgency.CHASE: 10.0,
    Urgency.ACCOUNT: 20.0,
    Urgency.QUOTE: 30.0,
    Urgency.BACKFILL: 300.0,
}
# a stop's step that has read nothing yet waits for those that began before it: of as many as there are threads, each
# of four calls, also at one call a second
STEP_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class BrokerReply:
    """A successful reply to `tr`. `more` says that another page follows the cursor."""

    tr: TR
    body: Mapping[str, Any]
    more: bool = False

    def row(self, name: str = "output") -> Row:
        """Return an output that is one object; some operations send it as a list of one."""
        rows = self.rows(name)
        return rows[0] if rows else self._row(name, {})

    def rows(self, name: str = "output") -> list[Row]:
        """Return an output that is a list; some operations send a single object for one row.

        Raises OutcomeUnknown where it is neither.
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

    def listed(self) -> list[Row]:
        """Return the rows of the operation's list, without the empty objects that fill some pages.

        Raises OutcomeUnknown where it is no list of objects: of one object nobody knows what is missing.
        """
        if not isinstance(self.body.get(self.tr.listed), list):
            raise OutcomeUnknown(f"{self.tr.listed} is no list of rows", call=self.tr.name)
        return [row for row in self.rows(self.tr.listed) if any(row.key(self.tr.key))]

    def _row(self, name: str, values: Mapping[str, Any]) -> Row:
        block = self.tr.outputs.get(name)
        return Row(values, self.tr.name, block.columns if block else None)


_gives_up_at: ContextVar[float] = ContextVar("gives_up_at", default=float("inf"))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let the calls of this block wait for their turn, and try again, for `seconds` in all at the most.

    A call whose turn does not come in time raises NotSent; one that is on its way is waited for.
    """
    token = _gives_up_at.set(min(_gives_up_at.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _gives_up_at.reset(token)


def _seconds_left() -> float:
    return max(0.0, _gives_up_at.get() - time.monotonic())


def _pause(attempt: int) -> bool:
    """Wait before a call is repeated, longer each time; False if there is no time left for that."""
    seconds = PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 jitter
    if seconds >= _seconds_left():
        return False
    time.sleep(seconds)
    return True


class _Again(Exception):
    """It may be sent once more: turned away unread by the gateway, or (no meaning) it never left."""

    def __init__(self, error: BrokerError, meaning: Meaning | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.meaning = meaning


class Client:
    """Speaks for one app key. Safe to share between threads. Sends no command unless `armed`."""

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
        """Carry out one operation; only the user's dialect has ids by `market`.

        `last_check` runs before each try, when every wait is over and nothing is left to do but to write the bytes.
        Raises NotSent, Refused or OutcomeUnknown, and what `last_check` raises.
        """
        if tr.effect is Effect.COMMAND and not self._armed:
            raise NotSent(
                "live trading is read-only: set AEGIS_LIVE_ORDERS=yes-real-money to send orders", call=tr.name
            )
        address = tr.address(self.environment, self.dialect, market)
        last: BrokerError = NotSent("never tried", call=tr.name)
        leaves_by = time.monotonic() + COMMAND_SECONDS if tr.effect is Effect.COMMAND else float("inf")
        for attempt in range(TRIES):
            if attempt and not _pause(attempt):
                break
            try:
                return self._once(tr, address, parameters, tr_cont, leaves_by, last_check)
            except _Again as again:
                last = again.error
                if again.meaning is Meaning.BUSY:
                    self._throttle_of(last.code).slow_down()
            except AskAgain as error:
                if tr.cursor is not None:
                    raise
                last = error
            except OutcomeUnknown as error:
                if error.code == LEDGER_BUSY:
                    self._ledger_throttle.slow_down()
                if tr.effect is Effect.COMMAND:
                    raise
                last = error
            log.info("%s: try %d of %d failed: %s", tr.name, attempt + 1, TRIES, last)
        raise last

    def download(self, name: str) -> bytes:
        """Return a file that the broker publishes: it needs no key and counts to no allowance.

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
        """Return every page of a list, or raise: half a list is no list. If it changed meanwhile, it is read anew.

        Raises OutcomeUnknown where the cursor does not move on, or a row comes twice because pages overlap.
        """
        replies = self._whole(tr, parameters, market)
        _no_row_twice(tr, [row for reply in replies for row in reply.listed()])
        return replies

    def _whole(self, tr: TR, parameters: Mapping[str, str], market: Market) -> list[BrokerReply]:
        """Return every page of a list, from the first again if the broker asks for that."""
        for attempt in range(1, TRIES):
            try:
                return list(self._pages(tr, parameters, market))
            except AskAgain as error:
                log.info("%s: reading %d of %d failed: %s", tr.name, attempt, TRIES, error)
                if not _pause(attempt):
                    raise
        return list(self._pages(tr, parameters, market))

    def walk(
        self, tr: TR, parameters: Mapping[str, str], *, back: Callable[[Row], Mapping[str, str] | None]
    ) -> list[Row]:
        """Return the rows of every page of a chart, newest first, or raise.

        `back` tells from the oldest row which parameters ask for what lies before it, None where nothing is wanted.
        Raises OutcomeUnknown where a page does not lead back but brings what another brought.
        """
        asked, found = dict(parameters), list[Row]()
        for _ in range(MAX_PAGES):
            rows = self.call(tr, asked).listed()
            found += rows
            _no_row_twice(tr, found)
            step = back(rows[-1]) if len(rows) >= tr.page_rows_of(self.environment) else None
            if step is None:
                return found
            asked |= step
        raise OutcomeUnknown(f"the chart does not end after {MAX_PAGES} pages", call=tr.name)

    def _pages(self, tr: TR, parameters: Mapping[str, str], market: Market) -> Iterator[BrokerReply]:
        fk, nk = f"CTX_AREA_FK{tr.cursor}", f"CTX_AREA_NK{tr.cursor}"
        cursor = {fk: "", nk: ""}
        seen: set[tuple[str, str]] = set()
        for page in range(MAX_PAGES):
            reply = self.call(tr, {**parameters, **cursor}, market=market, tr_cont="N" if page else "")
            yield reply
            if not reply.more:
                return
            cursor = {fk: str(reply.body.get(fk.lower(), "")), nk: str(reply.body.get(nk.lower(), ""))}
            where = (cursor[fk].strip(), cursor[nk].strip())
            if where in seen or not where[1]:
                raise OutcomeUnknown(f"page {page + 1} leads nowhere: the cursor stands still", call=tr.name)
            seen.add(where)
        raise OutcomeUnknown(f"the list does not end after {MAX_PAGES} pages", call=tr.name)

    def _once(
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
            slot.leave()
            response = self._send(tr, path, headers, parameters, last_check)
        try:
            return self._judge(tr, response)
        except _Again as again:
            if again.meaning is Meaning.TOKEN:
                self._tokens.invalidate(token)
            raise

    def _turn(self, tr: TR) -> AbstractContextManager[Slot]:
        """Hold what the call needs: a slot of the app key, and for the ledger one of the account before it.

        It waits at the rank of what it serves, and as long as the more patient of the two may; what a stop's step
        reads first, until its turn has come.
        """
        urgency, step, is_command = urgency_of(tr), current_step(), tr.effect is Effect.COMMAND
        patience = max(DEADLINE_SECONDS[tr.urgency], DEADLINE_SECONDS[urgency])
        if step is not None and not step.has_called and not is_command:
            patience = STEP_SECONDS
        first = self._ledger_throttle if tr.is_ledger else None
        return self._throttle.slot(
            urgency,
            deadline_seconds=min(patience, _seconds_left()),
            first=first,
            step=step,
            is_command=is_command,
        )

    def _throttle_of(self, code: str) -> Throttle:
        """Return the allowance that a refusal was about."""
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
            extensions = {"trace": _checked_after_connecting(last_check)} if last_check else None
            return self._http.post(url, headers=headers, json=dict(parameters), extensions=extensions)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Again(NotSent(f"no connection to the broker: {error!r}", call=tr.name)) from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"no answer from the broker: {error!r}", call=tr.name) from error

    def _judge(self, tr: TR, response: httpx.Response) -> BrokerReply:
        """Decide what an answer means. The body counts, whatever the HTTP status."""
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
        words = str(body.get("msg1") or body.get("error_description") or "").strip()
        meaning = meaning_of(code, tr.effect)
        if meaning in (Meaning.TOKEN, Meaning.BUSY):
            raise _Again(NotSent(words, code=code, call=tr.name), meaning)
        raise failure(tr, code, words)


def _checked_after_connecting(last_check: LastCheck) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a trace of httpx that repeats the last check if a connection had to be made first: that is a wait too."""
    is_new = False

    def trace(event: str, info: Mapping[str, Any]) -> None:
        nonlocal is_new
        if event == "connection.connect_tcp.complete":
            is_new = True
        elif event == "http11.send_request_headers.started" and is_new:
            last_check()

    return trace


def _no_row_twice(tr: TR, rows: Iterable[Row]) -> None:
    """Raise OutcomeUnknown where pages of one list overlap: a row that comes twice stands for one left out."""
    times = Counter(row.key(tr.key) for row in rows)
    twice = ["/".join(key) for key, count in times.items() if count > 1]
    if twice:
        raise OutcomeUnknown(f"the list has {twice[0]} twice: its pages overlap", call=tr.name)
