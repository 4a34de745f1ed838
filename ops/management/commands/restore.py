import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ops import backup
from orders import database_age


class Command(BaseCommand):
    help = _("Restore a backup into the empty database of the settings.")
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help=_("the backup's file"))

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            counts = backup.restore(options["file"])
        except backup.BackupFailed as error:
            raise CommandError(str(error)) from error
        database_age.mark_restored()
        self.stdout.write(_("restored: {rows:,} rows").format(rows=sum(counts.values())))
        self.stdout.write(_("trading begins halted: compare orders and holdings with the broker, then resume"))
