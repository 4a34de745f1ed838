"""Stops in the stream worker and on the desk: every trade is judged, what fires is handed on once, people arm them."""

import itertools
import queue
import time
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from aegis.broker import Balance, Broker, Trade
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market
from infra import clock
from market.models import DailyPrice
from notify import alerts
from notify.models import Message
from orders import stops
from orders.models import StopRule
from orders.service import OrderService
from portfolio import ledger
from portfolio.models import Portfolio
from stream import stops as desk_stops
from stream.stops import Stops

pytestmark = pytest.mark.django_db
SAMSUNG = "005930"
D = Decimal


@pytest.fixture(autouse=True)
def held(clock_at: Callable[[str], object]) -> Portfolio:
    clock_at("2026-11-23 10:00:00")
    return Portfolio.objects.create(
        stock_code=SAMSUNG,
        stock_name="삼성전자",
        quantity=10,
        avg_price=D(70_000),
        current_price=70_000,
        counted_on=clock.now().date(),
        updated_at=clock.now(),
    )


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The stops for which a worker was called."""
    called: list[int] = []
    monkeypatch.setattr(desk_stops.stop, "delay", called.append)
    monkeypatch.setattr(desk_stops, "LISTEN_SECONDS", 0.01)
    return called


def arm(kind: StopKind = StopKind.STOP_LOSS, unit: StopUnit = StopUnit.PERCENT, value: str = "5") -> StopRule:
    return stops.arm(SAMSUNG, kind, unit, D(value), by="kim", at=clock.now())


TOTAL = itertools.count(1)


def told(
    *prices: int,
    code: str = SAMSUNG,
    at: str = "100001",
    qty: int = 1,
    market: Market = Market.KRX,
    total: int | None = None,
    quotes: tuple[str, str] = ("", ""),
) -> list[Trade]:
    """Trades as the feed tells them, each raising the day's running total unless `total` names it."""
    return [
        Trade(code, at, price, qty, 1_000 * next(TOTAL) if total is None else total, price, market, quotes=quotes)
        for price in prices
    ]


def listening() -> Stops:
    heard = Stops()
    heard.read()
    return heard


def fire_all(heard: Stops) -> None:
    for _ in range(5):
        heard.write_triggers()


def state(row: StopRule) -> str:
    row.refresh_from_db()
    return row.state


def test_a_trade_at_the_limit_fires_once_however_often_it_is_told(sent: list[int]) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(66_501), 0.0)
    fire_all(heard)
    assert (sent, state(row)) == ([], "ARMED")
    for _ in range(3):
        heard.on_trades(told(66_500, 66_400), 0.0)
    fire_all(heard)
    assert (sent, state(row), row.trigger_price) == ([row.pk], "TRIGGERED", 66_500)


def test_two_workers_that_see_it_at_once_make_one_errand(sent: list[int]) -> None:
    row, one, other = arm(), listening(), listening()
    for heard in (one, other):
        heard.on_trades(told(60_000), 0.0)
    for heard in (one, other):
        fire_all(heard)
    assert sent == [row.pk]
    assert row.events.filter(kind="TRIGGERED").count() == 1


def test_another_stock_s_trades_are_none_of_it(sent: list[int]) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(10, code="000660"), 0.0)
    fire_all(heard)
    assert state(row) == "ARMED"


def test_a_trailing_stop_follows_the_price_up_and_fires_on_the_way_down(sent: list[int]) -> None:
    row, heard = arm(StopKind.TRAILING, value="3"), listening()
    heard.on_trades(told(72_000, 80_000, 79_000), 0.0)
    heard.write()
    assert (state(row), row.high, row.feed_price) == ("ARMED", 80_000, 79_000)
    heard.read()
    heard.on_trades(told(77_600), 0.0)
    fire_all(heard)
    assert (state(row), row.trigger_price) == ("TRIGGERED", 77_600)


def test_a_high_that_is_not_written_yet_outlives_the_next_reading() -> None:
    row, heard = arm(StopKind.TRAILING, value="3"), listening()
    heard.on_trades(told(80_000), 0.0)
    heard.read()
    heard.write()
    assert (state(row), row.high) == ("ARMED", 80_000)


def test_an_edit_counts_from_the_next_reading(sent: list[int]) -> None:
    row, heard = arm(), listening()
    stops.edit(row, StopUnit.PRICE, D(60_000), by="kim", at=clock.now())
    heard.read()
    heard.on_trades(told(66_000), 0.0)
    fire_all(heard)
    assert state(row) == "ARMED"


def test_what_fired_while_the_database_was_away_is_not_forgotten(
    sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    row, heard = arm(), listening()
    heard.on_trades(told(60_000), 0.0)
    with monkeypatch.context() as away:
        away.setattr(stops, "trigger", lambda *words, **more: (_ for _ in ()).throw(OperationalError))
        with pytest.raises(OperationalError):
            heard.write_triggers()
    heard.on_trades(told(70_000), 0.0)
    fire_all(heard)
    assert (sent, state(row)) == ([row.pk], "TRIGGERED")


def test_a_price_beyond_the_day_s_limits_fires_nothing_and_is_asked_about(
    sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-20", open=70_000, high=71_000, low=69_000, close=70_000, volume=1
    )
    asked: list[int] = []
    monkeypatch.setattr(desk_stops.ask_for_stop, "delay", asked.append)
    row, heard = arm(), listening()
    for _ in range(3):
        heard.on_trades(told(14_000), 0.0)
    heard.read()
    heard.on_trades(told(14_000), 0.0)
    fire_all(heard)
    assert (sent, asked, state(row)) == ([], [row.pk], "ARMED")
    with pytest.raises(queue.Empty):
        heard._triggers.get_nowait()
    monkeypatch.setattr(desk_stops, "monotonic", lambda: time.monotonic() + desk_stops.CHECK_AGAIN_SECONDS)
    heard.on_trades(told(14_000), 0.0)
    fire_all(heard)
    assert asked == [row.pk, row.pk], "while trades tell it"


def test_a_stop_whose_shares_one_balance_lacks_still_fires(sent: list[int], held: Portfolio) -> None:
    row, heard = arm(), listening()
    ledger.replace(Balance(clock.now(), (), 1, 1, 1, 1, 1, 1), now=clock.now())
    stops.sync_with_holdings(clock.now())
    heard.read()
    heard.on_trades(told(60_000), 0.0)
    fire_all(heard)
    assert (sent, state(row)) == ([row.pk], "TRIGGERED")


def test_the_stocks_of_armed_stops_are_listened_to() -> None:
    arm()
    arm(StopKind.TAKE_PROFIT, value="10")
    assert list(desk_stops.stop_codes()) == ["005930"]


def test_armed_stops_are_heard_before_held_ones() -> None:
    arm()
    StopRule.objects.update(state="HELD_EXTERNALLY")
    for code in ("000660", "035420"):
        Portfolio.objects.create(
            stock_code=code,
            quantity=1,
            avg_price=D(1_000),
            current_price=1_000,
            counted_on=clock.now().date(),
            updated_at=clock.now(),
        )
        stops.arm(code, StopKind.STOP_LOSS, StopUnit.PERCENT, D(5), by="kim", at=clock.now())
    StopRule.objects.filter(stock_code="035420").update(state="TRIGGERED")
    assert list(desk_stops.stop_codes()) == ["000660", "035420", SAMSUNG]


def test_what_happens_to_a_stop_is_told(settings: object) -> None:
    alerts.gather(clock.now(), ["telegram"])
    row = arm()
    stops.trigger(row.pk, 60_000, clock.now(), seen="feed")
    alerts.gather(clock.now(), ["telegram"])
    texts = list(Message.objects.filter(channel="telegram").order_by("pk").values_list("text", flat=True))
    assert len(texts) == 2
    assert "60,000" in texts[1]


# --- by hand

ADD = "admin:orders_stoprule_add"


def test_a_trader_arms_edits_and_disarms(as_a: Callable[..., Client]) -> None:
    trader = as_a("trader")
    words = {"stock_code": SAMSUNG, "kind": "STOP_LOSS", "unit": "PERCENT", "value": "5"}
    assert trader.post(reverse(ADD), with_inline(words)).status_code == 302
    row = StopRule.objects.get()
    assert (row.armed_by, row.state, row.stock_name) == ("the trader", "ARMED", "삼성전자")
    change = reverse("admin:orders_stoprule_change", args=[row.pk])
    assert "66,500" in trader.get(change).content.decode()
    assert trader.post(change, with_inline({"unit": "PRICE", "value": "60000"})).status_code == 302
    row.refresh_from_db()
    assert (row.unit, row.value) == ("PRICE", 60_000)
    trader.post(reverse("admin:orders_stoprule_disarm", args=[row.pk]), {"_form_submitted": "1"})
    assert state(row) == "DISARMED"
    assert trader.post(change, with_inline({"unit": "PRICE", "value": "50000"})).status_code == 403


def with_inline(words: dict[str, str]) -> dict[str, str]:
    return {**words, "events-TOTAL_FORMS": "0", "events-INITIAL_FORMS": "0"}


@pytest.mark.parametrize("typed", ["005930 ", "００５９３０"])
def test_a_stop_is_armed_on_the_stock_that_is_meant(as_a: Callable[..., Client], typed: str) -> None:
    words = {"stock_code": typed, "kind": "STOP_LOSS", "unit": "PERCENT", "value": "5"}
    assert as_a("trader").post(reverse(ADD), with_inline(words)).status_code == 302
    assert StopRule.objects.get().stock_code == SAMSUNG


def test_a_stop_without_sense_is_refused_beside_its_field(as_a: Callable[..., Client]) -> None:
    words = {"stock_code": SAMSUNG, "kind": "STOP_LOSS", "unit": "PRICE", "value": "75000"}
    response = as_a("trader").post(reverse(ADD), with_inline(words))
    assert response.status_code == 200
    assert "75,000" in response.context["adminform"].form.errors["value"][0]
    assert not StopRule.objects.exists()


def test_a_stop_that_triggers_at_once_is_armed_and_moved_by_its_box(as_a: Callable[..., Client]) -> None:
    trader = as_a("trader")
    words = {"stock_code": SAMSUNG, "kind": "STOP_LOSS", "unit": "PRICE", "value": "75000", "sources": "KRX"}
    assert "may_trigger_now" in trader.get(reverse(ADD)).content.decode()
    assert trader.post(reverse(ADD), with_inline(words)).status_code == 200
    assert not StopRule.objects.exists()
    assert trader.post(reverse(ADD), with_inline(words | {"may_trigger_now": "on"})).status_code == 302
    row = StopRule.objects.get()
    assert (row.value, row.sources) == (75_000, "KRX")
    change = reverse("admin:orders_stoprule_change", args=[row.pk])
    moved = {"unit": "PRICE", "value": "76000", "sources": ""}
    assert trader.post(change, with_inline(moved)).status_code == 200
    assert trader.post(change, with_inline(moved | {"may_trigger_now": "on"})).status_code == 302
    row.refresh_from_db()
    assert (row.value, row.sources) == (76_000, "")


def test_a_viewer_sees_stops_and_touches_none(as_a: Callable[..., Client]) -> None:
    row, viewer = arm(), as_a("viewer")
    change = reverse("admin:orders_stoprule_change", args=[row.pk])
    assert viewer.get(change).status_code == 200
    assert viewer.get(reverse(ADD)).status_code == 403
    assert viewer.post(change, with_inline({"unit": "PRICE", "value": "1"})).status_code == 403
    assert viewer.post(reverse("admin:orders_stoprule_disarm", args=[row.pk]), {}).status_code in (302, 403)
    assert state(row) == "ARMED"


def test_the_form_and_arming_again_count_from_the_running_total_of_now(
    as_a: Callable[..., Client], service: OrderService, broker: Broker
) -> None:
    trader = as_a("trader")
    words = {"stock_code": SAMSUNG, "kind": "STOP_LOSS", "unit": "PERCENT", "value": "5"}
    assert trader.post(reverse(ADD), with_inline(words)).status_code == 302
    row, total = StopRule.objects.get(), broker.quote(SAMSUNG, Market.KRX).volume
    assert row.poll_state["volumes"] == {"KRX": total}
    change = reverse("admin:orders_stoprule_change", args=[row.pk])
    StopRule.objects.update(poll_state={})
    assert trader.post(change, with_inline({"unit": "PRICE", "value": "60000"})).status_code == 302
    row.refresh_from_db()
    assert row.poll_state["volumes"] == {"KRX": total}
    StopRule.objects.update(poll_state={}, state="HELD_EXTERNALLY")
    trader.post(reverse("admin:orders_stoprule_rearm", args=[row.pk]), {"_form_submitted": "1"})
    row.refresh_from_db()
    assert (row.state, row.poll_state["volumes"]) == ("ARMED", {"KRX": total})
