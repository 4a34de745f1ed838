"""What was told is written down; what is written down comes back."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from aegis.terms import Side
from simulator.api.server import Simulator
from simulator.exchange.event_log import Ledger, LedgerDamaged, LedgerInUse
from simulator.exchange.orders import OrderStatus

from .conftest import ACCOUNT, SAMSUNG, Client, Market, full_disk

BUY, SELL = Side.BUY, Side.SELL


def test_a_restarted_house_remembers_everything(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = Market(ledger_path=path)
    before.buy(10, before.best(SELL))
    resting = before.buy(7, before.best(BUY) - 500)
    before.price_to(before.exchange.price(SAMSUNG) + 1000)
    seen = before.ledger()
    before.exchange.ledger.close()

    after = Market(ledger_path=path)
    assert after.ledger() == seen
    assert after.exchange.price(SAMSUNG) == before.exchange.price(SAMSUNG)
    order = after.exchange.world.orders[resting.date, resting.number]
    assert after.book().quantity(BUY, order.price) >= 7
    after.price_to(order.price)
    assert order.status is OrderStatus.FILLED
    assert after.buy(1, after.best(SELL)).number == 3


def test_a_fill_after_a_restart_counts_only_what_was_left(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = Market(ledger_path=path)
    price = before.best(BUY)
    ahead = before.book().quantity(BUY, price)
    order = before.buy(10, price)
    venue = before.exchange.venue(SAMSUNG)
    before.exchange.book_fills(venue, venue.execute(SELL, price, ahead + 4, "", before.now))
    before.exchange.ledger.close()
    after = Market(ledger_path=path)
    order = after.exchange.world.orders[order.date, order.number]
    after.price_to(price - 500)
    assert (order.filled, order.quantity) == (10, 10)
    assert [fill["quantity"] for fill in after.ledger()["executions"]] == [4, 6]


def test_a_restart_lays_the_book_round_the_orders_that_rest(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = Market(ledger_path=path)
    before.buy(10, before.best(SELL))
    ask = before.sell(10, before.best(SELL) + 500)
    before.price_to(ask.price - 100)
    before.exchange.record("price", before.now, code=SAMSUNG, market="KRX", price=ask.price)
    before.exchange.ledger.close()
    after = Market(ledger_path=path)
    assert after.best(BUY) < after.best(SELL) == ask.price


def test_a_line_torn_by_death_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = Market(ledger_path=path)
    before.buy(10, before.best(SELL))
    seen = before.ledger()
    before.exchange.ledger.close()
    with path.open("ab") as file:
        file.write(b'{"event":"fill","numb')
    after = Market(ledger_path=path)
    assert after.ledger() == seen
    after.exchange.ledger.close()
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def test_a_damaged_file_is_not_taken_for_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text("not a ledger\n{}\n", encoding="utf-8")
    ledger = Ledger(path)
    with pytest.raises(LedgerDamaged, match="line 1"):
        list(ledger.replay())
    ledger.close()


def test_an_event_that_the_disk_has_no_room_for_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    market = Market(ledger_path=path)
    seen = market.ledger()
    before, count = path.read_bytes(), market.exchange.ledger.count
    with full_disk(path), pytest.raises(OSError, match="File too large"):
        market.buy(1, 60_000)
    assert path.read_bytes() == before
    assert (market.ledger(), market.exchange.ledger.count) == (seen, count)
    assert market.buy(1, 60_000).number == 1
    market.exchange.ledger.close()
    assert [row["number"] for row in Market(ledger_path=path).ledger()["orders"]] == ["0000000001"]


def test_a_full_disk_is_told_by_every_command_in_json(running: Callable[..., Simulator], tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    client = Client(running(ledger_path=path))
    client.buy(1, 60_000)
    order = {"account": ACCOUNT, "code": SAMSUNG, "side": "BUY", "quantity": 1, "price": 60_000}
    with full_disk(path):
        placed = client.http.post("/simulator/orders", json=order)
        price = client.http.post(f"/simulator/quotes/{SAMSUNG}", json={"price": 71_000})
        ledger = client.http.get("/simulator/ledger", params={"account": ACCOUNT})
        unknown = client.http.get("/simulator/ledger", params={"account": "99999999-01"})
    for reply in (placed, price, unknown):
        assert reply.status_code == 507
        assert reply.json()["error"].startswith("the simulator cannot write its files ([Errno")
    assert len(ledger.json()["orders"]) == 1
    assert client.http.post("/simulator/orders", json=order).json()["status"] == "open"


def test_two_simulators_do_not_share_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Market(ledger_path=path)
    with pytest.raises(LedgerInUse, match="another simulator writes to"):
        Market(ledger_path=path)


def test_the_order_is_in_the_ledger_before_its_fill_and_its_answer(running: Callable[..., Simulator]) -> None:
    sim = running()
    client = Client(sim)
    client.buy(10, 0, "01")
    events = [event["event"] for event in sim.events()]
    tail = events[events.index("order") :]
    assert tail[0] == "order"
    assert tail[-1] == "request"
    assert "fill" in tail


def test_a_request_keeps_the_tag_a_test_put_on_it(running: Callable[..., Simulator]) -> None:
    sim = running()
    client = Client(sim)
    client.headers["aegis-intent"] = "intent-7/1"
    client.buy(1, 0, "01")
    tagged = [event for event in sim.events() if event.get("tag") == "intent-7/1"]
    assert {event["event"] for event in tagged} == {"order", "request"}


def test_no_secret_reaches_the_ledger(running: Callable[..., Simulator]) -> None:
    sim = running()
    client = Client(sim, app_key="my-app-key")
    client.buy(1, 0, "01")
    text = json.dumps(sim.events())
    assert "my-app-key" not in text
    assert "s" * 180 not in text


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a Unix word")
def test_a_ledger_without_places_in_the_queue_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    before = Market(ledger_path=path)
    resting = before.buy(7, before.best(BUY) - 500)
    before.exchange.ledger.close()
    path.write_text(path.read_text().replace(f'"book_price":{resting.price},', ""))
    assert "book_price" not in path.read_text()

    after = Market(ledger_path=path)
    assert after.book().quantity(BUY, resting.price) >= 7
    after.cancel(after.exchange.world.orders[resting.date, resting.number])
    assert list(after.book().customer_prices(BUY)) == []


def test_kill_nine_loses_nothing_a_client_was_told(tmp_path: Path, set_clock: Callable[[str], None]) -> None:
    set_clock("2026-11-23 10:00")
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys; from pathlib import Path; from simulator.broker import Settings; "
        "from simulator.api.server import run; "
        "run(Settings(ledger_path=Path(sys.argv[1]), rate=0, codes=frozenset({'005930'})), host='127.0.0.1', port=0, "
        "ready=lambda port: print(port, flush=True))"
    )
    told: list[str] = []

    def start() -> tuple[subprocess.Popen[str], Simulator]:
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        sim = Simulator.__new__(Simulator)
        sim.url = f"http://127.0.0.1:{port}"
        return process, sim

    process, sim = start()
    client = Client(sim)
    killer_at = time.monotonic() + 0.6
    while time.monotonic() < killer_at:
        told.append(client.buy(1, 60_000).json()["output"]["ODNO"])
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    process, again = start()
    try:
        ledger = httpx.get(f"{again.url}/simulator/ledger", params={"account": ACCOUNT}).json()
        client.http.base_url = again.url
        assert {order["number"] for order in ledger["orders"]} >= set(told)
        assert int(client.buy(1, 60_000).json()["output"]["ODNO"]) > int(told[-1])
    finally:
        process.terminate()
        assert process.wait(10) == 0
        assert process.stdout is not None
        process.stdout.close()
