"""The realtime WebSocket (실시간): sessions, registrations, publication. Source: protocol notes §6.4, §10."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from aiohttp import WSMsgType, web

from aegis.terms import Market
from simulator.broker import Firm
from simulator.exchange.exchange import BookChanged, News, OrderNotice, Printed, StatusChanged
from simulator.exchange.listings import STOCKS
from simulator.exchange.market_maker import Venue
from simulator.faults.table import NOTICE, SOCKET
from simulator.feed.delivery import FrameSender
from simulator.feed.index_frames import FEEDS_WITHOUT_DATA, PERIODIC, STATUS, is_key
from simulator.feed.session import FeedSession, NoticeCipher, Topic
from simulator.feed.stock_frames import book_row, notice_row, trade_row

MAX_REGISTRATIONS = 41
FIRST_PING_SECONDS, PING_SECONDS = 10.0, 15.0
UNANSWERED_PINGS = 4
CLOSE_SECONDS = 0.3

LIVE_NOTICES, PAPER_NOTICES = "H0STCNI0", "H0STCNI9"
NOTICES = (LIVE_NOTICES, PAPER_NOTICES)
TRADES = {"H0STCNT0": Market.KRX, "H0NXCNT0": Market.NXT, "H0UNCNT0": Market.SOR}
BOOKS = {"H0STASP0": Market.KRX, "H0NXASP0": Market.NXT, "H0UNASP0": Market.SOR}
PAPER_FEEDS = frozenset({"H0STCNT0", "H0STASP0", PAPER_NOTICES})
FEED_TR_IDS = frozenset({*TRADES, *BOOKS, *NOTICES, *PERIODIC, *STATUS, *FEEDS_WITHOUT_DATA})


class SessionDropped(Exception):
    """The server closes this session, after `reply` if there is one."""

    def __init__(self, reply: str = "") -> None:
        super().__init__(reply)
        self.reply = reply


class FeedHub:
    """All sessions of one server."""

    def __init__(self, firm: Firm, clock: Callable[[], datetime]) -> None:
        self._firm = firm
        self._clock = clock
        self.sessions: dict[int, FeedSession] = {}
        self._listeners: dict[Topic, dict[int, FeedSession]] = {}
        self._next = 1
        self._periodic_second = -1
        self.frames_sent = 0
        self._faults = firm.faults
        self._sender = FrameSender(firm.faults)
        self._busy_until: dict[str, float] = {}
        self._occupied: set[str] = set()
        self._dropped_at = 0.0

    # --- sessions

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Run one WebSocket until it ends."""
        # a client's close is not answered, so that it sees 1006: protocol notes §16
        socket = web.WebSocketResponse(
            timeout=CLOSE_SECONDS, autoclose=False, autoping=False, compress=False, max_msg_size=1 << 20
        )
        await socket.prepare(request)
        session = self._open()
        session.cut = request.transport.abort if request.transport is not None else None
        tasks = [asyncio.create_task(self._write(socket, session)), asyncio.create_task(self._ping(session))]
        try:
            async for message in socket:
                session.unanswered = 0
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.TEXT and not self._handle_frame(session, message.data):
                    break
            if session.is_closing or not socket.close_code:
                # send queued frames before the connection closes
                session.hang_up()
                await asyncio.wait([tasks[0]], timeout=1)
            elif session.cut is not None:
                session.cut()
        finally:
            for task in tasks:
                task.cancel()
            self._close(session)
        return socket

    def _open(self) -> FeedSession:
        session = FeedSession(self._next)
        self._next += 1
        self.sessions[session.number] = session
        self._firm.exchange.record("session", self._clock(), session=session.number, state="open")
        return session

    def _close(self, session: FeedSession) -> None:
        for topic in list(session.topics):
            self._remove_topic(session, topic)
        if session.key and (fault := self._faults.take(SOCKET, ("ghost",))):
            self._busy_until[session.key] = time.monotonic() + float(fault.parameters["seconds"])
        del self.sessions[session.number]
        self._firm.exchange.record("session", self._clock(), session=session.number, state="closed", key=session.key)

    async def _write(self, socket: web.WebSocketResponse, session: FeedSession) -> None:
        while (text := await session.queue.get()) is not None:
            if isinstance(text, bytes):  # a text frame that is not UTF-8
                await socket.send_frame(text, WSMsgType.TEXT)
            else:
                await socket.send_str(text)
            self.frames_sent += 1
        await socket.close()

    async def _ping(self, session: FeedSession) -> None:
        await asyncio.sleep(FIRST_PING_SECONDS)
        while not session.is_closing:
            if session.unanswered >= UNANSWERED_PINGS:
                session.hang_up()
                return
            if (fault := self._faults.find("no_pingpong")) is not None:
                await self._wait_without_ping(session, float(fault.parameters["hangs_up_after"]))
                continue
            session.unanswered += 1
            session.send(_json({"header": {"tr_id": "PINGPONG", "datetime": f"{self._clock():%Y%m%d%H%M%S}"}}))
            await asyncio.sleep(PING_SECONDS)

    async def _wait_without_ping(self, session: FeedSession, hangs_up_after: float) -> None:
        await asyncio.sleep(hangs_up_after or PING_SECONDS)
        if hangs_up_after:
            session.hang_up()

    def hang_up(self, key: str | None = None) -> None:
        """Close all sessions, or those of one app key."""
        for session in list(self.sessions.values()):
            if key in (None, session.key):
                session.hang_up()

    def sessions_of(self, key: str) -> int:
        return sum(session.key == key and not session.is_closing for session in self.sessions.values())

    def occupy(self, key: str, *, occupied: bool) -> None:
        """Occupy an app key's one session, as another program would, or release it."""
        if occupied:
            self._occupied.add(key)
            self.hang_up(key)
        else:
            self._occupied.discard(key)

    def cut(self) -> None:
        """Cut all connections without a closing handshake."""
        for session in list(self.sessions.values()):
            if session.cut is not None:
                session.cut()

    # --- frames from clients

    def _handle_frame(self, session: FeedSession, text: str) -> bool:
        """Answer one frame. Return False if the server closes the session."""
        try:
            reply = self._answer(session, text)
        except SessionDropped as dropped:
            if dropped.reply:
                session.send(dropped.reply)
            return False
        if reply:
            session.send(reply)
        return True

    def _answer(self, session: FeedSession, text: str) -> str:
        try:
            frame = json.loads(text)
        except ValueError:
            return _error("OPSP9999", "JSON PARSING ERROR : invalid json format")
        header = frame.get("header") if isinstance(frame, dict) else None
        if not isinstance(header, dict):
            return _error("OPSP9998", "JSON PARSING ERROR : header not found")
        if header.get("tr_id") == "PINGPONG":
            return ""
        body = frame.get("body")
        if not isinstance(body, dict):
            return _error("OPSP9992", "JSON PARSING ERROR : body not found")
        subscription = body.get("input")
        if not isinstance(subscription, dict):
            return _error("OPSP9991", "JSON PARSING ERROR : input not found")
        if "tr_key" not in subscription:
            return _error("OPSP9990", "JSON PARSING ERROR : tr_key not found")
        if "custtype" not in header:
            return _error("OPSP9997", "JSON PARSING ERROR : custtype not found")
        self._admit(session, str(header.get("approval_key", "")))
        topic = (str(subscription.get("tr_id", "")), str(subscription["tr_key"]))
        if str(header.get("tr_type")) == "1":
            return self._register(session, topic)
        if str(header.get("tr_type")) == "2":
            return self._release(session, topic)
        return _error("OPSP8997", "JSON PARSING ERROR : invalid tr_type")

    def _admit(self, session: FeedSession, approval: str) -> None:
        """Bind a session to its app key, which can have one session. Raises SessionDropped."""
        # an open session outlives its approval key
        key = session.key or self._firm.gateway.approved_key(approval, self._clock())
        if key is None or (not session.key and self._faults.take(SOCKET, ("approval_refused",))):
            raise SessionDropped(_error("OPSP0011", "invalid approval : NOT FOUND", rt_cd="1"))
        if self._is_taken(key, session):
            self._firm.exchange.record("session", self._clock(), session=session.number, state="refused", key=key)
            raise SessionDropped(_error("OPSP8996", "ALREADY IN USE appkey"))
        if not session.key:
            session.key = key
            self._firm.exchange.record("session", self._clock(), session=session.number, state="admitted", key=key)

    def _is_taken(self, key: str, session: FeedSession) -> bool:
        if session.key:
            return False
        if (
            key in self._occupied
            or self._faults.take(SOCKET, ("occupied",))
            or time.monotonic() < self._busy_until.get(key, 0.0)
        ):
            return True
        return any(other.key == key and not other.is_closing for other in self.sessions.values())

    def _register(self, session: FeedSession, topic: Topic) -> str:
        tr_id, tr_key = topic
        if tr_id not in FEED_TR_IDS:
            return _reply(topic, "1", "OPSP8991", "SUBSCRIBE ERROR : invalid tr_id")
        if tr_id in {*NOTICES, *FEEDS_WITHOUT_DATA} and not tr_key.strip():
            raise SessionDropped(_error("OPSP0017", "ERROR : htsid가잘못되었습니다"))
        if tr_id not in {*NOTICES, *FEEDS_WITHOUT_DATA} and not is_key(self._firm, tr_id, tr_key, self._clock()):
            return _error("OPSP8992", "JSON PARSING ERROR : invalid tr_key", topic[0])
        if topic in session.topics:
            return _reply(topic, "1", "OPSP0002", "ALREADY IN SUBSCRIBE")
        if len(session.topics) >= MAX_REGISTRATIONS:
            return _reply(topic, "1", "OPSP0008", "MAX SUBSCRIBE OVER")
        if fault := self._faults.take(SOCKET, ("subscription_refused",), tr_id=tr_id, code=tr_key):
            return _reply(topic, "1", str(fault.parameters["msg_cd"]), str(fault.parameters["msg1"]))
        cipherer = NoticeCipher.fresh()
        session.topics[topic] = cipherer
        self._listeners.setdefault(topic, {})[session.number] = session
        if tr_id in NOTICES:
            self._firm.exchange.link_hts(tr_key, session.key)
        self._record_registration(session, topic, "registered")
        return _reply(topic, "0", "OPSP0000", "SUBSCRIBE SUCCESS", cipherer)

    def _release(self, session: FeedSession, topic: Topic) -> str:
        if topic not in session.topics:
            return _reply(topic, "1", "OPSP0003", "UNSUBSCRIBE ERROR(not found!)")
        cipherer = session.topics[topic]
        self._remove_topic(session, topic)
        self._record_registration(session, topic, "released")
        return _reply(topic, "0", "OPSP0001", "UNSUBSCRIBE SUCCESS", cipherer)

    def _remove_topic(self, session: FeedSession, topic: Topic) -> None:
        del session.topics[topic]
        self._listeners[topic].pop(session.number, None)
        if not self._listeners[topic]:
            del self._listeners[topic]

    def _record_registration(self, session: FeedSession, topic: Topic, state: str) -> None:
        self._firm.exchange.record(
            "registration", self._clock(), session=session.number, tr_id=topic[0], tr_key=topic[1], state=state
        )

    # --- frames to clients

    def publish(self, news: Iterable[News]) -> None:
        """Send notices to the orders' owners, and trades, books and status changes to the registered sessions."""
        books: dict[tuple[str, str], None] = {}
        for item in news:
            if isinstance(item, OrderNotice):
                self._send_notice(item)
            elif isinstance(item, Printed):
                self._send_trades(item)
            elif isinstance(item, StatusChanged):
                self._send_status(item)
            if isinstance(item, Printed | BookChanged):
                books.update(dict.fromkeys(self._book_topics(item.code, item.market)))
        for tr_id, code in books:
            self._send_book(tr_id, code)

    def send_periodic(self) -> None:
        """Send the periodic feeds, once per second of market time."""
        now = self._clock()
        second = int(now.timestamp())
        if second == self._periodic_second:
            return
        self._periodic_second = second
        for tr_id, key in list(self._listeners):
            builder = PERIODIC.get(tr_id)
            sessions = self._sessions_for(tr_id, key) if builder is not None else []
            if builder is not None and sessions:
                row = builder(self._firm, key, now)
                if row is not None:
                    self._sender.send_rows(sessions, tr_id, key, [row])

    def _send_status(self, change: StatusChanged) -> None:
        for tr_id, (market, builder) in STATUS.items():
            is_concerned = market is change.market or (market is Market.SOR and change.market is Market.KRX)
            sessions = self._sessions_for(tr_id, change.code) if is_concerned else []
            if sessions:
                row = builder(self._firm, change.code, self._clock())
                if row is not None:
                    self._sender.send_rows(sessions, tr_id, change.code, [row])

    def _book_topics(self, code: str, market: Market) -> list[Topic]:
        return [(tr_id, code) for tr_id, feed_market in BOOKS.items() if self._concerns(feed_market, code, market)]

    def _sessions_for(self, tr_id: str, tr_key: str) -> list[FeedSession]:
        if self._firm.settings.is_paper and tr_id not in PAPER_FEEDS:
            return []  # paper trading accepts the registration and sends nothing
        return list(self._listeners.get((tr_id, tr_key), {}).values())

    def _send_trades(self, printed: Printed) -> None:
        exchange = self._firm.exchange
        venue = exchange.venues.get((printed.code, printed.market))
        for tr_id, feed_market in TRADES.items():
            if venue is None or not self._concerns(feed_market, printed.code, printed.market):
                continue
            sessions = self._sessions_for(tr_id, printed.code)
            if not sessions:
                continue
            if feed_market is Market.SOR:
                venues = (venue, *self._venues(printed.code, feed_market, excluded=printed.market))
                day = exchange.unified[printed.code]
                rows = [trade_row(self._firm, venues, day, t.unified) for t in printed.trades if t.unified]
            else:
                rows = [trade_row(self._firm, (venue,), venue.tape, trade) for trade in printed.trades]
            self._sender.send_rows(sessions, tr_id, printed.code, rows)

    def _venues(self, code: str, feed_market: Market, excluded: Market | None = None) -> tuple[Venue, ...]:
        """Return a feed's venues: both for the unified feed, without `excluded`."""
        markets = (Market.KRX, Market.NXT) if feed_market is Market.SOR else (feed_market,)
        venues = self._firm.exchange.venues
        return tuple(venues[code, market] for market in markets if (code, market) in venues and market is not excluded)

    def _send_book(self, tr_id: str, code: str) -> None:
        sessions = self._sessions_for(tr_id, code)
        if not sessions:
            return
        venues = self._venues(code, BOOKS[tr_id])
        if venues:
            self._sender.send_rows(sessions, tr_id, code, [book_row(self._firm, venues, self._clock())])

    def _concerns(self, feed_market: Market, code: str, market: Market) -> bool:
        """Return whether a feed carries a venue's data. The unified feed has none for stocks that only KRX trades."""
        if feed_market is Market.SOR:
            return STOCKS[code].on_nxt
        return feed_market is market

    def _send_notice(self, notice: OrderNotice) -> None:
        account, code = str(notice.order["account"]), str(notice.order["code"])
        world = self._firm.exchange.world
        keys = world.account_keys.get(account, set())
        tr_id = PAPER_NOTICES if self._firm.settings.is_paper else LIVE_NOTICES
        fault = self._faults.take(NOTICE, account=account, code=code)
        for session in list(self.sessions.values()):
            for topic, cipherer in list(session.topics.items()):
                if topic[0] == tr_id and world.hts_keys.get(topic[1], set()) & keys:
                    row = notice_row(notice, topic[1], self._firm.settings.notice_width, self._firm.printing)
                    self._sender.send_notice(session, tr_id, cipherer, row, fault)

    def drop_if_flapping(self) -> None:
        """Drop all sessions at intervals while the `flapping` fault is in force."""
        fault = self._faults.find("flapping")
        if fault is not None and time.monotonic() - self._dropped_at >= float(fault.parameters["every"]):
            self._dropped_at = time.monotonic()
            fault.strikes += 1
            self.cut()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _reply(topic: Topic, rt_cd: str, msg_cd: str, msg1: str, cipherer: NoticeCipher | None = None) -> str:
    body: dict[str, object] = {"rt_cd": rt_cd, "msg_cd": msg_cd, "msg1": msg1}
    if cipherer is not None:
        body["output"] = {"iv": cipherer.iv, "key": cipherer.key}
    encrypt = "Y" if topic[0] in NOTICES else "N"
    return _json({"header": {"tr_id": topic[0], "tr_key": topic[1], "encrypt": encrypt}, "body": body})


def _error(msg_cd: str, msg1: str, tr_id: str = "(null)", *, rt_cd: str = "9") -> str:
    """Return a refusal of a frame that has no valid registration."""
    body = {"rt_cd": rt_cd, "msg_cd": msg_cd, "msg1": msg1}
    return _json({"header": {"tr_id": tr_id, "tr_key": "", "encrypt": "N"}, "body": body})
