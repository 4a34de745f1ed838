"""After a gap in what was heard, a stop is evaluated by the next trade or by a price that is asked for."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from aegis.broker import Broker
from infra import clock
from kis.subscriptions import Topic
from market import reference_data
from orders.models import StopRule
from portfolio.models import Portfolio
from simulator.api.server import Simulator
from stream import gaps
from stream.gaps import PATIENCE, Gaps

SAMSUNG = "005930"
TRADES = Topic("H0STCNT0", SAMSUNG)
pytestmark = pytest.mark.django_db


@pytest.fixture
def stop_rule(broker: Broker, simulator: Simulator) -> StopRule:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    now = clock.now()
    Portfolio.objects.create(
        stock_code=SAMSUNG, stock_name="삼성전자", quantity=10, avg_price=Decimal(70_000), current_price=70_000,
        counted_on=now.date(), updated_at=now,
    )  # fmt: skip
    return StopRule.objects.create(
        stock_code=SAMSUNG, kind="STOP_LOSS", unit="PERCENT", value=Decimal(1),
        state_at=now, armed_at=now - timedelta(minutes=1), armed_by="kim", feed_at=now - timedelta(seconds=3),
    )  # fmt: skip


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    pks: list[int] = []
    monkeypatch.setattr(gaps.stop, "delay", pks.append)
    return pks


def quotes(simulator: Simulator) -> int:
    return sum(e["event"] == "request" and e["tr_id"] == "FHKST01010100" for e in simulator.events())


def later(clock_at: Callable[[Any], object], by: timedelta = PATIENCE) -> None:
    clock_at(clock.now() + by)


def test_a_fall_that_nobody_heard_triggers_though_the_stock_does_not_trade_again(
    stop_rule: StopRule, simulator: Simulator, called: list[int], clock_at: Callable[[Any], object]
) -> None:
    heard = Gaps()
    simulator.set_price(SAMSUNG, 69_000, freeze=True)  # while no key held the feed
    heard.on_registered(TRADES)
    heard.on_registered(Topic("H0NXCNT0", SAMSUNG))
    heard.on_registered(Topic("H0STASP0", "000660"))
    heard.evaluate()
    assert quotes(simulator) == 0, "a trade may come within the next seconds"
    later(clock_at)
    heard.evaluate()
    heard.evaluate()
    stop_rule.refresh_from_db()
    assert quotes(simulator) == 1
    # what one price alone may trigger is decided elsewhere
    assert bool(called) is (stop_rule.state == StopRule.State.TRIGGERED)
    assert stop_rule.state == StopRule.State.TRIGGERED


def test_a_stock_that_trades_after_its_registration_needs_no_question(
    stop_rule: StopRule, simulator: Simulator, called: list[int], clock_at: Callable[[Any], object]
) -> None:
    heard = Gaps()
    heard.on_registered(TRADES)
    StopRule.objects.update(feed_at=clock.now() + timedelta(seconds=1), feed_price=70_000)
    later(clock_at)
    heard.evaluate()
    assert (quotes(simulator), called) == (0, [])


def test_nothing_is_asked_of_a_closed_market(
    stop_rule: StopRule, simulator: Simulator, clock_at: Callable[[Any], object]
) -> None:
    heard = Gaps()
    heard.on_registered(TRADES)
    later(clock_at, timedelta(hours=11))
    heard.evaluate()
    assert quotes(simulator) == 0


def test_a_broker_that_does_not_answer_leaves_it_to_the_periodic_look(
    stop_rule: StopRule, simulator: Simulator, called: list[int], clock_at: Callable[[Any], object]
) -> None:
    heard = Gaps()
    heard.on_registered(TRADES)
    simulator.fault("refusal", tr_id="FHKST01010100", count=5)
    later(clock_at)
    heard.evaluate()
    assert called == []


def test_a_trade_of_a_time_to_come_is_none_since_the_registration(
    stop_rule: StopRule, simulator: Simulator, called: list[int], clock_at: Callable[[Any], object]
) -> None:
    heard = Gaps()
    StopRule.objects.update(feed_at=clock.now() + timedelta(hours=1))  # before the clock was set back
    heard.on_registered(TRADES)
    later(clock_at)
    heard.evaluate()
    assert quotes(simulator) == 1
