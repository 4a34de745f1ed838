from typing import Any

from django.apps import AppConfig
from django.db import connection
from django.db.models.signals import post_migrate, pre_migrate

# how long a migration waits for a table that is in use; its statements have no time limit
MIGRATION_LOCK_SECONDS = 60.0


class OpsConfig(AppConfig):
    name = "ops"
    # kept from earlier versions, in which this app's table and migrations were in the package `config`
    label = "config"
    verbose_name = "AEGIS"

    def ready(self) -> None:
        pre_migrate.connect(_set_limits_of_migrations, sender=self)
        post_migrate.connect(_reset_limits, sender=self)


def _set_limits_of_migrations(using: str, **kwargs: Any) -> None:
    from infra import db_limits

    if using == connection.alias:
        db_limits.set_limits(lock=MIGRATION_LOCK_SECONDS, statement=0, idle=0)


def _reset_limits(using: str, **kwargs: Any) -> None:
    from infra import db_limits

    if using == connection.alias:
        db_limits.reset_limits()
