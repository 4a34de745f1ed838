"""Play a day with planted secrets, then search for them wherever they could leak: `make secrets-check`.

The secrets are the planted ones, and the access token issued meanwhile, which may only be under its own key in Redis.
The search covers every page of the desk and its error pages, Flower, `/metrics` and `/readyz`, all that the processes
log at level DEBUG, every table, and all of Redis with the tasks and their arguments. Exit code 1 if a secret is found.
"""

import json
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from psycopg import sql

from tests.desk.botapi import TOKEN, FakeTelegram, serve

PLANTED = {
    "KIS_APP_KEY": "planted-app-key-7c1f",
    "KIS_APP_SECRET": "planted-app-secret-93ab",
    "KIS_APP_KEYS": "planted-further-key-2d88:planted-further-secret-6e02",
    "AEGIS_HEARTBEAT_URL": "http://127.0.0.1:1/ping/planted-ping-9b3c",
    "AEGIS_SECRET_KEY": "planted-django-key-0123456789-0123456789-0123456789-0123",
    "AEGIS_METRICS_TOKEN": "planted-metrics-token-55d0",
    "AEGIS_TELEGRAM_TOKEN": TOKEN,
    "AEGIS_NOTIFY_URLS": "json://planted-user:planted-word-e41c@127.0.0.1:1/",
}
# the secret parts of the addresses above
PARTS = ("planted-word-e41c", "planted-further-key-2d88", "planted-further-secret-6e02", "planted-ping-9b3c")
CHAT = 4711
FLOWER_PASSWORD = "planted-flower-word-88"
PAGES_PER_TABLE = 3
ISSUED = "the access token issued"

Text = tuple[str, str]
"""The name of a place, and its text."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="aegis-secrets-") as directory, serve() as telegram:
        _set_environment(Path(directory), telegram)
        import django

        django.setup()
        logging.disable(logging.WARNING)  # in this process only; the processes of AEGIS log everything
        texts = list(_play_and_collect(Path(directory), telegram))
    issued = {place: text for place, text in texts if place == ISSUED}[ISSUED]
    leaks = [(place, name) for place, text in texts if place != ISSUED for name in _secrets_in(text, issued)]
    for place, name in leaks:
        print(f"FOUND {name} in {place}")
    size = sum(len(text) for _where, text in texts)
    print(f"SECRETS {'FOUND ' + str(len(leaks)) if leaks else 'NOWHERE'} places={len(texts)} letters={size:,}")
    return 1 if leaks else 0


def _set_environment(home: Path, telegram: FakeTelegram) -> None:
    for name in [
        name for name in os.environ if name.startswith(("KIS_", "AEGIS_")) or name.endswith(("BASE_URL", "REDIS_URL"))
    ]:
        del os.environ[name]
    ports = iter(_free_ports(3))
    os.environ |= PLANTED | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "AEGIS_ENV_FILE": os.devnull,
        "AEGIS_HOME": str(home),
        "AEGIS_LOG_LEVEL": "DEBUG",
        "AEGIS_TELEGRAM_URL": telegram.url,
        "AEGIS_TELEGRAM_CHATS": str(CHAT),
        **{f"AEGIS_{name}_PORT": str(next(ports)) for name in ("WEB", "FLOWER", "SIMULATOR")},
    }
    (home / "flower_password").write_text(FLOWER_PASSWORD, encoding="ascii")


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    numbers = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return numbers


def _secrets_in(text: str, issued: str) -> list[str]:
    values = [*PLANTED.items(), *((part, part) for part in PARTS), ("FLOWER_PASSWORD", FLOWER_PASSWORD)]
    values.append((ISSUED, issued))
    return [name for name, value in values if value in text]


def _play_and_collect(home: Path, telegram: FakeTelegram) -> Iterator[Text]:
    from django.conf import settings

    from ops.runtime import Runtime
    from rehearsal.scripted_day import play

    log = home / "system.log"
    supervisor_lines: list[str] = []
    with (
        log.open("w", encoding="utf-8") as output,
        Runtime(output=output, say=supervisor_lines.append, fresh_day=True) as runtime,
        (home / "demo.log").open("w", encoding="utf-8") as report,
    ):
        runtime.wait_until_ready()
        verdict = play(settings.KIS_ENVIRONMENT.rest_url, report)
        if verdict.differences:
            raise RuntimeError(str(verdict))
        yield from _telegram_replies(telegram)
        yield from _pages()
        yield from _flower()
        yield from _tables()
        yield from _redis()
    yield from ((f"supervisor output, line {number}", line) for number, line in enumerate(supervisor_lines))
    yield "the processes' logs", log.read_text(encoding="utf-8", errors="replace")
    yield "the demo's report", (home / "demo.log").read_text(encoding="utf-8")


def _telegram_replies(telegram: FakeTelegram) -> Iterator[Text]:
    for line in ("/잔고", "/주문", "/체결", "/상태", "/미확인"):
        count_before = len(telegram.sent)
        telegram.write(CHAT, line)
        telegram.wait_for_sent(count_before + 1, seconds=60)
    yield "the messages to Telegram", "\n".join(message.text for message in telegram.sent)


def _pages() -> Iterator[Text]:
    """Read every page of the desk as its administrator, and an error page of each kind."""
    from django.conf import settings
    from django.contrib import admin
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.urls import reverse

    client = Client(SERVER_NAME="127.0.0.1", raise_request_exception=False)
    client.force_login(get_user_model().objects.get(username="admin"))
    urls = ["/", "/admin/", "/desk/equity", "/desk/quality", "/desk/two-factor", "/readyz", "/nowhere", "/admin/login/"]
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        urls.append(reverse(f"{name}_changelist"))
        rows = model._default_manager.order_by("-pk").values_list("pk", flat=True)[:PAGES_PER_TABLE]
        urls += [reverse(f"{name}_change", args=[pk]) for pk in rows]
    for url in urls:
        yield f"page {url}", client.get(url).content.decode("utf-8", "replace")
    with_token = {"Authorization": f"Bearer {settings.METRICS_TOKEN}"}
    yield "/metrics", client.get("/metrics", headers=with_token).content.decode()
    yield "a refused form", client.post("/admin/login/", {"username": "x", "password": "y"}).content.decode()


def _flower() -> Iterator[Text]:
    from django.conf import settings

    auth = ("admin", FLOWER_PASSWORD)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{settings.FLOWER_PORT}", auth=auth, trust_env=False, timeout=30
    ) as http:
        workers = http.get("/api/workers", params={"refresh": "1"}).raise_for_status()
        tasks = http.get("/api/tasks").raise_for_status()
        yield "Flower's workers", workers.text
        yield "Flower's tasks and their arguments", tasks.text
        for path in ("/workers", "/tasks", "/broker", *(f"/worker/{name}" for name in workers.json())):
            yield f"Flower {path}", http.get(path).text
        for task in list(tasks.json())[:20]:
            yield f"Flower's task {task}", http.get(f"/task/{task}").text
        if len(tasks.json()) < 5:
            raise RuntimeError("Flower has almost no tasks: their arguments were not checked")


def _tables() -> Iterator[Text]:
    from django.db import connection

    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            yield f"table {table}", "\n".join(str(row) for (row,) in cursor.fetchall())


def _redis() -> Iterator[Text]:
    from django.conf import settings

    from kis.auth import store_key
    from kis.factory import store

    token_key = store_key(settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS, "token").encode()
    token_json = store().get(token_key)
    if token_json is None:
        raise RuntimeError("no token is in Redis: the broker was not called")
    yield ISSUED, json.loads(token_json)["value"]
    readers: dict[str, Callable[[bytes], Any]] = {
        "string": store().get,
        "list": lambda key: store().lrange(key, 0, -1),
        "hash": store().hgetall,
        "set": store().smembers,
        "zset": lambda key: store().zrange(key, 0, -1),
    }
    for key in store().scan_iter():
        if key == token_key:
            continue
        kind = store().type(key).decode()
        yield f"Redis {key.decode()}", f"{key!r} {readers[kind](key)!r}" if kind in readers else repr(key)


if __name__ == "__main__":
    sys.exit(main())
