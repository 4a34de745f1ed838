"""A Bot API server on loopback: what chats write, what the bot sends, and the ways in which Telegram fails."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "12345:planted-telegram-token"


@dataclass
class Sent:
    """One message the bot sent, as its chat has it now."""

    chat: int
    text: str
    message_id: int
    buttons: list[tuple[str, str]] = field(default_factory=list)
    picture: bytes = b""


class FakeTelegram:
    """Telegram's side. `fail` answers the next calls of a method in its own way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._updates: list[dict[str, Any]] = []
        self._number = 0
        self.sent: list[Sent] = []
        self.pressed: list[str] = []
        self.calls: list[str] = []
        self._failures: dict[str, list[Callable[[], tuple[int, dict[str, Any]] | None]]] = {}
        self.url = ""

    # what people do

    def write(self, chat: int, text: str, *, age_seconds: float = 0) -> None:
        message = {
            "message_id": self._next(),
            "chat": {"id": chat},
            "text": text,
            "date": int(time.time() - age_seconds),
        }
        self._bring({"message": message})

    def press(self, sent: Sent, data: str) -> None:
        message = {"message_id": sent.message_id, "chat": {"id": sent.chat}, "text": sent.text}
        self._bring({"callback_query": {"id": str(self._next()), "message": message, "data": data}})

    def _bring(self, update: dict[str, Any]) -> None:
        with self._changed:
            self._updates.append({"update_id": self._next(), **update})
            self._changed.notify_all()

    def _next(self) -> int:
        self._number += 1
        return self._number

    # how it fails

    def decline(self, method: str, code: int, words: str, *, times: int = 1, **parameters: int) -> None:
        reply = {"ok": False, "error_code": code, "description": words, "parameters": parameters}
        self._failures.setdefault(method, []).extend([lambda: (code, reply)] * times)

    def swallow(self, method: str) -> None:
        """Do the next call and never answer it: the line is cut."""
        self._failures.setdefault(method, []).append(lambda: None)

    # what the bot calls

    def wait_for_sent(self, count: int, seconds: float = 20.0) -> list[Sent]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.sent) >= count, seconds), self.sent
            return list(self.sent)

    def handle(self, method: str, words: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Carry out a call; None is no answer at all."""
        with self._changed:
            self.calls.append(method)
            failure = self._failures[method].pop(0) if self._failures.get(method) else None
        told = failure() if failure else (200, {"ok": True})
        if told is not None and told[0] != 200:
            return told
        result = getattr(self, f"_{method}")(words)
        return None if told is None else (200, {"ok": True, "result": result})

    def _getMe(self, words: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 Telegram's own name
        return {"id": 1, "is_bot": True, "username": "rehearsal_bot"}

    def _getUpdates(self, words: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: N802
        with self._changed:
            self._updates = [each for each in self._updates if each["update_id"] >= words["offset"]]
            self._changed.wait_for(lambda: bool(self._updates), min(words["timeout"], 1))
            return list(self._updates)

    def _sendMessage(self, words: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        rows = words.get("reply_markup", {}).get("inline_keyboard", [])
        buttons = [(button["text"], button["callback_data"]) for row in rows for button in row]
        return self._keep(Sent(int(words["chat_id"]), words["text"], self._next(), buttons))

    def _sendPhoto(self, words: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._keep(Sent(int(words["chat_id"]), words["caption"], self._next(), picture=words["photo"]))

    def _keep(self, sent: Sent) -> dict[str, Any]:
        with self._changed:
            self.sent.append(sent)
            self._changed.notify_all()
        return {"message_id": sent.message_id}

    def _editMessageText(self, words: dict[str, Any]) -> bool:  # noqa: N802
        with self._changed:
            for sent in self.sent:
                if sent.message_id == words["message_id"]:
                    sent.text, sent.buttons = words["text"], []
        return True

    def _answerCallbackQuery(self, words: dict[str, Any]) -> bool:  # noqa: N802
        self.pressed.append(words["callback_query_id"])
        return True


@contextmanager
def serve() -> Iterator[FakeTelegram]:
    telegram = FakeTelegram()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            match = re.fullmatch(rf"/bot{re.escape(TOKEN)}/(\w+)", self.path)
            if match is None:
                told = 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}
            else:
                told = telegram.handle(match[1], _words(self.headers["Content-Type"], body))
            if told is None:
                self.close_connection = True
                return
            answer = json.dumps(told[1]).encode()
            self.send_response(told[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *words: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            return  # whoever polled has gone

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    telegram.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield telegram
    finally:
        server.shutdown()
        server.server_close()


def _words(kind: str, body: bytes) -> dict[str, Any]:
    if kind.startswith("application/json"):
        return dict(json.loads(body))
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.get_payload()
    }
    return {str(name): value if name == "photo" else value.decode() for name, value in parts.items()}
