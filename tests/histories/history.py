"""One history: intents, moves of the market, races, lost replies, odd notices, crashes; then its judgement.

The exchange, the client, the services and the database are the real ones. Only two seams are ours: the
broker, whose calls may crash the process before or after they are made, and the way notices come in. A
crash is an exception that nothing catches: what is committed stays, what is not is gone, and the next
action is another process's.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest import mock

from aegis.broker import Acceptance, Broker, BrokerError, OrderRequest, Placed
from aegis.chase import Plan
from aegis.guards import TradingState
from aegis.lifecycle import UNSETTLED, Status
from aegis.terms import Side
from aegis.ticks import step
from config.judge import judge
from kis import clock, codec
from kis.simulator.frames import notice_row
from kis.simulator.server import Simulator
from orders import chase, fills, journal, reconcile
from orders import settle as settling
from orders.models import TradeOrder, TradingSwitch
from orders.reorders import Reorders
from orders.requests import Grounds
from orders.service import Intent, OrderDenied, OrderService
from orders.submit import Submitter
from portfolio import ledger
from portfolio.fetcher import KISFetcher

ACCOUNT = "50000000-01"
CODES = ("005930", "004090")
BASE = {"005930": 70_000, "004090": 16_000}
HELD = {"005930": 20, "004090": 400}
TURN = timedelta(seconds=16)
MOST_TURNS = 60
PLAN = Plan(wait_seconds=30, max_retries=2, step_ticks=1, market_after=True)

# where a process may die: the module or class that is left in the middle, the function, and whether it was done
CRASHES: dict[str, tuple[Any, str, bool]] = {
    "before intent commit": (journal, "commit", False),
    "after intent commit": (journal, "commit", True),
    "before save": (journal, "accepted", False),
    "after save": (journal, "accepted", True),
    "mid fill": (ledger, "count_fill", True),
    "before the re-order": (Reorders, "reorder", False),
    "while settling": (settling, "_settle_end", False),
}
WIRE_CRASHES = ("before place", "after place", "before cancel", "after cancel")


class Crash(BaseException):
    """kill -9, as far as one process can feign it."""


@dataclass(frozen=True, slots=True)
class Want:
    """An intent to choose from."""

    code: str
    side: Side
    qty: int
    strategy: str = ""
    price: int | None = None
    plan: Plan | None = PLAN


WANTS = (
    Want("005930", Side.BUY, 10, "buy_normal"),
    Want("005930", Side.BUY, 7, "buy_urgent"),
    Want("005930", Side.SELL, 3, "sell_emergency"),
    Want("005930", Side.SELL, 5, "sell_profit"),
    Want("005930", Side.BUY, 4, price=69_500, plan=None),
    Want("005930", Side.BUY, 2),
    Want("004090", Side.BUY, 600, "buy_urgent"),
    Want("004090", Side.SELL, 150, "sell_stop"),
)


@dataclass
class Wire:
    """The broker as one process has it: its calls are counted, and may be its last."""

    broker: Broker
    sent: Counter[int] = field(default_factory=Counter)
    sending: int = 0
    crash: str = ""
    meanwhile: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    def place(self, request: OrderRequest) -> Acceptance:
        self.sent[self.sending] += 1
        self._interrupt("before place")
        acceptance = self.broker.place(request)
        self._interrupt("after place")
        return acceptance

    def cancel(self, placed: Placed) -> Acceptance:
        self._interrupt("before cancel")
        acceptance = self.broker.cancel(placed)
        self._interrupt("after cancel")
        return acceptance

    def _interrupt(self, point: str) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.crash == point:
            self.crash = ""
            raise Crash(point)


class History:
    """Plays actions, heals, and says what went wrong."""

    def __init__(self, simulator: Simulator, broker: Broker) -> None:
        self.simulator = simulator
        self.wire = Wire(broker)
        self.service = OrderService(self.wire, clock.now)  # type: ignore[arg-type]
        self.asked: list[Intent] = []
        self.coming: deque[str] = deque()
        self.heard: list[str] = []
        self.by_hand: list[str] = []
        self.overcounted: list[str] = []
        self.advancing = 0

    def begin(self) -> None:
        """Put shares and prices in place, and listen for notices."""
        for code, price in BASE.items():
            self.simulator.set_price(code, price, freeze=True)
            words = {"account": ACCOUNT, "code": code, "quantity": HELD[code], "cost": HELD[code] * price}
            self.simulator.command("POST", "/simulator/shares", words)
        self._work_once()
        KISFetcher(self.wire, clock.now).sync_portfolio()  # type: ignore[arg-type]

    def hear_from(self, notice: Any) -> None:
        """Take a notice from the exchange; it is on its way until `hear` lets it in."""
        self.coming.append("^".join(notice_row(notice, "rehearsal", 26)))

    # --- actions ---------------------------------------------------------------------------------

    def order(self, want: int, fault: str, crash: str) -> None:
        chosen = WANTS[want]
        intent = Intent(
            chosen.code,
            chosen.side,
            chosen.qty,
            strategy=chosen.strategy,
            price=chosen.price,
            request_id=f"request-{len(self.asked)}",
            plan=chosen.plan,
        )
        self.asked.append(intent)
        self._place(intent, fault, crash)

    def again(self, which: int, fault: str) -> None:
        """The caller asks once more for what it asked for before, as it does when it heard nothing."""
        if self.asked:
            self._place(self.asked[which % len(self.asked)], fault, "")

    def _place(self, intent: Intent, fault: str, crash: str) -> None:
        if fault:
            self.simulator.fault(fault, path="order-cash", count=1)
        with self._crashing(crash), suppress(OrderDenied, BrokerError):
            self.service.place(intent)

    def move(self, which: int, ticks: int) -> None:
        """The market comes to a price some ticks from where the history began, through the real book."""
        code = CODES[which]
        self.simulator.set_price(code, step(BASE[code], ticks), freeze=True)

    def work(self, turns: int, fault: str, crash: str, *, races: bool) -> None:
        """Time passes, and the workers do what is due; two of them at once where it `races`."""
        if fault:
            self.simulator.fault(fault, path="order-rvsecncl", count=1)
        for _ in range(turns):
            with self._crashing(crash):
                self._work_once(races=races)
            crash = ""

    def look(self, fault: str) -> None:
        """The list is read, perhaps a broken one."""
        if fault:
            self.simulator.fault(fault, path="inquire-daily-ccld", count=1)
        with suppress(BrokerError):
            reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]

    def hear(self, how: str, crash: str) -> None:
        """Notices come in: in order, backwards, twice, never, or those of long ago once more."""
        texts = list(self.heard if how == "old" else self.coming)
        if how != "old":
            self.coming.clear()
        if how == "lost":
            return
        texts = texts[::-1] if how == "backwards" else texts
        for text in texts * (2 if how == "twice" else 1):
            self.heard.append(text)
            with self._crashing(crash):
                self._hear(text)
            crash = ""

    def hand(self, which: int, qty: int) -> None:
        """An order in the broker's own app."""
        code = CODES[which]
        words = {"account": ACCOUNT, "code": code, "side": "BUY", "quantity": 100 + qty, "price": step(BASE[code], -1)}
        self.by_hand.append(str(self.simulator.command("POST", "/simulator/orders", words)["number"]))

    def switch(self, state: TradingState) -> None:
        TradingSwitch.objects.update(state=state)

    def balance(self) -> None:
        with suppress(BrokerError):
            KISFetcher(self.wire, clock.now).sync_portfolio()  # type: ignore[arg-type]

    def watch(self) -> None:
        """See that no row counts more than the exchange has filled, at any moment."""
        truth = {str(each["number"]): each["filled"] for each in self.simulator.ledger(ACCOUNT)["orders"]}
        for order in TradeOrder.objects.exclude(order_no=None).exclude(filled_qty=0):
            if order.filled_qty > truth.get(str(order.order_no), 0):
                self.overcounted.append(f"{order}: {order.filled_qty} counted of {truth.get(str(order.order_no), 0)}")

    # --- the end ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """End every fault, and let the workers work until nothing is left to settle."""
        self.simulator.clear_faults()
        self.switch(TradingState.ACTIVE)
        for _ in range(MOST_TURNS):
            self.hear("in order", "")
            self._work_once()
            self._decide()
            if not self._is_unsettled():
                break
        self._pass(TURN)
        reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]
        KISFetcher(self.wire, clock.now).sync_portfolio()  # type: ignore[arg-type]

    def wrongs(self) -> dict[str, list[str]]:
        """Return what must not be, by kind."""
        truth = self.simulator.ledger(ACCOUNT)
        verdict = judge(truth)
        stuck = [f"{order} is {order.status}" for order in TradeOrder.objects.filter(status__in=UNSETTLED - RESTS)]
        return {
            "overfills": self._overfills(truth),
            "duplicate_orders": self._duplicates(),
            "ledger_differs": [*verdict.differences, *stuck],
        }

    def _overfills(self, truth: dict[str, Any]) -> list[str]:
        """Return the families that the exchange filled over what was asked for, and the orders it filled over."""
        filled = {str(each["number"]): each for each in truth["orders"]}
        wrongs = []
        for root in TradeOrder.objects.filter(root=None):
            family = [root, *root.retries.all()]
            numbers = [order.order_no for order in family if order.order_no]
            total = sum(filled[number]["filled"] for number in numbers if number in filled)
            if total > root.qty:
                wrongs.append(f"{root}: {total} filled")
        return wrongs + self.overcounted

    def _duplicates(self) -> list[str]:
        """Return rows sent more than once, and orders at the broker that nobody asked for."""
        twice = [f"order {pk} was sent {times} times" for pk, times in self.wire.sent.items() if times > 1]
        adopted = set(TradeOrder.objects.filter(origin="EXTERNAL").values_list("order_no", flat=True))
        twice += [f"order {number} was placed by nobody" for number in adopted - set(self.by_hand)]
        roots = TradeOrder.objects.filter(origin="AEGIS", root=None).exclude(order_no=None).count()
        return twice + ([f"{roots} orders for {len(self.asked)} requests"] if roots > len(self.asked) else [])

    # --- how -------------------------------------------------------------------------------------

    def _work_once(self, *, races: bool = False) -> None:
        self._pass(TURN)
        with suppress(BrokerError):
            for pk in chase.due(clock.now()):
                if races:
                    self.wire.meanwhile = lambda pk=pk: self._rival(pk)
                self.advancing = pk
                chase.advance(pk, self.wire, clock.now)  # type: ignore[arg-type]
                self.advancing = 0
            reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]
        self.wire.meanwhile = None

    def _rival(self, pk: int) -> None:
        """Another sweeper comes upon the same order in the middle of a step."""
        chase.advance(pk, self.wire, clock.now)  # type: ignore[arg-type]
        with suppress(BrokerError):
            reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]

    def _hear(self, text: str) -> None:
        for notice in codec.notices(codec.Data("H0STCNI0", 1, text)):
            fills.receive(notice, account=ACCOUNT.replace("-", ""), now=clock.now(), arrived=time.perf_counter())

    def _pass(self, by: timedelta) -> None:
        clock.set_now(clock.now() + by)

    def _is_unsettled(self) -> bool:
        unsettled = TradeOrder.objects.filter(status__in=UNSETTLED)
        return unsettled.exclude(status__in=RESTS, chase_at=None).exists()

    def _decide(self) -> None:
        """A person decides what the rows cannot: which of several orders was ours, by asking the exchange."""
        for order in TradeOrder.objects.filter(status=Status.UNKNOWN).exclude(candidates=[]):
            taken = {*self.by_hand, *TradeOrder.objects.exclude(order_no=None).values_list("order_no", flat=True)}
            mine = next((each["order_no"] for each in order.candidates if each["order_no"] not in taken), None)
            self.service.decide(order, mine, by="the trader")

    @contextmanager
    def _crashing(self, crash: str) -> Iterator[None]:
        """Let the process die at `crash`, if it comes there; a claim it held stays held, as after kill -9."""
        try:
            with _armed(crash, self.wire):
                yield
        except Crash:
            TradeOrder.objects.filter(pk=self.advancing).update(chase_claimed_until=clock.now() + chase.CLAIM)
        self.advancing = 0


RESTS = frozenset({Status.PENDING, Status.PARTIAL})


@contextmanager
def _armed(crash: str, wire: Wire) -> Iterator[None]:
    if crash in WIRE_CRASHES:
        wire.crash = crash
        try:
            yield
        finally:
            wire.crash = ""
    elif crash:
        owner, name, is_done = CRASHES[crash]
        with mock.patch.object(owner, name, _dying(getattr(owner, name), crash, is_done)):
            yield
    else:
        yield


def _dying(function: Callable[..., Any], crash: str, is_done: bool) -> Callable[..., Any]:
    def die(*args: Any, **kwargs: Any) -> Any:
        if is_done:
            function(*args, **kwargs)
        raise Crash(crash)

    return die


def remember_sender(wire: Wire) -> Any:
    """Patch the sending so that the wire knows whose order is on its way."""
    send = Submitter.send

    def sending(self: Submitter, order: TradeOrder, grounds: Grounds) -> TradeOrder:
        before, wire.sending = wire.sending, order.pk
        try:
            return send(self, order, grounds)
        finally:
            wire.sending = before

    return mock.patch.object(Submitter, "send", sending)


def play(history: History, actions: Sequence[tuple[Any, ...]]) -> dict[str, list[str]]:
    """Play `actions`, heal, and return what went wrong."""
    with remember_sender(history.wire):
        history.begin()
        for name, *arguments, words in actions:
            getattr(history, name)(*arguments, **words)
            history.watch()
        history.heal()
    return history.wrongs()
