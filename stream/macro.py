"""Indexes, the future and program trading in the stream worker: the newest values, written every few seconds."""

import threading
from collections.abc import Iterable, Sequence
from decimal import Decimal

from infra import clock
from kis.realtime import FuturesTick, IndexTick, ProgramTrading
from kis.subscriptions import Topic
from market import macro, queries
from stream.consumers import Consumer, PeriodicJob, SubscriptionPriority, SubscriptionRequest

WRITE_SECONDS = 5.0


class MacroWriter:
    """The figures of one session of the leader. Handlers run on the socket's thread, the job on its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[str, Decimal | str] = {}
        self._programs: dict[str, dict[str, int]] = {}

    def on_index(self, ticks: Sequence[IndexTick], arrived: float) -> None:
        with self._lock:
            for tick in ticks:
                field = macro.INDEX_FIELDS.get(tick.code)
                if field is not None and tick.points:
                    self._figures[field] = tick.points

    def on_future(self, ticks: Sequence[FuturesTick], arrived: float) -> None:
        with self._lock:
            for tick in ticks:
                if tick.points:
                    self._figures |= {"kospi200_futures": tick.points, "futures_code": tick.code}

    def on_program(self, ticks: Sequence[ProgramTrading], arrived: float) -> None:
        with self._lock:
            for tick in ticks:
                self._programs[tick.code] = {name: getattr(tick, name) or 0 for name in macro.PROGRAM_FIELDS}

    def write(self) -> None:
        """Write the figures received since the last call. Raises DatabaseError; later frames replace lost figures."""
        with self._lock:
            figures, self._figures = self._figures, {}
            programs, self._programs = self._programs, {}
        now = clock.now()
        if figures:
            macro.store_figures(figures, at=now)
        if programs:
            macro.store_programs(programs, at=now)


def index_topics() -> Iterable[Topic]:
    return [Topic("H0UPCNT0", code) for code in (macro.KOSPI200, macro.KOSPI, macro.KOSDAQ)]


def futures_topics() -> Iterable[Topic]:
    """Return the feed of the contract that expires next, nothing until the day's first reading has its code."""
    code = queries.futures_code(clock.now().date())
    return [Topic("H0IFCNT0", code)] if code else []


def program_topics() -> Iterable[Topic]:
    return [Topic("H0STPGM0", code) for code in queries.watched_codes()]


def consumer() -> Consumer:
    """Record the indexes, the future, and program trading of watched stocks."""
    writer = MacroWriter()
    return Consumer(
        handlers={"H0UPCNT0": writer.on_index, "H0IFCNT0": writer.on_future, "H0STPGM0": writer.on_program},
        requests=(
            SubscriptionRequest(SubscriptionPriority.INDEX, index_topics),
            SubscriptionRequest(SubscriptionPriority.INDEX, futures_topics),
            SubscriptionRequest(SubscriptionPriority.PROGRAM, program_topics),
        ),
        jobs=(PeriodicJob("macro", WRITE_SECONDS, writer.write),),
    )
