"""What indexes, the future and programs say in the stream worker: the newest of each, written every few seconds."""

import threading
from collections.abc import Iterable, Sequence
from decimal import Decimal

from infra import clock
from kis.realtime import FuturesTick, IndexTick, ProgramTrading
from kis.subscriptions import Topic
from market import macro, queries
from stream.consumers import Consumer, FeedPriority, PeriodicJob, SubscriptionRequest

WRITE_SECONDS = 5.0


class MacroWriter:
    """The figures of one term of the lease. Handlers run on the socket's thread, the chore on its own."""

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
        """Write what was heard since the last time. Raises DatabaseError; what comes next tells it anew."""
        with self._lock:
            figures, self._figures = self._figures, {}
            programs, self._programs = self._programs, {}
        now = clock.now()
        if figures:
            macro.keep(figures, at=now)
        if programs:
            macro.keep_programs(programs, at=now)


def indexes() -> Iterable[Topic]:
    return [Topic("H0UPCNT0", code) for code in (macro.KOSPI200, macro.KOSPI, macro.KOSDAQ)]


def futures() -> Iterable[Topic]:
    """Return the feed of the contract that expires next, once the day's first look at it told which."""
    code = queries.futures_code(clock.now().date())
    return [Topic("H0IFCNT0", code)] if code else []


def programs() -> Iterable[Topic]:
    return [Topic("H0STPGM0", code) for code in queries.watched_codes()]


def consumer() -> Consumer:
    """Listen to the market as a whole, and to programs in what is watched."""
    heard = MacroWriter()
    return Consumer(
        handlers={"H0UPCNT0": heard.on_index, "H0IFCNT0": heard.on_future, "H0STPGM0": heard.on_program},
        wishes=(
            SubscriptionRequest(FeedPriority.INDEX, indexes),
            SubscriptionRequest(FeedPriority.INDEX, futures),
            SubscriptionRequest(FeedPriority.PROGRAM, programs),
        ),
        chores=(PeriodicJob("macro", WRITE_SECONDS, heard.write),),
    )
