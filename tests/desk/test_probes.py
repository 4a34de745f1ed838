"""The doors for machines, the figures behind them, and what watches those figures."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis
import yaml
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from aegis.sessions import KST
from config.env import BASE_DIR
from infra import heartbeat
from kis import factory, status
from kis.catalogue import CallPriority
from kis.status import KeyStatus, SocketState, StreamStatus
from monitor import health, metrics
from notify.models import Alarm, Message
from orders.models import RawNotice, Reconciliation, TradeOrder
from portfolio.models import AccountSnapshot

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=KST)
MONITORING = BASE_DIR / "docs" / "monitoring"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_redis(store: redis.Redis) -> Iterator[None]:
    factory.reset()
    yield
    factory.reset()


@pytest.fixture
def well(clock_at: Callable[[str], datetime], store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything at work, but for the workers: who consumes is told by hand."""
    clock_at("2026-11-23 10:00:00")
    for name in ("beat", "notifier"):
        heartbeat.beat(store, factory.stream_key(f"pulse:{name}"))
    tell_socket(store)
    Reconciliation.objects.create(at=NOW, outcome="WHOLE", seen=3)
    AccountSnapshot.objects.create(
        timestamp=NOW, deposit=1, deposit_d1=1, deposit_d2=1, valuation=1, total_asset=1, net_profit_today=0
    )
    monkeypatch.setattr(health.consumers, "queues", lambda: frozenset(health.QUEUES))


def tell_socket(store: redis.Redis, **words: Any) -> None:
    usual = {
        "state": SocketState.CONNECTED,
        "state_seconds": 5.0,
        "has_own_fills": True,
        "frames": 12,
        "frame_age": 0.5,
    }
    status.publish(store, factory.stream_key("stream"), StreamStatus(**{**usual, **words}))


def wrong(now: datetime = NOW) -> set[str]:
    return {check.name for check in health.check(now) if not check.ok}


@pytest.mark.usefixtures("well")
def test_a_desk_that_works_is_ready(client: Client) -> None:
    assert wrong() == set()
    assert client.get("/readyz").status_code == 200
    assert client.get("/healthz").content == b"ok\n"


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("state", [SocketState.LOST, SocketState.CONNECTING])
def test_a_socket_that_is_down_is_not_ready(state: SocketState, client: Client, store: redis.Redis) -> None:
    tell_socket(store, state=state, lost_reason="the line was cut")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "the line was cut" in answer.json()["checks"]["socket"]


@pytest.mark.usefixtures("well")
def test_an_app_key_without_a_socket_is_named_by_its_number_and_leaves_the_desk_ready(
    client: Client, store: redis.Redis
) -> None:
    up = KeyStatus(1, SocketState.CONNECTED, None, 41, has_own_fills=True)
    down = KeyStatus(2, SocketState.LOST, 70.0, 0, reason="the app key is in use by another session")
    tell_socket(store, keys=(up, down))
    (check,) = [check for check in health.check(NOW) if not check.ok]
    assert check.name == "keys"
    assert "2: the app key is in use" in check.text
    assert client.get("/readyz").status_code == 200
    tell_socket(store, keys=(up,))
    assert wrong() == set()


@pytest.mark.usefixtures("well")
def test_a_socket_without_our_fills_is_not_well(store: redis.Redis) -> None:
    tell_socket(store, has_own_fills=False, refused={"H0STCNI0:id": "OPSP0017"})
    assert wrong() == {"socket"}


@pytest.mark.usefixtures("well")
def test_a_holding_whose_feed_found_no_room_is_told_and_keeps_nobody_from_trading(
    client: Client, store: redis.Redis
) -> None:
    tell_socket(store, left_out=("H0STCNT0:005930", "H0STCNT0:000660"), missing_vital=("H0STCNT0:005930",))
    answer = client.get("/readyz")
    assert (wrong(), answer.status_code) == ({"feeds"}, 200)
    assert "H0STCNT0:005930" in answer.json()["checks"]["feeds"]
    assert "000660" not in answer.json()["checks"]["feeds"]


@pytest.mark.usefixtures("well")
def test_each_silence_is_noticed_at_its_own_time(store: redis.Redis) -> None:
    assert wrong(NOW + timedelta(seconds=170)) == set()
    assert wrong(NOW + timedelta(seconds=200)) == {"reconciliation", "balance"}
    evening = NOW.replace(hour=21)
    assert wrong(evening) == {"balance"}
    store.delete(factory.stream_key("pulse:beat"))
    assert wrong() == {"beat"}


@pytest.mark.usefixtures("well")
def test_a_line_of_the_list_that_nobody_can_read_is_told_and_keeps_nobody_from_trading(client: Client) -> None:
    Reconciliation.objects.create(at=NOW, outcome="PARTLY", seen=2, error="order 0000099999: ord_dvsn_cd '51'")
    answer = client.get("/readyz")
    assert (wrong(), answer.status_code) == ({"unread"}, 200)
    assert "0000099999" in answer.json()["checks"]["unread"]


@pytest.mark.usefixtures("well")
def test_a_queue_nobody_consumes_is_named(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setattr(health.consumers, "queues", lambda: frozenset({"orders", "sync", "stream"}))
    assert "notify" in client.get("/readyz").json()["checks"]["queues"]


@pytest.mark.usefixtures("well")
def test_tasks_that_pile_up_and_messages_nobody_takes_are_noticed(store: redis.Redis) -> None:
    store.rpush("aegis:sim:orders", *range(health.DEPTH + 1))
    Message.objects.create(event="a", channel="telegram:1", kind="FILL", text="a", at=NOW - timedelta(minutes=11))
    assert wrong() == {"depth", "untold"}


@pytest.mark.usefixtures("well")
def test_without_redis_it_is_said_of_each_part_and_quickly(
    client: Client, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.REDIS_CLIENT = lambda: redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=1)
    factory.reset()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    failed = {name for name, text in answer.json()["checks"].items() if text != "ok"}
    assert failed >= {"redis", "socket", "beat", "notifier", "depth"}
    assert 'aegis_up{part="redis"} 0.0' in client.get("/metrics").content.decode()


def test_strangers_learn_nothing_but_whether_we_are_up(client: Client, well: None, settings: Any) -> None:
    for forwarded in ({"REMOTE_ADDR": "203.0.113.9"}, {"HTTP_X_FORWARDED_FOR": "203.0.113.9"}):
        assert client.get("/metrics", **forwarded).status_code == 403
        assert client.get("/readyz", **forwarded).json() == {"ready": True}
    settings.METRICS_TOKEN = "the right word"
    assert client.get("/metrics").status_code == 403
    far = {"REMOTE_ADDR": "203.0.113.9"}
    assert client.get("/metrics", headers={"Authorization": "Bearer the wrong word"}, **far).status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer the right word"}, **far).status_code == 200


def test_the_workers_themselves_say_what_they_consume(
    workers: Any, well: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    workers.start("orders", "sync")
    health.consumers.clear()
    assert health.consumers.queues() == {"orders", "sync"}
    health.consumers.clear()


def figures(now: datetime = NOW) -> dict[str, float]:
    """Return what a scrape reads: each figure by its name and labels."""
    text = metrics.prometheus_text(now).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len({(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples}) == len(samples)
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for sample in samples
    }


def an_order(**words: Any) -> TradeOrder:
    usual = {
        "request_id": f"r{TradeOrder.objects.count()}", "stock_code": "005930", "order_type": "BUY", "market": "KRX",
        "order_kind": "00", "qty": 10, "price": 70_000, "status": "PENDING", "status_at": NOW, "created_at": NOW,
        "order_date": NOW.date(), "sent_at": NOW, "accepted_at": NOW + timedelta(milliseconds=60),
    }  # fmt: skip
    return TradeOrder.objects.create(**{**usual, **words})


@pytest.mark.usefixtures("well")
def test_times_are_counted_into_their_buckets() -> None:
    for ms in (1.0, 8.0, 8.0, 300.0):
        RawNotice.objects.create(
            received_at=NOW, kind="FILLED", order_date=NOW.date(), order_no="1", state="APPLIED", committed_ms=ms
        )
    RawNotice.objects.create(received_at=NOW, kind="FILLED", order_date=NOW.date(), order_no="1", state="FOREIGN")
    an_order()
    an_order(status="UNKNOWN", accepted_at=None)
    seen = figures()
    assert seen["aegis_fill_commit_seconds_bucket le=0.002"] == 1
    assert seen["aegis_fill_commit_seconds_bucket le=0.01"] == 3
    assert seen["aegis_fill_commit_seconds_bucket le=+Inf"] == seen["aegis_fill_commit_seconds_count"] == 4
    assert seen["aegis_fill_commit_seconds_sum"] == pytest.approx(0.317)
    assert seen["aegis_order_post_seconds_bucket le=0.05"] == 0
    assert seen["aegis_order_post_seconds_bucket le=0.1"] == 1
    assert seen["aegis_orders status=unknown"] == 1
    assert seen["aegis_notices state=foreign"] == 1


@pytest.mark.usefixtures("well")
def test_the_day_before_is_another_days_figure() -> None:
    yesterday = NOW - timedelta(days=1)
    RawNotice.objects.create(
        received_at=yesterday, kind="FILLED", order_date=yesterday.date(), order_no="1", state="APPLIED", committed_ms=1
    )
    Reconciliation.objects.create(at=yesterday, outcome="WHOLE", corrected=5)
    seen = figures()
    assert seen["aegis_fill_commit_seconds_count"] == 0
    assert seen["aegis_corrections_total what=corrected"] == 0


@pytest.mark.usefixtures("well")
def test_the_allowance_of_all_processes_is_told() -> None:
    _name, throttle, _limit = metrics.throttles()[0]
    with throttle.slot(CallPriority.ORDER, deadline_seconds=1):
        seen = figures()
        assert seen["aegis_throttle_used allowance=key"] == 1
    throttle.slow_down()
    seen = figures()
    assert seen["aegis_throttle_calls_total allowance=key what=granted"] == 1
    assert seen["aegis_throttle_calls_total allowance=key what=refused"] == 1


def test_the_allowance_told_is_the_one_that_is_used(broker: Any, db: None) -> None:
    broker.quote("005930", "KRX")
    calls = "aegis_throttle_calls_total allowance={} what=granted"
    before = figures()
    broker.orders(NOW.date(), NOW.date())
    after = figures()
    assert after[calls.format("key")] > before[calls.format("key")] > 0
    assert after[calls.format("ledger")] > before[calls.format("ledger")]


@pytest.mark.usefixtures("well")
def test_the_socket_is_told_with_its_drift(store: redis.Redis) -> None:
    tell_socket(store, connections=4, drift={"H0STCNT0/48": 7}, job_failures={"candles": 2})
    seen = figures()
    assert seen["aegis_socket_connections_total"] == 4
    assert seen["aegis_wire_drift_total feed=H0STCNT0/48"] == 7
    assert seen["aegis_socket state=connected"] == 1
    assert seen["aegis_socket state=lost"] == 0


# figures that only show where something happened
RARE = {"aegis_alarm", "aegis_messages_waiting", "aegis_wire_drift_total", "aegis_chore_failures_total"}


def watched() -> dict[str, str]:
    """Return every expression of the alert rules and the dashboard, by where it stands."""
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    panels = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    told = {f"alert {rule['alert']}": rule["expr"] for rule in rules}
    return told | {f"panel {panel['title']} {t['refId']}": t["expr"] for panel in panels for t in panel["targets"]}


@pytest.mark.usefixtures("well")
def test_what_is_watched_is_told() -> None:
    Alarm.objects.create(name="socket", since=NOW, text="x", is_reported=True)
    samples = figures()
    names = {key.split()[0] for key in samples} | RARE
    for where, expression in watched().items():
        assert expression.count("(") == expression.count(")"), where
        used = set(re.findall(r"\baegis_\w+", expression))
        assert used or "up{" in expression, where
        assert used <= names, f"{where}: {used - names}"


@pytest.mark.usefixtures("well")
def test_labels_that_are_watched_are_told() -> None:
    told = " ".join(figures())
    for where, expression in watched().items():
        for label, value in re.findall(r'(\w+)=~?"([^"]+)"', expression):
            if label != "job":
                assert all(f" {label}={each}" in told for each in value.split("|")), where


def test_every_alert_has_its_page() -> None:
    pages = (BASE_DIR / "docs" / "operations.md").read_text(encoding="utf-8")
    heads = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in pages.splitlines()
        if line.startswith("#")
    }
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in rules:
        assert rule["annotations"]["page"].split("#")[1] in heads, rule["alert"]
    for name, _look, _patience in health.CHECKS:
        assert f"`{name}`" in pages, name
