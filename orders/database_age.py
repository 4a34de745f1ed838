"""Halts trading at a start if the database is older than the one that AEGIS last used here, as after a restore.

An older database lacks orders that were sent and fills that were counted since. Its row counters are compared with
those that the last run wrote to a file in AEGIS_HOME; a restore writes that file too.
"""

import json
import logging
import os
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.utils.translation import gettext

from aegis.trading_state import TradingState
from orders import kill_switch, risk

log = logging.getLogger(__name__)

TABLES = ("trade_orders", "broker_requests", "order_events", "trade_executions")
RESTORED = "restored"
_COUNTERS = """
    SELECT coalesce(sum(last_value), 0) FROM pg_sequences
    WHERE schemaname = current_schema() AND sequencename = ANY(%s)
"""


def state_path() -> Path:
    """Return the path of this database's mark: each environment has its own."""
    name = str(connection.settings_dict["NAME"]).replace("/", "_")
    return Path(settings.HOME) / f"database-{name}.json"


def note() -> None:
    """Write the database's row counters to the mark, unless it marks a restore: only the next start removes that.

    If the file cannot be written, this is only logged.
    """
    if not _read().get(RESTORED):
        _write({"counters": _counters()})


def mark_restored() -> None:
    """Mark the database as restored from a backup: the next start halts trading."""
    _write({RESTORED: True})


def halt_if_older(now: datetime) -> bool:
    """Halt trading if the database was restored, or is older than the one that was used last; return whether it was.

    Raises DatabaseError.
    """
    mark = _read()
    if mark.get(RESTORED):
        why = gettext(
            "the database was restored from a backup: compare orders and holdings with the broker, then resume"
        )
    elif int(mark.get("counters", 0)) > _counters():
        why = gettext(
            "the database is older than the one that was used last: compare orders and holdings with the broker, "
            "then resume"
        )
    else:
        return False
    if risk.trading_state() is not TradingState.HALTED:
        kill_switch.halt(by="AEGIS", reason=why, at=now)
    log.error("trading begins halted: %s", why)
    _write({"counters": _counters()})
    return True


def _counters() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_COUNTERS, [[f"{table}_id_seq" for table in TABLES]])
        return int(cursor.fetchone()[0])


def _read() -> dict[str, int]:
    try:
        mark = json.loads(state_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _write(mark: dict[str, int]) -> None:
    path = state_path()
    temporary_path = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_path.write_text(json.dumps(mark), encoding="utf-8")
        temporary_path.replace(path)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)
