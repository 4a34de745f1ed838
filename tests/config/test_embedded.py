"""Servers of our own: started, found again, and none the worse for a kill -9."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from config.env import HOME
from ops import embedded
from ops.embedded import CannotStart, Postgres, Redis


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    home = HOME / "embedded servers"  # the space is meant
    shutil.rmtree(home, ignore_errors=True)
    yield home
    for server in (Postgres(home), Redis(home)):
        server.stop()
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(embedded.socket_dir(home), ignore_errors=True)


@pytest.fixture
def postgres(home: Path) -> Postgres:
    server = Postgres(home)
    server.start()
    return server


@pytest.fixture
def redis_at_home(home: Path) -> Redis:
    server = Redis(home)
    server.start()
    return server


def connect(home: Path, database: str = "aegis_sim") -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(
        host=str(embedded.socket_dir(home) / "pg"), user=embedded.ROLE, dbname=database, autocommit=True
    )


def client(home: Path) -> redis.Redis:
    return redis.Redis.from_url(embedded.redis_url(home))


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_runs_is_adopted(postgres: Postgres, redis_at_home: Redis, home: Path) -> None:
    for server, twin in ((postgres, Postgres(home)), (redis_at_home, Redis(home))):
        before = server.pid()
        twin.start()
        assert twin.pid() == before


def test_a_committed_row_survives_kill_9(postgres: Postgres, home: Path) -> None:
    postgres.create_database("aegis_sim")
    postgres.create_database("aegis_sim")
    with connect(home) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('committed')")
    kill(postgres.pid())
    postgres.start()
    with connect(home) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("committed",)]


def test_an_acknowledged_key_survives_kill_9(redis_at_home: Redis, home: Path) -> None:
    with client(home) as store:
        store.set("word", "acknowledged")
    kill(redis_at_home.pid())
    redis_at_home.start()
    with client(home) as store:
        assert store.get("word") == b"acknowledged"


def test_redis_would_rather_refuse_than_forget(redis_at_home: Redis, home: Path) -> None:
    with client(home) as store:
        assert store.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_a_pid_file_that_names_a_stranger_is_no_server(postgres: Postgres) -> None:
    postgres.stop()
    (postgres.data / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.data}\n", encoding="ascii")
    assert postgres.pid() is None
    postgres.start()
    assert postgres.pid() not in (None, os.getpid())


def test_a_server_whose_directory_was_taken_away_gives_way(redis_at_home: Redis, postgres: Postgres) -> None:
    for server in (redis_at_home, postgres):
        orphan = server.pid()
        shutil.rmtree(server.data)
        server.start()
        assert server.pid() not in (None, orphan)


def test_a_server_whose_socket_was_cleaned_away_is_started_again(postgres: Postgres, redis_at_home: Redis) -> None:
    for server in (postgres, redis_at_home):
        server.socket.unlink()
        assert not server.is_up()
        server.start()
        assert server.is_up()


def test_only_sockets_of_our_own_are_listened_on(postgres: Postgres, redis_at_home: Redis, home: Path) -> None:
    for server in (postgres, redis_at_home):
        process = psutil.Process(server.pid())
        assert [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN] == []
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(embedded.socket_dir(home).stat().st_mode) in (0o700, 0o711)


def test_a_stopped_server_is_gone_and_another_stop_is_nothing(postgres: Postgres, redis_at_home: Redis) -> None:
    for server in (postgres, redis_at_home):
        server.stop()
        server.stop()
        assert server.pid() is None


def test_text_is_utf8_and_sorted_alike_on_every_machine(postgres: Postgres, home: Path) -> None:
    postgres.create_database("aegis_sim")
    with connect(home) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        names = connection.execute("SELECT word FROM (VALUES ('하'), ('가'), ('A')) AS t(word) ORDER BY 1").fetchall()
    assert [name for (name,) in names] == ["A", "가", "하"]


def test_a_database_of_another_version_is_not_touched(home: Path, postgres: Postgres) -> None:
    postgres.stop()
    version = postgres.data / "PG_VERSION"
    version.write_text("17\n", encoding="ascii")
    with pytest.raises(CannotStart, match="17"):
        postgres.start()
    version.write_text("18\n", encoding="ascii")


def test_a_socket_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ours = embedded.socket_dir(tmp_path)
    ours.symlink_to(elsewhere)
    try:
        with pytest.raises(CannotStart, match="AEGIS_HOME"):
            Redis(tmp_path).start()
    finally:
        ours.unlink()


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    assert embedded.secret_key(tmp_path) == embedded.secret_key(tmp_path)
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends the server to another user")
def test_root_says_which_directories_it_made_passable(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700, parents=True)
    said: list[str] = []
    server = Postgres(closed / "inner", say=said.append)
    try:
        server.start()
        assert any(str(closed) in line for line in said)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o701
        assert psutil.Process(server.pid()).uids().real != 0
    finally:
        server.stop()
        shutil.rmtree(embedded.socket_dir(closed / "inner"), ignore_errors=True)


def test_the_servers_outlive_whoever_started_them(home: Path) -> None:
    script = (
        "import os, signal; from pathlib import Path; from django.conf import settings; settings.configure();"
        "from ops.embedded import Redis;"
        f"Redis(Path({str(home)!r})).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    Redis(home).stop()
    subprocess.run([sys.executable, "-c", script], check=False)
    assert Redis(home).pid() is not None
