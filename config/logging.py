"""How processes log: one line an event, in Korean time, secrets masked."""

import logging
from datetime import datetime
from typing import Any

from aegis.sessions import KST


class KoreanFormatter(logging.Formatter):
    """The time of day in Korea to the millisecond, whatever zone the machine keeps."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, KST).isoformat(sep=" ", timespec="milliseconds")


def logging_config(level: str) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"()": KoreanFormatter, "format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # a line per request, query strings and all, is not for a log that operators keep
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
        },
    }
