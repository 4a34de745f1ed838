"""One request, repeated by eight processes at once, fifty times each: one order at the exchange.

    make once-check

Each process is a real client on the real PostgreSQL and the real simulator. In each round all of them begin
together with a request id of their own round; whoever comes late must get the same order. The last line is
JSON; exit 1 where a round has not exactly one row and one order, or an answer differs from the others.
"""

import json
import multiprocessing
import sys
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from bench import house

PROCESSES = 8
REPEATS = 50
ROUNDS = 5
ACCOUNT = "50000000-01"
PATIENCE_SECONDS = 120.0
LAST_PRICE = 70_000
# another price each round: the same order twice in a few seconds would be held for a slip of the hand
PRICES = [LAST_PRICE - 2_000 + 100 * number for number in range(ROUNDS)]


@dataclass(frozen=True, slots=True)
class Answer:
    round: int
    order: int


def repeat(start: "Barrier", answers: "multiprocessing.Queue[list[Answer] | str]") -> None:
    """Ask for every round's order over and over."""
    house.join()
    from aegis.terms import Side
    from infra import clock
    from kis.factory import broker
    from orders.service import OrderIntent, OrderService

    service = OrderService(broker(), clock.now)
    seen = []
    try:
        for number, price in enumerate(PRICES):
            start.wait(PATIENCE_SECONDS)
            for _ in range(REPEATS):
                order = service.place(OrderIntent("005930", Side.BUY, 1, price=price, request_id=f"once-{number}"))
                seen.append(Answer(number, order.pk))
    except Exception as error:  # noqa: BLE001 whatever it is, the judge hears of it
        start.abort()
        answers.put(f"{type(error).__name__}: {error}")
    else:
        answers.put(seen)


def main() -> int:
    with house.house() as url:
        house.hold(url, "005930", LAST_PRICE)
        said = _run()
        figures = _figures(url, said)
    print(json.dumps(figures))
    return 0 if _is_once(figures) else 1


def _run() -> "list[list[Answer] | str]":
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESSES), context.Queue()
    processes = [context.Process(target=repeat, args=(start, answers)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    said = [answers.get(timeout=PATIENCE_SECONDS) for _ in processes]
    for process in processes:
        process.join(15)
    return said


def _figures(url: str, said: "list[list[Answer] | str]") -> dict[str, object]:
    import httpx

    from orders.models import TradeOrder

    ledger = httpx.get(f"{url}/simulator/ledger", params={"account": ACCOUNT}, timeout=10, trust_env=False).json()
    given = [answer for each in said if not isinstance(each, str) for answer in each]
    return {
        "requests": ROUNDS,
        "processes": PROCESSES,
        "calls": len(given),
        "rows": TradeOrder.objects.count(),
        "orders_at_the_exchange": len(ledger["orders"]),
        "different_answers": len({(answer.round, answer.order) for answer in given}) - ROUNDS,
        "errors": [each for each in said if isinstance(each, str)],
    }


def _is_once(figures: dict[str, object]) -> bool:
    wanted = {
        "calls": PROCESSES * REPEATS * ROUNDS,
        "rows": ROUNDS,
        "orders_at_the_exchange": ROUNDS,
        "different_answers": 0,
        "errors": [],
    }
    return all(figures[name] == value for name, value in wanted.items())


if __name__ == "__main__":
    sys.exit(main())
