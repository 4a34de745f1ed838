"""Phases, expiry, jumps of the clock, days."""

import pytest

from aegis.terms import Market as Venue
from aegis.terms import OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.broker import Firm, Settings
from simulator.exchange import order_flow
from simulator.exchange.exchange import Printed
from simulator.exchange.orders import OrderStatus

from .conftest import FUND, SAMSUNG, Market, kst

BUY, SELL = Side.BUY, Side.SELL


@pytest.mark.parametrize(
    ("at", "venue", "reason"),
    [
        ("2026-11-22 10:00", Venue.KRX, "not a business day"),
        ("2026-12-25 10:00", Venue.KRX, "not a business day"),
        ("2026-12-31 10:00", Venue.KRX, "not a business day"),
        ("2026-11-23 08:10", Venue.KRX, "before the open"),
        ("2026-11-23 20:00", Venue.KRX, "after the close"),
        ("2026-11-23 07:59", Venue.NXT, "before the open"),
        ("2026-11-23 08:55", Venue.NXT, "before the open"),
        ("2026-11-23 20:00", Venue.NXT, "after the close"),
        ("2026-11-23 16:30", Venue.KRX, "kind not taken now"),
        ("2026-11-19 09:30", Venue.KRX, "before the open"),
    ],
)
def test_orders_are_refused_outside_their_phase(at: str, venue: Venue, reason: str) -> None:
    market = Market(at)
    if at.startswith("2026-11-19"):  # 수능: KRX opens at ten; its auction takes orders from 09:20
        market.to("2026-11-19 09:10")
    with pytest.raises(RequestRefused, match=reason):
        market.buy(1, 71_500, venue=venue)


def test_the_opening_auction_trades_at_one_price_at_nine() -> None:
    market = Market("2026-11-23 08:59")
    order = market.buy(10, kind=OrderKind.MARKET)
    assert order.filled == 0
    expected = market.exchange.venue(SAMSUNG).indication()
    market.to("2026-11-23 09:00")
    venue = market.exchange.venue(SAMSUNG)
    assert order.status is OrderStatus.FILLED
    assert order.average == venue.tape.open == expected.price
    assert venue.tape.recent[0].taker is None


def test_the_closing_auction_sets_the_close_and_ends_the_day_orders() -> None:
    market = Market("2026-11-23 15:19:50")
    resting = market.buy(1, market.best(BUY) - 1000)
    market.to("2026-11-23 15:25")
    assert resting.status is OrderStatus.OPEN
    market.to("2026-11-23 15:30")
    assert resting.status is OrderStatus.EXPIRED
    close = market.exchange.venue(SAMSUNG).closing_price
    market.to("2026-11-24 08:00")
    assert market.exchange.venue(SAMSUNG).base == close


def test_a_conditional_limit_becomes_a_market_order_at_the_close() -> None:
    market = Market("2026-11-23 15:10")
    order = market.buy(1, market.best(BUY) - 1000, kind=OrderKind.CONDITIONAL_LIMIT)
    assert order.filled == 0
    market.to("2026-11-23 15:30")
    assert order.status is OrderStatus.FILLED


def test_gtp_orders_end_with_the_premarket() -> None:
    market = Market("2026-11-23 08:10")
    price = market.best(BUY, venue=Venue.NXT) - 1000
    gtp = market.buy(1, price, kind=OrderKind.GTP_LIMIT, venue=Venue.NXT)
    day = market.buy(1, price, venue=Venue.NXT)
    market.to("2026-11-23 08:50")
    assert (gtp.status, day.status) == (OrderStatus.EXPIRED, OrderStatus.OPEN)
    market.to("2026-11-23 20:00")
    assert day.status is OrderStatus.EXPIRED


def test_what_sor_leaves_on_krx_lives_on_at_nxt() -> None:
    market = Market("2026-11-23 15:00")
    order = market.buy(1, market.best(BUY) - 3000, venue=Venue.SOR)
    market.to("2026-11-23 15:45")
    assert (order.status, order.venue) == (OrderStatus.OPEN, Venue.NXT)
    market.cancel(order)
    assert order.status is OrderStatus.CANCELLED


def test_the_after_market_takes_its_own_kinds_and_no_funds() -> None:
    market = Market("2026-11-23 16:30", codes=frozenset({SAMSUNG, FUND}))
    assert market.buy(1, market.best(SELL), kind=OrderKind.AFTER_LIMIT).status is OrderStatus.FILLED
    with pytest.raises(RequestRefused, match="kind not taken now"):
        market.buy(1, market.best(SELL, FUND), code=FUND, kind=OrderKind.AFTER_LIMIT)


def test_before_september_2026_there_is_no_after_market() -> None:
    market = Market("2026-09-11 16:30")
    with pytest.raises(RequestRefused, match="kind not taken now"):
        market.buy(1, 71_500, kind=OrderKind.AFTER_LIMIT)
    order = market.buy(1, market.best(BUY), kind=OrderKind.AFTER_HOURS_SINGLE)
    market.to("2026-09-11 16:40")
    assert order.status is OrderStatus.FILLED


def test_orders_at_the_close_meet_the_crowd_at_that_price() -> None:
    market = Market("2026-11-23 15:30:30")
    order = market.buy(5, kind=OrderKind.POST_CLOSE)
    market.step(60)
    assert order.status is OrderStatus.FILLED
    assert order.average == market.exchange.venue(SAMSUNG).closing_price
    late = market.buy(5, kind=OrderKind.POST_CLOSE)
    market.to("2026-11-23 16:00")
    assert late.status is OrderStatus.EXPIRED


def test_numbers_start_anew_each_day(market: Market) -> None:
    assert market.buy(1, market.best(BUY) - 500).number == 1
    assert market.buy(1, market.best(BUY) - 500).number == 2
    market.to("2026-11-24 10:00")
    assert market.buy(1, market.best(BUY) - 500).number == 1


def test_the_same_seed_makes_the_same_day() -> None:
    def day(seed: int) -> list[tuple[int, int]]:
        firm = Firm(Settings(seed=seed, codes=frozenset({SAMSUNG})))
        firm.advance(kst("2026-11-23 10:00"))
        firm.exchange.take_news()
        firm.advance(kst("2026-11-23 10:00:50"))
        prints = [item for item in firm.exchange.take_news() if isinstance(item, Printed)]
        return [(trade.price, trade.quantity) for item in prints for trade in item.trades]

    assert day(7) == day(7)
    assert day(7) != day(8)
    assert len(day(7)) > 20


def test_a_customer_does_not_change_what_the_crowd_draws() -> None:
    quiet, busy = Market(), Market()
    busy.buy(300, busy.best(SELL))
    assert order_flow.draw_step(1, quiet.now.date(), SAMSUNG, 5) == order_flow.draw_step(1, busy.now.date(), SAMSUNG, 5)


def test_a_jump_of_hours_is_quick_and_leaves_a_day_behind_it() -> None:
    firm = Firm(Settings(codes=frozenset({SAMSUNG})))
    firm.advance(kst("2026-11-23 09:00:01"))
    firm.advance(kst("2026-11-23 14:00"))
    tape = firm.exchange.venue(SAMSUNG).tape
    assert len(tape.minutes) > 290
    assert tape.low <= tape.last <= tape.high
    assert tape.volume == sum(bar.volume for bar in tape.minutes.values())


def test_a_resting_order_fills_when_a_jump_passes_its_price() -> None:
    firm = Firm(Settings(codes=frozenset({SAMSUNG})))
    market = Market.__new__(Market)
    market.firm, market.exchange, market.now = firm, firm.exchange, kst("2026-11-23 09:10")
    firm.advance(market.now)
    order = market.buy(1, market.best(BUY) - 200)
    market.to("2026-11-23 15:00")
    low = min(bar.low for minute, bar in firm.exchange.venue(SAMSUNG).tape.minutes.items() if minute > "0910")
    assert (order.status is OrderStatus.FILLED) == (low <= order.price)


def test_days_nobody_watches_leave_their_daily_prices() -> None:
    firm = Firm(Settings(codes=frozenset({SAMSUNG})))
    firm.advance(kst("2026-11-23 10:00"))
    firm.advance(kst("2026-12-07 10:00"))
    closes = firm.exchange.world.closes[SAMSUNG]
    assert len(closes) == 10
    newest = firm.history.yesterday(SAMSUNG)
    assert newest.day == max(closes)
    assert newest.close == firm.exchange.venue(SAMSUNG).base


def test_a_clock_set_back_does_not_break_the_market(market: Market) -> None:
    market.to("2026-11-23 15:40")
    market.to("2026-11-23 10:30")
    assert market.buy(1, market.best(SELL)).status is OrderStatus.FILLED
    market.to("2026-11-20 10:30")
    order = market.buy(1, market.best(SELL))
    assert (order.date, order.status) == (kst("2026-11-20 00:00").date(), OrderStatus.FILLED)
