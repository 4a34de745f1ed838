"""Detects halts of the whole market: their code is part of the state of each stock of the board."""

import queue
from collections.abc import Iterable, Sequence

from django.db import Error as DatabaseError

from aegis.market_halts import BEGINS, ENDS
from infra import clock
from kis.realtime import StockState
from kis.subscriptions import Topic
from orders import market_halts
from portfolio.service import PortfolioService
from stream.consumers import Consumer, FeedPriority, PeriodicJob, SubscriptionRequest

LISTEN_SECONDS = 0.5
TOLD = frozenset({*BEGINS, *ENDS})
# one stock of each board that always trades: 삼성전자, 에코프로비엠
SENTRIES = ("005930", "247540")


class Halts:
    """The operation codes about halts that one session of the leader received."""

    def __init__(self) -> None:
        self._codes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last: dict[str, str] = {}

    def on_states(self, states: Sequence[StockState], arrived: float) -> None:
        for state in states:
            if state.phase_code in TOLD and self._last.get(state.code) != state.phase_code:
                self._codes.put(state.phase_code)
            self._last[state.code] = state.phase_code

    def write(self) -> None:
        """Write one code to the database. If the database is away, the code is put back."""
        try:
            code = self._codes.get(timeout=LISTEN_SECONDS)
        except queue.Empty:
            return
        try:
            market_halts.hear(code, clock.now())
        except DatabaseError:
            self._codes.put(code)
            raise


def states() -> Iterable[Topic]:
    held_codes = [holding.stock_code for holding in PortfolioService().get_portfolio()]
    return [Topic("H0STMKO0", code) for code in dict.fromkeys([*SENTRIES, *held_codes])]


def consumer() -> Consumer:
    """Record circuit breakers and sidecars, and subscribe to the states of held stocks."""
    halts = Halts()
    return Consumer(
        handlers=dict.fromkeys(("H0STMKO0", "H0NXMKO0", "H0UNMKO0"), halts.on_states),
        wishes=(SubscriptionRequest(FeedPriority.STATES, states),),
        chores=(PeriodicJob("market-halts", 0.0, halts.write),),
    )
