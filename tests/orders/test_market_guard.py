"""When the whole market asks for care: falling indexes, circuit breakers, sidecars."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from aegis.broker import Broker
from aegis.market_halts import HaltKind
from aegis.sessions import KST
from aegis.stops import StopKind, StopUnit
from aegis.terms import Side
from aegis.trading_state import TradingState
from infra import clock
from market import partitions
from market.models import MarketCandle, MarketMacro
from orders import kill_switch, market_halts, risk, stops
from orders.models import MarketHalt, SwitchChange, TradeOrder
from orders.service import OrderDenied, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from simulator.api.server import Simulator

from .conftest import SAMSUNG

pytestmark = pytest.mark.django_db
CB, SELL = HaltKind.CIRCUIT_BREAKER, HaltKind.SELL_SIDECAR
TEN = datetime(2026, 11, 23, 10, 0, tzinfo=KST)


@pytest.fixture(autouse=True)
def _ten(clock_at: Callable[..., datetime]) -> None:
    clock_at("2026-11-23 10:00:00")


def minutes(*points: float, field: str = "kospi", until: datetime = TEN) -> None:
    """Write one minute after the other, the last at `until`."""
    for number, each in enumerate(reversed(points)):
        row, _ = MarketMacro.objects.get_or_create(time=until - timedelta(minutes=number))
        setattr(row, field, Decimal(str(each)))
        row.save()


def state() -> str:
    return risk.trading_state().value


@pytest.mark.parametrize(
    ("points", "after"),
    [
        ([3000, 2990, 2985, 2980], "ACTIVE"),
        ([3000, 2990, 2941], "ACTIVE"),  # -1.97 % within ten minutes
        ([3000, 2990, 2940], "REDUCING"),  # -2 %
        ([3000, *[3000 - 6 * n for n in range(1, 20)], 2880], "REDUCING"),  # -4 % from the open, slowly
        ([2880, 2900, 3000], "ACTIVE"),
        ([], "ACTIVE"),
    ],
)
def test_a_falling_index_turns_the_switch_to_sales_only(points: list[float], after: str) -> None:
    minutes(*points)
    market_halts.watch_indexes(TEN)
    assert state() == after


@pytest.mark.parametrize("field", ["kospi", "kosdaq", "kospi200"])
def test_every_index_is_watched_and_named(field: str) -> None:
    minutes(1000, 970, field=field)
    change = market_halts.watch_indexes(TEN)
    assert change is not None
    assert (change.is_trip, change.by) == (True, "AEGIS")
    assert market_halts.INDEXES[field] in change.reason


def test_an_older_fall_than_the_window_is_no_drop() -> None:
    minutes(3000, *[2935] * 12)
    assert market_halts.watch_indexes(TEN) is None


def test_what_a_person_saw_does_not_trip_again_but_a_further_fall_does() -> None:
    minutes(3000, 2930)
    market_halts.watch_indexes(TEN)
    kill_switch.resume(by="kim", reason="seen", at=TEN)
    assert market_halts.watch_indexes(TEN) is None
    later = TEN + timedelta(minutes=2)
    minutes(2930, 2870, until=later)
    assert market_halts.watch_indexes(later) is not None
    assert state() == "REDUCING"


def test_a_stricter_switch_is_not_loosened() -> None:
    kill_switch.halt(by="kim", reason="", at=TEN - timedelta(hours=2))
    minutes(3000, 2900)
    market_halts.watch_indexes(TEN)
    assert state() == "HALTED"


def test_bounds_of_zero_leave_the_guard_out(settings: object) -> None:
    settings.MAX_INDEX_FALL_PERCENT = settings.MAX_INDEX_DROP_PERCENT = 0
    minutes(3000, 1500)
    assert market_halts.watch_indexes(TEN) is None


def test_nothing_is_judged_on_a_day_that_does_not_trade() -> None:
    sunday = datetime(2026, 11, 22, 10, 0, tzinfo=KST)
    minutes(3000, 2000, until=sunday)
    assert market_halts.watch_indexes(sunday) is None


def test_a_falling_index_adds_its_cause_to_another_trip_and_leaves_a_persons_choice() -> None:
    kill_switch.trip("no list", frozenset({"LIST_MISSING"}), at=TEN)
    minutes(3000, 2900)
    change = market_halts.watch_indexes(TEN)
    assert change is not None
    assert kill_switch.evidence_of_state().causes == {"LIST_MISSING", change.causes}
    assert market_halts.watch_indexes(TEN) is None, "once is enough"
    kill_switch.reduce(by="kim", reason="", at=TEN)
    assert market_halts.watch_indexes(TEN) is None


# --- halts


@pytest.mark.parametrize(
    ("begins", "ends", "kind"), [("174", "175", CB), ("387", "388", SELL), ("397", "398", HaltKind.BUY_SIDECAR)]
)
def test_a_halt_is_recorded_and_changes_no_trading_state(begins: str, ends: str, kind: HaltKind) -> None:
    market_halts.hear(begins, TEN)
    assert (state(), MarketHalt.objects.get().kind) == ("ACTIVE", kind)
    market_halts.hear(ends, TEN + timedelta(minutes=20))
    assert (state(), MarketHalt.objects.get().end_heard) == ("ACTIVE", True)
    assert not SwitchChange.objects.exists()


def test_a_code_told_by_many_stocks_is_one_halt() -> None:
    for _ in range(5):
        market_halts.hear("174", TEN)
    assert MarketHalt.objects.count() == 1
    for _ in range(5):
        market_halts.hear("175", TEN)
    assert MarketHalt.objects.filter(ended_at=None).count() == 0


def test_an_end_that_nobody_heard_comes_by_the_clock() -> None:
    market_halts.begin_halt(CB, TEN)
    market_halts.end_forgotten(TEN + timedelta(minutes=35))
    assert MarketHalt.objects.get().ended_at is None
    market_halts.end_forgotten(TEN + timedelta(minutes=36))
    assert MarketHalt.objects.get().end_heard is False
    assert MarketHalt.objects.get().ended_at is not None


def trade(at: datetime, source: str = MarketCandle.Source.FEED) -> None:
    partitions.ensure([at.date()])
    MarketCandle.objects.create(
        time=at.replace(second=0), symbol=SAMSUNG, interval="1m", venue="KRX", open=1, high=1, low=1, close=1,
        volume=1, value=1, trade_count=1, source=source,
    )  # fmt: skip


def test_a_circuit_breaker_is_over_once_the_venue_trades() -> None:
    market_halts.hear("174", TEN)
    trade(TEN)  # the minute in which it began
    market_halts.check_halts(TEN + timedelta(minutes=2))
    assert MarketHalt.objects.get().ended_at is None
    trade(TEN + timedelta(minutes=2))
    market_halts.check_halts(TEN + timedelta(minutes=2, seconds=5))
    assert MarketHalt.objects.get().ended_at == TEN + timedelta(minutes=2, seconds=5)


@pytest.mark.parametrize(
    ("kospi", "kosdaq", "begins"),
    [
        ((3000, 2995), (900, 899), False),
        ((3000, 2760), (900, 899), True),  # -8 %
        ((3000, 2995), (900, 828), True),
        ((3000, 2850), (900, 860), False),
    ],
)
def test_a_code_that_no_index_bears_out_begins_no_circuit_breaker(
    kospi: tuple[float, float], kosdaq: tuple[float, float], begins: bool
) -> None:
    for which, at in enumerate((TEN - timedelta(days=3), TEN - timedelta(minutes=1))):
        MarketMacro.objects.create(time=at, kospi=Decimal(kospi[which]), kosdaq=Decimal(kosdaq[which]))
    market_halts.hear("174", TEN)
    assert MarketHalt.objects.exists() is begins


def test_a_stale_code_holds_nothing() -> None:
    """A stock enters a volatility interruption hours after the circuit breaker, and carries its code still."""
    market_halts.hear("174", TEN)
    market_halts.hear("175", TEN + timedelta(minutes=20))
    market_halts.hear("174", TEN + timedelta(minutes=80))
    assert MarketHalt.objects.filter(ended_at=None).count() == 0


def test_codes_of_ordinary_days_mean_nothing() -> None:
    for code in ("", "112", "129", "164", "AB1"):
        market_halts.hear(code, clock.now())
    assert (state(), MarketHalt.objects.count()) == (TradingState.ACTIVE.value, 0)


# --- orders while the market stands still


def test_a_circuit_breaker_holds_new_orders_back_and_nothing_else(
    service: OrderService, buy: Callable[..., TradeOrder], turn: Callable[..., None]
) -> None:
    resting = buy(price=69_000, strategy="")
    market_halts.hear("174", clock.now())
    with pytest.raises(OrderDenied) as caught:
        buy(price=68_000, strategy="")
    assert [(reason.code, reason.is_transient) for reason in caught.value.reasons] == [("CIRCUIT_BREAKER", True)]
    turn(20, seconds=5)
    resting.refresh_from_db()
    assert resting.status == "PENDING"
    market_halts.hear("175", clock.now())
    assert buy(price=68_000, strategy="").order_no


def test_a_stop_waits_for_a_halted_stock_and_not_for_a_code(
    service: OrderService, broker: Broker, simulator: Simulator, after: Callable[[float], None]
) -> None:
    """In a circuit breaker the quotes say that every stock is halted; one of another market halts other stocks."""
    words = {"account": "50000000-01", "code": SAMSUNG, "quantity": 5, "cost": 350_000}
    simulator.command("POST", "/simulator/shares", words)
    KISFetcher(broker, clock.now).sync_portfolio()
    stop = stops.arm(SAMSUNG, StopKind.STOP_LOSS, StopUnit.PRICE, Decimal(69_000), by="kim", at=clock.now())
    market_halts.begin_halt(CB, clock.now())
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": True})
    assert stops.trigger(stop.pk, 69_000, clock.now(), seen="feed")
    stops.run_sale_step(stop.pk, broker, clock.now)
    assert not stop.sales.exists()
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": False})
    after(61)
    stops.run_sale_step(stop.pk, broker, clock.now)
    assert stop.sales.exists()
    with pytest.raises(OrderDenied):
        service.place(OrderIntent(SAMSUNG, Side.SELL, 1, strategy="sell_profit"))


def test_a_sidecar_holds_no_order(buy: Callable[..., TradeOrder]) -> None:
    market_halts.hear("387", clock.now())
    market_halts.hear("397", clock.now())
    assert buy(price=69_000, strategy="").order_no
