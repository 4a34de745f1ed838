"""What the stream worker does with each feed: one table from the broker's TR to the handler downstairs."""

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic, sleep

import redis
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connection

from aegis.lifecycle import UNSETTLED
from kis import clock, codec, feeds
from kis.auth import store_key
from kis.codec import Data
from kis.lease import Lease
from kis.stream import Stream
from kis.subscriptions import Topic
from kis.wiring import new_approval_key, store
from orders import fills
from orders.models import TradeOrder
from orders.tasks import look, reconcile
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

WANTED_SECONDS = 2.0
CONNECTION_CHECK_SECONDS = 5.0
# a second worker takes over within this and one look
LEASE_SECONDS = 6.0
LOOK_SECONDS = 1.0
DATABASE_PATIENCE_SECONDS = 10.0
DATABASE_PAUSE_SECONDS = 0.2


class Dispatch:
    """Hands data frames down, and says which feeds to hold."""

    def __init__(self) -> None:
        self._account = settings.KIS_CREDENTIALS.account.digits
        self._topics: Sequence[Topic] = ()
        self._topics_at = float("-inf")
        self._checked_at = float("-inf")
        self._missed = False
        self._handlers: dict[str, Callable[[Data, float], None]] = {
            **dict.fromkeys(codec.NOTICE_IDS, self.on_notice),
            **dict.fromkeys(feeds.TRADE_IDS, self.on_trades),
        }

    def wanted(self) -> Sequence[Topic]:
        """Return what to hold, most important first: own fills, held stocks, stocks with open orders."""
        if monotonic() - self._topics_at > WANTED_SECONDS:
            self._topics_at = monotonic()
            try:
                self._topics = self._ask_wanted()
            except DatabaseError as error:
                log.warning("the database does not answer, the feeds stay as they are: %s", error)
        return self._topics

    def _ask_wanted(self) -> Sequence[Topic]:
        self._check_connection()
        environment = settings.KIS_ENVIRONMENT
        notices = Topic("H0STCNI9" if environment.is_paper else "H0STCNI0", settings.KIS_CREDENTIALS.hts_id)
        held = [holding.stock_code for holding in PortfolioService().get_portfolio()]
        ordered = TradeOrder.objects.filter(status__in=UNSETTLED).order_by("-id").values_list("stock_code", flat=True)
        return [notices, *(Topic("H0STCNT0", code) for code in dict.fromkeys([*held, *ordered]))]

    def handle(self, data: Data, arrived: float) -> None:
        """Give a frame to its handler; `arrived` is its `time.perf_counter()`."""
        handler = self._handlers.get(data.tr_id)
        if handler is None:
            log.warning("no handler for %s", data.tr_id)
            return
        self._check_connection()
        gives_up_at = monotonic() + DATABASE_PATIENCE_SECONDS
        while True:
            try:
                handler(data, arrived)
            except (OperationalError, InterfaceError):
                # the frame waits in our hands, those after it in the socket, while the database comes back
                connection.close()
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
        for notice in codec.notices(data):
            raw = fills.receive(notice, account=self._account, now=clock.now(), arrived=arrived)
            if raw.state in (raw.State.WAITING, raw.State.DOUBTFUL):
                look.delay()

    def on_trades(self, data: Data, arrived: float) -> None:
        feeds.read(data)  # read for its faults; nobody below asks for ticks yet

    def connected(self) -> None:
        """After every (re)connection the broker is asked what happened meanwhile."""
        reconcile.delay()

    def _check_connection(self) -> None:
        """Let Django drop a database connection that died, at most every few seconds."""
        if monotonic() - self._checked_at > CONNECTION_CHECK_SECONDS:
            self._checked_at = monotonic()
            close_old_connections()


def make_stream() -> Stream:
    dispatch = Dispatch()
    return Stream(
        settings.KIS_ENVIRONMENT.socket_url,
        approval_key=new_approval_key,
        wanted=dispatch.wanted,
        handle=dispatch.handle,
        connected=dispatch.connected,
    )


def hold(stop: threading.Event) -> None:
    """Hold the socket until `stop`, as the only one who does: a second worker stands by and takes over."""
    lease = Lease(store(), store_key(settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS, "socket"), LEASE_SECONDS)
    while not stop.is_set():
        try:
            if lease.take():
                _hold_leased(lease, stop)
        except redis.RedisError as error:
            log.warning("Redis is not reachable, and without it nobody may hold the socket: %s", error)
        stop.wait(LOOK_SECONDS)


def _hold_leased(lease: Lease, stop: threading.Event) -> None:
    """Run the stream while the lease lasts; whoever loses it lets go of the socket first."""
    let_go = threading.Event()
    thread = threading.Thread(target=make_stream().run, args=(let_go,), name="kis-socket", daemon=True)
    thread.start()
    try:
        while thread.is_alive() and lease.renew() and not stop.wait(LOOK_SECONDS):
            pass
    finally:
        let_go.set()
        thread.join()
        lease.give_up()
