"""How processes log: one line an event, in Korean time, the order's number on it, secrets masked."""

import json
import logging
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aegis.sessions import KST
from infra import log_context

# too short a value would blot out ordinary words
SHORTEST_SECRET = 6
MASK = "***"
# how lines name an order where nobody said whose they are
NAMED = re.compile(r"\border (\d+)\b")
FORMATS = ("text", "json")


def order_of(message: str) -> int | None:
    """Return which order a line is about: the one being worked on, or the one it names."""
    working_on = log_context.current()
    if working_on is not None:
        return working_on
    named = NAMED.search(message)
    return int(named[1]) if named else None


class LineFormatter(logging.Formatter):
    """The time in Korea to the millisecond, whatever zone the machine keeps; secrets masked, in tracebacks too."""

    def __init__(self, format: str | None = None, *, secrets: Sequence[str] = ()) -> None:
        super().__init__(format)
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]

    def format(self, record: logging.LogRecord) -> str:
        return self.masked(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line without its traceback, which follows on lines of its own."""
        order = order_of(record.message)
        line = super().formatMessage(record).replace("\n", "\\n")
        return line if order is None else f"{line} order={order}"

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, KST).isoformat(sep=" ", timespec="milliseconds")

    def masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


class JsonFormatter(LineFormatter):
    """An object a line, traceback and all, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        words: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, KST).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.masked(message),
            "thread": record.threadName,
            "pid": record.process,
        }
        if (order := order_of(message)) is not None:
            words["order"] = order
        if record.exc_info:
            words["exception"] = self.masked(self.formatException(record.exc_info))
        return json.dumps(words, ensure_ascii=False)


def logging_config(level: str, *, secrets: Sequence[str] = (), style: str = "text") -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {
                "()": LineFormatter,
                "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
                "secrets": tuple(secrets),
            },
            "json": {"()": JsonFormatter, "secrets": tuple(secrets)},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": style}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # a line per request, query strings and all, is not for a log that operators keep
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
            "apprise": {"level": "ERROR"},
            # three lines per task, and a sweep every two seconds: Flower shows them, a log drowns in them
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "flower": {"level": "WARNING"},
        },
    }
