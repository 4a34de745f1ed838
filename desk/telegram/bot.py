"""The Telegram bot: polls for updates and answers them by `desk.telegram.replies`. Only allowed chats are answered."""

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
# commands may wait for the broker; those that halt have their own threads, so they do not wait for other commands
THREADS = 4
HALT_THREADS = 2
LONGEST_PAUSE_SECONDS = 60.0
# another process polls with the same token: Telegram allows one
CONFLICT = 409
CONFLICT_SECONDS = 30.0
# an answer that Telegram did not take is sent again for this long: after that the operator no longer expects it
ANSWER_FOR_SECONDS = 300.0
# an older line is not acted on: it was sent while the bot did not run
STALE = timedelta(minutes=5)


class Bot:
    """Answers what the allowed chats write, until `stop`."""

    def __init__(self, api: BotAPI, now: Callable[[], datetime], *, allowed: frozenset[int]) -> None:
        self._api = api
        self._now = now
        self._allowed = allowed
        self._offset = 0
        self._retry_timers: set[threading.Timer] = set()

    def run(self, stop: threading.Event) -> None:
        """Poll on an own thread until `stop`; return once the answers in progress are sent."""
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="telegram")
        halts = ThreadPoolExecutor(HALT_THREADS, thread_name_prefix="telegram-halt")
        polling = threading.Thread(target=self._poll, args=(stop, pool, halts), name="telegram-poll", daemon=True)
        polling.start()
        stop.wait()
        halts.shutdown(wait=True)
        pool.shutdown(wait=True, cancel_futures=True)
        for timer in list(self._retry_timers):
            timer.cancel()
            log.error("telegram: an answer that was to be sent again is lost")

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
            health.give_sign_of_life("telegram")
            for update in updates:
                self._offset = int(update["update_id"]) + 1
                if not stop.is_set():
                    (halts if _is_halt(update) else pool).submit(self.handle_update, update)

    def handle_update(self, update: Mapping[str, Any]) -> None:
        """Answer one update."""
        try:
            self._handle_update(update)
        finally:
            connection.close()  # the next update may be hours away

    def _handle_update(self, update: Mapping[str, Any]) -> None:
        started_at = time.perf_counter()
        query = update.get("callback_query")
        message = (query or {}).get("message") or update.get("message") or {}
        chat = (message.get("chat") or {}).get("id")
        if chat not in self._allowed:
            log.warning("telegram: chat %s is not allowed, and gets no answer", chat)
            return
        try:
            if query:
                self._handle_press(query, message, chat)
            elif text := message.get("text"):
                self._answer(chat, self._reply(text, message, chat))
        except Exception:  # the operator must not wait for an answer that is never sent
            log.exception("telegram: update %s could not be answered", update["update_id"])
            with translation.override(settings.LANGUAGE_CODE):
                self._answer(
                    chat, BotReply(replies.failure_text() if query else _("This failed, and the log says why"))
                )
            return
        log.info(
            "telegram: update %s answered in %.0f ms", update["update_id"], (time.perf_counter() - started_at) * 1000
        )

    def _reply(self, text: str, message: Mapping[str, Any], chat: int) -> BotReply:
        sent_at = datetime.fromtimestamp(int(message.get("date", 0)), UTC)
        if datetime.now(UTC) - sent_at > STALE and not replies.is_halt(text):
            with translation.override(settings.LANGUAGE_CODE):
                return BotReply(_("The bot did not get this in time: {text}. Send it again").format(text=text[:40]))
        return replies.answer(text, chat=chat, now=self._now())

    def _handle_press(self, query: Mapping[str, Any], message: Mapping[str, Any], chat: int) -> None:
        answer = replies.press(str(query.get("data", "")), chat=chat, now=self._now())
        self._answer(chat, answer)
        try:
            self._api.answer_callback(query["id"])
            # the question stays readable, without its buttons
            self._api.rewrite(chat, int(message["message_id"]), str(message.get("text") or answer.text))
        except TelegramError as error:
            log.info("telegram: a button stays: %s", error)

    def _answer(self, chat: int, answer: BotReply) -> None:
        self._send(chat, answer, pause=1.0, gives_up_at=time.monotonic() + ANSWER_FOR_SECONDS)

    def _send(self, chat: int, answer: BotReply, *, pause: float, gives_up_at: float) -> None:
        """Send an answer, or schedule a retry if Telegram did not take it. No answering thread waits for the retry."""
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
            self._retry_timers.discard(timer)
            self._send(chat, answer, pause=min(wait * 2, LONGEST_PAUSE_SECONDS), gives_up_at=gives_up_at)

        timer = threading.Timer(wait, send)
        timer.daemon = True
        self._retry_timers.add(timer)
        timer.start()


def _again_after(error: TelegramError, pause: float) -> float | None:
    """Return the seconds until a call may be retried; None if a retry is useless, or the call may have arrived."""
    if isinstance(error, Declined) and error.retry_after:
        return error.retry_after
    return pause if isinstance(error, Unreachable) else None


def _is_halt(update: Mapping[str, Any]) -> bool:
    is_button = replies.is_halting_button(str((update.get("callback_query") or {}).get("data", "")))
    return is_button or replies.is_halt((update.get("message") or {}).get("text") or "")
