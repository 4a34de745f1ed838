"""Time that is skipped: what it costs, what happens on the way, what it leaves behind."""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType

import pytest

from aegis.terms import Market as Venue
from aegis.terms import OrderKind, Side
from simulator.api.server import Simulator
from simulator.broker import Firm, Settings
from simulator.exchange.exchange import OrderNotice, OrderNoticeKind, Printed
from simulator.exchange.listings import STOCKS
from simulator.exchange.orders import OrderStatus

from .conftest import _OPENED, SAMSUNG, THIN, Client, Market, kst

BUY, SELL = Side.BUY, Side.SELL


def calls_of(work: Callable[[], None]) -> int:
    """Return how many Python functions `work` calls: a cost that no busy machine changes."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def ticking(at: str, **settings: object) -> Market:
    """Return a market whose crowd acts by itself."""
    market = Market.__new__(Market)
    market.now = kst(at)
    market.firm = Firm(Settings(**{"codes": frozenset({SAMSUNG, THIN}), **settings}))  # type: ignore[arg-type]
    market.firm.advance(market.now)
    market.exchange = market.firm.exchange
    market.exchange.take_news()
    _OPENED.append(market.exchange.ledger)
    return market


# --- what it costs


@pytest.mark.parametrize("until", ["2026-11-24 10:00", "2026-11-24 08:00", "2026-11-27 10:00"])
def test_a_skipped_night_costs_little_with_every_stock_listed(until: str) -> None:
    market = ticking("2026-11-23 10:00", codes=None)
    assert len(market.exchange.listed) == len(STOCKS)
    recorded = market.exchange.ledger.count
    calls = calls_of(lambda: market.to(until))
    assert calls < 250_000, "a night that is walked minute by minute takes four million"
    days = len(market.exchange.world.closes[SAMSUNG])
    assert market.exchange.ledger.count - recorded <= 1 + 3 * days


def test_orders_that_the_price_does_not_reach_cost_little() -> None:
    market = ticking("2026-11-23 10:00", codes=None)
    idle = calls_of(lambda: market.to("2026-11-23 14:00"))
    other = ticking("2026-11-23 10:00", codes=None)
    for code in other.exchange.listed:
        venue = other.exchange.venue(code)
        other.buy(1, venue.lowest, code=code, account="11111111-01")
    assert calls_of(lambda: other.to("2026-11-23 14:00")) < 2 * idle


# --- what happens on the way


@pytest.mark.parametrize("seed", range(1, 9))
def test_resting_orders_fill_if_the_price_reaches_them(seed: int) -> None:
    market = ticking("2026-11-23 10:00:01", seed=seed)
    market.buy(30, market.best(SELL))
    bid = market.buy(10, market.best(BUY) - 600)
    ask = market.sell(10, market.best(SELL) + 600)
    market.to("2026-11-23 15:00")
    bars = [bar for minute, bar in market.exchange.venue(SAMSUNG).tape.minutes.items() if minute > "1000"]
    reached_low, reached_high = min(bar.low for bar in bars), max(bar.high for bar in bars)
    assert (bid.status is OrderStatus.FILLED) == (reached_low <= bid.price)
    assert (ask.status is OrderStatus.FILLED) == (reached_high >= ask.price)
    assert {order.average for order in (bid, ask) if order.filled} <= {bid.price, ask.price}


def test_among_eight_seeds_are_orders_that_fill_and_orders_that_wait() -> None:
    found = set()
    for seed in range(1, 9):
        market = ticking("2026-11-23 10:00:01", seed=seed)
        order = market.buy(10, market.best(BUY) - 600)
        market.to("2026-11-23 15:00")
        found.add(order.status)
    assert found == {OrderStatus.FILLED, OrderStatus.OPEN}


def test_a_stop_wakes_when_a_skipped_price_passes_its_trigger() -> None:
    woken = set()
    for seed in range(1, 9):
        market = ticking("2026-11-23 10:00:01", seed=seed)
        trigger = market.best(SELL) + 500
        order = market.buy(5, trigger + 1_000, kind=OrderKind.STOP_LIMIT, stop=trigger)
        market.to("2026-11-23 15:00")
        bars = [bar for minute, bar in market.exchange.venue(SAMSUNG).tape.minutes.items() if minute > "1000"]
        assert order.triggered == (max(bar.high for bar in bars) >= trigger)
        assert (order.status is OrderStatus.FILLED) == order.triggered
        woken.add(order.triggered)
    assert woken == {True, False}


def test_orders_outside_the_queues_fill_in_skipped_time() -> None:
    market = ticking("2026-11-23 10:00:01")
    middle = market.buy(5, kind=OrderKind.MID)
    market.to("2026-11-23 11:00")
    assert middle.status is OrderStatus.FILLED
    market.to("2026-11-23 15:30:01")
    last = market.buy(5, kind=OrderKind.POST_CLOSE)
    market.to("2026-11-23 18:00")
    assert last.status is OrderStatus.FILLED
    assert last.average == market.exchange.venue(SAMSUNG).closing_price


def test_a_skipped_day_keeps_its_auctions_its_expiries_and_what_moves_to_nxt() -> None:
    market = ticking("2026-11-23 07:30")
    market.to("2026-11-23 08:30")
    auction = market.buy(1, kind=OrderKind.MARKET)
    market.to("2026-11-23 10:00")
    krx = market.exchange.venue(SAMSUNG)
    assert krx.tape.open_at == kst("2026-11-23 09:00")
    assert (auction.status, auction.average) == (OrderStatus.FILLED, krx.tape.open)
    day, sor = market.buy(1, 60_000), market.buy(1, 60_000, venue=Venue.SOR)
    assert market.firm.session_clock.interrupt(SAMSUNG, "1", market.now)
    market.to("2026-11-23 16:30")
    assert not krx.is_auction
    assert market.exchange.world.interruptions[0].ended == "100200"
    assert krx.regular_close is not None
    assert day.status is OrderStatus.EXPIRED
    assert (sor.status, sor.venue) == (OrderStatus.OPEN, Venue.NXT)
    market.to("2026-11-24 07:00")
    assert sor.status is OrderStatus.EXPIRED


# --- what it leaves behind


def closes(seed: int) -> list[tuple[int, ...]]:
    market = ticking("2026-11-23 10:00", seed=seed)
    for day in ("24", "25", "27"):
        market.to(f"2026-11-{day} 10:00")
    bars = market.exchange.world.closes[SAMSUNG].values()
    return [(bar.open, bar.high, bar.low, bar.close, bar.volume, bar.amount) for bar in bars]


def test_skipped_days_have_plausible_prices_that_the_seed_decides() -> None:
    days = closes(5)
    assert len(days) == 4
    for opened, high, low, close, volume, amount in days:
        assert low <= min(opened, close) <= max(opened, close) <= high < low * 1.2
        assert low * volume <= amount <= high * volume
    assert closes(5) == days != closes(6)


@pytest.mark.parametrize("venue", [Venue.KRX, Venue.NXT, Venue.SOR])
def test_skipped_minutes_add_up_to_their_day(venue: Venue) -> None:
    market = ticking("2026-11-23 07:30")
    market.to("2026-11-23 19:00")
    exchange = market.exchange
    tape = exchange.unified[SAMSUNG] if venue is Venue.SOR else exchange.venue(SAMSUNG, venue).tape
    minutes = sorted(tape.minutes.items())
    assert len(minutes) > 500
    auctions = tape.volume - tape.bought - tape.sold
    assert sum(bar.volume for _, bar in minutes) == tape.volume
    assert 0 <= auctions < tape.volume / 10
    assert (min(bar.low for _, bar in minutes), max(bar.high for _, bar in minutes)) == (tape.low, tape.high)
    assert (minutes[0][1].open, minutes[-1][1].close, minutes[-1][1].amount) == (tape.open, tape.last, tape.amount)
    before = 0
    for _, bar in minutes:
        assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert bar.low * bar.volume <= bar.amount - before <= bar.high * bar.volume
        before = bar.amount


def test_both_venues_together_are_the_sum_of_their_minutes() -> None:
    market = ticking("2026-11-23 07:30")
    market.to("2026-11-23 19:00")
    exchange = market.exchange
    krx, nxt = (exchange.venue(SAMSUNG, venue).tape.minutes for venue in (Venue.KRX, Venue.NXT))
    for minute, bar in exchange.unified[SAMSUNG].minutes.items():
        parts = [bars[minute] for bars in (krx, nxt) if minute in bars]
        assert bar.volume == sum(part.volume for part in parts)
        assert (bar.high, bar.low) == (max(part.high for part in parts), min(part.low for part in parts))


def test_nxt_follows_krx_through_the_day() -> None:
    market = ticking("2026-11-23 09:30")
    market.to("2026-11-23 15:00")
    krx, nxt = (market.exchange.venue(SAMSUNG, venue).tape.minutes for venue in (Venue.KRX, Venue.NXT))
    assert [nxt[f"12{minute:02d}"].close for minute in range(60)] == [
        krx[f"12{minute:02d}"].close for minute in range(60)
    ]


def test_a_clock_set_back_into_skipped_minutes_loses_none_of_them() -> None:
    market = ticking("2026-11-23 10:00")
    market.to("2026-11-23 14:00")
    market.to("2026-11-23 11:30")
    market.to("2026-11-23 11:30:30")
    market.to("2026-11-23 13:00")
    tape = market.exchange.venue(SAMSUNG).tape
    assert sum(bar.volume for bar in tape.minutes.values()) == tape.volume


def test_trades_that_are_written_down_include_the_skipped_ones() -> None:
    market = ticking("2026-11-23 10:00")
    tape = market.exchange.venue(SAMSUNG).tape
    tape.log, before = [], tape.volume
    market.to("2026-11-23 11:00")
    assert sum(quantity for _, _, quantity in tape.log) == tape.volume - before
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(tape.log))


def test_a_restart_after_a_jump_finds_the_market_where_the_jump_led(tmp_path: Path) -> None:
    market = ticking("2026-11-23 10:00", ledger_path=tmp_path / "ledger.jsonl")
    market.to("2026-11-24 11:00:20")
    price = market.exchange.price(SAMSUNG)
    market.exchange.ledger.close()
    again = ticking("2026-11-24 11:00:20", ledger_path=tmp_path / "ledger.jsonl")
    assert again.exchange.price(SAMSUNG) == price


# --- what is told of it


@pytest.mark.parametrize("until", ["2026-11-24 07:00", "2026-11-24 10:00", "2026-11-28 12:00"])
def test_no_trade_and_no_book_of_an_earlier_day_is_told_after_a_night(until: str) -> None:
    market = ticking("2026-11-23 15:00" if "28" not in until else "2026-11-27 15:00")
    market.to(until)
    told = [item for item in market.exchange.take_news() if not isinstance(item, OrderNotice)]
    trades = [trade for item in told if isinstance(item, Printed) for trade in item.trades]
    assert {trade.at.date() for trade in trades} <= {market.now.date()}
    assert bool(told) == (until == "2026-11-24 10:00"), "while nothing trades there is no book to tell of either"


def test_notices_of_a_skipped_day_are_told_after_the_night() -> None:
    market = ticking("2026-11-23 15:10")
    order = market.buy(1, market.best(BUY) - 1_000, kind=OrderKind.CONDITIONAL_LIMIT)
    market.exchange.take_news()
    market.to("2026-11-24 07:00")
    assert order.status is OrderStatus.FILLED
    notices = [item for item in market.exchange.take_news() if isinstance(item, OrderNotice)]
    assert [notice.kind for notice in notices] == [OrderNoticeKind.FILLED]


def test_a_session_hears_no_trade_of_yesterday_after_a_night(running: Callable[..., Simulator]) -> None:
    client = Client(running("2026-11-23 15:00"))
    socket = client.socket()
    for tr_id in ("H0STCNT0", "H0STASP0", "H0NXCNT0", "H0UNASP0"):
        socket.ask(tr_id, SAMSUNG)
    client.http.post("/simulator/clock", json={"now": "2026-11-24T09:00:00"})
    values = socket.frame("H0STCNT0")[1]
    assert (values[1], values[33]) == ("090000", "20261124"), "the first is today's opening"
