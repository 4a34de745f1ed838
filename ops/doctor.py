"""Everything that can be set wrongly, examined one by one, each with how to mend it.

An examination returns findings; it never stops the next. Settings that cannot be read at all stop every command, this
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
SKEW_SECONDS, GREAT_SKEW_SECONDS = 2.0, 30.0
# the broker's documents; UNVERIFIED: that no key of another length was ever given out
KEY_LETTERS, SECRET_LETTERS = 36, 180
SHARES = "01"
FREE_BYTES = 2 * 2**30


class Severity(StrEnum):
    """How bad it is. Only ERROR keeps AEGIS from its work."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one examination found, and what to do about it."""

    topic: str
    grade: Severity
    text: str
    mend: str = ""


def _well(topic: str, text: str) -> CheckResult:
    return CheckResult(topic, Severity.OK, text)


def examine(*, offline: bool = False) -> Iterator[CheckResult]:
    """Yield every finding. `offline` asks neither the broker nor Telegram."""
    for look in LOCAL if offline else (*LOCAL, *DISTANT):
        yield from look()


# --- this machine -------------------------------------------------------------------------------


def python() -> Iterator[CheckResult]:
    version = platform.python_version()
    if sys.version_info < PYTHON:
        yield CheckResult(
            "python", Severity.ERROR, version, _("install Python 3.11 or newer, remove .venv, run make setup")
        )
    elif sys.prefix == sys.base_prefix:
        words = _("{version}, outside of .venv: other versions of the packages may be used")
        yield CheckResult("python", Severity.WARN, words.format(version=version), _("use .venv/bin/python, or make"))
    else:
        yield _well("python", version)


def variables() -> Iterator[CheckResult]:
    """Look for names that nobody reads: a slip of a letter, and a setting is silently the default."""
    known = {line.lstrip("#").partition("=")[0].strip() for line in _lines(BASE_DIR / ".env.example") if "=" in line}
    given = {line.partition("=")[0].removeprefix("export ").strip() for line in _lines(ENV_FILE) if "=" in line}
    given |= {name for name in os.environ if name.startswith(("KIS_", "AEGIS_"))}
    set_by_us = {clock.VARIABLE}
    strange = sorted(name for name in given - known - set_by_us if name.startswith(("KIS_", "AEGIS_")))
    for name in strange:
        near = get_close_matches(name, known, 1)
        mend = _("is it {name}?").format(name=near[0]) if near else _("see .env.example")
        yield CheckResult("variables", Severity.WARN, _("nobody reads {name}").format(name=name), mend)
    if not strange:
        yield _well("variables", _("{count} are set").format(count=len(given & known)))


def env_file() -> Iterator[CheckResult]:
    if not ENV_FILE.is_file():
        words = _("there is no {path}: everything is at its default")
        yield CheckResult("env file", Severity.NOTE, words.format(path=ENV_FILE), _("cp .env.example .env"))
    elif ENV_FILE.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield CheckResult(
            "env file", Severity.WARN, _("others may read {path}").format(path=ENV_FILE), f"chmod 600 {ENV_FILE}"
        )
    else:
        yield _well("env file", str(ENV_FILE))


def _lines(path: Path) -> Sequence[str]:
    if not path.is_file():
        return []
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and (path != ENV_FILE or not line.startswith("#"))]


def environment() -> Iterator[CheckResult]:
    name = settings.KIS_ENVIRONMENT.name
    if name is EnvironmentName.LIVE and settings.KIS_ARMED:
        yield CheckResult("environment", Severity.NOTE, _("LIVE: orders move real money"))
    elif name is EnvironmentName.LIVE:
        words = _("live, read only: orders fail before they leave")
        yield CheckResult("environment", Severity.NOTE, words, _("AEGIS_LIVE_ORDERS=yes-real-money lets them go"))
    else:
        yield _well("environment", str(name))
    if settings.DEBUG and name is not EnvironmentName.SIM:
        yield CheckResult("environment", Severity.ERROR, "AEGIS_DEBUG", _("error pages would show settings: unset it"))


def keys() -> Iterator[CheckResult]:
    known = settings.KIS_CREDENTIALS
    if settings.KIS_ENVIRONMENT.name is EnvironmentName.SIM:
        yield _well("keys", _("a rehearsal needs none"))
        return
    lengths = {"KIS_APP_KEY": (known.app_key, KEY_LETTERS), "KIS_APP_SECRET": (known.app_secret, SECRET_LETTERS)}
    for number, further in enumerate(settings.KIS_MARKET_DATA_CREDENTIALS, start=1):
        lengths[_("the key of pair {number} in KIS_APP_KEYS").format(number=number)] = (further.app_key, KEY_LETTERS)
        name = _("the secret of pair {number} in KIS_APP_KEYS").format(number=number)
        lengths[name] = (further.app_secret, SECRET_LETTERS)
    odd = [(name, len(value), usual) for name, (value, usual) in lengths.items() if len(value) != usual]
    for name, length, usual in odd:
        words = _("{name} has {length} letters, usual are {usual}").format(name=name, length=length, usual=usual)
        yield CheckResult("keys", Severity.WARN, words, _("copy it again, whole, without quotes or spaces"))
    if known.account.product != SHARES:
        words = _("KIS_ACCOUNT_NUMBER ends in {product}; accounts for shares end in 01")
        yield CheckResult("keys", Severity.WARN, words.format(product=known.account.product), _("see the broker's app"))
    if not odd and known.account.product == SHARES:
        yield _well("keys", _("account {account}").format(account=_masked(str(known.account))))


def _masked(account: str) -> str:
    return f"{account[:2]}******{account[8:]}"


def machine() -> Iterator[CheckResult]:
    HOME.mkdir(parents=True, exist_ok=True)
    if not os.access(HOME, os.W_OK):
        yield CheckResult(
            "home", Severity.ERROR, str(HOME), _("this user cannot write there: chown it, or set AEGIS_HOME")
        )
    free = shutil.disk_usage(HOME).free
    words = _("{free:.1f} GB are free").format(free=free / 2**30)
    if free < FREE_BYTES:
        yield CheckResult("disk", Severity.WARN, words, _("make room: PostgreSQL stops when the disk is full"))
    else:
        yield _well("disk", words)
    # the machine's own zone does not matter: every process of ours keeps Korean time
    if time.strftime("%z") != "+0900":
        words = _("this process keeps {zone}, not Korean time").format(zone=time.strftime("%Z %z"))
        yield CheckResult("time zone", Severity.ERROR, words, _("install the system's tzdata"))
    else:
        yield _well("time zone", "Asia/Seoul")


def is_running() -> bool:
    """Whether AEGIS runs in this home."""
    try:
        with sole_supervisor(HOME / "run"):
            return False
    except AlreadyRunning:
        return True


def free_ports() -> Iterator[CheckResult]:
    if is_running():
        yield _well("ports", _("AEGIS runs here"))
        return
    for port in ports():
        try:
            preflight.check_port(port)
        except CannotStart as error:
            yield CheckResult("ports", Severity.ERROR, str(port.number), str(error))
        else:
            yield _well("ports", f"{port.number} {port.what}")


def database() -> Iterator[CheckResult]:
    if settings.HAS_OWN_DATABASE and not embedded.Postgres(HOME).is_up():
        yield CheckResult("database", Severity.NOTE, _("our own, not running"), _("make run starts it"))
        return
    try:
        preflight.check_database()
        preflight.check_belonging()
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
        yield _well("database", f"PostgreSQL {version // 10_000}")


def _migrations() -> Iterator[CheckResult]:
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        words = _("{count} migrations wait").format(count=len(waiting))
        yield CheckResult("migrations", Severity.WARN, words, _("make run applies them, or manage.py migrate"))
    else:
        yield _well("migrations", _("all applied"))


def shared_redis() -> Iterator[CheckResult]:
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
    about = store.info("server") | store.info("memory") | store.info("persistence")
    version = str(about["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < REDIS:
        yield CheckResult("redis", Severity.ERROR, version, _("6.2 or newer is needed"))
        return
    if about["maxmemory_policy"] != "noeviction":
        words = _("maxmemory-policy {policy}: tasks and leases may vanish").format(policy=about["maxmemory_policy"])
        yield CheckResult("redis", Severity.ERROR, words, _("set maxmemory-policy noeviction"))
    elif not about["aof_enabled"] and not settings.HAS_OWN_REDIS:
        words = _("without its AOF: tasks on their way are lost when it dies")
        yield CheckResult("redis", Severity.WARN, words, _("set appendonly yes"))
    else:
        yield _well("redis", version)


def people() -> Iterator[CheckResult]:
    if settings.TELEGRAM_TOKEN and not settings.TELEGRAM_CHATS:
        words = _("the bot has a token and nobody to talk to")
        mend = _("write to the bot, read the chat's number in its log, set AEGIS_TELEGRAM_CHATS")
        yield CheckResult("telegram", Severity.WARN, words, mend)
    elif not settings.TELEGRAM_TOKEN and not settings.NOTIFY_URLS:
        words = _("nobody is told of alarms: the admin alone shows them")
        yield CheckResult("telegram", Severity.NOTE, words, _("set AEGIS_TELEGRAM_TOKEN and AEGIS_TELEGRAM_CHATS"))
    elif bool(settings.TELEGRAM_TOKEN) + len(settings.NOTIFY_URLS) == 1:
        words = _("one channel only: if it is down too, nobody hears that stops are not guarded")
        yield CheckResult("channels", Severity.NOTE, words, _("set AEGIS_NOTIFY_URLS beside AEGIS_TELEGRAM_TOKEN"))
    if not settings.HEARTBEAT_URL and settings.KIS_ENVIRONMENT.name is not EnvironmentName.SIM:
        words = _("nobody outside notices if this machine dies")
        yield CheckResult("heartbeat", Severity.NOTE, words, _("set AEGIS_HEARTBEAT_URL"))


def at_work() -> Iterator[CheckResult]:
    """Look at what runs, where it does."""
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
            mend = _("docs/operations.md has a page for {name}").format(name=check.name)
            yield CheckResult(check.name, Severity.ERROR, check.text, mend)
    if all(check.ok for check in checks):
        yield _well("processes", _("All {count} checks are well").format(count=len(checks)))


# --- far away -----------------------------------------------------------------------------------


def broker() -> Iterator[CheckResult]:
    """Ask the broker for the time, a token, a socket key and the balance; stop at the first that fails."""
    if has_own_simulator() and not is_running():
        yield CheckResult("broker", Severity.NOTE, _("the simulator is not running"), _("make run starts it"))
        return
    try:
        yield from _skew()
    except httpx.HTTPError as error:
        words = _("{url} does not answer: {error}").format(url=settings.KIS_ENVIRONMENT.rest_url, error=repr(error))
        yield CheckResult("broker", Severity.ERROR, words, _("look at the network, a firewall, the broker's notices"))
        return
    for topic, ask in (("token", _token), ("socket key", _socket_key), ("account", _account)):
        try:
            yield _well(topic, ask())
        except BrokerError as error:
            yield CheckResult(topic, Severity.ERROR, str(error), _mend(error.code))
            return
        except redis.RedisError as error:
            yield CheckResult(topic, Severity.ERROR, str(error), _("Redis is needed for it: see above"))
            return


def _skew() -> Iterator[CheckResult]:
    began = time.time()
    response = factory.http().head(settings.KIS_ENVIRONMENT.rest_url)
    ours = (began + time.time()) / 2
    date = response.headers.get("Date")
    if date is None:
        yield CheckResult("clock", Severity.NOTE, _("the broker does not tell its time"))
        return
    # the header has whole seconds
    skew = ours - (parsedate_to_datetime(date).timestamp() + 0.5)
    words = _("{seconds:+.1f} s against the broker's").format(seconds=skew)
    if abs(skew) <= SKEW_SECONDS:
        yield _well("clock", words)
    else:
        grade = Severity.ERROR if abs(skew) > GREAT_SKEW_SECONDS else Severity.WARN
        yield CheckResult("clock", grade, words, _("let the machine keep time: timedatectl set-ntp true"))


def _token() -> str:
    tokens = auth.Tokens(settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS, factory.http(), factory.store())
    tokens.get()
    return _("the broker gives one")


def _socket_key() -> str:
    known = factory.all_keys()
    for each in known:
        auth.approval_key(settings.KIS_ENVIRONMENT, each, factory.http())
    return _("the broker gives one") if len(known) == 1 else _("the broker gives one for each app key")


def _account() -> str:
    balance = factory.broker().balance()
    return _("total asset {total:,} won").format(total=balance.total_asset)


MENDS = {
    "EGW00103": "KIS_APP_KEY",
    "EGW00105": "KIS_APP_SECRET",
    "EGW00304": "KIS_APP_SECRET",
    "EGW02004": "KIS_ENV",
    "IGW00002": "KIS_ACCOUNT_NUMBER",
    "OPSQ2000": "KIS_ACCOUNT_NUMBER",
}


def _mend(code: str) -> str:
    if code in MENDS:
        return _("correct {name} in .env; paper and live have keys and accounts of their own").format(name=MENDS[code])
    return _("see the broker's words; in the night and at weekends it may be maintenance")


def bot() -> Iterator[CheckResult]:
    if not settings.TELEGRAM_TOKEN:
        return
    try:
        yield _well("telegram", "@" + telegram.api().name())
    except TelegramError as error:
        yield CheckResult(
            "telegram", Severity.ERROR, str(error), _("correct AEGIS_TELEGRAM_TOKEN, or look at the network")
        )


Look = Callable[[], Iterator[CheckResult]]
LOCAL: Sequence[Look] = (
    python, env_file, variables, environment, keys, machine, free_ports, database, shared_redis, people, at_work,
)  # fmt: skip
DISTANT: Sequence[Look] = (broker, bot)
