"""Readers of the environment. Each names the variable it misses, and what would be right.

`.env` beside manage.py, or the file AEGIS_ENV_FILE names, is read once; what the shell already set wins.
"""

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

from kis.environment import ENVIRONMENTS, Account, Credentials, Environment, EnvironmentName

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
environ.Env.read_env(env.str("AEGIS_ENV_FILE", default=str(BASE_DIR / ".env")))

HOME = Path(env.str("AEGIS_HOME", default=str(BASE_DIR / ".aegis"))).resolve()

BROKER_VARIABLES = ("KIS_APP_KEY", "KIS_APP_SECRET", "KIS_ACCOUNT_NUMBER", "KIS_HTS_ID")
# what the simulator accepts from anybody; no broker knows them
REHEARSAL = {
    "KIS_APP_KEY": "rehearsal",
    "KIS_APP_SECRET": "rehearsal",
    "KIS_ACCOUNT_NUMBER": "50000000-01",
    "KIS_HTS_ID": "rehearsal",
}


def percent(name: str) -> Decimal | None:
    """Return a rate in percent, None where the variable is not set or empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal(-1)
    if not 0 <= rate < 100:
        raise ImproperlyConfigured(f"{name}={text!r} is not a rate: write percent, as 0.0140527")
    return rate


def broker_environment() -> Environment:
    """Return the broker that `KIS_ENV` names, at the simulator's own address in a rehearsal."""
    name = env.str("KIS_ENV", default="sim")
    try:
        environment = ENVIRONMENTS[EnvironmentName(name)]
    except ValueError:
        raise ImproperlyConfigured(f"KIS_ENV={name!r} is unknown: use sim, paper or live") from None
    if environment.name is EnvironmentName.SIM:
        port = env.int("AEGIS_SIMULATOR_PORT", default=9443)
        return environment.at(env.str("AEGIS_SIMULATOR_URL", default=f"http://127.0.0.1:{port}"))
    return environment


def credentials(environment: Environment) -> Credentials:
    """Return the account to trade on. Paper and live name every variable that is missing, at once."""
    defaults = REHEARSAL if environment.name is EnvironmentName.SIM else {}
    values = {name: os.environ.get(name, "").strip() or defaults.get(name, "") for name in BROKER_VARIABLES}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise ImproperlyConfigured(
            f"KIS_ENV={environment.name} needs {', '.join(missing)}: set them in .env or in the environment "
            f"(.env.example shows how), or leave KIS_ENV unset to rehearse on the simulator"
        )
    try:
        account = Account.parse(values["KIS_ACCOUNT_NUMBER"])
    except ValueError as error:
        raise ImproperlyConfigured(f"KIS_ACCOUNT_NUMBER: {error}") from None
    return Credentials(values["KIS_APP_KEY"], values["KIS_APP_SECRET"], account, values["KIS_HTS_ID"])
