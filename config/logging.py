"""How processes log: one line an event, in Korean time, secrets masked."""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aegis.sessions import KST

# too short a value would blot out ordinary words
SHORTEST_SECRET = 6
MASK = "***"


class LineFormatter(logging.Formatter):
    """The time in Korea to the millisecond, whatever zone the machine keeps; secrets masked, in tracebacks too."""

    def __init__(self, format: str, *, secrets: Sequence[str] = ()) -> None:
        super().__init__(format)
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, MASK)
        return line

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, KST).isoformat(sep=" ", timespec="milliseconds")


def logging_config(level: str, *, secrets: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": LineFormatter,
                "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
                "secrets": tuple(secrets),
            },
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # a line per request, query strings and all, is not for a log that operators keep
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
            # three lines per task, and a sweep every two seconds: Flower shows them, a log drowns in them
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "flower": {"level": "WARNING"},
        },
    }
