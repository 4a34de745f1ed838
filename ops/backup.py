"""Backups of one moment with the row count of every table, and restores that are checked against these counts.

`pg_dump` reads from a snapshot that we export and count in, so the counts match the dump even while orders are written.
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
    """There is no backup, or it could not be restored. The text is for the operator."""


def write_backup(directory: Path, *, at: datetime) -> Path:
    """Write a dump into `directory` and return its path. Raises BackupFailed."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"aegis-{settings.KIS_ENVIRONMENT.name}-{at:%Y%m%d-%H%M%S}.dump"
    draft = path.with_suffix(".part")
    with _connected() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        exported = connection.execute("SELECT pg_export_snapshot()").fetchone()
        counts = _counts(connection)
        snapshot = str(exported[0]) if exported else ""
        _run("pg_dump", "--format=custom", "--no-owner", f"--snapshot={snapshot}", f"--file={draft}", _database_name())
    draft.chmod(0o600)
    _counts_file(path).write_text(json.dumps(counts, indent=1, sort_keys=True), encoding="ascii")
    draft.replace(path)
    return path


def read_counts(path: Path) -> Counts:
    """Return the row count of each table in a backup. Raises BackupFailed."""
    try:
        return dict(json.loads(_counts_file(path).read_text(encoding="ascii")))
    except FileNotFoundError:
        raise BackupFailed(_("there is no backup {path}, or no counts beside it").format(path=path)) from None


def verify_backup(path: Path) -> Counts:
    """Restore a backup into a scratch database, compare the counts, drop it. Return the counts. Raises BackupFailed."""
    expected = read_counts(path)
    name = f"{SCRATCH}_{os.getpid()}"
    with _connected() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={name}", str(path))
            with _connected(name) as scratch:
                _compare(expected, _counts(scratch))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    return expected


def restore(path: Path) -> Counts:
    """Restore a backup into the empty database of the settings; return the counts. Raises BackupFailed."""
    expected = read_counts(path)
    with _connected() as connection:
        if table := _first_table_with_rows(connection):
            template = _("the database is not empty: {table} has rows; restore into a new one")
            raise BackupFailed(template.format(table=table))
    _run("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", "--clean", "--if-exists",
         f"--dbname={_database_name()}", str(path))  # fmt: skip
    with _connected() as connection:
        _compare(expected, _counts(connection))
    return expected


def _compare(expected: Counts, actual: Counts) -> None:
    differences = [
        f"{table} {expected.get(table, 0)} > {actual.get(table, 0)}"
        for table in sorted({*expected, *actual})
        if expected.get(table, 0) != actual.get(table, 0)
    ]
    if differences:
        template = _("the restored database differs: {differences}")
        raise BackupFailed(template.format(differences=", ".join(differences)))


def _counts(connection: "psycopg.Connection[tuple[object, ...]]") -> dict[str, int]:
    counts = {}
    for table in _tables(connection):
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
        counts[table] = int(str(row[0])) if row else 0
    return counts


def _tables(connection: "psycopg.Connection[tuple[object, ...]]") -> list[str]:
    """Return the ordinary tables, partitions included, and the partitioned ones, which have their partitions' rows."""
    query = """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
        AND relkind IN ('r', 'p') ORDER BY relname"""
    return [str(name) for (name,) in connection.execute(query).fetchall()]


def _first_table_with_rows(connection: "psycopg.Connection[tuple[object, ...]]") -> str:
    """Return a table with rows that a fresh installation does not have, or an empty string."""
    tables = set(_tables(connection))
    for table in ("trade_orders", "portfolio", "account_snapshots", "raw_notices"):
        query = sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table))
        if table in tables and connection.execute(query).fetchone():
            return table
    return ""


def _database_name() -> str:
    return str(settings.DATABASES["default"]["NAME"])


def _libpq_variables() -> dict[str, str]:
    """Return the server's address and password as libpq variables: every user can read a command line."""
    database = settings.DATABASES["default"]
    options = database.get("OPTIONS", {})
    params = {
        "PGHOST": options.get("host") or database.get("HOST"),
        "PGPORT": database.get("PORT"),
        "PGUSER": database.get("USER"),
        "PGPASSWORD": database.get("PASSWORD"),
        "PGSSLMODE": options.get("sslmode"),
        "PGSSLROOTCERT": options.get("sslrootcert"),
    }
    return {name: str(value) for name, value in params.items() if value}


@contextmanager
def _connected(name: str | None = None) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    params = _libpq_variables()
    keywords = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGSSLMODE": "sslmode",
             "PGSSLROOTCERT": "sslrootcert"}  # fmt: skip
    parameters = {keywords[key]: value for key, value in params.items()}
    server = make_conninfo(dbname=name or _database_name(), connect_timeout=5, **parameters)
    with psycopg.connect(server, autocommit=True) as connection:
        yield connection


def _run(name: str, *arguments: str) -> None:
    bundled = embedded.bin_dir() / name
    program = str(bundled) if settings.HAS_OWN_DATABASE or not shutil.which(name) else str(shutil.which(name))
    if not Path(program).exists():
        template = _("PostgreSQL's {name} is missing: install the client programs of the server's version or newer")
        raise BackupFailed(template.format(name=name))
    process = subprocess.run(
        [program, *arguments], env=os.environ | _libpq_variables(), capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise BackupFailed(_("{name} failed: {why}").format(name=name, why=process.stderr.strip()[-500:]))


def _counts_file(path: Path) -> Path:
    return path.with_suffix(".json")
