"""The market as a whole, minute by minute."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import pytest

from aegis.basis import Regime
from aegis.broker import Broker
from aegis.sessions import KST
from infra import clock
from market import macro
from market.models import MarketMacro, ProgramTrade
from simulator.api.server import Simulator

pytestmark = pytest.mark.django_db
AT = datetime(2026, 11, 23, 10, 0, 31, tzinfo=KST)


def row() -> MarketMacro:
    return MarketMacro.objects.get()


@pytest.mark.parametrize(
    ("percent", "regime"), [(-1.0, Regime.BACKWARDATION), (0.0, Regime.NEUTRAL), (1.0, Regime.CONTANGO)]
)
def test_the_basis_says_what_the_regime_is(
    broker: Broker, simulator: Simulator, percent: float, regime: Regime
) -> None:
    simulator.command("POST", "/simulator/basis", {"percent": percent})
    macro.sync_macro(broker, now=clock.now())
    found = row()
    assert found.regime == regime
    assert abs(found.basis_rate - Decimal(percent)) < Decimal("0.1")
    assert found.basis == found.kospi200_futures - found.kospi200


def test_a_minute_knows_indexes_the_future_and_who_holds_it(broker: Broker) -> None:
    macro.sync_macro(broker, now=clock.now())
    found = row()
    assert found.time == clock.now().replace(second=0, microsecond=0)
    assert found.futures_code == "A01612"
    assert found.kospi > found.kospi200 > 0
    assert found.kosdaq > 0
    assert None not in (found.foreign_net, found.institution_net, found.individual_net)


def test_what_the_feeds_have_told_is_not_asked_for(broker: Broker) -> None:
    told = {name: Decimal("100.25") for name in ("kospi", "kosdaq", "kospi200", "kospi200_futures")}
    macro.store_figures(told, at=clock.now())
    macro.sync_macro(broker, now=clock.now())
    found = row()
    assert {name: getattr(found, name) for name in told} == told
    assert found.regime == Regime.NEUTRAL
    assert found.foreign_net is not None


def test_one_figure_that_fails_leaves_the_others_their_turn(broker: Broker, simulator: Simulator) -> None:
    simulator.fault("error_500", tr_id="FHPTJ04030000")
    macro.sync_macro(broker, now=clock.now())
    assert row().regime


def test_while_krx_is_closed_nobody_is_asked(broker: Broker, clock_at: Callable[[str], datetime]) -> None:
    clock_at("2026-11-28 10:00:00")
    assert macro.sync_macro(broker, now=clock.now()) is None
    assert not MarketMacro.objects.exists()


def test_figures_of_a_minute_come_together_piece_by_piece() -> None:
    macro.store_figures({"kospi200": Decimal("400.00")}, at=AT)
    assert row().basis is None
    macro.store_figures({"kospi200_futures": Decimal("402.40")}, at=AT.replace(second=55))
    assert (row().basis, row().basis_rate, row().regime) == (Decimal("2.40"), Decimal("0.6000"), Regime.CONTANGO)
    macro.store_figures({"kospi200": Decimal("401.00")}, at=AT.replace(minute=1))
    assert MarketMacro.objects.count() == 2


def test_programs_have_a_figure_a_minute_and_stock() -> None:
    words = {"sold_qty": 10, "bought_qty": 30, "net_qty": 20, "net_won": 1_400_000}
    macro.store_programs({"005930": words, "000660": words}, at=AT)
    macro.store_programs({"005930": {**words, "net_qty": 25}}, at=AT.replace(second=50))
    assert ProgramTrade.objects.count() == 2
    assert ProgramTrade.objects.get(stock_code="005930").net_qty == 25
