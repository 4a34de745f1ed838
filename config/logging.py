"""The log format of all processes: one line per event, in Korean time, with the order's number, secrets masked."""

import json
import logging
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aegis.sessions import KST
from infra import log_context

# masking a shorter value would hide ordinary words
SHORTEST_SECRET = 6
MASK = "***"
# how a message names its order, if the log context has none
ORDER_IN_MESSAGE = re.compile(r"\border (\d+)\b")
FORMATS = ("text", "json")


def order_for(message: str) -> int | None:
    """Return the order that a line is about: the order of the log context, or else the order that the message names."""
    current_order = log_context.current_order()
    if current_order is not None:
        return current_order
    match = ORDER_IN_MESSAGE.search(message)
    return int(match[1]) if match else None


class LineFormatter(logging.Formatter):
    """Korean time to the millisecond, whatever the machine's time zone; secrets masked, in tracebacks too."""

    def __init__(self, format: str | None = None, *, secrets: Sequence[str] = ()) -> None:
        super().__init__(format)
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]

    def format(self, record: logging.LogRecord) -> str:
        return self.mask(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line without its traceback, which follows on lines of its own."""
        order = order_for(record.message)
        line = super().formatMessage(record).replace("\n", "\\n")
        return line if order is None else f"{line} order={order}"

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, KST).isoformat(sep=" ", timespec="milliseconds")

    def mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


class JsonFormatter(LineFormatter):
    """One JSON object per line, traceback included, for programs that collect logs."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        payload: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, KST).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.mask(message),
            "thread": record.threadName,
            "pid": record.process,
        }
        if (order := order_for(message)) is not None:
            payload["order"] = order
        if record.exc_info:
            payload["exception"] = self.mask(self.formatException(record.exc_info))
        return json.dumps(payload, ensure_ascii=False)


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
            # one line per request, with its query string, is too much for a log that operators keep
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
            "apprise": {"level": "ERROR"},
            # three lines per task, with a sweep every two seconds, would flood the log; Flower shows them
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "flower": {"level": "WARNING"},
        },
    }
