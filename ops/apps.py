from typing import Any

from django.apps import AppConfig
from django.db import connection
from django.db.models.signals import post_migrate, pre_migrate

# a migration waits this long for a table that is in use, and its statements take as long as they take
MIGRATION_LOCK_SECONDS = 60.0


class OpsConfig(AppConfig):
    name = "ops"
    # of the table, since before it had a package of its own
    label = "config"
    verbose_name = "AEGIS"

    def ready(self) -> None:
        pre_migrate.connect(_set_limits_of_migrations, sender=self)
        post_migrate.connect(_reset_limits, sender=self)


def _set_limits_of_migrations(using: str, **about: Any) -> None:
    from infra import db_limits

    if using == connection.alias:
        db_limits.set_limits(lock=MIGRATION_LOCK_SECONDS, statement=0, idle=0)


def _reset_limits(using: str, **about: Any) -> None:
    from infra import db_limits

    if using == connection.alias:
        db_limits.reset_limits()
