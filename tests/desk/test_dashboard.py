"""The page: what it shows, in which words, from how many queries, and what it may load."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser

import pytest
import redis
from django.contrib.staticfiles import finders
from django.db import connection
from django.template.loader import render_to_string
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from aegis.trading_state import TradingState
from config.env import BASE_DIR
from desk import dashboard
from infra import clock
from kis import factory, status
from kis.status import KeyStatus, SocketState, StreamStatus
from market import partitions
from market.models import DailyPrice, MarketCandle
from orders import kill_switch
from orders.models import MarketHalt, StopRule, TradeOrder
from orders.reconcile import reconcile
from portfolio.fetcher import KISFetcher
from portfolio.models import AccountSnapshot
from simulator.api.server import Simulator

As = Callable[..., Client]
SAMSUNG = "005930"


@pytest.fixture
def traded(buy, broker, simulator: Simulator) -> TradeOrder:
    """Ten 삼성전자 bought and known, and five more that rest."""
    order = buy(strategy="buy_urgent")
    buy(qty=5, price=69_000)
    reconcile(broker, clock.now)
    KISFetcher(broker, clock.now).sync_portfolio()
    order.refresh_from_db()
    assert order.filled_qty == 10
    return order


def test_it_shows_what_is_held_open_and_executed(as_a: As, traded: TradeOrder) -> None:
    text = as_a("viewer").get(reverse("dashboard")).content.decode()
    snapshot = AccountSnapshot.objects.latest()
    assert f"{snapshot.total_asset:,}" in text
    for part in ("holdings", "open_orders", "executions"):
        html = dashboard.render_parts("ko", clock.now())[part]
        assert "삼성전자" in html, part
    assert "0/5" in dashboard.render_parts("ko", clock.now())["open_orders"]


def test_it_shows_who_wanted_an_order(buy, broker) -> None:
    buy(strategy="buy_urgent", strategy_id="turtle")
    buy(price=60_000, strategy_id="steady")
    reconcile(broker, clock.now)
    parts = dashboard.render_parts("ko", clock.now())
    assert "steady" in parts["open_orders"]
    assert "turtle" in parts["executions"]


def test_an_open_order_says_in_what_it_differs_from_the_brokers_list(buy) -> None:
    order, now = buy(), clock.now()
    assert "doubt" not in dashboard.render_parts("ko", now)["open_orders"]
    TradeOrder.objects.filter(pk=order.pk).update(
        missing_since=now, unlisted_since=now, cancel_requested_at=now, cancel_requested_by="CHASE"
    )
    html = dashboard.render_parts("ko", now)["open_orders"]
    for words in ("증권사 목록에 없음", "목록에 아직 없는 체결", "목록에서 확인되지 않음"):
        assert words in html


@pytest.mark.django_db
def test_an_empty_house_says_so(store, clock_at) -> None:
    now = clock_at("2026-11-23 10:00:00")
    parts = dashboard.render_parts("ko", now)
    assert "보유 종목이 없습니다" in parts["holdings"]
    assert "아직 계좌를 동기화하지 않았습니다" in parts["account"]
    assert "아무도 연결하지 않음" in parts["health"]
    assert "Nothing is held" in dashboard.render_parts("en", now)["holdings"]


@pytest.mark.django_db
def test_each_app_key_and_what_has_no_room_is_shown(store: redis.Redis, clock_at: Callable[[str], object]) -> None:
    now = clock_at("2026-11-23 10:00:00")
    keys = (KeyStatus(1, SocketState.CONNECTED, None, 41), KeyStatus(2, SocketState.LOST, 9.0, 0, reason="in use"))
    told = StreamStatus(SocketState.CONNECTED, has_own_fills=True, keys=keys, left_out=("H0STCNT0:000660",))
    status.publish(store, factory.stream_key("stream"), told)
    html = dashboard.render_parts("en", now)["health"]
    assert "app keys" in html
    assert 'title="in use"' in html
    assert 'title="H0STCNT0:000660"' in html
    status.publish(store, factory.stream_key("stream"), StreamStatus(SocketState.CONNECTED, keys=keys[:1]))
    html = dashboard.render_parts("en", now)["health"]
    assert "app keys" not in html
    assert "feeds without room" not in html


@pytest.mark.parametrize("name", dashboard.PARTS)
def test_a_part_costs_few_queries_and_no_more_for_more_orders(traded: TradeOrder, buy, name: str) -> None:
    few = queries_of(name)
    for qty in (1, 2, 3):
        buy(qty=qty, price=69_000)
    assert queries_of(name) == few <= 4


def queries_of(name: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        render_to_string(f"desk/parts/{name}.html", dashboard.PARTS[name](clock.now()))
    return len(queries)


def test_a_silent_redis_is_said_and_the_rest_stands(as_a: As, traded: TradeOrder, monkeypatch) -> None:
    def gone() -> None:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(factory, "stream_status", gone)
    parts = dashboard.render_parts("ko", clock.now())
    assert "응답 없음" in parts["health"]
    assert "삼성전자" in parts["holdings"]


def test_the_curve_has_a_point_a_minute_today_and_one_a_day(as_a: As, traded: TradeOrder) -> None:
    newest = AccountSnapshot.objects.latest()
    for days in (1, 2):
        newest.pk, newest.timestamp = None, newest.timestamp - timedelta(days=days)
        newest.save(force_insert=True)
    viewer = as_a("viewer")
    assert len(viewer.get(reverse("equity"), {"range": "today"}).json()["points"]) == 1
    by_day = viewer.get(reverse("equity")).json()["points"]
    assert [point["time"] for point in by_day] == ["2026-11-20", "2026-11-22", "2026-11-23"]


def test_a_holding_shows_its_stop_and_how_far_it_is(traded: TradeOrder) -> None:
    now = clock.now()
    words = {"stock_code": SAMSUNG, "armed_by": "the trader", "armed_at": now, "state_at": now, "value": 66_500}
    StopRule.objects.create(kind="STOP_LOSS", unit="PRICE", **words)
    StopRule.objects.create(kind="TAKE_PROFIT", unit="PRICE", state="DISARMED", **words | {"value": 90_000})
    html = dashboard.render_parts("ko", now)["holdings"]
    assert "66,500" in html
    assert "-5.0" in html
    assert "90,000" not in html


def test_a_market_that_stands_still_says_so(store, db: None, clock_at) -> None:
    now = clock_at("2026-11-23 10:00:00")
    MarketHalt.objects.create(kind="CIRCUIT_BREAKER", began_at=now - timedelta(minutes=2))
    MarketHalt.objects.create(kind="SELL_SIDECAR", began_at=now - timedelta(hours=1), ended_at=now)
    html = dashboard.render_parts("ko", now)["basis"]
    assert "서킷브레이커" in html
    assert "사이드카" not in html


def test_what_orders_cost_is_shown(as_a: As, traded: TradeOrder) -> None:
    text = as_a("viewer").get(reverse("quality"), {"days": "7"}).content.decode()
    assert "buy_urgent" in text
    assert "10/10" in text
    assert as_a(None).get(reverse("quality")).status_code == 403


def candle(**more: object) -> MarketCandle:
    minute = clock.now().replace(second=0, microsecond=0)
    partitions.ensure([minute.date()])
    figures = {"open": 70_000, "high": 70_200, "low": 69_900, "close": 70_100, "volume": 10, "value": 701_000}
    fields = {"time": minute, "symbol": SAMSUNG, "interval": "1m", "venue": "KRX", "trade_count": 1, **figures}
    return MarketCandle.objects.create(**fields | more)


def test_the_candles_carry_our_fills(as_a: As, traded: TradeOrder) -> None:
    candle()
    candle(venue="NXT", high=70_500, close=70_400)
    got = as_a("viewer").get(reverse("candles", args=[SAMSUNG])).json()
    (bar,) = got["bars"]
    assert (bar["high"], bar["close"], bar["volume"]) == (70_500, 70_100, 20), "both venues, KRX's close"
    assert got["fills"] == [{"time": bar["time"], "side": "BUY", "qty": 10, "price": traded.average_fill}]
    # the chart knows no zone: ten in Seoul is told as ten
    assert bar["time"] % 86_400 == 10 * 3600


def test_days_are_drawn_from_the_daily_prices(as_a: As, traded: TradeOrder) -> None:
    today = clock.now().date()
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date=today, open=70_000, high=71_000, low=69_000, close=70_500, volume=1
    )
    got = as_a("viewer").get(reverse("candles", args=[SAMSUNG]), {"range": "days"}).json()
    assert [bar["time"] for bar in got["bars"]] == [f"{today}"]
    assert [fill["time"] for fill in got["fills"]] == [f"{today}"]


class Inline(HTMLParser):
    """Collects what a strict policy would stop."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = dict(attributes)
        if tag == "style" or (tag == "script" and "src" not in names):
            self.found.append(tag)
        self.found += [f"{tag} {name}" for name in names if name == "style" or name.startswith("on")]
        for name in ("src", "href"):
            if tag != "a" and (names.get(name) or "").startswith(("http", "//")):
                self.found.append(f"{tag} {names[name]}")


def test_nothing_on_the_page_comes_from_elsewhere_or_is_written_into_it(as_a: As, traded: TradeOrder) -> None:
    answer = as_a("trader").get(reverse("dashboard"))
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    reader = Inline()
    reader.feed(answer.content.decode())
    assert reader.found == []


def test_the_admin_may_run_no_script_written_into_a_page(admin_client: Client) -> None:
    policy = admin_client.get(reverse("admin:index")).headers["Content-Security-Policy"]
    (scripts,) = [part for part in policy.split("; ") if part.startswith("script-src")]
    assert "unsafe-inline" not in scripts
    assert "http" not in policy


def test_the_chart_library_is_here_with_its_licence() -> None:
    for name in ("lightweight-charts.js", "lightweight-charts.LICENSE"):
        assert finders.find(f"desk/vendor/{name}")
    with open(finders.find("desk/vendor/lightweight-charts.js"), encoding="utf-8") as file:
        version = re.search(r"Charts™ v([\d.]+)", file.read(400))[1]
    assert f"lightweight-charts@{version}" in (BASE_DIR / "Makefile").read_text(encoding="utf-8")


def test_the_production_settings_pass_djangos_own_check() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=BASE_DIR,
        env=os.environ
        | {"DJANGO_SETTINGS_MODULE": "config.settings", "AEGIS_TLS": "true", "AEGIS_SECRET_KEY": "k9" * 40 + "!xyz"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "offers"),
    [("ACTIVE", {"halt", "reduce"}), ("REDUCING", {"halt", "resume"}), ("HALTED", {"reduce", "resume"})],
)
def test_whoever_halts_is_told_of_the_stops_and_offered_the_milder_way(
    store, clock_at, state: str, offers: set[str]
) -> None:
    now = clock_at("2026-11-23 10:00:00")
    for code in ("005930", "000660", "035420"):
        StopRule.objects.create(
            stock_code=code, kind="STOP_LOSS", unit="PERCENT", value=5, state_at=now, armed_by="kim", armed_at=now
        )
    kill_switch.set_state(TradingState(state), by="kim", reason="", at=now)
    html = dashboard.render_parts("en", now)["health"]
    assert set(re.findall(r"desk/switch/(\w+)", html)) == offers
    if "halt" in offers:
        assert "3 stops are armed. Halting stops them too" in html
    assert ("3 stops do not sell either" in html) is (state == "HALTED")
