"""The Telegram Bot API, https://core.telegram.org/bots/api: a few methods over one HTTP client, no policy.

Texts are plain, so no text needs escaping. A call fails in one of three ways: no connection (`Unreachable`), Telegram
declined it (`Declined`), or its outcome is unknown (`Unanswered`). The token is part of every address, but of no error.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import httpx
from django.conf import settings

# https://core.telegram.org/bots/api#sendmessage and #sendphoto, counted in UTF-16 units
MAX_TEXT_UNITS = 4096
MAX_CAPTION_UNITS = 1024
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
ELLIPSIS = " …"
# How Telegram describes a message that is invalid itself (https://core.telegram.org/api/errors, and texts seen from its
# server). Any other decline depends on the state of the chat, or its cause is unknown: a later try may succeed
INVALID_MESSAGE_TEXTS = (
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
"""Rows of buttons: the label of each, and the data that Telegram returns when it is pressed (64 bytes at most)."""


class TelegramError(Exception):
    """A call did not succeed."""


class Declined(TelegramError):
    """Telegram answered, and did nothing. `retry_after` is the number of seconds to wait before the next call."""

    def __init__(self, code: int, description: str, retry_after: float = 0.0) -> None:
        super().__init__(f"Telegram says {code}: {description}")
        self.code = code
        self.description = description
        self.retry_after = retry_after

    @property
    def is_final(self) -> bool:
        """Whether the message is invalid itself, and so will be declined again in any chat."""
        description = self.description.lower()
        return self.code == TOO_LARGE or (
            self.code == 400 and any(part in description for part in INVALID_MESSAGE_TEXTS)
        )


class Unreachable(TelegramError):
    """No connection: Telegram provably did not receive the call."""


class Unanswered(TelegramError):
    """The call was sent and no readable answer came: Telegram may have carried it out."""


@cache
def http_client() -> httpx.Client:
    """Return this process's HTTP client for Telegram."""
    return httpx.Client(timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS))


def api() -> "BotAPI":
    """Return the bot of the settings."""
    return BotAPI(settings.TELEGRAM_URL, settings.TELEGRAM_TOKEN, http_client())


class BotAPI:
    """One bot. Safe to share between threads."""

    def __init__(self, url: str, token: str, http: httpx.Client) -> None:
        self._base = f"{url.rstrip('/')}/bot{token}"
        self._http = http

    def send(self, chat: int, text: str, *, buttons: Buttons | None = None) -> int:
        """Send a text; return the message's id. Raises TelegramError."""
        params: dict[str, Any] = {"chat_id": chat, "text": truncate(text, MAX_TEXT_UNITS)}
        params["link_preview_options"] = {"is_disabled": True}
        if buttons:
            params["reply_markup"] = _keyboard(buttons)
        return int(self._call("sendMessage", params)["message_id"])

    def send_picture(self, chat: int, png: bytes, text: str) -> int:
        """Send a picture with a caption; return the message's id. Raises TelegramError.

        A text that is too long for a caption follows as a message of its own.
        """
        fits = _units(text) <= MAX_CAPTION_UNITS
        params = {"chat_id": str(chat), "caption": text if fits else ""}
        message = self._call("sendPhoto", params, files={"photo": ("report.png", png, "image/png")})
        if not fits:
            self.send(chat, text)
        return int(message["message_id"])

    def updates(self, offset: int, *, wait_seconds: int) -> list[dict[str, Any]]:
        """Wait for updates and return those from `offset` on; Telegram drops the earlier ones. Raises TelegramError."""
        params = {"offset": offset, "timeout": wait_seconds, "allowed_updates": ["message", "callback_query"]}
        timeout = httpx.Timeout(wait_seconds + ANSWER_SECONDS, connect=CONNECT_SECONDS)
        return list(self._call("getUpdates", params, timeout=timeout))

    def answer_callback(self, query_id: str, text: str = "") -> None:
        """End the progress indicator of a pressed button, and show `text` on the screen. Raises TelegramError."""
        self._call("answerCallbackQuery", {"callback_query_id": query_id, "text": truncate(text, 200)})

    def rewrite(self, chat: int, message: int, text: str) -> None:
        """Replace the text of a message and remove its buttons. Raises TelegramError."""
        self._call("editMessageText", {"chat_id": chat, "message_id": message, "text": truncate(text, MAX_TEXT_UNITS)})

    def name(self) -> str:
        """Return the bot's user name, which proves that the token is valid. Raises TelegramError."""
        return str(self._call("getMe", {})["username"])

    def _call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        files: Mapping[str, Any] | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> Any:
        options: dict[str, Any] = {"timeout": timeout} if timeout else {}
        options |= {"data": dict(params), "files": files} if files else {"json": dict(params)}
        try:
            response = self._http.post(f"{self._base}/{method}", **options)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"no connection to Telegram: {type(error).__name__}") from None
        except httpx.HTTPError as error:
            raise Unanswered(f"no answer from Telegram: {type(error).__name__}") from None
        return _result(response)


def _result(response: httpx.Response) -> Any:
    """Return the result of a response. Raises Declined, and Unanswered if the response is not from the Bot API."""
    try:
        body = response.json()
        is_done = body["ok"]
    except (ValueError, KeyError, TypeError):
        raise Unanswered(f"HTTP {response.status_code} with no readable answer from Telegram") from None
    if is_done:
        return body["result"]
    description, params = str(body.get("description", "")), body.get("parameters") or {}
    if new_chat := params.get("migrate_to_chat_id"):
        description += f" (AEGIS_TELEGRAM_CHATS: it is {new_chat} now)"
    raise Declined(int(body.get("error_code", response.status_code)), description, float(params.get("retry_after", 0)))


def _keyboard(buttons: Buttons) -> dict[str, Any]:
    rows = [[{"text": text, "callback_data": data} for text, data in row] for row in buttons]
    return {"inline_keyboard": rows}


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def truncate(text: str, at_most: int) -> str:
    """Return `text` cut to at most `at_most` UTF-16 units, the way Telegram counts."""
    if _units(text) <= at_most:
        return text
    head = text.encode("utf-16-le")[: (at_most - len(ELLIPSIS)) * 2].decode("utf-16-le", "ignore")
    return head + ELLIPSIS
