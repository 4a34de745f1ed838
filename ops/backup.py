"""A backup of one moment, with the count of every table of that same moment beside it; and a restore that is tried.

`pg_dump` reads from a snapshot that we export and count in, so the counts are the dump's own, however busy the day.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
from django.conf import settings
from django.utils.translation import gettext as _
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ops import embedded

Counts = Mapping[str, int]
SCRATCH = "aegis_scratch"


class BackupFailed(Exception):
    """No backup, or none that could be restored; the text is for the operator."""


def write(directory: Path, *, at: datetime) -> Path:
    """Write a dump into `directory` and return its path. Raises BackupFailed."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"aegis-{settings.KIS_ENVIRONMENT.name}-{at:%Y%m%d-%H%M%S}.dump"
    draft = path.with_suffix(".part")
    with _connected() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        exported = connection.execute("SELECT pg_export_snapshot()").fetchone()
        counts = _counts(connection)
        snapshot = str(exported[0]) if exported else ""
        _run("pg_dump", "--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={draft}", _name())
    draft.chmod(0o600)
    _counts_file(path).write_text(json.dumps(counts, indent=1, sort_keys=True), encoding="ascii")
    draft.replace(path)
    return path


def counted(path: Path) -> Counts:
    """Return how many rows each table has in a backup. Raises BackupFailed."""
    try:
        return dict(json.loads(_counts_file(path).read_text(encoding="ascii")))
    except FileNotFoundError:
        raise BackupFailed(_("there is no backup {path}, or no counts beside it").format(path=path)) from None


def attempt(path: Path) -> Counts:
    """Restore a backup into a scratch database, compare, drop it; return the counts. Raises BackupFailed."""
    wanted = counted(path)
    name = f"{SCRATCH}_{os.getpid()}"
    with _connected() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={name}", str(path))
            with _connected(name) as scratch:
                _compare(wanted, _counts(scratch))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    return wanted


def restore(path: Path) -> Counts:
    """Restore a backup into the empty database of the settings; return the counts. Raises BackupFailed."""
    wanted = counted(path)
    with _connected() as connection:
        if table := _first_filled(connection):
            words = _("the database is not empty: {table} has rows; restore into a new one")
            raise BackupFailed(words.format(table=table))
    _run("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", "--clean", "--if-exists",
         f"--dbname={_name()}", str(path))  # fmt: skip
    with _connected() as connection:
        _compare(wanted, _counts(connection))
    return wanted


def _compare(wanted: Counts, got: Counts) -> None:
    differences = [
        f"{table} {wanted.get(table, 0)} > {got.get(table, 0)}"
        for table in sorted({*wanted, *got})
        if wanted.get(table, 0) != got.get(table, 0)
    ]
    if differences:
        words = _("the restored database differs: {differences}")
        raise BackupFailed(words.format(differences=", ".join(differences)))


def _counts(connection: "psycopg.Connection[tuple[object, ...]]") -> dict[str, int]:
    counts = {}
    for table in _tables(connection):
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
        counts[table] = int(str(row[0])) if row else 0
    return counts


def _tables(connection: "psycopg.Connection[tuple[object, ...]]") -> list[str]:
    """Return the tables with rows of their own and the parted ones, which have those of their parts."""
    query = """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
        AND relkind IN ('r', 'p') ORDER BY relname"""
    return [str(name) for (name,) in connection.execute(query).fetchall()]


def _first_filled(connection: "psycopg.Connection[tuple[object, ...]]") -> str:
    """Return a table that holds what a fresh installation does not."""
    tables = set(_tables(connection))
    for table in ("trade_orders", "portfolio", "account_snapshots", "raw_notices"):
        query = sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table))
        if table in tables and connection.execute(query).fetchone():
            return table
    return ""


def _name() -> str:
    return str(settings.DATABASES["default"]["NAME"])


def _about() -> dict[str, str]:
    """Return how libpq reaches our server, by its own variables: a command line is everybody's to read."""
    known = settings.DATABASES["default"]
    options = known.get("OPTIONS", {})
    about = {
        "PGHOST": options.get("host") or known.get("HOST"),
        "PGPORT": known.get("PORT"),
        "PGUSER": known.get("USER"),
        "PGPASSWORD": known.get("PASSWORD"),
        "PGSSLMODE": options.get("sslmode"),
        "PGSSLROOTCERT": options.get("sslrootcert"),
    }
    return {name: str(value) for name, value in about.items() if value}


@contextmanager
def _connected(name: str | None = None) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    about = _about()
    words = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGSSLMODE": "sslmode",
             "PGSSLROOTCERT": "sslrootcert"}  # fmt: skip
    parameters = {words[key]: value for key, value in about.items()}
    server = make_conninfo(dbname=name or _name(), connect_timeout=5, **parameters)
    with psycopg.connect(server, autocommit=True) as connection:
        yield connection


def _run(name: str, *words: str) -> None:
    own = embedded.bin_dir() / name
    program = str(own) if settings.HAS_OWN_DATABASE or not shutil.which(name) else str(shutil.which(name))
    if not Path(program).exists():
        words_missing = _(
            "{name} of PostgreSQL is not there: install its client programs, of the server's version or newer"
        )
        raise BackupFailed(words_missing.format(name=name))
    done = subprocess.run([program, *words], env=os.environ | _about(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackupFailed(_("{name} failed: {why}").format(name=name, why=done.stderr.strip()[-500:]))


def _counts_file(path: Path) -> Path:
    return path.with_suffix(".json")
