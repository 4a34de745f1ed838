"""The Telegram bot: long polling in, `desk.telegram.replies` for the words, out again. Only allowed chats are heard."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import translation
from django.utils.translation import gettext as _

from desk.telegram import replies
from desk.telegram.replies import BotReply
from monitor import health
from notify.telegram import BotAPI, Declined, TelegramError, Unreachable

log = logging.getLogger(__name__)

WAIT_SECONDS = 10
# lines may wait for the broker; those that halt have threads of their own, and wait behind none of them
THREADS = 4
HALT_THREADS = 2
LONGEST_PAUSE_SECONDS = 60.0
# another one polls with the same token: Telegram lets one in
CONFLICT = 409
CONFLICT_SECONDS = 30.0
# an answer that Telegram does not take is sent again, as long as somebody may still wait for it
ANSWER_FOR_SECONDS = 300.0
# a line that came while nobody listened is not acted on any more
STALE = timedelta(minutes=5)


class Bot:
    """Answers what the allowed chats write, until `stop`."""

    def __init__(self, api: BotAPI, now: Callable[[], datetime], *, allowed: frozenset[int]) -> None:
        self._api = api
        self._now = now
        self._allowed = allowed
        self._offset = 0
        self._late: set[threading.Timer] = set()

    def run(self, stop: threading.Event) -> None:
        """Poll on a thread of its own; return soon after `stop`, when what is being answered is answered."""
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="telegram")
        halts = ThreadPoolExecutor(HALT_THREADS, thread_name_prefix="telegram-halt")
        polling = threading.Thread(target=self._poll, args=(stop, pool, halts), name="telegram-poll", daemon=True)
        polling.start()
        stop.wait()
        halts.shutdown(wait=True)
        pool.shutdown(wait=True, cancel_futures=True)
        for timer in list(self._late):
            timer.cancel()
            log.error("telegram: an answer that waited to be sent again is lost")

    def _poll(self, stop: threading.Event, pool: ThreadPoolExecutor, halts: ThreadPoolExecutor) -> None:
        pause = 1.0
        while not stop.is_set():
            try:
                updates = self._api.updates(self._offset, wait_seconds=WAIT_SECONDS)
            except TelegramError as error:
                if stop.is_set():
                    return
                is_conflict = isinstance(error, Declined) and error.code == CONFLICT
                log.warning("no updates: %s", error)
                stop.wait(CONFLICT_SECONDS if is_conflict else pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            pause = 1.0
            health.live("telegram")
            for update in updates:
                self._offset = int(update["update_id"]) + 1
                if not stop.is_set():
                    (halts if _is_halt(update) else pool).submit(self.hear, update)

    def hear(self, update: Mapping[str, Any]) -> None:
        """Answer one update."""
        try:
            self._hear(update)
        finally:
            connection.close()  # between two lines hours may pass

    def _hear(self, update: Mapping[str, Any]) -> None:
        began = time.perf_counter()
        query = update.get("callback_query")
        message = (query or {}).get("message") or update.get("message") or {}
        chat = (message.get("chat") or {}).get("id")
        if chat not in self._allowed:
            log.warning("telegram: chat %s is not allowed, and hears nothing", chat)
            return
        try:
            if query:
                self._pressed(query, message, chat)
            elif text := message.get("text"):
                self._answer(chat, self._reply(text, message, chat))
        except Exception:  # whoever asked must not wait for an answer that never comes
            log.exception("telegram: update %s could not be answered", update["update_id"])
            with translation.override(settings.LANGUAGE_CODE):
                self._answer(chat, BotReply(replies.broke_off() if query else _("This failed, and the log says why")))
            return
        log.info("telegram: update %s answered in %.0f ms", update["update_id"], (time.perf_counter() - began) * 1000)

    def _reply(self, text: str, message: Mapping[str, Any], chat: int) -> BotReply:
        sent_at = datetime.fromtimestamp(int(message.get("date", 0)), UTC)
        if datetime.now(UTC) - sent_at > STALE and not replies.is_halt(text):
            with translation.override(settings.LANGUAGE_CODE):
                return BotReply(_("This came while nobody listened: {text}. Send it again").format(text=text[:40]))
        return replies.answer(text, chat=chat, now=self._now())

    def _pressed(self, query: Mapping[str, Any], message: Mapping[str, Any], chat: int) -> None:
        answer = replies.press(str(query.get("data", "")), chat=chat, now=self._now())
        self._answer(chat, answer)
        try:
            self._api.pressed(query["id"])
            # what was asked stays to be read, its buttons go
            self._api.rewrite(chat, int(message["message_id"]), str(message.get("text") or answer.text))
        except TelegramError as error:
            log.info("telegram: a button stays: %s", error)

    def _answer(self, chat: int, answer: BotReply) -> None:
        self._send(chat, answer, pause=1.0, gives_up_at=time.monotonic() + ANSWER_FOR_SECONDS)

    def _send(self, chat: int, answer: BotReply, *, pause: float, gives_up_at: float) -> None:
        """Send an answer, later again if Telegram did not take it. No thread waits that lines are answered on."""
        try:
            self._api.send(chat, answer.text, buttons=answer.buttons or None)
        except TelegramError as error:
            wait = _again_after(error, pause)
            if wait is None or time.monotonic() + wait > gives_up_at:
                log.error("telegram: an answer to chat %s is lost: %s", chat, error)
                return
            log.warning("telegram: an answer to chat %s is sent again in %.0f s: %s", chat, wait, error)
            self._send_later(chat, answer, wait=wait, gives_up_at=gives_up_at)

    def _send_later(self, chat: int, answer: BotReply, *, wait: float, gives_up_at: float) -> None:
        def send() -> None:
            self._late.discard(timer)
            self._send(chat, answer, pause=min(wait * 2, LONGEST_PAUSE_SECONDS), gives_up_at=gives_up_at)

        timer = threading.Timer(wait, send)
        timer.daemon = True
        self._late.add(timer)
        timer.start()


def _again_after(error: TelegramError, pause: float) -> float | None:
    """Return after how many seconds a call may be tried again; None if that is of no use, or it was perhaps heard."""
    if isinstance(error, Declined) and error.retry_after:
        return error.retry_after
    return pause if isinstance(error, Unreachable) else None


def _is_halt(update: Mapping[str, Any]) -> bool:
    is_button = replies.is_halting_button(str((update.get("callback_query") or {}).get("data", "")))
    return is_button or replies.is_halt((update.get("message") or {}).get("text") or "")
