"""Detects halts of the whole market: their code is part of the state of each stock of the board."""

import queue
from collections.abc import Iterable, Sequence
from time import sleep

from django.db import Error as DatabaseError

from aegis.market_halts import BEGINS, ENDS
from infra import clock
from kis.realtime import StockState
from kis.subscriptions import Topic
from orders import market_halts
from portfolio.service import PortfolioService
from stream.consumers import Consumer, PeriodicJob, SubscriptionPriority, SubscriptionRequest

LISTEN_SECONDS = 0.5
HALT_CODES = frozenset({*BEGINS, *ENDS})
# one stock of each board that always trades: 삼성전자, 에코프로비엠
SENTINEL_STOCKS = ("005930", "247540")


class Halts:
    """The operation codes about halts that one session of the leader received."""

    def __init__(self) -> None:
        self._codes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._unwritten = ""  # the code that was taken from the queue last, while it is not written
        self._last: dict[str, str] = {}

    def on_states(self, states: Sequence[StockState], arrived: float) -> None:
        for state in states:
            if state.phase_code in HALT_CODES and self._last.get(state.code) != state.phase_code:
                self._codes.put(state.phase_code)
            self._last[state.code] = state.phase_code

    def write(self) -> None:
        """Write one code to the database. If the database is away, the next call writes it.

        Codes are written in the order of their arrival: a halt whose end was written before its beginning stays open.
        """
        try:
            self._unwritten = self._unwritten or self._codes.get(timeout=LISTEN_SECONDS)
        except queue.Empty:
            return
        try:
            market_halts.hear(self._unwritten, clock.now())
        except DatabaseError:
            sleep(LISTEN_SECONDS)
            raise
        self._unwritten = ""


def state_topics() -> Iterable[Topic]:
    held_codes = [holding.stock_code for holding in PortfolioService().get_portfolio()]
    return [Topic("H0STMKO0", code) for code in dict.fromkeys([*SENTINEL_STOCKS, *held_codes])]


def consumer() -> Consumer:
    """Record circuit breakers and sidecars, and subscribe to the states of held stocks."""
    halts = Halts()
    return Consumer(
        handlers=dict.fromkeys(("H0STMKO0", "H0NXMKO0", "H0UNMKO0"), halts.on_states),
        requests=(SubscriptionRequest(SubscriptionPriority.STATES, state_topics),),
        jobs=(PeriodicJob("market-halts", 0.0, halts.write),),
    )
