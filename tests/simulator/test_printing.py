"""How the order lists print what is not known about the real broker, and amends of a part of an order."""

from collections.abc import Callable
from typing import Any

import pytest

from aegis.terms import OrderKind, Side
from simulator.api.control import BadCommand
from simulator.api.error_codes import RequestRefused
from simulator.api.list_printing import DEFAULT, Printing
from simulator.api.server import Simulator
from simulator.exchange.orders import OrderStatus

from .conftest import ACCOUNT, SAMSUNG, Client, Market

BUY, SELL = Side.BUY, Side.SELL
TODAY = "20261123"
Start = Callable[..., Simulator]


def amend(client: Client, number: str, price: int, quantity: int = 0, **more: str) -> dict[str, Any]:
    """Amend a limit order, whole or in part."""
    body = {
        "KRX_FWDG_ORD_ORGNO": "06010",
        "ORGN_ODNO": number,
        "ORD_DVSN": "00",
        "RVSE_CNCL_DVSN_CD": "01",
        "ORD_QTY": str(quantity),
        "ORD_UNPR": str(price),
        "QTY_ALL_ORD_YN": "N" if quantity else "Y",
    }
    reply: dict[str, Any] = client.post("order-rvsecncl", client.tr("TTTC0013U"), **{**client.account, **body, **more})
    return reply.json()


def number_of(reply: Any) -> str:
    return str(reply.json()["output"]["ODNO"])


def line(client: Client, number: str, **more: str) -> dict[str, str]:
    rows = {row["odno"]: row for row in client.orders(TODAY, **more).json()["output1"]}
    row: dict[str, str] = rows[number]
    return row


def shown(client: Client, number: str) -> tuple[str, str, str]:
    """Return cancelled quantity, flag and open quantity as inquire-daily-ccld prints them."""
    row = line(client, number)
    return row["cncl_cfrm_qty"], row["cncl_yn"], row["rmn_qty"]


def open_rows(client: Client) -> dict[str, dict[str, str]]:
    params = {"CTX_AREA_FK100": "", "CTX_AREA_NK100": "", "INQR_DVSN_1": "0", "INQR_DVSN_2": "0"}
    reply = client.get("trading/inquire-psbl-rvsecncl", "TTTC0084R", **client.account, **params)
    return {row["odno"]: row for row in reply.json()["output"]}


# --- the modes


@pytest.mark.parametrize(("mode", "cancelled"), [("cancelled", "10"), ("untouched", "0")])
def test_the_original_of_an_amend(running: Start, mode: Any, cancelled: str) -> None:
    client = Client(running(printing=Printing(amended=mode)))
    number = number_of(client.buy(10, 65_000))
    new = amend(client, number, 65_100)["output"]["ODNO"]
    assert shown(client, number) == (cancelled, "", "0")
    assert shown(client, new) == ("0", "", "10")
    assert line(client, new)["orgn_odno"] == number
    assert list(open_rows(client)) == [new]


@pytest.mark.parametrize(("mode", "cancelled"), [("cancelled", "4"), ("untouched", "0")])
def test_the_original_of_an_amend_of_a_part(running: Start, mode: Any, cancelled: str) -> None:
    client = Client(running(printing=Printing(amended=mode)))
    number = number_of(client.buy(10, 65_000))
    new = amend(client, number, 65_100, quantity=4)["output"]["ODNO"]
    assert shown(client, number) == (cancelled, "", "6")
    assert {odno: row["psbl_qty"] for odno, row in open_rows(client).items()} == {number: "6", new: "4"}
    assert client.cancel(number).json()["rt_cd"] == "0"
    assert shown(client, number) == (str(6 + int(cancelled)), "Y", "0")
    assert shown(client, new) == ("0", "", "4")


@pytest.mark.parametrize(("mode", "printed"), [("cancelled", ("10", "Y", "0")), ("open", ("0", "", "10"))])
def test_what_the_session_end_took_back(
    running: Start, set_clock: Callable[[str], None], mode: Any, printed: tuple[str, str, str]
) -> None:
    client = Client(running(printing=Printing(closed=mode)))
    number = number_of(client.buy(10, 65_000))
    set_clock("2026-11-23 15:31")
    assert shown(client, number) == printed
    unfilled = client.orders(TODAY, CCLD_DVSN="02").json()["output1"]
    assert [row["odno"] for row in unfilled] == ([number] if mode == "open" else [])
    assert open_rows(client) == {}
    assert client.sim.ledger(ACCOUNT)["orders"][0]["status"] == "expired"


@pytest.mark.parametrize("mode", ["standing", "zero"])
def test_the_price_of_a_kind_that_is_sent_without_one(running: Start, mode: Any) -> None:
    client = Client(running(printing=Printing(unpriced=mode)))
    own_best = number_of(client.buy(1, 0, "04"))
    standing = client.sim.ledger(ACCOUNT)["orders"][0]["price"]
    expected = str(standing) if mode == "standing" else "0"
    assert standing > 0
    assert line(client, own_best)["ord_unpr"] == open_rows(client)[own_best]["ord_unpr"] == expected
    limit, market = number_of(client.buy(1, 65_000)), number_of(client.buy(1, 0, "01"))
    assert line(client, limit)["ord_unpr"] == "65000"
    assert line(client, market)["ord_unpr"] == "0"


def test_a_fill_notice_prints_the_price_as_the_lists_do(running: Start) -> None:
    client = Client(running(printing=Printing(unpriced="zero")))
    socket = client.socket()
    socket.ask("H0STCNI0", "me")
    client.buy(1, 0, "03")
    socket.frame("H0STCNI0")
    assert socket.frame("H0STCNI0")[1][-1] == "000000000"


def test_the_modes_change_while_the_simulator_runs(running: Start) -> None:
    client = Client(running())
    number = number_of(client.buy(10, 65_000))
    amend(client, number, 65_100)
    reply = client.http.post("/simulator/printing", json={}).json()
    assert reply == {"amended": "cancelled", "closed": "cancelled", "unpriced": "standing"}
    assert shown(client, number)[0] == "10"
    reply = client.http.post("/simulator/printing", json={"amended": "untouched"}).json()
    assert reply == {"amended": "untouched", "closed": "cancelled", "unpriced": "standing"}
    assert shown(client, number)[0] == "0"
    client.sim.command("POST", "/simulator/printing", {"amended": "cancelled"})
    assert shown(client, number)[0] == "10"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"amended": "gone"}, "amended 'gone': one of cancelled, untouched is needed"),
        ({"shape": "open"}, "'shape' is not a printing mode; the modes are amended, closed, unpriced"),
    ],
)
def test_a_mode_that_does_not_exist_is_refused(running: Start, body: dict[str, str], message: str) -> None:
    sim = running()
    with pytest.raises(BadCommand) as caught:
        sim.command("POST", "/simulator/printing", {"closed": "open", **body})
    assert str(caught.value) == message
    assert sim.command("POST", "/simulator/printing")["closed"] == "cancelled"


def test_a_restart_still_knows_what_was_amended_and_what_expired(market: Market) -> None:
    amended, expired = market.buy(10, 65_000), market.buy(10, 65_000)
    market.amend(amended, 65_100, quantity=4)
    market.cancel(expired, quantity=3)
    market.to("2026-11-23 15:31")
    again = type(market.exchange.world)()
    for event in market.exchange.ledger.events():
        again.apply(event)
    first, second = (again.orders[order.date, order.number] for order in (amended, expired))
    assert (first.replaced, first.expired, first.cancelled) == (4, 6, 10)
    assert (second.replaced, second.expired, second.cancelled) == (0, 7, 10)
    assert Printing(closed="open").is_cancelled(second)
    assert not Printing(closed="open").is_cancelled(first)
    assert DEFAULT.is_cancelled(first)


# --- amending


@pytest.mark.parametrize("venue", ["KRX", "NXT", "SOR"])
def test_a_limit_order_is_amended_on_every_venue(running: Start, venue: str) -> None:
    client = Client(running())
    number = number_of(client.buy(10, 65_000, EXCG_ID_DVSN_CD=venue))
    reply = amend(client, number, 65_100, quantity=4, EXCG_ID_DVSN_CD=venue)
    new = reply["output"]["ODNO"]
    row = line(client, new)
    assert (row["orgn_odno"], row["ord_qty"], row["ord_unpr"], row["excg_id_dvsn_Cd"]) == (number, "4", "65100", venue)


def test_an_amend_needs_cash_for_the_difference_only(market: Market) -> None:
    order = market.buy(1_400, 70_000)
    left = market.exchange.orderable_cash(ACCOUNT)
    assert left < 100 * 70_000
    amended = market.amend(order, 70_000 + left // 1_400 // 100 * 100)
    assert market.exchange.orderable_cash(ACCOUNT) >= 0
    with pytest.raises(RequestRefused, match="cash short"):
        market.amend(amended, amended.price + 1_000)
    assert (amended.status, amended.remaining) == (OrderStatus.OPEN, 1_400)


def test_the_difference_of_an_amend_includes_its_commission(market: Market) -> None:
    order = market.buy(1_000, 65_000)
    before = market.exchange.reserved_cash(ACCOUNT)
    more = market.exchange.amend_reserve(order, 400, 70_000)
    market.amend(order, 70_000, quantity=400)
    assert market.exchange.reserved_cash(ACCOUNT) - before == more > 400 * 5_000


def test_an_amended_sale_needs_no_shares_beyond_its_own(market: Market) -> None:
    market.buy(10, market.best(SELL))
    order = market.sell(10, market.best(SELL) + 500)
    assert market.amend(order, market.best(SELL) + 600).remaining == 10
    assert market.exchange.sellable(ACCOUNT, SAMSUNG) == 0


def test_an_order_is_amended_to_the_price_it_has(market: Market) -> None:
    order = market.buy(10, 65_000)
    again = market.amend(order, 65_000)
    assert (again.price, again.remaining, order.status) == (65_000, 10, OrderStatus.REPLACED)
    assert market.amend(again, 65_000, quantity=4).remaining == 4
    assert again.remaining == 6


def test_the_rest_of_an_amended_order_still_fills(market: Market) -> None:
    order = market.buy(10, market.best(BUY) - 500)
    market.amend(order, market.best(BUY) - 5_000, quantity=4)
    market.price_to(order.price)
    assert (order.filled, order.remaining, order.replaced) == (6, 0, 4)
    assert not DEFAULT.is_cancelled(order)


def test_an_amend_takes_only_the_kinds_of_the_hour() -> None:
    market = Market("2026-11-23 08:50")
    order = market.buy(1, 65_000)
    order.kind = OrderKind.LIMIT_IOC
    with pytest.raises(RequestRefused, match="kind not taken now"):
        market.amend(order, 65_100)
    order.kind = OrderKind.LIMIT
    assert market.amend(order, 65_100).price == 65_100
