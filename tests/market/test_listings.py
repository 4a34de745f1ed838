"""The stock master, from the broker's list of every stock and its word on each of ours."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from aegis.broker import Broker, Listing, OutcomeUnknown
from aegis.terms import Board, Instrument, Side
from infra import clock
from market import reference_data, tasks
from market.management.commands import sync_stocks as command
from market.models import Stock
from orders.service import OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from simulator.api.server import Simulator
from simulator.exchange.listings import STOCKS

pytestmark = pytest.mark.django_db
ClockAt = Callable[[str], datetime]


class Lists:
    """A broker of whom only the list of every stock is asked; None is a broken one."""

    def __init__(self, found: Sequence[Listing] | None) -> None:
        self.found = found

    def listings(self) -> Sequence[Listing]:
        if self.found is None:
            raise OutcomeUnknown("kospi_code.mst.zip is no whole archive", call="kospi_code.mst")
        return self.found


def listed(count: int, board: Board = Board.KOSPI, **words: Any) -> list[Listing]:
    first = 0 if board is Board.KOSPI else 500_000
    usual = {"name": "어느회사", "instrument": Instrument.STOCK, "sector": "제약", "is_halted": False}
    return [Listing(code=f"{first + number:06d}", board=board, **{**usual, **words}) for number in range(count)]


def sync(found: Sequence[Listing] | None) -> int:
    return reference_data.sync_listings(Lists(found), now=clock.now())  # type: ignore[arg-type]


def test_every_stock_of_the_list_is_in_the_master(broker: Broker) -> None:
    assert reference_data.sync_listings(broker, now=clock.now()) == len(STOCKS)
    assert {row.pk: (row.name, row.board, row.instrument, row.sector) for row in Stock.objects.all()} == {
        code: (row.name, row.board, row.instrument, row.sector) for code, row in STOCKS.items()
    }


def test_what_the_broker_told_of_a_stock_by_its_code_stays(broker: Broker) -> None:
    asked = reference_data.sync_stock(broker, "005930", now=clock.now())
    Stock.objects.filter(pk="005930").update(sector="다른 업종", name="옛 이름")
    reference_data.sync_listings(broker, now=clock.now())
    row = Stock.objects.get(pk="005930")
    assert (row.name, row.sector) == ("삼성전자", "다른 업종")
    assert (row.trades_on_nxt, row.synced_at) == (True, asked.synced_at)


def test_the_next_list_brings_new_names_and_halts() -> None:
    sync(listed(10))
    sync(listed(10, name="새 이름", is_halted=True))
    assert set(Stock.objects.values_list("name", "is_halted")) == {("새 이름", True)}


def test_a_stock_that_is_listed_no_more_stays_in_the_master(clock_at: ClockAt) -> None:
    clock_at("2026-11-23 08:00:00")
    sync(listed(10))
    clock_at("2026-11-24 08:00:00")
    sync(listed(9))
    assert Stock.objects.count() == 10
    assert Stock.objects.exclude(listed_on=clock.now().date()).get().pk == "000009"


def test_of_a_code_that_is_listed_twice_the_last_line_counts() -> None:
    assert sync([*listed(10), *listed(1, name="또 하나")]) == 10
    assert Stock.objects.get(pk="000000").name == "또 하나"


@pytest.mark.parametrize("found", [None, [], listed(7), listed(10), listed(7) + listed(10, Board.KOSDAQ)])
def test_a_list_that_cannot_be_believed_changes_nothing(found: Sequence[Listing] | None) -> None:
    sync(listed(10) + listed(10, Board.KOSDAQ))
    before = list(Stock.objects.values())
    with pytest.raises(OutcomeUnknown, match=r"no whole archive|is not believed"):
        sync(found)
    assert list(Stock.objects.values()) == before


def test_the_list_is_taken_once_a_day_from_seven_on(broker: Broker, clock_at: ClockAt) -> None:
    clock_at("2026-11-23 06:59:00")
    reference_data.sync_listings_of_the_day(broker, now=clock.now())
    assert not Stock.objects.exists()
    clock_at("2026-11-23 07:00:00")
    reference_data.sync_listings_of_the_day(broker, now=clock.now())
    assert Stock.objects.count() == len(STOCKS)
    Stock.objects.update(name="")
    tasks.sync_listings()
    assert set(Stock.objects.values_list("name", flat=True)) == {""}
    clock_at("2026-11-24 07:00:00")
    tasks.sync_listings()
    assert not Stock.objects.filter(name="").exists()


def test_of_a_stock_that_is_only_listed_the_broker_is_asked_before_an_order(
    broker: Broker, simulator: Simulator
) -> None:
    reference_data.sync_calendar(broker, clock.now().date(), now=clock.now())
    reference_data.sync_listings(broker, now=clock.now())
    KISFetcher(broker, clock.now).sync_portfolio()
    simulator.set_price("005930", 70_000)
    OrderService(broker, clock.now).place(OrderIntent("005930", Side.BUY, 1, price=69_000))
    assert Stock.objects.get(pk="005930").trades_on_nxt


def test_the_command_tells_what_is_listed(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("sync_stocks")
    told = capsys.readouterr().out
    assert f"{len(STOCKS)}" in told
    assert "KOSDAQ" in told


def test_the_command_tells_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "broker", lambda: Lists(None))
    with pytest.raises(CommandError, match="no whole archive"):
        call_command("sync_stocks")
