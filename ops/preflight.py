"""What must hold before a process starts: free ports, servers that answer, a migrated database of this account."""

import errno
import secrets
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils.translation import gettext as _

from config import schedule
from infra import clock
from ops.embedded import CannotStart
from ops.models import Installation
from ops.processes import ADMIN, Port
from orders import database_age

Say = Callable[[str], None]


def check_port(port: Port) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port.number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CannotStart(
                    _(
                        "port {number} for {what} is taken by another program: end that, or choose another port, "
                        "as {variable}={other}"
                    ).format(number=port.number, what=port.what, variable=port.variable, other=port.number + 1)
                ) from None
            raise CannotStart(
                _("port {number} for {what} cannot be used ({why}): set {variable} to another").format(
                    number=port.number, what=port.what, why=error.strerror, variable=port.variable
                )
            ) from None


def mask_password(url: str) -> str:
    """Return `url` without its password."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()


def check_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except OperationalError as error:
        raise CannotStart(database_error_text(error)) from None


def database_error_text(error: Exception) -> str:
    """Return the sentence for an operator whose database does not answer."""
    why = _one_line(error)
    if settings.HAS_OWN_DATABASE:
        return _("The embedded database does not answer ({why}): `make run` starts it").format(why=why)
    return _(
        "DATABASE_URL={url} does not answer ({why}): start that PostgreSQL, correct the variable "
        "(postgres://user:password@host:5432/name), or unset it for the embedded one"
    ).format(url=mask_password(settings.DATABASE_URL), why=why)


def check_redis() -> None:
    try:
        with settings.REDIS_CLIENT() as client:
            client.ping()
    except redis.RedisError as error:
        raise CannotStart(
            _(
                "REDIS_URL={url} does not answer ({why}): start that Redis, correct the variable "
                "(redis://:password@host:6379/0), or unset it for the embedded one"
            ).format(url=mask_password(settings.REDIS_URL), why=_one_line(error))
        ) from None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def prepare_database(say: Say) -> None:
    check_installation()
    call_command("migrate", verbosity=0, interactive=False)
    Installation.objects.get_or_create(
        defaults={"environment": settings.KIS_ENVIRONMENT.name, "account": str(settings.KIS_CREDENTIALS.account)}
    )
    database_age.halt_if_older(clock.now())
    schedule.write_schedule()
    call_command("collectstatic", verbosity=0, interactive=False)
    make_admin(say)


def check_installation() -> None:
    """Refuse the database of another broker environment or account: their orders must not mix."""
    if Installation._meta.db_table not in connection.introspection.table_names():
        return
    # only the columns of the first version: this runs before the migrations
    owner = Installation.objects.values_list("environment", "account").first()
    configured = (str(settings.KIS_ENVIRONMENT.name), str(settings.KIS_CREDENTIALS.account))
    if owner and owner != configured:
        raise CannotStart(
            _(
                "this database belongs to KIS_ENV={environment} and account {account}, the settings say "
                "KIS_ENV={wanted_environment} and {wanted_account}: correct them, or name another database in "
                "DATABASE_URL (embedded: another AEGIS_HOME)"
            ).format(
                environment=owner[0],
                account=owner[1],
                wanted_environment=configured[0],
                wanted_account=configured[1],
            )
        )


def make_admin(say: Say) -> None:
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, password=password)
    say(
        _(
            "Admin user {name}, password {password} (shown this once; `manage.py changepassword {name}` sets another)"
        ).format(name=ADMIN, password=password)
    )
