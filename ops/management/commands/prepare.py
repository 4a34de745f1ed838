from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ops.embedded import CannotStart
from ops.preflight import check_database, check_redis, prepare_database


class Command(BaseCommand):
    help = _("Migrate the database and write what processes need before they start. It is safe to run again.")
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            check_database()
            check_redis()
            prepare_database(self.stdout.write)
        except CannotStart as error:
            raise CommandError(str(error)) from error
