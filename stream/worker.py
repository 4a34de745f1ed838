"""The stream worker: holds the sockets while it has the lease, and passes each feed to the handlers of its consumers.

The socket's thread decodes frames, applies fill notices to the database at once, and passes everything else to
handlers that work in memory. Database work for market data runs in periodic jobs.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from operator import itemgetter
from time import monotonic, sleep
from types import MappingProxyType

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
from kis.factory import all_keys, connection_limiter, store, stream_key
from kis.realtime import StockState
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
    Handler,
    PeriodicJob,
    StockSubscriptions,
    SubscriptionPriority,
    SubscriptionRequest,
    open_venues,
    ranked_trades,
)

log = logging.getLogger(__name__)

WANTED_SECONDS = 2.0
CONNECTION_CHECK_SECONDS = 5.0
# a second worker takes over within this and LEASE_CHECK_SECONDS
LEASE_SECONDS = 6.0
LEASE_CHECK_SECONDS = 1.0
DATABASE_PATIENCE_SECONDS = 10.0
DATABASE_PAUSE_SECONDS = 0.2
JOIN_SECONDS = 5.0
PHASES_SECONDS = 30.0
UNDECODABLE_SECONDS = 5.0
# A volatility interruption (VI) lasts two minutes and a random end of up to 30 seconds. If its end is not reported for
# longer, the report was missed, and the stock's feeds must have data again. A halt may last all day, so a reported one
# counts for its day; from the next morning the master file shows the halted stocks
VI_LASTS = timedelta(minutes=4)

# the feeds that detect a connection without data, and the market whose phases they follow
LIVENESS_FEEDS: Mapping[str, Market] = MappingProxyType(
    {
        **dict.fromkeys(("H0STCNT0", "H0STASP0", "H0UPCNT0"), Market.KRX),
        **dict.fromkeys(("H0NXCNT0", "H0NXASP0"), Market.NXT),
        **dict.fromkeys(("H0UNCNT0", "H0UNASP0"), Market.SOR),
    }
)
# A feed that always has data in regular hours, and its minimum rate in frames per second: KOSPI200, or the most traded
# stock on paper, which has no index feed.
# UNVERIFIED: the rate of the index; one recorded minute of it settles it
LIVE_REFERENCE = (Topic("H0UPCNT0", "2001"), 0.2)
PAPER_REFERENCE = (Topic("H0STCNT0", "005930"), 0.5)


def holding_codes() -> Iterable[str]:
    return [holding.stock_code for holding in PortfolioService().get_portfolio()]


def open_order_codes() -> Iterable[str]:
    codes = TradeOrder.objects.filter(status__in=UNSETTLED).order_by("-id").values_list("stock_code", flat=True)
    return dict.fromkeys(codes)


def reference_feed() -> tuple[Topic, float]:
    return PAPER_REFERENCE if settings.KIS_ENVIRONMENT.is_paper else LIVE_REFERENCE


def own_stocks() -> Consumer:
    """Subscribe to the stocks we hold or have ordered, and to the feed that always has data."""
    return Consumer(
        requests=(SubscriptionRequest(SubscriptionPriority.REFERENCE, lambda: [reference_feed()[0]]),),
        stocks=(
            StockSubscriptions(SubscriptionPriority.ORDERED, open_order_codes),
            StockSubscriptions(SubscriptionPriority.HELD, holding_codes),
        ),
    )


# The consumers of feeds, by the importance of their stocks while no venue is open. Each function creates a new consumer
# for every session of the leader.
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
    """The lease is no longer ours: nothing may be written any more, and the connection ends."""

    def __init__(self) -> None:
        super().__init__("the lease is no longer ours")


class Dispatch:
    """Passes data frames to their handlers, and decides which feeds to hold."""

    def __init__(self, consumers: Sequence[Consumer], may_write: Callable[[], bool]) -> None:
        self._consumers = consumers
        self._may_write = may_write
        self._account = settings.KIS_CREDENTIALS.account.digits
        self._is_paper = settings.KIS_ENVIRONMENT.is_paper
        self.own_fills = Topic("H0STCNI9" if self._is_paper else "H0STCNI0", settings.KIS_CREDENTIALS.hts_id)
        self._topics: Sequence[Topic] = (self.own_fills,)
        self.vital: frozenset[Topic] = frozenset()
        self._not_offered: frozenset[str] = frozenset()
        self._checked_at = float("-inf")
        self._missed_notice = False
        self._undecodable_at = float("-inf")
        self._phases: Sequence[Phase] = ()
        self._halted_codes: frozenset[str] = frozenset()
        self._reported_states: dict[str, tuple[StockState, datetime]] = {}  # of each stock the newest, and its arrival
        self.last_notice_at: float | None = None
        self._handlers: dict[str, list[Handler]] = defaultdict(list)
        for consumer in consumers:
            for tr_id, handler in consumer.handlers.items():
                self._handlers[realtime.feed_of(tr_id).tr_id].append(handler)
        for tr_id in ("H0STMKO0", "H0NXMKO0", "H0UNMKO0"):
            self._handlers[tr_id].append(self._on_states)

    def wanted(self) -> Sequence[Topic]:
        """Return the topics to hold, most important first. Our own fills are always the first."""
        return self._topics

    def refresh_topics(self) -> None:
        """Collect the topics of all consumers. If this raises, the feeds stay as they are."""
        requests = [
            (request.priority, topic)
            for consumer in self._consumers
            for request in consumer.requests
            for topic in request.topics()
        ]
        ranked = sorted([*self._ranked_trades(), *requests], key=itemgetter(0))
        topics = dict.fromkeys(topic for _priority, topic in ranked)
        offered = [topic for topic in topics if not self._is_paper or realtime.feed_of(topic.tr_id).on_paper]
        self._log_not_offered(frozenset(topic.tr_id for topic in topics) - {topic.tr_id for topic in offered})
        self._topics = (self.own_fills, *offered)
        self.vital = frozenset(topic for priority, topic in ranked if priority in VITAL)

    def _ranked_trades(self) -> Iterable[tuple[SubscriptionPriority, Topic]]:
        """Collect the stocks whose trades are wanted, and rank their feeds by the venues that trade now."""
        requests = [
            (request.priority, list(request.codes()), request.venues())
            for consumer in self._consumers
            for request in consumer.stocks
        ]
        all_codes = {code for _priority, codes, _venues in requests for code in codes}
        if not all_codes:
            return ()
        now = clock.now()
        venues = open_venues(queries.today(now), now)
        on_nxt = set[str]()
        if not self._is_paper:
            on_nxt.update(Stock.objects.filter(pk__in=all_codes, trades_on_nxt=True).values_list("pk", flat=True))
        return chain.from_iterable(
            ranked_trades(priority, codes, venues=venues, on_nxt=on_nxt, relevant_venues=relevant_venues)
            for priority, codes, relevant_venues in requests
        )

    def refresh_phases(self) -> None:
        """Read what decides which feeds must have data: the day's phases, and the halted stocks."""
        self._phases = queries.today(clock.now())
        self._halted_codes = frozenset(Stock.objects.filter(is_halted=True).values_list("pk", flat=True))

    def expected_feeds(self) -> Mapping[Topic, str]:
        """Return the feeds that must have data now, each with its phase, without those of halted stocks."""
        now = clock.now()
        names = {
            venue: next(
                (phase.name for phase in phases_at(self._phases, venue, now) if phase.matching is Matching.CONTINUOUS),
                None,
            )
            for venue in Market
        }
        expected = {}
        for topic in self._topics:
            name = names[LIVENESS_FEEDS[topic.tr_id]] if topic.tr_id in LIVENESS_FEEDS else None
            is_index = topic.tr_id == LIVE_REFERENCE[0].tr_id
            if name and not self._is_stopped(topic.key, now) and (name is PhaseName.REGULAR or not is_index):
                expected[topic] = name.value
        return expected

    def _is_stopped(self, code: str, now: datetime) -> bool:
        """Whether a stock is halted or in a volatility interruption, as far as known: its feeds may be silent."""
        state, reported_at = self._reported_states.get(code, (None, now))
        if state is None or reported_at.date() != now.date():
            return code in self._halted_codes
        return state.is_halted or (state.in_vi and now < reported_at + VI_LASTS)

    def _on_states(self, states: Sequence[StockState], arrived: float) -> None:
        now = clock.now()
        self._reported_states |= {state.code: (state, now) for state in states}

    def _log_not_offered(self, tr_ids: frozenset[str]) -> None:
        if tr_ids - self._not_offered:
            log.warning("not offered on paper, so not registered: %s", ", ".join(sorted(tr_ids)))
        self._not_offered = tr_ids

    def handle(self, data: Data, arrived: float) -> None:
        """Pass a frame to its handlers. `arrived` is the `time.perf_counter()` of its arrival.

        Raises LeaseLost, and the errors of the handlers.
        """
        if not self._may_write():
            raise LeaseLost
        if data.tr_id in codec.NOTICE_IDS:
            self._apply_notices(data, arrived)
            return
        values = realtime.read_records(data)
        for handler in self._handlers.get(data.tr_id, ()):
            handler(values, arrived)

    def _apply_notices(self, data: Data, arrived: float) -> None:
        """Apply notices. If the database is away, wait for it for DATABASE_PATIENCE_SECONDS, then raise its error."""
        self._check_connection()
        gives_up_at = monotonic() + DATABASE_PATIENCE_SECONDS
        while True:
            try:
                self.on_notice(data, arrived)
            except db_limits.CONNECTION_ERRORS:
                # this frame waits here, and later frames in the socket, until the database is back
                connection.close()
                if not self._may_write():
                    raise LeaseLost from None
                if monotonic() > gives_up_at:
                    self._missed_notice = True
                    raise
                sleep(DATABASE_PAUSE_SECONDS)
            else:
                break
        if self._missed_notice:
            self._missed_notice = False
            reconcile.delay()

    def on_notice(self, data: Data, arrived: float) -> None:
        self.last_notice_at = monotonic()
        for notice in codec.notices(data):
            if not self._may_write():  # the wait for the database may have outlasted the lease
                raise LeaseLost
            raw = fills.ingest(notice, account=self._account, now=clock.now(), arrived=arrived)
            if raw.state in (raw.State.WAITING, raw.State.DOUBTFUL):
                look.delay()

    def on_connected(self) -> None:
        for consumer in self._consumers:
            consumer.on_connected()

    def on_registered(self, topic: Topic) -> None:
        """Reconcile after our own fills are registered: no notices arrived for fills before that."""
        if topic == self.own_fills:
            reconcile.delay()
        for consumer in self._consumers:
            consumer.on_registered(topic)

    def on_undecodable_notice(self) -> None:
        """Reconcile: a notice that could not be read may have been a fill."""
        if monotonic() - self._undecodable_at > UNDECODABLE_SECONDS:
            self._undecodable_at = monotonic()
            reconcile.delay()

    def on_lost(self) -> None:
        for consumer in self._consumers:
            consumer.on_lost()

    def _check_connection(self) -> None:
        """Let Django close a broken database connection, every CONNECTION_CHECK_SECONDS at most."""
        if monotonic() - self._checked_at > CONNECTION_CHECK_SECONDS:
            self._checked_at = monotonic()
            close_old_connections()


class JobRunner:
    """Runs the periodic jobs of one session, each on a thread of its own, until the end of the `with` block."""

    def __init__(self, jobs: Sequence[PeriodicJob], may_write: Callable[[], bool]) -> None:
        self._may_write = may_write
        self._stop = threading.Event()
        self.failures = {job.name: 0 for job in jobs}
        self._threads = [
            threading.Thread(target=self._repeat, args=(job,), name=f"kis-{job.name}", daemon=True) for job in jobs
        ]

    def __enter__(self) -> "JobRunner":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _repeat(self, job: PeriodicJob) -> None:
        try:
            while True:
                is_last = self._stop.is_set()
                if self._may_write():
                    self._run_once(job)
                if is_last:
                    break
                self._stop.wait(job.every_seconds)
            while job.has_more():
                self._run_once(job)
                if job.has_more():
                    sleep(DATABASE_PAUSE_SECONDS)
        finally:
            connection.close()

    def _run_once(self, job: PeriodicJob) -> None:
        try:
            close_old_connections()
            job.run()
        except (OperationalError, InterfaceError) as error:
            self.failures[job.name] += 1
            log.warning("%s: the database does not answer, and it is tried again: %s", job.name, error)
        except Exception:  # a fault of one job must not end the others, nor its own next run
            self.failures[job.name] += 1
            log.exception("%s failed; it is tried again", job.name)


class LeaderSession:
    """What runs while this process is the leader: the sockets and the jobs. Further keys have leases of their own."""

    def __init__(self, may_write: Callable[[], bool]) -> None:
        consumers = [create() for create in CONSUMERS]
        self.dispatch = Dispatch(consumers, may_write)
        self.streams = Streams(
            settings.KIS_ENVIRONMENT.socket_url,
            gates=[connection_limiter(credentials) for credentials in all_keys()],
            listener=self.dispatch,
            known_rates=dict([reference_feed()]),
        )
        own_jobs = (
            PeriodicJob("wanted", WANTED_SECONDS, self.dispatch.refresh_topics),
            PeriodicJob("phases", PHASES_SECONDS, self.dispatch.refresh_phases),
        )
        self.jobs = JobRunner([*own_jobs, *(job for consumer in consumers for job in consumer.jobs)], may_write)

    @property
    def stream(self) -> Stream:
        """Return the stream of the first app key."""
        return self.streams.members[0]

    def run(self, stop: threading.Event) -> None:
        """Hold the sockets until `stop` is set."""
        further_keys = [
            threading.Thread(target=_hold_key, args=(stream, app_key, stop), name=f"kis-key-{number}", daemon=True)
            for number, (stream, app_key) in enumerate(zip(self.streams.members, all_keys(), strict=True), start=1)
        ][1:]
        try:
            with self.jobs:
                for thread in further_keys:
                    thread.start()
                self.stream.run(stop)
        finally:
            stop.set()
            for thread in further_keys:
                thread.join()
            connection.close()

    def status(self, lease: Lease) -> StreamStatus:
        """Return the current state, for other processes to read."""
        now, streams, leader = monotonic(), self.streams, self.streams.leader
        all_counters = [stream.counters for stream in streams.members]
        last_frame_at = max(counters.last_frame_at for counters in all_counters)
        held, left_out, refused = streams.held, streams.left_out, streams.refused
        return StreamStatus(
            state=leader.state,
            state_seconds=now - leader.state_since,
            holder=lease.holder,
            fence=lease.fence,
            frames=sum(counters.frames for counters in all_counters),
            frame_age=now - last_frame_at if last_frame_at else None,
            data_age=streams.data_age(),
            notice_age=now - at if (at := self.dispatch.last_notice_at) else None,
            connections=sum(counters.connections for counters in all_counters),
            lost_reason=leader.lost_reason,
            next_try_seconds=max(0.0, at - now) if (at := leader.next_try_at) else None,
            dead_connections=sum(counters.dead_connections for counters in all_counters),
            bad_frames=sum(counters.bad_frames for counters in all_counters),
            failures=sum(counters.failures for counters in all_counters),
            drift={f"{tr_id}/{width}": count for (tr_id, width), count in codec.drift.items()},
            held=tuple(sorted(map(str, held))),
            left_out=tuple(map(str, left_out)),
            refused={str(topic): message for topic, message in refused.items()},
            missing_vital=tuple(sorted(map(str, self.dispatch.vital.intersection([*left_out, *refused])))),
            has_own_fills=self.dispatch.own_fills in held,
            has_reference_feed=reference_feed()[0] in held,
            job_failures=dict(self.jobs.failures),
            keys=streams.status(),
        )


def run_as_leader(stop: threading.Event) -> None:
    """Hold the sockets until `stop` is set. Only one process does: a second worker waits and takes over."""
    _hold(Lease(store(), stream_key("socket"), LEASE_SECONDS), stop, _hold_leased)


def _hold(lease: Lease, stop: threading.Event, act: Callable[[Lease, threading.Event], None]) -> None:
    """Call `act` whenever the lease is ours, until `stop` is set."""
    while not stop.is_set():
        try:
            if lease.take():
                act(lease, stop)
        except redis.RedisError as error:
            log.warning("Redis is not reachable, and without it no process may hold the socket: %s", error)
        except Exception:  # any fault: the socket must be opened again, also if no person is there
            log.exception("the socket was released; it is opened again")
        stop.wait(LEASE_CHECK_SECONDS)


def _hold_key(stream: Stream, app_key: Credentials, stop: threading.Event) -> None:
    """Hold a further key's socket until `stop` is set, whenever that key's lease is ours."""
    lease = Lease(store(), stream_key("socket", app_key), LEASE_SECONDS)
    _hold(lease, stop, lambda lease, stop: _while_leased(lease, stop, stream.run))


def _hold_leased(lease: Lease, stop: threading.Event) -> None:
    """Run a session while the lease is ours, and publish its state each second and at its end."""
    log.info("the socket is ours, fencing number %d", lease.fence)
    session = LeaderSession(lambda: lease.is_ours)

    def publish_end() -> None:
        if lease.is_ours:
            _publish(replace(session.status(lease), state=SocketState.STOPPED, state_seconds=0.0))

    _while_leased(lease, stop, session.run, lambda: _publish(session.status(lease)), publish_end)


def _nothing() -> None:
    """Do nothing."""


def _while_leased(
    lease: Lease,
    stop: threading.Event,
    run: Callable[[threading.Event], None],
    each_second: Callable[[], None] = _nothing,
    at_end: Callable[[], None] = _nothing,
) -> None:
    """Call `run` on a thread of its own while the lease is ours. Give up the lease only after the thread has ended."""
    stop_thread = threading.Event()
    thread = threading.Thread(target=_run_and_disconnect, args=(run, stop_thread), name="kis-socket", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and _is_renewed(lease):
            each_second()
            if stop.wait(LEASE_CHECK_SECONDS):
                break
    finally:
        stop_thread.set()
        thread.join()
        at_end()
        lease.release()


def _run_and_disconnect(run: Callable[[threading.Event], None], stop: threading.Event) -> None:
    try:
        run(stop)
    finally:
        connection.close()


def _is_renewed(lease: Lease) -> bool:
    """Renew the lease and return whether it is ours. If Redis does not answer, it is ours until it expires."""
    try:
        return lease.renew()
    except redis.RedisError as error:
        log.warning("the lease cannot be renewed: %s", error)
        return lease.is_ours


def _publish(stream_status: StreamStatus) -> None:
    try:
        status.publish(store(), stream_key("stream"), stream_status)
    except redis.RedisError as error:
        log.warning("the state of the socket cannot be published: %s", error)
