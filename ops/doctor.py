"""Checks of everything that can be configured wrongly, each with how to fix it.

A check yields findings and never stops the next check. Settings that cannot be read at all stop every command, this
one too, with a sentence that names the variable.
"""

import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

import httpx
import redis
from django.conf import settings
from django.db import DatabaseError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from config.env import BASE_DIR, ENV_FILE, HOME
from infra import clock
from kis import auth, factory
from kis.environment import EnvironmentName
from monitor import health
from notify import telegram
from notify.telegram import TelegramError
from ops import embedded, preflight
from ops.embedded import CannotStart
from ops.processes import has_own_simulator, ports
from ops.supervisor import AlreadyRunning, sole_supervisor

PYTHON = (3, 11)
POSTGRES, REDIS = 140_000, (6, 2)
SKEW_SECONDS, MAX_SKEW_SECONDS = 2.0, 30.0
# lengths by the broker's documents; UNVERIFIED: that no key of another length was ever issued
KEY_LETTERS, SECRET_LETTERS = 36, 180
SHARES = "01"
FREE_BYTES = 2 * 2**30


class Severity(StrEnum):
    """How bad a finding is. Only ERROR keeps AEGIS from working."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One finding of a check, and how to fix it."""

    topic: str
    severity: Severity
    text: str
    fix: str = ""


def _ok_result(topic: str, text: str) -> CheckResult:
    return CheckResult(topic, Severity.OK, text)


def examine(*, offline: bool = False) -> Iterator[CheckResult]:
    """Yield every finding. If `offline`, neither the broker nor Telegram is asked."""
    for check in LOCAL_CHECKS if offline else (*LOCAL_CHECKS, *REMOTE_CHECKS):
        yield from check()


# --- this machine -------------------------------------------------------------------------------


def examine_python() -> Iterator[CheckResult]:
    version = platform.python_version()
    if sys.version_info < PYTHON:
        yield CheckResult(
            "python", Severity.ERROR, version, _("install Python 3.11 or newer, remove .venv, run make setup")
        )
    elif sys.prefix == sys.base_prefix:
        template = _("{version}, outside of .venv: other versions of the packages may be used")
        yield CheckResult("python", Severity.WARN, template.format(version=version), _("use .venv/bin/python, or make"))
    else:
        yield _ok_result("python", version)


def examine_variables() -> Iterator[CheckResult]:
    """Find names that AEGIS does not read: with one wrong letter, a setting silently keeps its default."""
    documented = {
        line.lstrip("#").partition("=")[0].strip() for line in _lines(BASE_DIR / ".env.example") if "=" in line
    }
    present = {line.partition("=")[0].removeprefix("export ").strip() for line in _lines(ENV_FILE) if "=" in line}
    present |= {name for name in os.environ if name.startswith(("KIS_", "AEGIS_"))}
    set_by_us = {clock.VARIABLE}
    unread = sorted(name for name in present - documented - set_by_us if name.startswith(("KIS_", "AEGIS_")))
    for name in unread:
        similar = get_close_matches(name, documented, 1)
        fix = _("is it {name}?").format(name=similar[0]) if similar else _("see .env.example")
        yield CheckResult("variables", Severity.WARN, _("AEGIS does not read {name}").format(name=name), fix)
    if not unread:
        yield _ok_result("variables", _("{count} are set").format(count=len(present & documented)))


def examine_env_file() -> Iterator[CheckResult]:
    if not ENV_FILE.is_file():
        template = _("there is no {path}: everything is at its default")
        yield CheckResult("env file", Severity.NOTE, template.format(path=ENV_FILE), _("cp .env.example .env"))
    elif ENV_FILE.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield CheckResult(
            "env file", Severity.WARN, _("others may read {path}").format(path=ENV_FILE), f"chmod 600 {ENV_FILE}"
        )
    else:
        yield _ok_result("env file", str(ENV_FILE))


def _lines(path: Path) -> Sequence[str]:
    if not path.is_file():
        return []
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and (path != ENV_FILE or not line.startswith("#"))]


def examine_environment() -> Iterator[CheckResult]:
    name = settings.KIS_ENVIRONMENT.name
    if name is EnvironmentName.LIVE and settings.KIS_ARMED:
        yield CheckResult("environment", Severity.NOTE, _("LIVE: orders move real money"))
    elif name is EnvironmentName.LIVE:
        text = _("live, read only: orders fail before they are sent")
        yield CheckResult("environment", Severity.NOTE, text, _("AEGIS_LIVE_ORDERS=yes-real-money lets orders be sent"))
    else:
        yield _ok_result("environment", str(name))
    if settings.DEBUG and name is not EnvironmentName.SIM:
        yield CheckResult("environment", Severity.ERROR, "AEGIS_DEBUG", _("error pages would show settings: unset it"))


def examine_keys() -> Iterator[CheckResult]:
    credentials = settings.KIS_CREDENTIALS
    if settings.KIS_ENVIRONMENT.name is EnvironmentName.SIM:
        yield _ok_result("keys", _("a rehearsal needs none"))
        return
    lengths = {
        "KIS_APP_KEY": (credentials.app_key, KEY_LETTERS),
        "KIS_APP_SECRET": (credentials.app_secret, SECRET_LETTERS),
    }
    for number, pair in enumerate(settings.KIS_MARKET_DATA_CREDENTIALS, start=1):
        lengths[_("the key of pair {number} in KIS_APP_KEYS").format(number=number)] = (pair.app_key, KEY_LETTERS)
        name = _("the secret of pair {number} in KIS_APP_KEYS").format(number=number)
        lengths[name] = (pair.app_secret, SECRET_LETTERS)
    unusual = [(name, len(value), usual) for name, (value, usual) in lengths.items() if len(value) != usual]
    for name, length, usual in unusual:
        text = _("{name} has {length} characters, the usual number is {usual}").format(
            name=name, length=length, usual=usual
        )
        yield CheckResult("keys", Severity.WARN, text, _("copy it again, whole, without quotes or spaces"))
    if credentials.account.product != SHARES:
        text = _("KIS_ACCOUNT_NUMBER ends in {product}; accounts for shares end in 01")
        yield CheckResult(
            "keys", Severity.WARN, text.format(product=credentials.account.product), _("see the broker's app")
        )
    if not unusual and credentials.account.product == SHARES:
        yield _ok_result("keys", _("account {account}").format(account=_masked(str(credentials.account))))


def _masked(account: str) -> str:
    return f"{account[:2]}******{account[8:]}"


def examine_machine() -> Iterator[CheckResult]:
    HOME.mkdir(parents=True, exist_ok=True)
    if not os.access(HOME, os.W_OK):
        yield CheckResult(
            "home", Severity.ERROR, str(HOME), _("this user cannot write there: chown it, or set AEGIS_HOME")
        )
    free = shutil.disk_usage(HOME).free
    text = _("{free:.1f} GB are free").format(free=free / 2**30)
    if free < FREE_BYTES:
        yield CheckResult("disk", Severity.WARN, text, _("make room: PostgreSQL stops when the disk is full"))
    else:
        yield _ok_result("disk", text)
    # the machine's time zone does not matter: every process of AEGIS uses Korean time
    if time.strftime("%z") != "+0900":
        text = _("this process keeps {zone}, not Korean time").format(zone=time.strftime("%Z %z"))
        yield CheckResult("time zone", Severity.ERROR, text, _("install the system's tzdata"))
    else:
        yield _ok_result("time zone", "Asia/Seoul")


def is_running() -> bool:
    """Whether AEGIS runs in this home."""
    try:
        with sole_supervisor(HOME / "run"):
            return False
    except AlreadyRunning:
        return True


def examine_ports() -> Iterator[CheckResult]:
    if is_running():
        yield _ok_result("ports", _("AEGIS runs here"))
        return
    for port in ports():
        try:
            preflight.check_port(port)
        except CannotStart as error:
            yield CheckResult("ports", Severity.ERROR, str(port.number), str(error))
        else:
            yield _ok_result("ports", f"{port.number} {port.what}")


def examine_database() -> Iterator[CheckResult]:
    if settings.HAS_OWN_DATABASE and not embedded.Postgres(HOME).is_up():
        yield CheckResult("database", Severity.NOTE, _("our own, not running"), _("make run starts it"))
        return
    try:
        preflight.check_database()
        preflight.check_installation()
        yield from _server()
        yield from _migrations()
    except (CannotStart, DatabaseError) as error:
        yield CheckResult("database", Severity.ERROR, _("not usable"), str(error))


def _server() -> Iterator[CheckResult]:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        version = int(cursor.fetchone()[0])
        cursor.execute("SHOW server_encoding")
        encoding = cursor.fetchone()[0]
    if version < POSTGRES:
        yield CheckResult("database", Severity.ERROR, f"PostgreSQL {version // 10_000}", _("14 or newer is needed"))
    elif encoding != "UTF8":
        yield CheckResult("database", Severity.ERROR, str(encoding), _("make the database with ENCODING 'UTF8'"))
    else:
        yield _ok_result("database", f"PostgreSQL {version // 10_000}")


def _migrations() -> Iterator[CheckResult]:
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        text = _("{count} migrations are not applied").format(count=len(waiting))
        yield CheckResult("migrations", Severity.WARN, text, _("make run applies them, or manage.py migrate"))
    else:
        yield _ok_result("migrations", _("all applied"))


def examine_redis() -> Iterator[CheckResult]:
    if settings.HAS_OWN_REDIS and not embedded.Redis(HOME).is_up():
        yield CheckResult("redis", Severity.NOTE, _("our own, not running"), _("make run starts it"))
        return
    try:
        preflight.check_redis()
        with settings.REDIS_CLIENT() as store:
            yield from _redis_settings(store)
    except (CannotStart, redis.RedisError) as error:
        yield CheckResult("redis", Severity.ERROR, _("not usable"), str(error))


def _redis_settings(store: "redis.Redis") -> Iterator[CheckResult]:
    info = store.info("server") | store.info("memory") | store.info("persistence")
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < REDIS:
        yield CheckResult("redis", Severity.ERROR, version, _("6.2 or newer is needed"))
        return
    if info["maxmemory_policy"] != "noeviction":
        text = _("maxmemory-policy {policy}: tasks and leases may vanish").format(policy=info["maxmemory_policy"])
        yield CheckResult("redis", Severity.ERROR, text, _("set maxmemory-policy noeviction"))
    elif not info["aof_enabled"] and not settings.HAS_OWN_REDIS:
        text = _("without its AOF: tasks on their way are lost when it dies")
        yield CheckResult("redis", Severity.WARN, text, _("set appendonly yes"))
    else:
        yield _ok_result("redis", version)


def examine_channels() -> Iterator[CheckResult]:
    if settings.TELEGRAM_TOKEN and not settings.TELEGRAM_CHATS:
        text = _("the bot has a token but no chat")
        fix = _("write to the bot, read the chat's number in its log, set AEGIS_TELEGRAM_CHATS")
        yield CheckResult("telegram", Severity.WARN, text, fix)
    elif not settings.TELEGRAM_TOKEN and not settings.NOTIFY_URLS:
        text = _("alarms are not sent to any channel: only the admin shows them")
        yield CheckResult("telegram", Severity.NOTE, text, _("set AEGIS_TELEGRAM_TOKEN and AEGIS_TELEGRAM_CHATS"))
    elif bool(settings.TELEGRAM_TOKEN) + len(settings.NOTIFY_URLS) == 1:
        text = _("only one channel: if it is down too, no alert says that stops are not watched")
        yield CheckResult("channels", Severity.NOTE, text, _("set AEGIS_NOTIFY_URLS beside AEGIS_TELEGRAM_TOKEN"))
    if not settings.HEARTBEAT_URL and settings.KIS_ENVIRONMENT.name is not EnvironmentName.SIM:
        text = _("no outside service notices if this machine dies")
        yield CheckResult("heartbeat", Severity.NOTE, text, _("set AEGIS_HEARTBEAT_URL"))


def examine_processes() -> Iterator[CheckResult]:
    """Run the health checks, if AEGIS runs."""
    if not is_running() and settings.HAS_OWN_DATABASE:
        yield CheckResult("processes", Severity.NOTE, _("AEGIS does not run in this home"), "make run")
        return
    try:
        checks = health.check(clock.now())
    except OperationalError as error:
        yield CheckResult("processes", Severity.ERROR, _("not usable"), str(error))
        return
    for check in checks:
        if not check.ok:
            fix = _("docs/operations.md has a page for {name}").format(name=check.name)
            yield CheckResult(check.name, Severity.ERROR, check.text, fix)
    if all(check.ok for check in checks):
        yield _ok_result("processes", _("All {count} checks are well").format(count=len(checks)))


# --- the broker and Telegram --------------------------------------------------------------------


def examine_broker() -> Iterator[CheckResult]:
    """Ask the broker for the time, a token, an approval key and the balance; stop at the first that fails."""
    if has_own_simulator() and not is_running():
        yield CheckResult("broker", Severity.NOTE, _("the simulator is not running"), _("make run starts it"))
        return
    try:
        yield from _skew()
    except httpx.HTTPError as error:
        text = _("{url} does not answer: {error}").format(url=settings.KIS_ENVIRONMENT.rest_url, error=repr(error))
        yield CheckResult("broker", Severity.ERROR, text, _("look at the network, a firewall, the broker's notices"))
        return
    for topic, request in (("token", _token), ("socket key", _socket_key), ("account", _account)):
        try:
            yield _ok_result(topic, request())
        except BrokerError as error:
            yield CheckResult(topic, Severity.ERROR, str(error), _fix_of(error.code))
            return
        except redis.RedisError as error:
            yield CheckResult(topic, Severity.ERROR, str(error), _("Redis is needed for it: see above"))
            return


def _skew() -> Iterator[CheckResult]:
    started_at = time.time()
    response = factory.http().head(settings.KIS_ENVIRONMENT.rest_url)
    our_time = (started_at + time.time()) / 2
    date_header = response.headers.get("Date")
    if date_header is None:
        yield CheckResult("clock", Severity.NOTE, _("the broker does not report its time"))
        return
    # the header has whole seconds
    skew = our_time - (parsedate_to_datetime(date_header).timestamp() + 0.5)
    text = _("{seconds:+.1f} s against the broker's").format(seconds=skew)
    if abs(skew) <= SKEW_SECONDS:
        yield _ok_result("clock", text)
    else:
        severity = Severity.ERROR if abs(skew) > MAX_SKEW_SECONDS else Severity.WARN
        yield CheckResult("clock", severity, text, _("let the machine keep time: timedatectl set-ntp true"))


def _token() -> str:
    tokens = auth.Tokens(settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS, factory.http(), factory.store())
    tokens.get()
    return _("the broker gives one")


def _socket_key() -> str:
    app_keys = factory.all_keys()
    for app_key in app_keys:
        auth.approval_key(settings.KIS_ENVIRONMENT, app_key, factory.http())
    return _("the broker gives one") if len(app_keys) == 1 else _("the broker gives one for each app key")


def _account() -> str:
    balance = factory.broker().balance()
    return _("total asset {total:,} won").format(total=balance.total_asset)


VARIABLE_BY_CODE = {
    "EGW00103": "KIS_APP_KEY",
    "EGW00105": "KIS_APP_SECRET",
    "EGW00304": "KIS_APP_SECRET",
    "EGW02004": "KIS_ENV",
    "IGW00002": "KIS_ACCOUNT_NUMBER",
    "OPSQ2000": "KIS_ACCOUNT_NUMBER",
}


def _fix_of(code: str) -> str:
    if code in VARIABLE_BY_CODE:
        return _("correct {name} in .env; paper and live have keys and accounts of their own").format(
            name=VARIABLE_BY_CODE[code]
        )
    return _("see the broker's message; at night and at weekends it may be maintenance")


def examine_bot() -> Iterator[CheckResult]:
    if not settings.TELEGRAM_TOKEN:
        return
    try:
        yield _ok_result("telegram", "@" + telegram.api().name())
    except TelegramError as error:
        yield CheckResult(
            "telegram", Severity.ERROR, str(error), _("correct AEGIS_TELEGRAM_TOKEN, or look at the network")
        )


DoctorCheck = Callable[[], Iterator[CheckResult]]
LOCAL_CHECKS: Sequence[DoctorCheck] = (
    examine_python,
    examine_env_file,
    examine_variables,
    examine_environment,
    examine_keys,
    examine_machine,
    examine_ports,
    examine_database,
    examine_redis,
    examine_channels,
    examine_processes,
)
REMOTE_CHECKS: Sequence[DoctorCheck] = (examine_broker, examine_bot)
