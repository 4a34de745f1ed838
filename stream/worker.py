"""What the stream worker does with each feed: one table from the broker's TR to the handlers, filled by plugs.

The socket's thread decodes, applies our own notices to the database at once, and hands everything else
to handlers that work in memory. Whatever needs the database for market data runs in chores.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any

import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from aegis.lifecycle import UNSETTLED
from aegis.sessions import Matching, Phase, PhaseName, phases_at
from aegis.terms import Market
from infra import clock, db_limits
from infra.lease import Lease
from kis import codec, realtime, status
from kis.codec import Data
from kis.environment import Credentials
from kis.factory import all_keys, door, store, stream_key
from kis.status import SocketState, StreamStatus
from kis.stream import Lost, Stream
from kis.streams import Streams
from kis.subscriptions import Topic
from market import queries
from market.models import Stock
from orders import fills
from orders.models import TradeOrder
from orders.tasks import look, reconcile
from portfolio.service import PortfolioService
from stream import books, candles, gaps, halts, macro, stops
from stream.consumers import (
    VITAL,
    Consumer,
    FeedPriority,
    Handler,
    PeriodicJob,
    StockSubscriptions,
    SubscriptionRequest,
    open_venues,
    ranked_trades,
)

log = logging.getLogger(__name__)

WANTED_SECONDS = 2.0
CONNECTION_CHECK_SECONDS = 5.0
# a second worker takes over within this and one look
LEASE_SECONDS = 6.0
LOOK_SECONDS = 1.0
DATABASE_PATIENCE_SECONDS = 10.0
DATABASE_PAUSE_SECONDS = 0.2
LET_GO_SECONDS = 5.0
PHASES_SECONDS = 30.0
MISHEARD_SECONDS = 5.0

# the feeds by which a deaf connection is known, and the market whose phases they follow
SPEAKERS: Mapping[str, Market] = MappingProxyType(
    {
        **dict.fromkeys(("H0STCNT0", "H0STASP0", "H0UPCNT0"), Market.KRX),
        **dict.fromkeys(("H0NXCNT0", "H0NXASP0"), Market.NXT),
        **dict.fromkeys(("H0UNCNT0", "H0UNASP0"), Market.SOR),
    }
)
# One feed that is never quiet in regular hours, and the frames a second it has at least: KOSPI200; on paper,
# which has no index, the stock that trades most.
# UNVERIFIED: how often the index comes; one recorded minute of it settles it
LIVE_PULSE = (Topic("H0UPCNT0", "2001"), 0.2)
PAPER_PULSE = (Topic("H0STCNT0", "005930"), 0.5)


def held_stocks() -> Iterable[str]:
    return [holding.stock_code for holding in PortfolioService().get_portfolio()]


def ordered_stocks() -> Iterable[str]:
    ordered = TradeOrder.objects.filter(status__in=UNSETTLED).order_by("-id").values_list("stock_code", flat=True)
    return dict.fromkeys(ordered)


def pulse() -> tuple[Topic, float]:
    return PAPER_PULSE if settings.KIS_ENVIRONMENT.is_paper else LIVE_PULSE


def own_stocks() -> Consumer:
    """Hear of what we hold and what we have ordered, and feel the market's pulse."""
    return Consumer(
        wishes=(SubscriptionRequest(FeedPriority.PULSE, lambda: [pulse()[0]]),),
        stocks=(
            StockSubscriptions(FeedPriority.ORDERED, ordered_stocks),
            StockSubscriptions(FeedPriority.HELD, held_stocks),
        ),
    )


# Who works with feeds, by how much their stocks matter while no venue is open; each makes its plug anew for every
# term of the lease.
CONSUMERS: Sequence[Callable[[], Consumer]] = (
    stops.consumer,
    own_stocks,
    candles.consumer,
    macro.consumer,
    halts.consumer,
    books.consumer,
    gaps.consumer,
)


class LeaseLost(Lost):
    """The lease is no longer ours: nothing more may be written, and the connection is over."""

    def __init__(self) -> None:
        super().__init__("the lease is no longer ours")


class Dispatch:
    """Hands data frames to their handlers, and says which feeds to hold."""

    def __init__(self, plugs: Sequence[Consumer], may_write: Callable[[], bool]) -> None:
        self._plugs = plugs
        self._may_write = may_write
        self._account = settings.KIS_CREDENTIALS.account.digits
        self._is_paper = settings.KIS_ENVIRONMENT.is_paper
        self.own_fills = Topic("H0STCNI9" if self._is_paper else "H0STCNI0", settings.KIS_CREDENTIALS.hts_id)
        self._topics: Sequence[Topic] = (self.own_fills,)
        self.vital: frozenset[Topic] = frozenset()
        self._not_offered: frozenset[str] = frozenset()
        self._checked_at = float("-inf")
        self._missed = False
        self._misheard_at = float("-inf")
        self._phases: Sequence[Phase] = ()
        self._stopped: frozenset[str] = frozenset()
        self._told_stopped: dict[str, bool] = {}
        self.last_notice_at: float | None = None
        self._handlers: dict[str, list[Handler]] = defaultdict(list)
        for plug in plugs:
            for tr_id, handler in plug.handlers.items():
                self._handlers[realtime.feed_of(tr_id).tr_id].append(handler)
        for tr_id in ("H0STMKO0", "H0NXMKO0", "H0UNMKO0"):
            self._handlers[tr_id].append(self._on_states)

    def wanted(self) -> Sequence[Topic]:
        """Return what to hold, most important first; our own fills always are."""
        return self._topics

    def ask_wanted(self) -> None:
        """Ask everybody what they want. What this raises leaves the feeds as they are."""
        wishes = [(wish.rank, topic) for plug in self._plugs for wish in plug.wishes for topic in wish.topics()]
        ranked = sorted([*self._ask_stocks(), *wishes], key=itemgetter(0))
        topics = dict.fromkeys(topic for _rank, topic in ranked)
        offered = [topic for topic in topics if not self._is_paper or realtime.feed_of(topic.tr_id).on_paper]
        self._tell_not_offered(frozenset(topic.tr_id for topic in topics) - {topic.tr_id for topic in offered})
        self._topics = (self.own_fills, *offered)
        self.vital = frozenset(topic for rank, topic in ranked if rank in VITAL)

    def _ask_stocks(self) -> Iterable[tuple[FeedPriority, Topic]]:
        """Ask whose trades are wanted, and rank their feeds by the venues that trade now."""
        wished = [(wish.rank, list(wish.codes()), wish.venues()) for plug in self._plugs for wish in plug.stocks]
        codes = {code for _rank, each, _venues in wished for code in each}
        if not codes:
            return ()
        now = clock.now()
        venues = open_venues(queries.today(now), now)
        on_nxt = set[str]()
        if not self._is_paper:
            on_nxt.update(Stock.objects.filter(pk__in=codes, trades_on_nxt=True).values_list("pk", flat=True))
        return chain.from_iterable(
            ranked_trades(rank, each, venues=venues, on_nxt=on_nxt, relevant_venues=relevant_venues)
            for rank, each, relevant_venues in wished
        )

    def ask_phases(self) -> None:
        """Ask for what decides who ought to speak: the day's phases, and who is halted."""
        self._phases = queries.today(clock.now())
        self._stopped = frozenset(Stock.objects.filter(is_halted=True).values_list("pk", flat=True))

    def speaking(self) -> Mapping[Topic, str]:
        """Return the feeds that must be heard now, each with its phase: not those of stocks that stand still."""
        now = clock.now()
        names = {
            each: next((p.name for p in phases_at(self._phases, each, now) if p.matching is Matching.CONTINUOUS), None)
            for each in Market
        }
        speaking = {}
        for topic in self._topics:
            name = names[SPEAKERS[topic.tr_id]] if topic.tr_id in SPEAKERS else None
            is_index = topic.tr_id == LIVE_PULSE[0].tr_id
            stands_still = self._told_stopped.get(topic.key, topic.key in self._stopped)
            if name and not stands_still and (name is PhaseName.REGULAR or not is_index):
                speaking[topic] = name.value
        return speaking

    def _on_states(self, states: Sequence[Any], arrived: float) -> None:
        """Note who is halted or in a volatility interruption: they have every right to be silent."""
        for state in states:
            self._told_stopped[state.code] = state.is_halted or state.in_vi

    def _tell_not_offered(self, tr_ids: frozenset[str]) -> None:
        if tr_ids - self._not_offered:
            log.warning("not offered on paper, and so not listened to: %s", ", ".join(sorted(tr_ids)))
        self._not_offered = tr_ids

    def handle(self, data: Data, arrived: float) -> None:
        """Give a frame to its handlers; `arrived` is its `time.perf_counter()`. Raises LeaseLost, and what they do."""
        if not self._may_write():
            raise LeaseLost
        if data.tr_id in codec.NOTICE_IDS:
            self._patiently(data, arrived)
            return
        values = realtime.read(data)
        for handler in self._handlers.get(data.tr_id, ()):
            handler(values, arrived)

    def _patiently(self, data: Data, arrived: float) -> None:
        """Apply notices, however long the database takes to come back, within reason."""
        self._check_connection()
        gives_up_at = monotonic() + DATABASE_PATIENCE_SECONDS
        while True:
            try:
                self.on_notice(data, arrived)
            except db_limits.AWAY:
                # the frame waits in our hands, those after it in the socket, while the database comes back
                connection.close()
                if not self._may_write():
                    raise LeaseLost from None
                if monotonic() > gives_up_at:
                    self._missed = True
                    raise
                sleep(DATABASE_PAUSE_SECONDS)
            else:
                break
        if self._missed:
            self._missed = False
            reconcile.delay()

    def on_notice(self, data: Data, arrived: float) -> None:
        self.last_notice_at = monotonic()
        for notice in codec.notices(data):
            if not self._may_write():  # the wait for the database may have outlasted the lease
                raise LeaseLost
            raw = fills.ingest(notice, account=self._account, now=clock.now(), arrived=arrived)
            if raw.state in (raw.State.WAITING, raw.State.DOUBTFUL):
                look.delay()

    def connected(self) -> None:
        for plug in self._plugs:
            plug.connected()

    def registered(self, topic: Topic) -> None:
        """Have the broker's list asked once our own fills are heard: of those before, no notice came."""
        if topic == self.own_fills:
            reconcile.delay()
        for plug in self._plugs:
            plug.registered(topic)

    def on_undecodable_notice(self) -> None:
        """Have the broker's list asked: a notice that could not be read may have been a fill."""
        if monotonic() - self._misheard_at > MISHEARD_SECONDS:
            self._misheard_at = monotonic()
            reconcile.delay()

    def lost(self) -> None:
        for plug in self._plugs:
            plug.lost()

    def _check_connection(self) -> None:
        """Let Django drop a database connection that died, at most every few seconds."""
        if monotonic() - self._checked_at > CONNECTION_CHECK_SECONDS:
            self._checked_at = monotonic()
            close_old_connections()


class JobRunner:
    """The chores of one term, each on a thread of its own; the end of the `with` block ends them."""

    def __init__(self, chores: Sequence[PeriodicJob], may_write: Callable[[], bool]) -> None:
        self._may_write = may_write
        self._stop = threading.Event()
        self.failures = {chore.name: 0 for chore in chores}
        self._threads = [
            threading.Thread(target=self._repeat, args=(chore,), name=f"kis-{chore.name}", daemon=True)
            for chore in chores
        ]

    def __enter__(self) -> "JobRunner":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LET_GO_SECONDS)

    def _repeat(self, chore: PeriodicJob) -> None:
        try:
            while True:
                is_last = self._stop.is_set()
                if self._may_write():
                    self._do(chore)
                if is_last:
                    break
                self._stop.wait(chore.every_seconds)
            while chore.has_more():
                self._do(chore)
                if chore.has_more():
                    sleep(DATABASE_PAUSE_SECONDS)
        finally:
            connection.close()

    def _do(self, chore: PeriodicJob) -> None:
        try:
            close_old_connections()
            chore.run()
        except (OperationalError, InterfaceError) as error:
            self.failures[chore.name] += 1
            log.warning("%s: the database does not answer, and it is tried again: %s", chore.name, error)
        except Exception:  # one part's fault must not end another's work, nor its own next turn
            self.failures[chore.name] += 1
            log.exception("%s failed; it is tried again", chore.name)


class LeaderSession:
    """One holding of the sockets: what runs while the lease is ours. Further keys have leases of their own."""

    def __init__(self, may_write: Callable[[], bool]) -> None:
        plugs = [make() for make in CONSUMERS]
        self.dispatch = Dispatch(plugs, may_write)
        self.streams = Streams(
            settings.KIS_ENVIRONMENT.socket_url,
            doors=[door(known) for known in all_keys()],
            listener=self.dispatch,
            usual=dict([pulse()]),
        )
        own = (
            PeriodicJob("wanted", WANTED_SECONDS, self.dispatch.ask_wanted),
            PeriodicJob("phases", PHASES_SECONDS, self.dispatch.ask_phases),
        )
        self.chores = JobRunner([*own, *(chore for plug in plugs for chore in plug.chores)], may_write)

    @property
    def stream(self) -> Stream:
        """Return the first key's stream."""
        return self.streams.members[0]

    def run(self, let_go: threading.Event) -> None:
        """Hold the sockets until `let_go`."""
        further = [
            threading.Thread(target=_hold_key, args=(stream, known, let_go), name=f"kis-key-{number}", daemon=True)
            for number, (stream, known) in enumerate(zip(self.streams.members, all_keys(), strict=True), start=1)
        ][1:]
        try:
            with self.chores:
                for thread in further:
                    thread.start()
                self.stream.run(let_go)
        finally:
            let_go.set()
            for thread in further:
                thread.join()
            connection.close()

    def status(self, lease: Lease) -> StreamStatus:
        """Return how it is now, as other processes may read it."""
        now, streams, leader = monotonic(), self.streams, self.streams.leader
        counters = [stream.counters for stream in streams.members]
        last_frame_at = max(each.last_frame_at for each in counters)
        held, left_out, refused = streams.held, streams.left_out, streams.refused
        return StreamStatus(
            state=leader.state,
            state_seconds=now - leader.state_since,
            holder=lease.holder,
            fence=lease.fence,
            frames=sum(each.frames for each in counters),
            frame_age=now - last_frame_at if last_frame_at else None,
            data_age=streams.data_age(),
            notice_age=now - at if (at := self.dispatch.last_notice_at) else None,
            connections=sum(each.connections for each in counters),
            lost_why=leader.lost_why,
            next_try_seconds=max(0.0, at - now) if (at := leader.next_try_at) else None,
            deaf=sum(each.deaf for each in counters),
            bad_frames=sum(each.bad_frames for each in counters),
            failures=sum(each.failures for each in counters),
            drift={f"{tr_id}/{width}": count for (tr_id, width), count in codec.drift.items()},
            held=tuple(sorted(map(str, held))),
            left_out=tuple(map(str, left_out)),
            refused={str(topic): words for topic, words in refused.items()},
            unheard=tuple(sorted(map(str, self.dispatch.vital.intersection([*left_out, *refused])))),
            hears_fills=self.dispatch.own_fills in held,
            hears_pulse=pulse()[0] in held,
            chores=dict(self.chores.failures),
            keys=streams.status(),
        )


def run_as_leader(stop: threading.Event) -> None:
    """Hold the sockets until `stop`, as the only one who does: a second worker stands by and takes over."""
    _hold(Lease(store(), stream_key("socket"), LEASE_SECONDS), stop, _hold_leased)


def _hold(lease: Lease, stop: threading.Event, act: Callable[[Lease, threading.Event], None]) -> None:
    """Act whenever the lease is ours, until `stop`."""
    while not stop.is_set():
        try:
            if lease.take():
                act(lease, stop)
        except redis.RedisError as error:
            log.warning("Redis is not reachable, and without it nobody may hold the socket: %s", error)
        except Exception:  # whatever it was, the night must not go on without a socket
            log.exception("the socket was let go; it is taken up again")
        stop.wait(LOOK_SECONDS)


def _hold_key(stream: Stream, known: Credentials, let_go: threading.Event) -> None:
    """Hold a further key's socket until `let_go`, whenever that key's lease is ours."""
    lease = Lease(store(), stream_key("socket", known), LEASE_SECONDS)
    _hold(lease, let_go, lambda lease, stop: _while_leased(lease, stop, stream.run))


def _hold_leased(lease: Lease, stop: threading.Event) -> None:
    """Run a term while the lease lasts; whoever loses it lets go of the socket first."""
    log.info("the socket is ours, fencing number %d", lease.fence)
    term = LeaderSession(lambda: lease.is_ours)

    def tell_end() -> None:
        if lease.is_ours:
            _tell(replace(term.status(lease), state=SocketState.STOPPED, state_seconds=0.0))

    _while_leased(lease, stop, term.run, lambda: _tell(term.status(lease)), tell_end)


def _nothing() -> None:
    """Do nothing."""


def _while_leased(
    lease: Lease,
    stop: threading.Event,
    run: Callable[[threading.Event], None],
    each_second: Callable[[], None] = _nothing,
    at_end: Callable[[], None] = _nothing,
) -> None:
    """Run on a thread of its own while the lease lasts, and give the lease up after it has ended."""
    let_go = threading.Event()
    thread = threading.Thread(target=_run_and_disconnect, args=(run, let_go), name="kis-socket", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and _still_ours(lease):
            each_second()
            if stop.wait(LOOK_SECONDS):
                break
    finally:
        let_go.set()
        thread.join()
        at_end()
        lease.give_up()


def _run_and_disconnect(run: Callable[[threading.Event], None], let_go: threading.Event) -> None:
    try:
        run(let_go)
    finally:
        connection.close()


def _still_ours(lease: Lease) -> bool:
    """Whether the lease is ours, renewed; while Redis does not answer, until our term is over."""
    try:
        return lease.renew()
    except redis.RedisError as error:
        log.warning("the lease cannot be renewed: %s", error)
        return lease.is_ours


def _tell(words: StreamStatus) -> None:
    try:
        status.publish(store(), stream_key("stream"), words)
    except redis.RedisError as error:
        log.warning("the state of the socket cannot be told: %s", error)
