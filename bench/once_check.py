"""One request, repeated by eight processes at once, fifty times each: one order at the exchange.

    make once-check

Each process is a real client on the real PostgreSQL and the real simulator. In each round all processes start
together with the round's request id, and all their calls must return the same order. The last line is JSON;
exit 1 if a round does not have exactly one row and one order, or if an answer differs from the others.
"""

import json
import multiprocessing
import sys
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from bench import isolation

PROCESSES = 8
REPEATS = 50
ROUNDS = 5
ACCOUNT = "50000000-01"
PATIENCE_SECONDS = 120.0
LAST_PRICE = 70_000
# another price each round: the same order twice within seconds would be denied as a duplicate
PRICES = [LAST_PRICE - 2_000 + 100 * number for number in range(ROUNDS)]


@dataclass(frozen=True, slots=True)
class Answer:
    round: int
    order: int


def repeat(start: "Barrier", answers: "multiprocessing.Queue[list[Answer] | str]") -> None:
    """Place every round's order REPEATS times."""
    isolation.set_up_child()
    from aegis.terms import Side
    from infra import clock
    from kis.factory import broker
    from orders.service import OrderIntent, OrderService

    service = OrderService(broker(), clock.now)
    own_answers = []
    try:
        for number, price in enumerate(PRICES):
            start.wait(PATIENCE_SECONDS)
            for _ in range(REPEATS):
                order = service.place(OrderIntent("005930", Side.BUY, 1, price=price, request_id=f"once-{number}"))
                own_answers.append(Answer(number, order.pk))
    except Exception as error:  # noqa: BLE001 the main process reports every error
        start.abort()
        answers.put(f"{type(error).__name__}: {error}")
    else:
        answers.put(own_answers)


def main() -> int:
    with isolation.isolated_system() as url:
        isolation.freeze_price(url, "005930", LAST_PRICE)
        replies = _run()
        figures = _figures(url, replies)
    print(json.dumps(figures))
    return 0 if _is_once(figures) else 1


def _run() -> "list[list[Answer] | str]":
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(PROCESSES), context.Queue()
    processes = [context.Process(target=repeat, args=(start, answers)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    replies = [answers.get(timeout=PATIENCE_SECONDS) for _ in processes]
    for process in processes:
        process.join(15)
    return replies


def _figures(url: str, replies: "list[list[Answer] | str]") -> dict[str, object]:
    import httpx

    from orders.models import TradeOrder

    ledger = httpx.get(f"{url}/simulator/ledger", params={"account": ACCOUNT}, timeout=10, trust_env=False).json()
    placed = [answer for reply in replies if not isinstance(reply, str) for answer in reply]
    return {
        "requests": ROUNDS,
        "processes": PROCESSES,
        "calls": len(placed),
        "rows": TradeOrder.objects.count(),
        "orders_at_the_exchange": len(ledger["orders"]),
        "different_answers": len({(answer.round, answer.order) for answer in placed}) - ROUNDS,
        "errors": [reply for reply in replies if isinstance(reply, str)],
    }


def _is_once(figures: dict[str, object]) -> bool:
    expected = {
        "calls": PROCESSES * REPEATS * ROUNDS,
        "rows": ROUNDS,
        "orders_at_the_exchange": ROUNDS,
        "different_answers": 0,
        "errors": [],
    }
    return all(figures[name] == value for name, value in expected.items())


if __name__ == "__main__":
    sys.exit(main())
