"""One history: intents, market moves, external actions, races, lost replies, nights, crashes; then its judgement.

The exchange, the client, the services and the database are the real ones. Three seams are ours: the broker, whose
calls may crash the process before or after they are made; the moment in which a request waits for its slot, in which
anything may change; and the way notices come in. A crash is an exception that nothing catches: what is committed
stays, what is not is gone, and the next action is another process's.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as clocktime
from typing import Any
from unittest import mock

from django.db.models import Q, QuerySet

from aegis import sessions
from aegis.broker import Acceptance, Broker, BrokerError, BrokerOrderRef, OrderRequest, Quote
from aegis.chase import Plan
from aegis.lifecycle import OPEN, UNSETTLED, Status
from aegis.requests import STAMP_TOLERANCE
from aegis.sessions import KST
from aegis.terms import Market, OrderKind, Side
from aegis.ticks import step
from aegis.trading_state import TradingState
from infra import clock
from kis import catalogue, codec
from kis.client import Client
from market import queries
from orders import cancel_driver, chase, fills, journal, reconcile
from orders import settle as settling
from orders.cancel import end_chase
from orders.models import BlacklistedStock, BrokerRequest, OrderEvent, TradeOrder, TradingSwitch
from orders.reorders import Reorders
from orders.requests import MAX_QUOTE_AGE, Grounds
from orders.service import OrderDenied, OrderIntent, OrderService
from orders.submit import Submitter
from portfolio import ledger
from portfolio.fetcher import KISFetcher
from rehearsal.ledger_check import compare_with_ledger
from simulator.api.control import BadCommand
from simulator.api.server import Simulator
from simulator.feed.stock_frames import notice_row

ACCOUNT = "50000000-01"
CODES = ("005930", "004090")
BASE = {"005930": 70_000, "004090": 16_000}
HELD = {"005930": 20, "004090": 400}
TURN = timedelta(seconds=16)
# nothing is to be raced any more: the workers come by as seldom as a chase waits
HEALING_TURN = timedelta(seconds=31)
MOST_TURNS = 40
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
WIRE_CRASHES = ("before place", "after place", "before cancel", "after cancel", "before amend", "after amend")

# what a customer does in the broker's app to an open order: is it an amend, and of a part only
EXTERNAL = {"cancel": (False, False), "cancel part": (False, True), "amend": (True, False), "amend part": (True, True)}
# faults that leave it unknown whether a request was carried out
LOSES = (
    "answer_lost",
    "request_lost",
    "timeout_accepted",
    "timeout_unaccepted",
    "broken_json",
    "error_500",
    "receipt_without_number",
)
# what may change while a request waits for its slot
CHANGES = ("halt", "blacklist", "end chase", "late", "close")
HOURS = {
    "opening auction": "08:45:00",
    "morning": "10:00:00",
    "closing auction": "15:21:00",
    "after the close": "15:35:00",
    "evening": "16:30:00",
}

WRONGS = (
    "overfills",
    "duplicate_orders",
    "ledger_differs",
    "external_action_overruled",
    "reordered_more_than_released",
    "ordered_next_day",
    "sent_stale",
    "sent_after_change",
    "claimed_wrongly",
    "called_cancelled_while_open",
)
HAZARDS = (
    "external_amend_between_look_and_cancel",
    "external_cancel_between_look_and_cancel",
    "external_amend",
    "external_cancel",
    "external_part",
    "night",
    "night_between_cancel_and_reorder",
    "night_with_a_due_chase",
    "auction_with_a_chase",
    "vi_with_a_chase",
    "break_with_a_chase",
    "lost_receipt",
    "lost_cancel",
    "lost_amend",
    "lagging_list",
    "partial_list",
    "unpriced_kind",
    "late_send",
    "change_before_sending",
    "amend_of_ours",
    "look_alike",
    "crash",
)


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
    kind: OrderKind | None = None
    market: Market | None = None


WANTS = (
    Want("005930", Side.BUY, 10, "buy_normal"),
    Want("005930", Side.BUY, 7, "buy_urgent"),
    Want("005930", Side.SELL, 3, "sell_emergency"),
    Want("005930", Side.SELL, 5, "sell_profit"),
    Want("005930", Side.BUY, 4, price=69_500, plan=None),
    Want("005930", Side.BUY, 2),
    Want("004090", Side.BUY, 600, "buy_urgent"),
    Want("004090", Side.SELL, 150, "sell_stop"),
    Want("005930", Side.BUY, 6, price=69_000),
    Want("005930", Side.BUY, 5, kind=OrderKind.OWN_BEST, plan=None),
    Want("005930", Side.BUY, 3, kind=OrderKind.BEST, plan=None),
    Want("005930", Side.BUY, 2, kind=OrderKind.BEST_IOC, plan=None),
    Want("005930", Side.BUY, 4, kind=OrderKind.MID, plan=None),
    Want("005930", Side.BUY, 8, "buy_normal", market=Market.NXT),
    Want("005930", Side.BUY, 9, "buy_normal", market=Market.SOR),
)
RESTS_FAR, OWN_BEST, BEST, BEST_IOC, MID, ON_NXT = 8, 9, 10, 11, 12, 13
UNPRICED = (OWN_BEST, BEST, BEST_IOC, MID)


@dataclass
class Wire:
    """The broker as one process has it: its calls are counted, and may be its last."""

    broker: Broker
    sent: Counter[int] = field(default_factory=Counter)
    sending: int = 0
    crash: str = ""
    meanwhile: Callable[[], None] | None = None
    before_change: Callable[[BrokerOrderRef], None] | None = None
    quoted_at: dict[str, datetime] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    def quote(self, code: str, venue: Market) -> Quote:
        self.quoted_at[code] = clock.now()
        return self.broker.quote(code, venue)

    def place(self, request: OrderRequest) -> Acceptance:
        self.sent[self.sending] += 1
        self._interrupt("before place")
        acceptance = self.broker.place(request)
        self._interrupt("after place")
        return acceptance

    def cancel(self, placed: BrokerOrderRef) -> Acceptance:
        return self._change("cancel", placed, lambda: self.broker.cancel(placed))

    def amend(self, placed: BrokerOrderRef, *, price: int, qty: int | None) -> Acceptance:
        return self._change("amend", placed, lambda: self.broker.amend(placed, price=price, qty=qty))

    def _change(self, name: str, placed: BrokerOrderRef, send: Callable[[], Acceptance]) -> Acceptance:
        if self.before_change is not None:
            act, self.before_change = self.before_change, None
            act(placed)
        self._interrupt(f"before {name}")
        acceptance = send()
        self._interrupt(f"after {name}")
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
        self.asked: list[OrderIntent] = []
        self.coming: deque[str] = deque()
        self.heard: list[str] = []
        self.by_hand: set[tuple[str, str]] = set()  # day and number: numbers begin again each day
        self.found: dict[str, list[str]] = defaultdict(list)
        self.hazards: Counter[str] = Counter()
        self.advancing = 0
        self.ended_chases: set[int] = set()
        self.while_waiting: Callable[[], None] | None = None

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
        intent = OrderIntent(
            chosen.code,
            chosen.side,
            chosen.qty,
            strategy=chosen.strategy,
            price=chosen.price,
            request_id=f"request-{len(self.asked)}",
            plan=chosen.plan,
            kind=chosen.kind,
            market=chosen.market,
        )
        self.asked.append(intent)
        self._place(intent, fault, crash)
        self.hazards["unpriced_kind"] += want in UNPRICED

    def again(self, which: int, fault: str) -> None:
        """The caller asks once more for what it asked for before, as it does when it heard nothing."""
        if self.asked:
            self._place(self.asked[which % len(self.asked)], fault, "")

    def _place(self, intent: OrderIntent, fault: str, crash: str) -> None:
        if fault:
            self.simulator.fault(fault, path="order-cash", count=1)
        with self._crashing(crash), suppress(OrderDenied, BrokerError):
            self.service.place(intent)

    def move(self, which: int, ticks: int) -> None:
        """The market comes to a price some ticks from where the history began, through the real book."""
        code = CODES[which]
        self.simulator.set_price(code, step(BASE[code], ticks), freeze=True)

    def work(
        self, turns: int, fault: str, crash: str, *, races: bool = False, external: str = "", change: str = ""
    ) -> None:
        """Time passes, and the workers do what is due; two of them at once where it `races`.

        `external`: what the customer does to the order between the chase's look and its cancel. `change`: what changes
        while a request waits for its slot.
        """
        if fault:
            self.simulator.fault(fault, path="order-rvsecncl", count=1)
        if external:
            self.wire.before_change = lambda placed: self._act_before(placed, external, is_lost=fault in LOSES)
        self._change_while_waiting(change)
        crashes = self.hazards["crash"]
        for _ in range(turns):
            with self._crashing(crash):
                self._work_once(races=races)
            if self.hazards["crash"] > crashes:
                break  # what follows is another process's
        self.wire.before_change = self.while_waiting = None

    def look(self, fault: str) -> None:
        """The list is read, perhaps a broken one.

        A list that silently lacks one of two look-alikes cannot be told from a whole one: it lacks nothing then.
        """
        if fault == "order_missing" and self.hazards["look_alike"] and _lost_orders().exists():
            fault = ""
        words = {"seconds": 40.0} if fault == "list_lag" else {}
        if fault:
            self.simulator.fault(fault, path="inquire-daily-ccld", count=1, **words)
        has_lines = bool(self._truth()["orders"])
        with suppress(BrokerError):
            reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]
        is_broken = has_lines and bool(fault) and self._has_struck(fault, "inquire-daily-ccld")
        self.hazards["lagging_list"] += is_broken and fault == "list_lag"
        self.hazards["partial_list"] += is_broken and fault == "row_unreadable"

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
        """An external order, placed in the broker's own app."""
        code = CODES[which]
        words = {"account": ACCOUNT, "code": code, "side": "BUY", "quantity": 100 + qty, "price": step(BASE[code], -1)}
        self._command(words)

    def twin(self, which: int) -> None:
        """An external order that looks as one of ours whose answer was lost, and which the exchange has."""
        waiting = list(_lost_orders())
        if not waiting:
            return
        order = waiting[which % len(waiting)]
        known = {_key(each) for each in TradeOrder.objects.exclude(order_no=None)} | self.by_hand
        theirs = [each for each in self._truth()["orders"] if (str(each["date"]), str(each["number"])) not in known]
        wanted = (f"{order.order_date:%Y%m%d}", "new", order.stock_code, order.qty)
        same = [
            each for each in theirs if tuple(each[name] for name in ("date", "request", "code", "quantity")) == wanted
        ]
        if same:
            words = {"account": ACCOUNT, "code": order.stock_code, "side": order.order_type, "quantity": order.qty}
            self.hazards["look_alike"] += bool(
                self._command({**words, "price": order.price, "kind": order.order_kind, "market": order.market})
            )

    def external(self, which: int, how: str) -> None:
        """The customer cancels or amends one of our open orders in the broker's app."""
        mine = list(TradeOrder.objects.filter(status__in=OPEN, origin="AEGIS").exclude(order_no=None).order_by("pk"))
        if mine:
            self._act_externally(mine[which % len(mine)].placed, how)

    def cancel(self, which: int, fault: str) -> None:
        """An operator cancels one of our orders; the answer may be lost."""
        if fault:
            self.simulator.fault(fault, path="order-rvsecncl", count=1)
        mine = list(TradeOrder.objects.filter(status__in=OPEN).exclude(order_no=None).order_by("pk"))
        if mine:
            order = mine[which % len(mine)]
            if order.origin == "AEGIS":  # one that the customer amended is chased by nobody
                self.ended_chases.add(order.root_pk)
            with suppress(BrokerError):
                self.service.cancel(order)

    def cancel_all(self, fault: str) -> None:
        """An operator cancels everything; what is called cancelled must not be open."""
        if fault:
            self.simulator.fault(fault, path="order-rvsecncl", count=1)
        self.ended_chases |= {order.root_pk for order in TradeOrder.objects.filter(origin="AEGIS")}
        with mock.patch("orders.cancel_all.sleep"):
            swept = self.service.cancel_all()
        open_now = {str(each["number"]) for each in self._truth()["orders"] if each["status"] == "open"}
        lies = open_now & set(swept.cancelled)
        self.found["called_cancelled_while_open"] += [f"{number} is called cancelled" for number in lies]

    def amend(self, which: int, ticks: int, fault: str, crash: str, *, part: bool = False) -> None:
        """A caller amends one of our orders."""
        if fault:
            self.simulator.fault(fault, path="order-rvsecncl", count=1)
        mine = list(TradeOrder.objects.filter(status__in=OPEN, origin="AEGIS").exclude(order_no=None).order_by("pk"))
        if not mine:
            return
        order = mine[which % len(mine)]
        price = step(order.price or BASE[order.stock_code], ticks or 1)
        qty = max(1, order.open_qty // 2) if part else None
        with self._crashing(crash), suppress(OrderDenied, BrokerError):
            self.service.amend(order, price=price, qty=qty)
            self.hazards["amend_of_ours"] += 1
            self.ended_chases.add(order.root_pk)

    def switch(self, state: TradingState) -> None:
        TradingSwitch.objects.update(state=state)

    def balance(self) -> None:
        with suppress(BrokerError):
            KISFetcher(self.wire, clock.now).sync_portfolio()  # type: ignore[arg-type]

    def night(self, hour: str) -> None:
        """The house is down until the next morning; notices of the day are lost."""
        due = TradeOrder.objects.filter(chase_at__isnull=False, order_date=clock.now().date())
        left = Q(requests__state__in=LEFT, requests__kind="CANCEL", requests__requested_by="CHASE")
        self.hazards["night"] += 1
        self.hazards["night_with_a_due_chase"] += due.exists()
        self.hazards["night_between_cancel_and_reorder"] += due.filter(left).exists()
        self.coming.clear()
        day = clock.now().date() + timedelta(days=1)
        while not queries.phases_on(day):
            day += timedelta(days=1)
        self._set_time(day, HOURS[hour])

    def hour(self, hour: str) -> None:
        """The day goes on to an auction, or past the close; the time never goes back."""
        if f"{clock.now():%H:%M:%S}" < HOURS[hour]:
            self._set_time(clock.now().date(), HOURS[hour])
        chased = _chased_orders().exists()
        self.hazards["auction_with_a_chase"] += chased and hour == "closing auction"
        self.hazards["break_with_a_chase"] += chased and hour in ("after the close", "evening")

    def vi(self, which: int) -> None:
        """A volatility interruption holds a stock for two minutes."""
        with suppress(BadCommand):  # outside of continuous trading there is none
            self.simulator.command("POST", f"/simulator/quotes/{CODES[which]}", {"vi": "static"})
            self.hazards["vi_with_a_chase"] += _chased_orders().filter(stock_code=CODES[which]).exists()

    def print_as(self, amended: str, closed: str, unpriced: str) -> None:
        """How this exchange's lists print what is not known of the real ones."""
        words = {"amended": amended, "closed": closed, "unpriced": unpriced}
        self.simulator.command("POST", "/simulator/printing", words)

    # --- what is watched -------------------------------------------------------------------------

    def watch(self) -> None:
        """See what must hold at every moment: no fill that is none, no share beyond what is left of an intent."""
        truth = self._truth()
        orders = {(str(each["date"]), str(each["number"])): each for each in truth["orders"]}
        rows = list(TradeOrder.objects.order_by("pk"))
        for order in rows:
            theirs = orders.get((f"{order.order_date:%Y%m%d}", str(order.order_no)))
            if order.order_no is not None and order.filled_qty > (theirs["filled"] if theirs else 0):
                self.found["overfills"].append(f"{order}: {order.filled_qty} counted of {theirs}")
        for root in rows:
            if root.root_id is None and root.origin == "AEGIS":
                self._watch_family(root, [each for each in rows if each.root_pk == root.pk], orders)

    def _watch_family(
        self, root: TradeOrder, family: Sequence[TradeOrder], orders: Mapping[tuple[str, str], Any]
    ) -> None:
        mine = {(f"{each.order_date:%Y%m%d}", str(each.order_no)): each for each in family if each.order_no}
        lines = {key: orders[key] for key in mine if key in orders}
        at_stake = sum(each["filled"] + _open(each) for each in lines.values())
        moved = sum(each["filled"] + _open(each) for key, each in lines.items() if key in self.by_hand)
        taken = sum(self._cancelled(key, orders, by_hand=True) for key in lines)
        if at_stake - moved > root.qty:
            self.found["overfills"].append(f"{root}: {at_stake} filled or open of {root.qty}")
        elif at_stake + taken > root.qty:
            self.found["external_action_overruled"].append(
                f"{root}: {at_stake} filled or open, though of {root.qty} {taken} were taken away, {moved} moved"
            )
        nights = [str(each) for key, each in lines.items() if key[0] != f"{root.order_date:%Y%m%d}"]
        self.found["ordered_next_day"] += nights
        again = sum(
            orders[key]["quantity"]
            for key, order in mine.items()
            if order.pk != root.pk and order.origin == "AEGIS" and order.replaces_id is None and key in orders
        )
        released = sum(self._cancelled(key, orders, by_hand=False) for key in lines)
        if again > released:
            self.found["reordered_more_than_released"].append(f"{root}: {again} ordered again of {released} released")

    def _cancelled(self, key: tuple[str, str], orders: Mapping[tuple[str, str], Any], *, by_hand: bool) -> int:
        """Return the shares of an order that the customer's cancels took in the app, or ours."""
        day, number = key
        cancels = {
            each: line
            for each, line in orders.items()
            if each[0] == day and line["request"] == "cancel" and line["original"] == number
        }
        return sum(line["quantity"] for each, line in cancels.items() if (each in self.by_hand) is by_hand)

    def bytes_leave(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Judge a command by the truth of the moment in which its bytes are written."""
        order, is_new = self._order_of(name, parameters)
        if order is None:
            return
        wish = order.requests.exclude(kind="NEW").order_by("-pk").first() if not is_new else None
        if wish is not None and wish.requested_by != "CHASE" and wish.kind == "CANCEL":
            return  # a person's cancel is never held back
        if wish is not None and _is_sent_again(order, wish):
            return  # what is known to be on its way is followed up, whatever became of the chase
        now = clock.now()
        quoted_at = self.wire.quoted_at.get(order.stock_code)
        if quoted_at is None or now - quoted_at > MAX_QUOTE_AGE:
            self.found["sent_stale"].append(f"{name} of {order} left at {now}, its quote is of {quoted_at}")
        if why := self._changed(order, wish, is_new=is_new, now=now):
            self.found["sent_after_change"].append(f"{name} of {order} left though {why}")

    def _order_of(self, name: str, parameters: Mapping[str, Any]) -> tuple[TradeOrder | None, bool]:
        if name.startswith("order-cash"):
            return TradeOrder.objects.filter(pk=self.wire.sending).first(), True
        number = str(parameters.get("ORGN_ODNO", ""))
        rows = TradeOrder.objects.filter(order_no=number, order_date=clock.now().date())
        return rows.first(), False

    def _changed(self, order: TradeOrder, wish: Any, *, is_new: bool, now: datetime) -> str:
        """Return what forbids this request by now, empty if nothing does."""
        lowers = wish is not None and wish.kind == "AMEND" and (wish.price - order.price) * order.side.sign <= 0
        state = TradingSwitch.objects.values_list("state", flat=True).first() or "ACTIVE"
        by_chase = (is_new and order.root_id is not None) or (wish is not None and wish.requested_by == "CHASE")
        if order.side not in TradingState(state).allowed_sides and not (lowers and not by_chase):
            return f"the state is {state}"
        phases = queries.today(now)
        if OrderKind(order.order_kind) not in sessions.legal_kinds(Market(order.market), phases, now):
            return "its venue does not take it now"
        is_blacklisted = BlacklistedStock.objects.filter(stock_code=order.stock_code).exists()
        if order.side is Side.BUY and is_blacklisted and not (lowers and not by_chase):
            return "its stock is blacklisted"
        if by_chase and order.root_pk in self.ended_chases:
            return "its chase was ended"
        return ""

    # --- the end ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """End every fault, and let the workers work until nothing is left to settle."""
        self.simulator.clear_faults()
        self.while_waiting = self.wire.before_change = None
        self.switch(TradingState.ACTIVE)
        BlacklistedStock.objects.all().delete()
        for _ in range(MOST_TURNS):
            self.hear("in order", "")
            self._pass(HEALING_TURN - TURN)
            self._work_once()
            self._decide()
            if not self._is_unsettled():
                break
        self._pass(TURN)
        reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]
        KISFetcher(self.wire, clock.now).sync_portfolio()  # type: ignore[arg-type]
        self.watch()

    def wrongs(self) -> dict[str, list[str]]:
        """Return what must not be, by kind."""
        verdict = compare_with_ledger(self._truth())
        stuck = [f"{order} is {order.status}" for order in TradeOrder.objects.filter(status__in=UNSETTLED - RESTS)]
        self.found["duplicate_orders"] += self._duplicates()
        self.found["ledger_differs"] += [*verdict.differences, *stuck]
        ours = TradeOrder.objects.filter(origin="AEGIS").exclude(order_no=None)
        self.found["claimed_wrongly"] += [
            f"{each} is {each.order_no}, external" for each in ours if _key(each) in self.by_hand
        ]
        self._count_losses()
        return {kind: self.found[kind] for kind in WRONGS}

    def _count_losses(self) -> None:
        lost = OrderEvent.objects.filter(kind="NO_ANSWER", order__origin="AEGIS")
        self.hazards["lost_receipt"] += lost.filter(order__replaces=None).count()
        self.hazards["lost_amend"] += OrderEvent.objects.filter(kind="AMEND_UNKNOWN").count()
        self.hazards["lost_cancel"] += OrderEvent.objects.filter(kind="CANCEL_UNKNOWN").count()

    def _duplicates(self) -> list[str]:
        """Return rows sent more than once, and orders at the broker that nobody asked for."""
        twice = [f"order {pk} was sent {times} times" for pk, times in self.wire.sent.items() if times > 1]
        adopted = {_key(order) for order in TradeOrder.objects.filter(origin="EXTERNAL")}
        twice += [f"order {key} was placed by nobody" for key in adopted - self.by_hand]
        roots = TradeOrder.objects.filter(origin="AEGIS", root=None).exclude(order_no=None).count()
        return twice + ([f"{roots} orders for {len(self.asked)} requests"] if roots > len(self.asked) else [])

    # --- how -------------------------------------------------------------------------------------

    def _truth(self) -> dict[str, Any]:
        truth: dict[str, Any] = self.simulator.ledger(ACCOUNT)
        return truth

    def _command(self, words: dict[str, Any]) -> str | None:
        """Do something in the broker's app; None if its order desk refuses."""
        try:
            answer = self.simulator.command("POST", "/simulator/orders", words)
        except BadCommand:
            return None
        number = str(answer["number"])
        self.by_hand.add((f"{clock.now():%Y%m%d}", number))
        return number

    def _has_struck(self, fault: str, path: str) -> bool:
        """Whether a fault that was to strike once has done so."""
        waiting = self.simulator.command("GET", "/simulator/faults")["active"]
        return not any(each["name"] == fault and each.get("path") == path for each in waiting)

    def _act_externally(self, placed: BrokerOrderRef, how: str) -> None:
        """Cancel or amend an order in the broker's app."""
        is_amend, is_part = EXTERNAL[how]
        key = (f"{placed.order_date:%Y%m%d}", placed.order_no)
        theirs = {(str(e["date"]), str(e["number"])): e for e in self._truth()["orders"]}.get(key)
        if theirs is None or _open(theirs) < 2:
            return
        words: dict[str, Any] = {"account": ACCOUNT, "amend" if is_amend else "cancel": int(placed.order_no)}
        if is_part:
            words["quantity"] = _open(theirs) // 2
        if is_amend:
            words["price"] = step(theirs["price"] or BASE[theirs["code"]], -1)
        if self._command(words) is not None:
            self.hazards["external_amend" if is_amend else "external_cancel"] += 1
            self.hazards["external_part"] += is_part
            self.hazards["external_amend_between_look_and_cancel"] += bool(is_amend and self.advancing)
            self.hazards["external_cancel_between_look_and_cancel"] += bool(self.advancing and not is_amend)

    def _act_before(self, placed: BrokerOrderRef, how: str, *, is_lost: bool) -> None:
        """Act externally just before a request of ours.

        If ours is lost too, no list can tell which of two equal cancels within the tolerance of its stamps was carried
        out: then more time lies between them.
        """
        self._act_externally(placed, how)
        if is_lost:
            self._pass(2 * STAMP_TOLERANCE)

    def _change_while_waiting(self, change: str) -> None:
        if not change:
            return

        def happen() -> None:
            self.hazards["late_send" if change == "late" else "change_before_sending"] += 1
            if change == "halt":
                TradingSwitch.objects.update(state=TradingState.HALTED)
            elif change == "blacklist":
                for code in CODES:
                    BlacklistedStock.objects.get_or_create(stock_code=code, defaults={"reason": "history"})
            elif change == "late":
                clock.set_now(clock.now() + MAX_QUOTE_AGE + timedelta(seconds=5))
            elif change == "close":
                self._set_time(clock.now().date(), "20:00:05")
            else:
                order = TradeOrder.objects.filter(pk=self.advancing).first()
                if order is not None:
                    self.ended_chases.add(order.root_pk)
                    end_chase(order, "history", at=clock.now())

        self.while_waiting = happen

    def waits_for_its_slot(self) -> None:
        """A command waits for its turn: what was to change changes now."""
        if self.while_waiting is not None:
            happen, self.while_waiting = self.while_waiting, None
            happen()

    def _work_once(self, *, races: bool = False) -> None:
        self._pass(TURN)
        with suppress(BrokerError):
            for pk in chase.due_orders(clock.now()):
                if races:
                    self.wire.meanwhile = lambda pk=pk: self._rival(pk)
                self.advancing = pk
                chase.run_due_steps(pk, self.wire, clock.now)  # type: ignore[arg-type]
                self.advancing = 0
            for pk in cancel_driver.due_cancels(clock.now()):
                cancel_driver.drive(pk, self.wire, clock.now)  # type: ignore[arg-type]
            reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]
        self.wire.meanwhile = None
        self.advancing = 0

    def _rival(self, pk: int) -> None:
        """Another sweeper comes upon the same order in the middle of a step."""
        chase.run_due_steps(pk, self.wire, clock.now)  # type: ignore[arg-type]
        with suppress(BrokerError):
            reconcile.reconcile(self.wire, clock.now)  # type: ignore[arg-type]

    def _hear(self, text: str) -> None:
        for notice in codec.notices(codec.Data("H0STCNI0", 1, text)):
            fills.ingest(notice, account=ACCOUNT.replace("-", ""), now=clock.now(), arrived=time.perf_counter())

    def _pass(self, by: timedelta) -> None:
        clock.set_now(clock.now() + by)

    def _set_time(self, day: date, hour: str) -> None:
        clock.set_now(datetime.combine(day, clocktime.fromisoformat(hour), KST))
        self._truth()  # the exchange lives through the time that has passed

    def _is_unsettled(self) -> bool:
        unsettled = TradeOrder.objects.filter(status__in=UNSETTLED)
        if unsettled.exclude(status__in=RESTS, chase_at=None).exists():
            return True
        waits = (
            Q(needs_reconciliation=True)
            | Q(unlisted_since__isnull=False)
            | Q(status__in=OPEN, cancel_due_at__isnull=False)
        )
        if TradeOrder.objects.filter(waits, order_date=clock.now().date()).exists():
            return True
        return any(settling.has_ended(order, clock.now()) for order in unsettled)

    def _decide(self) -> None:
        """A person decides what the rows cannot: which of several orders was ours, by asking the exchange."""
        for order in TradeOrder.objects.filter(status=Status.UNKNOWN).exclude(candidates=[]):
            day = f"{order.order_date:%Y%m%d}"
            taken = self.by_hand | {_key(each) for each in TradeOrder.objects.exclude(order_no=None)}
            mine = next((each["order_no"] for each in order.candidates if (day, each["order_no"]) not in taken), None)
            self.service.decide(order, mine, by="the trader")

    @contextmanager
    def _crashing(self, crash: str) -> Iterator[None]:
        """Let the process die at `crash`, if it comes there; a claim it held stays held, as after kill -9."""
        try:
            with _armed(crash, self.wire):
                yield
        except Crash:
            self.hazards["crash"] += 1
            claimed_until = clock.now() + chase.CLAIM
            TradeOrder.objects.filter(pk=self.advancing).update(chase_claimed_until=claimed_until)
        self.advancing = 0


RESTS = frozenset({Status.PENDING, Status.PARTIAL})
# a cancel in one of these states has left
LEFT = ("SENT", "ACKNOWLEDGED", "UNKNOWN", "CONFIRMED")


def _lost_orders() -> "QuerySet[TradeOrder]":
    """Return the orders of ours whose answer was lost."""
    return TradeOrder.objects.filter(status=Status.UNKNOWN, replaces=None)


def _chased_orders() -> "QuerySet[TradeOrder]":
    """Return the open orders of today that are chased."""
    return TradeOrder.objects.filter(chase_at__isnull=False, status__in=OPEN, order_date=clock.now().date())


def _key(order: TradeOrder) -> tuple[str, str]:
    return f"{order.order_date:%Y%m%d}", str(order.order_no)


def _is_sent_again(order: TradeOrder, wish: BrokerRequest) -> bool:
    """Whether a cancel follows another whose end is not known, of a chase that is over."""
    before = order.requests.filter(kind="CANCEL", state__in=("SENT", "ACKNOWLEDGED", "UNKNOWN")).exclude(pk=wish.pk)
    return wish.kind == "CANCEL" and order.chase_at is None and before.exists()


def _open(line: Mapping[str, Any]) -> int:
    if line["request"] == "cancel" or line["status"] != "open":
        return 0
    return int(line["quantity"] - line["filled"] - line["cancelled"] - line["rejected"])


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


@contextmanager
def watched(history: History) -> Iterator[None]:
    """Let the history know whose order is on its way, when a command waits for its slot, and when its bytes leave."""
    send, turn, leave = Submitter.send, Client._turn, Client._send

    def sending(self: Submitter, order: TradeOrder, grounds: Grounds | None = None) -> TradeOrder:
        before, history.wire.sending = history.wire.sending, order.pk
        try:
            return send(self, order, grounds)
        finally:
            history.wire.sending = before

    def waiting(self: Client, tr: catalogue.TR) -> Any:
        if tr.effect is catalogue.Effect.COMMAND:
            history.waits_for_its_slot()
        return turn(self, tr)

    def leaving(self: Client, tr: catalogue.TR, path: str, headers: Any, parameters: Any, last_check: Any) -> Any:
        if tr.effect is catalogue.Effect.COMMAND:
            history.bytes_leave(tr.name, parameters)
        return leave(self, tr, path, headers, parameters, last_check)

    with (
        mock.patch.object(Submitter, "send", sending),
        mock.patch.object(Client, "_turn", waiting),
        mock.patch.object(Client, "_send", leaving),
    ):
        yield


def play(history: History, actions: Sequence[tuple[Any, ...]]) -> dict[str, list[str]]:
    """Play `actions`, heal, and return what went wrong."""
    with watched(history):
        history.begin()
        for name, *arguments, words in actions:
            getattr(history, name)(*arguments, **words)
            history.watch()
        history.heal()
    return history.wrongs()
