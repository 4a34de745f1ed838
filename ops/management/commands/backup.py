import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from config.env import HOME
from infra import clock
from ops import backup


class Command(BaseCommand):
    help = _("Write a backup of the database as of one moment, with the row count of every table beside it.")
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--to", type=Path, default=HOME / "backups", help=_("where to write it; by default backups in AEGIS_HOME")
        )
        parser.add_argument("--check", action="store_true", help=_("restore it into a scratch database and compare"))

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            path = backup.write_backup(options["to"], at=clock.now())
            rows = sum(backup.read_counts(path).values())
            self.stdout.write(_("written: {path}, {rows:,} rows").format(path=path, rows=rows))
            if options["check"]:
                counts = backup.verify_backup(path)
                template = _("restored and compared: {tables} tables, {rows:,} rows, all equal")
                self.stdout.write(template.format(tables=len(counts), rows=sum(counts.values())))
        except backup.BackupFailed as error:
            raise CommandError(str(error)) from error
