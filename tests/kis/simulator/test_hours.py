"""What the order desk takes at which hour: paper's short day, kinds out of their phase, late opens, holidays."""

from collections.abc import Callable
from datetime import date

import pytest

from aegis.terms import Market as Venue
from aegis.terms import OrderKind, Side
from kis.simulator.orders import Order
from kis.simulator.refusals import Refused
from kis.simulator.server import Simulator

from .conftest import SAMSUNG, Client, Market

BUY, SELL = Side.BUY, Side.SELL
EXAM_DAY, FIRST_DAY = date(2026, 11, 19), date(2027, 1, 4)


def refusal(act: Callable[[], Order]) -> str:
    """Return the name of the refusal, empty when there is none."""
    try:
        act()
    except Refused as refused:
        return refused.name
    return ""


def code_of(act: Callable[[], Order], *, is_paper: bool) -> tuple[str, str]:
    """Return rt_cd and msg_cd of the refusal."""
    with pytest.raises(Refused) as caught:
        act()
    words = caught.value.words(is_paper=is_paper)
    return words.rt_cd, words.msg_cd


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
        words = Refused(name).words(is_paper=True)
        assert words.rt_cd == "1", name
        assert words.msg_cd.isdigit(), name
        assert words.msg1.startswith("모의투자 "), name


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
