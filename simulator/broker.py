"""The broker: one exchange with its session clock, order entry, gateway and faults, and their settings."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from simulator.api.gateway import Gateway
from simulator.api.list_printing import DEFAULT, Printing
from simulator.exchange.calendar import is_trading_day
from simulator.exchange.conditional_orders import OffBookOrders
from simulator.exchange.daily_history import History
from simulator.exchange.event_log import Ledger
from simulator.exchange.exchange import VENUES, Exchange
from simulator.exchange.index_model import IndexModel
from simulator.exchange.listings import STOCKS
from simulator.exchange.order_entry import OrderEntry
from simulator.exchange.session_clock import SessionClock
from simulator.faults.table import Faults

Wire = Literal["2026-07", "2026-09"]
WIRES: tuple[Wire, ...] = ("2026-07", "2026-09")
LIVE_RATE, PAPER_RATE = 18, 1


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one firm. `wire` is the layout of replies and frames; a `rate` of 0 disables the call limit.

    `rate` is in calls per second. With `specification` the TR ids of the user's specification are accepted too.
    """

    seed: int = 1
    wire: Wire = "2026-09"
    is_paper: bool = False
    specification: bool = False
    rate: int | None = None
    notice_columns: int | None = None
    ledger_path: Path | None = None
    is_ticking: bool = True
    codes: frozenset[str] | None = None  # list these stocks only; None lists all
    printing: Printing = DEFAULT  # at start; a control command can change it

    @property
    def calls_per_second(self) -> int:
        if self.rate is not None:
            return self.rate
        return PAPER_RATE if self.is_paper else LIVE_RATE

    @property
    def notice_width(self) -> int:
        """Columns of a fill notice: 26 by the portal, 23 in paper trading and in the reference clients."""
        return self.notice_columns or (26 if self.wire == "2026-09" and not self.is_paper else 23)


class Firm:
    """The broker without its network interfaces. Called from one thread only."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.printing = settings.printing
        self.exchange = Exchange(
            Ledger(settings.ledger_path),
            branch="00950" if settings.is_paper else "06010",
            listed={code: stock for code, stock in STOCKS.items() if settings.codes is None or code in settings.codes},
        )
        seed = self.exchange.world.seed if self.exchange.world.day else settings.seed
        self.offbook = OffBookOrders(self.exchange)
        self.session_clock = SessionClock(self.exchange, self.offbook, seed)
        self.order_entry = OrderEntry(self.exchange, self.offbook, is_paper=settings.is_paper)
        self.gateway = Gateway(self.exchange, calls_per_second=settings.calls_per_second)
        self.history = History(self.exchange.world)
        self.index_model = IndexModel(self.exchange, self.history, seed)
        self.faults = Faults(seed)
        self.exchange.faults = self.faults

    def advance(self, now: datetime) -> None:
        """Bring the market to `now`."""
        self.session_clock.advance(now, stepping=self.settings.is_ticking)

    def is_trading(self, now: datetime) -> bool:
        """Return whether any venue is in a phase at `now`."""
        return any(self.exchange.phases(market, now) for market in VENUES)

    def is_trading_day(self, now: datetime) -> bool:
        return is_trading_day(now.date())

    def reset(self, seed: int, account: str | None, now: datetime) -> None:
        """Reset one account, or the whole world if `account` is None."""
        if account is not None:
            for order in self.exchange.world.open_orders(account):
                self.exchange.remove_from_book(order, order.remaining)
            self.exchange.record("reset", now, account=account)
            return
        self.exchange.record("reset", now)
        self.exchange.market_time = None
        self.session_clock = SessionClock(self.exchange, self.offbook, seed)
        self.history = History(self.exchange.world)
        self.index_model = IndexModel(self.exchange, self.history, seed)
        self.advance(now)
