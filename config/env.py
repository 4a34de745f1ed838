"""Readers of environment variables. Each raises ImproperlyConfigured, with the variable's name and a valid value.

`.env` beside manage.py, or the file that AEGIS_ENV_FILE names, is read once. A variable that the shell sets wins.
"""

import gettext
import math
import os
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from aegis.account import Account
from kis.environment import ENVIRONMENTS, Credentials, Dialect, Environment, EnvironmentName

BASE_DIR = Path(__file__).resolve().parent.parent
ENV_FILE = Path(os.environ.get("AEGIS_ENV_FILE", BASE_DIR / ".env"))
if ENV_FILE.exists():
    environ.Env.read_env(ENV_FILE)

LANGUAGE = os.environ.get("AEGIS_LANGUAGE", "").strip() or "ko"
# Django's own translation needs the settings that are being read here
_ = gettext.translation("django", BASE_DIR / "locale", [LANGUAGE], fallback=True).gettext


class _Env(environ.Env):
    """The reader of django-environ, with a sentence in place of a traceback. An empty variable counts as not set."""

    def get_value(
        self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, parse_default: bool = False
    ) -> Any:
        if not os.environ.get(var, "").strip() and default is not self.NOTSET:
            return default
        try:
            return super().get_value(var, cast, default, parse_default)
        except ValueError:
            kind = _KINDS.get(cast, cast)
            raise ImproperlyConfigured(
                _("{name}={value!r} is not {kind}").format(name=var, value=os.environ.get(var), kind=kind)
            ) from None


_KINDS = {int: _("a whole number"), float: _("a number")}
env = _Env()

# does not depend on the current directory
HOME = (BASE_DIR / Path(env.str("AEGIS_HOME", default=".aegis")).expanduser()).resolve()

BROKER_VARIABLES = ("KIS_APP_KEY", "KIS_APP_SECRET", "KIS_ACCOUNT_NUMBER", "KIS_HTS_ID")
# credentials that the simulator accepts; no broker knows them
REHEARSAL = {
    "KIS_APP_KEY": "rehearsal",
    "KIS_APP_SECRET": "rehearsal",
    "KIS_ACCOUNT_NUMBER": "50000000-01",
    "KIS_HTS_ID": "rehearsal",
}


def percent_rate(name: str) -> Decimal | None:
    """Return a rate in percent, from 0 to below 100, or None if the variable is not set or empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal(-1)
    if not 0 <= rate < 100:
        raise ImproperlyConfigured(
            _("{name}={value!r} is not a rate: write percent, as 0.0140527").format(name=name, value=text)
        )
    return rate


def int_limit(name: str, default: int) -> int:
    """Return a limit that the operator sets; 0 disables it."""
    value = env.int(name, default=default)
    if value < 0:
        raise ImproperlyConfigured(
            _("{name}={value!r} is not a limit: write a whole number, or 0 for no limit").format(name=name, value=value)
        )
    return int(value)


def seconds_between(name: str, default: float, lowest: float, highest: float) -> float:
    """Return a wait in seconds, from `lowest` to `highest`."""
    text = env.str(name, default="").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not lowest <= value <= highest:
        template = _("{name}={value!r} is out of range: write seconds from {lowest:g} to {highest:g}, as {default:g}")
        figures = {"lowest": lowest, "highest": highest, "default": default}
        raise ImproperlyConfigured(template.format(name=name, value=text, **figures))
    return value


def int_between(name: str, default: int, lowest: int, highest: int) -> int:
    """Return a whole number that the operator sets, from `lowest` to `highest`."""
    value = env.int(name, default=default)
    if not lowest <= value <= highest:
        raise ImproperlyConfigured(
            _("{name}={value!r} is out of range: write a whole number from {least} to {most}").format(
                name=name, value=value, least=lowest, most=highest
            )
        )
    return int(value)


def percent_limit(name: str, default: int) -> Decimal:
    """Return a limit in percent; 0 disables it."""
    rate = percent_rate(name)
    return Decimal(default) if rate is None else rate


def choice(name: str, choices: tuple[str, ...], default: str) -> str:
    """Return the value of a variable that takes one of `choices`."""
    value: str = env.str(name, default=default)
    if value not in choices:
        raise ImproperlyConfigured(
            _("{name}={value!r} is unknown: use {choices}").format(name=name, value=value, choices=", ".join(choices))
        )
    return value


def choices(name: str, allowed: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values of a variable that takes one or more of `allowed`, separated by commas."""
    text = env.str(name, default="")
    values = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not text.strip():
        return default
    if not values or set(values) - set(allowed):
        raise ImproperlyConfigured(
            _("{name}={value!r} is unknown: use one or more of {choices}, separated by commas").format(
                name=name, value=text, choices=", ".join(allowed)
            )
        )
    return values


def broker_environment() -> Environment:
    """Return the environment that `KIS_ENV` names. The simulator's has the address from the settings."""
    environment = ENVIRONMENTS[EnvironmentName(choice("KIS_ENV", tuple(EnvironmentName), EnvironmentName.SIM))]
    if environment.name is EnvironmentName.SIM:
        port = env.int("AEGIS_SIMULATOR_PORT", default=9443)
        return environment.at(env.str("AEGIS_SIMULATOR_URL", default=f"http://127.0.0.1:{port}"))
    return environment


def credentials(environment: Environment) -> Credentials:
    """Return the credentials of the account to trade on. The error names all missing variables at once."""
    defaults = REHEARSAL if environment.name is EnvironmentName.SIM else {}
    values = {name: os.environ.get(name, "").strip() or defaults.get(name, "") for name in BROKER_VARIABLES}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise ImproperlyConfigured(
            _(
                "KIS_ENV={environment} needs {names}: set them in .env or in the environment "
                "(.env.example shows how), or leave KIS_ENV unset to rehearse on the simulator"
            ).format(environment=environment.name, names=", ".join(missing))
        )
    try:
        account = Account.parse(values["KIS_ACCOUNT_NUMBER"])
    except ValueError:
        raise ImproperlyConfigured(
            _("KIS_ACCOUNT_NUMBER={value!r}: eight digits, a hyphen and two digits are needed, as 12345678-01").format(
                value=values["KIS_ACCOUNT_NUMBER"]
            )
        ) from None
    return Credentials(values["KIS_APP_KEY"], values["KIS_APP_SECRET"], account, values["KIS_HTS_ID"])


def market_data_credentials(first: Credentials) -> tuple[Credentials, ...]:
    """Return further app keys, which carry market data only. Its errors never show a key or a secret."""
    pairs = [pair.strip() for pair in os.environ.get("KIS_APP_KEYS", "").split(",") if pair.strip()]
    known_keys = {first.app_key}
    further_credentials = []
    for number, pair in enumerate(pairs, start=1):
        key, colon, secret = (part.strip() for part in pair.partition(":"))
        if not colon or not key or not secret or ":" in secret:
            raise ImproperlyConfigured(
                _("KIS_APP_KEYS: pair {number} is not written as key:secret, pairs separated by commas").format(
                    number=number
                )
            )
        if key in known_keys:
            raise ImproperlyConfigured(
                _("KIS_APP_KEYS: pair {number} repeats an app key; name further keys only, not KIS_APP_KEY").format(
                    number=number
                )
            )
        known_keys.add(key)
        further_credentials.append(replace(first, app_key=key, app_secret=secret))
    return tuple(further_credentials)


def dialect() -> Dialect:
    """Return whose TR ids are sent: the broker's, or those of the AEGIS specification."""
    return Dialect(choice("KIS_TR_DIALECT", tuple(Dialect), Dialect.OFFICIAL))


def server_url(name: str, schemes: tuple[str, ...], example: str) -> str:
    """Return a server's URL, or an empty string if the variable is not set."""
    url: str = env.str(name, default="").strip()
    if url and url.partition("://")[0] not in schemes:
        # the value is not shown: it may contain a password
        raise ImproperlyConfigured(
            _("{name} is not the URL of a server: write it as {example}").format(name=name, example=example)
        )
    return url


def chats(name: str) -> list[int]:
    """Return the ids of chats: whole numbers separated by commas. A group's id is negative."""
    texts = [text.strip() for text in env.str(name, default="").split(",") if text.strip()]
    for text in texts:
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
            raise ImproperlyConfigured(
                _("{name}: {value!r} is not a chat id: write whole numbers separated by commas, as 12345678").format(
                    name=name, value=text
                )
            )
    return [int(text) for text in texts]
