"""A simulated market at a chosen moment: behind the wire (`Market`), and on it (`Client`)."""

import json
import resource
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aegis.sessions import KST
from aegis.terms import Market as Venue
from aegis.terms import OrderKind, Side
from infra import clock
from simulator.api.server import Simulator, serve
from simulator.broker import Firm, Settings
from simulator.exchange.exchange import News, OrderNotice
from simulator.exchange.order_entry import ChangeRequest
from simulator.exchange.orders import NewOrder, Order

SAMSUNG, KEPCO, THIN, FUND = "005930", "015760", "004090", "069500"
LISTED = (SAMSUNG, KEPCO, THIN, FUND, "000660")
ACCOUNT, OTHER = "12345678-01", "87654321-01"


_OPENED: list[Any] = []


def kst(text: str) -> datetime:
    """Read a moment in Korea: `2026-11-23 10:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=KST)


class Market:
    """A house of few stocks whose crowd acts only when asked to, and what a customer does there."""

    def __init__(self, at: str = "2026-11-23 10:00", **settings: Any) -> None:
        codes = settings.pop("codes", frozenset({SAMSUNG}))
        self.now = kst(at)
        self.firm = Firm(Settings(is_ticking=False, codes=codes, **settings))
        self.firm.advance(self.now)
        self.exchange = self.firm.exchange
        _OPENED.append(self.exchange.ledger)
        self.exchange.take_news()

    def to(self, at: str) -> None:
        """Let the clock go on to a moment."""
        self.now = kst(at)
        self.firm.advance(self.now)

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.firm.advance(self.now)

    def step(self, count: int = 1) -> None:
        self.firm.session_clock.step(count, self.now)

    def price_to(self, price: int, code: str = SAMSUNG) -> None:
        self.firm.session_clock.set_price(code, price, self.now)

    def book(self, code: str = SAMSUNG, venue: Venue = Venue.KRX) -> Any:
        return self.exchange.venue(code, venue).book

    def best(self, side: Side, code: str = SAMSUNG, venue: Venue = Venue.KRX) -> int:
        price = self.exchange.venue(code, venue).book.best(side)
        assert price is not None
        return int(price)

    def order(
        self,
        side: Side,
        quantity: int,
        price: int = 0,
        *,
        code: str = SAMSUNG,
        kind: OrderKind = OrderKind.LIMIT,
        venue: Venue = Venue.KRX,
        account: str = ACCOUNT,
        stop: int = 0,
    ) -> Order:
        wanted = NewOrder(account, code, side, venue, kind, quantity, price, stop)
        return self.firm.order_entry.place(wanted, self.now)

    def buy(self, quantity: int, price: int = 0, **words: Any) -> Order:
        return self.order(Side.BUY, quantity, price, **words)

    def sell(self, quantity: int, price: int = 0, **words: Any) -> Order:
        return self.order(Side.SELL, quantity, price, **words)

    def change(self, order: Order, *, cancel: bool, quantity: int = 0, price: int = 0) -> Order:
        wanted = ChangeRequest(
            account=order.account,
            number=order.number,
            is_cancel=cancel,
            kind=order.kind,
            quantity=quantity,
            price=price,
            is_whole_rest=not quantity,
        )
        return self.firm.order_entry.change(wanted, self.now)

    def cancel(self, order: Order, quantity: int = 0) -> Order:
        return self.change(order, cancel=True, quantity=quantity)

    def amend(self, order: Order, price: int, quantity: int = 0) -> Order:
        return self.change(order, cancel=False, price=price, quantity=quantity)

    def notices(self) -> list[OrderNotice]:
        return [item for item in self.news() if isinstance(item, OrderNotice)]

    def news(self) -> list[News]:
        return self.exchange.take_news()

    def ledger(self, account: str = ACCOUNT) -> dict[str, Any]:
        return self.exchange.account_report(account)


@pytest.fixture
def market() -> Market:
    return Market()


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the time of day for the test and the server it runs."""
    monkeypatch.setenv(clock.VARIABLE, str(tmp_path / "clock.json"))
    return lambda at: clock.set_now(kst(at))


@pytest.fixture(autouse=True)
def _close_what_was_opened() -> Iterator[None]:
    yield
    while _OPENED:
        _OPENED.pop().close()


class Client:
    """A customer's program on the real wire."""

    def __init__(self, sim: Simulator, *, app_key: str = "k" * 36, account: str = ACCOUNT, paper: bool = False) -> None:
        self.sim, self.app_key, self.paper = sim, app_key, paper
        self.account = dict(zip(("CANO", "ACNT_PRDT_CD"), account.split("-"), strict=True))
        self.http = httpx.Client(base_url=sim.url, timeout=10)
        _OPENED.append(self.http)
        reply = self.token()
        assert reply.status_code == 200, reply.text
        self.headers = {
            "authorization": f"Bearer {reply.json()['access_token']}",
            "appkey": app_key,
            "appsecret": "s" * 180,
            "custtype": "P",
        }

    def token(self) -> httpx.Response:
        body = {"grant_type": "client_credentials", "appkey": self.app_key, "appsecret": "s" * 180}
        return self.http.post("/oauth2/tokenP", json=body)

    def get(self, path: str, tr_id: str, tr_cont: str = "", **params: str) -> httpx.Response:
        headers = {**self.headers, "tr_id": tr_id, "tr_cont": tr_cont}
        return self.http.get(f"/uapi/domestic-stock/v1/{path}", params=params, headers=headers)

    def post(self, path: str, tr_id: str, **body: Any) -> httpx.Response:
        headers = {**self.headers, "tr_id": tr_id}
        return self.http.post(f"/uapi/domestic-stock/v1/trading/{path}", json=body, headers=headers)

    def buy(self, quantity: int, price: int = 0, kind: str = "00", code: str = SAMSUNG, **more: str) -> httpx.Response:
        return self._order("0012U", quantity, price, kind, code, more)

    def sell(self, quantity: int, price: int = 0, kind: str = "00", code: str = SAMSUNG, **more: str) -> httpx.Response:
        return self._order("0011U", quantity, price, kind, code, more)

    def _order(
        self, ending: str, quantity: int, price: int, kind: str, code: str, more: dict[str, str]
    ) -> httpx.Response:
        body = {"PDNO": code, "ORD_DVSN": kind, "ORD_QTY": str(quantity), "ORD_UNPR": str(price)}
        return self.post("order-cash", self.tr(f"TTTC{ending}"), **{**self.account, **body, **more})

    def cancel(self, number: str, **more: str) -> httpx.Response:
        body = {
            "KRX_FWDG_ORD_ORGNO": "06010",
            "ORGN_ODNO": number,
            "ORD_DVSN": "00",
            "RVSE_CNCL_DVSN_CD": "02",
            "ORD_QTY": "0",
            "ORD_UNPR": "0",
            "QTY_ALL_ORD_YN": "Y",
        }
        return self.post("order-rvsecncl", self.tr("TTTC0013U"), **{**self.account, **body, **more})

    def balance(self, tr_cont: str = "", **more: str) -> httpx.Response:
        params = {
            "AFHR_FLPR_YN": "N",
            "OFL_YN": "",
            "INQR_DVSN": "01",
            "UNPR_DVSN": "01",
            "FUND_STTL_ICLD_YN": "N",
            "FNCG_AMT_AUTO_RDPT_YN": "N",
            "PRCS_DVSN": "00",
            "CTX_AREA_FK100": "",
            "CTX_AREA_NK100": "",
        }
        return self.get("trading/inquire-balance", self.tr("TTTC8434R"), tr_cont, **{**self.account, **params, **more})

    def orderable(self, tr_id: str, **words: str) -> httpx.Response:
        params = {"ORD_UNPR": "", "CMA_EVLU_AMT_ICLD_YN": "N", "OVRS_ICLD_YN": "N"}
        return self.get("trading/inquire-psbl-order", tr_id, **{**self.account, **params, **words})

    def orders(self, day: str, tr_cont: str = "", tr_id: str = "TTTC0081R", **more: str) -> httpx.Response:
        params = {
            "INQR_STRT_DT": day,
            "INQR_END_DT": day,
            "SLL_BUY_DVSN_CD": "00",
            "INQR_DVSN": "00",
            "PDNO": "",
            "CCLD_DVSN": "00",
            "ORD_GNO_BRNO": "",
            "ODNO": "",
            "INQR_DVSN_1": "",
            "INQR_DVSN_3": "00",
            "EXCG_ID_DVSN_CD": "ALL",
            "CTX_AREA_FK100": "",
            "CTX_AREA_NK100": "",
        }
        return self.get("trading/inquire-daily-ccld", self.tr(tr_id), tr_cont, **{**self.account, **params, **more})

    def tr(self, tr_id: str) -> str:
        return f"V{tr_id[1:]}" if self.paper and tr_id[0] == "T" else tr_id

    def approval(self) -> str:
        body = {"grant_type": "client_credentials", "appkey": self.app_key, "secretkey": "s" * 180}
        return str(self.http.post("/oauth2/Approval", json=body).json()["approval_key"])

    def socket(self) -> "Socket":
        return Socket(self.sim.ws_url, self.approval())


class Socket:
    """A realtime session."""

    def __init__(self, url: str, approval: str) -> None:
        self.line = websocket.create_connection(f"{url}/tryitout", timeout=60, skip_utf8_validation=True)
        _OPENED.append(self)
        self.approval = approval
        self.keys: dict[str, tuple[str, str]] = {}

    def ask(self, tr_id: str, tr_key: str, tr_type: str = "1") -> dict[str, Any]:
        """Register, and return the reply to just that."""
        header = {"approval_key": self.approval, "custtype": "P", "tr_type": tr_type, "content-type": "utf-8"}
        self.line.send(json.dumps({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}}}))
        while not (text := self.text()).startswith("{"):
            continue
        reply: dict[str, Any] = json.loads(text)
        output = reply["body"].get("output")
        if output:
            self.keys[tr_id] = output["key"], output["iv"]
        return reply

    def text(self) -> str:
        """Return the next text that is no PINGPONG: on a busy machine one comes in the middle of a test."""
        while '"PINGPONG"' in (text := str(self.line.recv())):
            continue
        return text

    def frame(self, tr_id: str) -> tuple[int, list[str]]:
        """Return the next data frame of a TR: its record count and all its values."""
        while (text := self.text())[0] not in "01" or text.split("|")[1] != tr_id:
            continue
        mark, _, count, data = text.split("|", 3)
        return int(count), (self._decrypt(tr_id, data) if mark == "1" else data).split("^")

    def _decrypt(self, tr_id: str, data: str) -> str:
        key, iv = self.keys[tr_id]
        decryptor = Cipher(algorithms.AES(key.encode()), modes.CBC(iv.encode())).decryptor()
        plain = decryptor.update(b64decode(data)) + decryptor.finalize()
        return plain[: -plain[-1]].decode()

    def is_cut_off(self) -> bool:
        """Read until the server hangs up; whether it did within the time a test has."""
        try:
            while self.line.recv():
                continue
        except websocket.WebSocketTimeoutException:
            return False
        except websocket.WebSocketException:
            return True
        return True

    def close(self) -> None:
        self.line.close(timeout=1)
        self.line.shutdown()


@pytest.fixture
def running(set_clock: Callable[[str], None]) -> Iterator[Callable[..., Simulator]]:
    """Start simulators at a moment; they end with the test."""
    stack = []

    def start(at: str = "2026-11-23 10:00", **words: Any) -> Simulator:
        set_clock(at)
        words.setdefault("codes", LISTED)
        context = serve(ticking=words.pop("ticking", False), **words)
        stack.append(context)
        return context.__enter__()

    yield start
    for context in reversed(stack):
        context.__exit__(None, None, None)


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let no file grow beyond the size that `path` has, and a little: what a full disk is like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def samples() -> Path:
    """The broker's recorded replies and frames, scrubbed."""
    return Path(__file__).parents[1] / "samples" / "kis"
