"""The Telegram Bot API, https://core.telegram.org/bots/api: a few methods over one HTTP client, no policy.

Texts are plain, so that nothing need be escaped. What fails is one of two: Telegram said no (`Declined`), or
nobody knows whether it heard (`Unanswered`). The token is part of every address and shows in no error.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import httpx
from django.conf import settings

# https://core.telegram.org/bots/api#sendmessage and #sendphoto, counted in UTF-16 units
TEXT_AT_MOST = 4096
CAPTION_AT_MOST = 1024
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
CUT = " …"
# How Telegram names what is wrong with a message in itself (https://core.telegram.org/api/errors, and what its server
# is seen to say). Everything else it declines is the chat's state, or nothing known here: that may be mended
WRONG_IN_ITSELF = (
    "can't parse",
    "is too long",
    "is empty",
    "must be non-empty",
    "encoded in utf-8",
    "photo_",
    "image_",
)
TOO_LARGE = 413

Buttons = Sequence[Sequence[tuple[str, str]]]
"""Rows of buttons: what stands on one, and what comes back when it is pressed (64 bytes at most)."""


class TelegramError(Exception):
    """A call did not succeed."""


class Declined(TelegramError):
    """Telegram answered, and did nothing. `retry_after` is how many seconds it wants to be left alone."""

    def __init__(self, code: int, words: str, retry_after: float = 0.0) -> None:
        super().__init__(f"Telegram says {code}: {words}")
        self.code = code
        self.words = words
        self.retry_after = retry_after

    @property
    def is_final(self) -> bool:
        """Whether the same message will be declined again, in whatever chat: it is wrong in itself."""
        words = self.words.lower()
        return self.code == TOO_LARGE or (self.code == 400 and any(each in words for each in WRONG_IN_ITSELF))


class Unreachable(TelegramError):
    """No connection: Telegram surely did not hear."""


class Unanswered(TelegramError):
    """It left and no answer came: perhaps heard, perhaps not."""


@cache
def http() -> httpx.Client:
    """Return this process's HTTP client for Telegram."""
    return httpx.Client(timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS))


def api() -> "BotAPI":
    """Return the bot of the settings."""
    return BotAPI(settings.TELEGRAM_URL, settings.TELEGRAM_TOKEN, http())


class BotAPI:
    """One bot. Safe to share between threads."""

    def __init__(self, url: str, token: str, http: httpx.Client) -> None:
        self._base = f"{url.rstrip('/')}/bot{token}"
        self._http = http

    def send(self, chat: int, text: str, *, buttons: Buttons | None = None) -> int:
        """Send a text; return the message's id. Raises TelegramError."""
        words: dict[str, Any] = {"chat_id": chat, "text": cut(text, TEXT_AT_MOST)}
        words["link_preview_options"] = {"is_disabled": True}
        if buttons:
            words["reply_markup"] = _keyboard(buttons)
        return int(self._call("sendMessage", words)["message_id"])

    def send_picture(self, chat: int, png: bytes, text: str) -> int:
        """Send a picture with a text below it; what does not fit there follows on its own. Raises TelegramError."""
        fits = _units(text) <= CAPTION_AT_MOST
        words = {"chat_id": str(chat), "caption": text if fits else ""}
        sent = self._call("sendPhoto", words, files={"photo": ("report.png", png, "image/png")})
        if not fits:
            self.send(chat, text)
        return int(sent["message_id"])

    def updates(self, offset: int, *, wait_seconds: int) -> list[dict[str, Any]]:
        """Return what came since `offset`, waiting for it; Telegram forgets what came before. Raises TelegramError."""
        words = {"offset": offset, "timeout": wait_seconds, "allowed_updates": ["message", "callback_query"]}
        patience = httpx.Timeout(wait_seconds + ANSWER_SECONDS, connect=CONNECT_SECONDS)
        return list(self._call("getUpdates", words, timeout=patience))

    def pressed(self, query_id: str, text: str = "") -> None:
        """Take the waiting sign off a button, with a word on the screen. Raises TelegramError."""
        self._call("answerCallbackQuery", {"callback_query_id": query_id, "text": cut(text, 200)})

    def rewrite(self, chat: int, message: int, text: str) -> None:
        """Put another text in a message's place and take its buttons away. Raises TelegramError."""
        self._call("editMessageText", {"chat_id": chat, "message_id": message, "text": cut(text, TEXT_AT_MOST)})

    def name(self) -> str:
        """Return the bot's user name: whether the token is right. Raises TelegramError."""
        return str(self._call("getMe", {})["username"])

    def _call(
        self,
        method: str,
        words: Mapping[str, Any],
        *,
        files: Mapping[str, Any] | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> Any:
        more: dict[str, Any] = {"timeout": timeout} if timeout else {}
        more |= {"data": dict(words), "files": files} if files else {"json": dict(words)}
        try:
            response = self._http.post(f"{self._base}/{method}", **more)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"no connection to Telegram: {type(error).__name__}") from None
        except httpx.HTTPError as error:
            raise Unanswered(f"no answer from Telegram: {type(error).__name__}") from None
        return _judged(response)


def _judged(response: httpx.Response) -> Any:
    """Return a reply's result. Raises Declined, and Unanswered where the reply is none of the Bot API's."""
    try:
        body = response.json()
        is_done = body["ok"]
    except (ValueError, KeyError, TypeError):
        raise Unanswered(f"HTTP {response.status_code} with no readable answer from Telegram") from None
    if is_done:
        return body["result"]
    words, more = str(body.get("description", "")), body.get("parameters") or {}
    if moved_to := more.get("migrate_to_chat_id"):
        words += f" (AEGIS_TELEGRAM_CHATS: it is {moved_to} now)"
    raise Declined(int(body.get("error_code", response.status_code)), words, float(more.get("retry_after", 0)))


def _keyboard(buttons: Buttons) -> dict[str, Any]:
    rows = [[{"text": text, "callback_data": data} for text, data in row] for row in buttons]
    return {"inline_keyboard": rows}


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def cut(text: str, at_most: int) -> str:
    """Return `text` within so many UTF-16 units, as Telegram counts."""
    if _units(text) <= at_most:
        return text
    kept = text.encode("utf-16-le")[: (at_most - len(CUT)) * 2].decode("utf-16-le", "ignore")
    return kept + CUT
