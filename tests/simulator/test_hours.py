"""What the order desk takes at which hour: paper's short day, kinds out of their phase, late opens, holidays."""

from collections.abc import Callable
from datetime import date

import pytest

from aegis.sessions import DayKind, phases_of
from aegis.terms import Market as Venue
from aegis.terms import OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.api.server import Simulator
from simulator.exchange.calendar import phases_on
from simulator.exchange.orders import Order

from .conftest import SAMSUNG, Client, Market

BUY, SELL = Side.BUY, Side.SELL
EXAM_DAY, FIRST_DAY = date(2026, 11, 19), date(2027, 1, 4)


def refusal(act: Callable[[], Order]) -> str:
    """Return the name of the refusal, empty when there is none."""
    try:
        act()
    except RequestRefused as refused:
        return refused.name
    return ""


def code_of(act: Callable[[], Order], *, is_paper: bool) -> tuple[str, str]:
    """Return rt_cd and msg_cd of the refusal."""
    with pytest.raises(RequestRefused) as caught:
        act()
    fields = caught.value.fields(is_paper=is_paper)
    return fields.rt_cd, fields.msg_cd


# --- paper


@pytest.mark.parametrize("at", ["15:30", "15:45", "16:30", "20:30"])
@pytest.mark.parametrize("kind", ["00", "01"])
def test_paper_is_closed_from_half_past_three(running: Callable[..., Simulator], at: str, kind: str) -> None:
    client = Client(running(f"2026-11-23 {at}", paper=True), paper=True)
    body = client.buy(1, 70_000 if kind == "00" else 0, kind).json()
    assert (body["rt_cd"], body["msg_cd"], body["msg1"]) == ("1", "40580000", "모의투자 장종료 입니다.")


@pytest.mark.parametrize("kind", ["00", "01"])
def test_paper_takes_both_kinds_until_then(running: Callable[..., Simulator], kind: str) -> None:
    client = Client(running("2026-11-23 15:29", paper=True), paper=True)
    assert client.buy(1, 60_000 if kind == "00" else 0, kind).json()["rt_cd"] == "0"


def test_what_expired_at_papers_close_is_neither_cancelled_nor_amended() -> None:
    market = Market("2026-11-23 15:00", is_paper=True)
    order = market.buy(1, 60_000)
    market.to("2026-11-23 15:31")
    assert code_of(lambda: market.cancel(order), is_paper=True) == ("1", "40580000")
    assert code_of(lambda: market.amend(order, 60_100), is_paper=True) == ("1", "40580000")


def test_paper_has_not_begun_before_its_opening_auction() -> None:
    market = Market("2026-11-23 08:00", is_paper=True)
    assert code_of(lambda: market.buy(1, 60_000), is_paper=True) == ("1", "40570000")


def test_every_refusal_an_order_can_meet_on_paper_speaks_papers_language() -> None:
    for name in ("no market orders", "kind not taken now", "after the close", "before the open"):
        fields = RequestRefused(name).fields(is_paper=True)
        assert fields.rt_cd == "1", name
        assert fields.msg_cd.isdigit(), name
        assert fields.msg1.startswith("모의투자 "), name


# --- market orders


@pytest.mark.parametrize("kind", [OrderKind.MARKET, OrderKind.MARKET_IOC, OrderKind.MARKET_FOK])
@pytest.mark.parametrize(
    ("at", "venue"),
    [("15:35", Venue.KRX), ("16:30", Venue.KRX), ("08:30", Venue.SOR), ("16:30", Venue.SOR)],
)
def test_a_market_order_out_of_its_hours_is_a_matter_of_the_hour(at: str, venue: Venue, kind: OrderKind) -> None:
    market = Market(f"2026-11-23 {at}")
    assert code_of(lambda: market.buy(1, kind=kind, venue=venue), is_paper=False) == ("7", "APBK0918")


def test_a_stock_without_market_orders_says_so_in_every_phase_that_has_them() -> None:
    market = Market("2026-11-23 10:00", codes=frozenset({SAMSUNG, "004410"}))
    assert code_of(lambda: market.buy(1, code="004410", kind=OrderKind.MARKET), is_paper=False) == ("7", "APBK1943")
    resting = market.buy(1, 150, code="004410")
    assert resting.remaining == 1
    market.to("2026-11-23 16:30")
    assert code_of(lambda: market.buy(1, code="004410", kind=OrderKind.MARKET), is_paper=False) == ("7", "APBK0918")


# --- a volatility interruption


def interrupted(at: str = "2026-11-23 10:00") -> Market:
    market = Market(at)
    market.buy(20, market.best(SELL), kind=OrderKind.AFTER_LIMIT if at[11:13] > "15" else OrderKind.LIMIT)
    assert market.firm.session_clock.interrupt(SAMSUNG, "1", market.now)
    return market


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("kind", ["02", "03", "04", "11", "12", "13", "14", "15", "16", "21", "22", "23", "24"])
def test_a_single_price_takes_plain_limits_and_market_orders_only(kind: str, side: Side) -> None:
    market = interrupted()
    wanted = OrderKind(kind)
    price = 71_000 if wanted.is_priced else 0
    assert refusal(lambda: market.order(side, 1, price, kind=wanted, stop=71_000)) == "kind not taken now"
    assert market.exchange.world.all_open() == []


def test_a_single_price_takes_limits_and_market_orders() -> None:
    market = interrupted()
    assert market.buy(1, 71_000).remaining == 1
    assert market.buy(1, kind=OrderKind.MARKET).remaining == 1


@pytest.mark.parametrize("venue", [Venue.NXT, Venue.SOR])
def test_the_other_venues_hold_to_the_single_price_too(venue: Venue) -> None:
    market = interrupted()
    assert refusal(lambda: market.buy(1, 71_000, kind=OrderKind.LIMIT_IOC, venue=venue)) == "kind not taken now"
    assert market.buy(1, 71_000, venue=venue).remaining == 1


def test_the_evening_at_a_single_price_takes_its_own_limit() -> None:
    market = interrupted("2026-11-23 17:00")
    assert refusal(lambda: market.buy(1, 71_000, kind=OrderKind.AFTER_LIMIT_IOC)) == "kind not taken now"
    assert market.buy(1, 71_000, kind=OrderKind.AFTER_LIMIT).remaining == 1


def test_an_order_is_amended_to_no_other_kind_in_a_single_price() -> None:
    market = Market()
    order = market.buy(1, 60_000)
    best = market.buy(1, kind=OrderKind.OWN_BEST)
    market.firm.session_clock.interrupt(SAMSUNG, "1", market.now)
    assert market.amend(order, 60_100).price == 60_100
    assert refusal(lambda: market.amend(best, 0)) == "kind not taken now"


def test_after_the_interruption_every_kind_goes_again() -> None:
    market = interrupted()
    market.wait(121)
    assert market.buy(1, market.best(SELL), kind=OrderKind.LIMIT_IOC).filled == 1


# --- late opens


@pytest.mark.parametrize(("day", "kind"), [(EXAM_DAY, DayKind.EXAM), (FIRST_DAY, DayKind.FIRST)])
def test_a_late_day_is_the_houses_own_late_day(day: date, kind: DayKind) -> None:
    assert phases_on(day) == phases_of(day, kind)


@pytest.mark.parametrize(
    ("at", "venue", "refused"),
    [
        ("08:10", Venue.NXT, "before the open"),
        ("09:30", Venue.SOR, "before the open"),
        ("09:30", Venue.KRX, ""),
        ("10:05", Venue.NXT, ""),
        ("10:05", Venue.SOR, ""),
        ("15:45", Venue.SOR, ""),
        ("16:25", Venue.KRX, ""),
        ("16:45", Venue.NXT, ""),
    ],
)
def test_on_exam_day_every_venue_is_an_hour_late(at: str, venue: Venue, refused: str) -> None:
    market = Market(f"{EXAM_DAY} {at}")
    assert refusal(lambda: market.buy(1, 60_000, venue=venue)) == refused


@pytest.mark.parametrize(("at", "refused"), [("08:10", "before the open"), ("09:30", "before the open"), ("10:05", "")])
def test_on_the_years_first_day_nxt_waits_for_krx(at: str, refused: str) -> None:
    market = Market(f"{FIRST_DAY} {at}")
    assert refusal(lambda: market.buy(1, 60_000, venue=Venue.NXT)) == refused
    assert refusal(lambda: market.buy(1, 60_000, venue=Venue.SOR)) == refused


# --- holidays


def test_on_a_holiday_the_day_comes_before_the_order(running: Callable[..., Simulator]) -> None:
    client = Client(running("2026-11-22 10:00", paper=True), paper=True)
    assert client.cancel("1").json()["msg_cd"] == "40100000"
    live = Client(running("2026-11-22 10:00"))
    assert live.cancel("1").json()["msg_cd"] == "APBK0919"


def test_an_hour_without_a_market_comes_before_the_order(running: Callable[..., Simulator]) -> None:
    client = Client(running("2026-11-23 16:30", paper=True), paper=True)
    assert client.cancel("1").json()["msg_cd"] == "40580000"
