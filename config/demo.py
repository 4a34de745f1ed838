"""The scripted day: a trader's few minutes on the simulator, told as a report, judged by its ledger.

It runs in a house that is already up: the workers chase, the stream worker hears the fills, and this
module only orders, moves prices, and trades by hand as one would on a telephone.
"""

import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TextIO

import httpx
from django.conf import settings
from django.db.models import Q
from django.utils.translation import gettext as _

from aegis.broker import NoticeKind
from aegis.chase import Plan
from aegis.lifecycle import UNSETTLED
from aegis.sessions import KST
from aegis.terms import Market, Side
from aegis.ticks import step
from config import rehearsal
from config.judge import Verdict, judge
from kis import clock
from kis.wiring import broker
from orders import guards, routine
from orders.models import RawNotice, TradeExecution, TradeOrder
from orders.reconcile import reconcile
from orders.service import Intent, OrderDenied, OrderService, default_plan
from portfolio.fetcher import KISFetcher

PATIENCE_SECONDS = 45.0
WAIT_SECONDS = 3.0
CHASED = "005930"
PARTLY = "004090"
FORBIDDEN = "015760"


class DemoFailed(Exception):
    """Something the script waited for did not happen in time."""


class Exchange:
    """The simulator's control routes, which no broker has, and a hand on a telephone."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def freeze(self, code: str, price: int) -> None:
        """Move the price there, tick by tick through the book, and hold it."""
        self._control(f"/simulator/quotes/{code}", {"price": price, "freeze": True})

    def let_go(self, code: str) -> None:
        self._control(f"/simulator/quotes/{code}", {"freeze": False})

    def ledger(self) -> dict[str, Any]:
        account = str(settings.KIS_CREDENTIALS.account)
        response = self._http.get("/simulator/ledger", params={"account": account}).raise_for_status()
        return dict(response.json())

    def sell_by_hand(self, code: str, qty: int, price: int) -> str:
        """Sell as the broker's own app would: with a key of its own, past AEGIS. Return the order number."""
        keys = {"appkey": "telephone", "appsecret": "telephone"}
        token = self._http.post("/oauth2/tokenP", json={"grant_type": "client_credentials", **keys}).json()
        account = settings.KIS_CREDENTIALS.account
        body = {
            "CANO": account.cano,
            "ACNT_PRDT_CD": account.product,
            "PDNO": code,
            "SLL_TYPE": "01",
            "ORD_DVSN": "00",
            "ORD_QTY": str(qty),
            "ORD_UNPR": str(price),
            "CNDT_PRIC": "",
            "EXCG_ID_DVSN_CD": "KRX",
        }
        headers = {"authorization": f"Bearer {token['access_token']}", **keys, "tr_id": "TTTC0011U", "custtype": "P"}
        reply = self._http.post("/uapi/domestic-stock/v1/trading/order-cash", json=body, headers=headers).json()
        if reply["rt_cd"] != "0":
            raise DemoFailed(f"the sale by hand was refused: {reply}")
        return str(reply["output"]["ODNO"])

    def _control(self, path: str, body: dict[str, Any]) -> None:
        self._http.post(path, json=body).raise_for_status()


def play(simulator_url: str, out: TextIO) -> Verdict:
    """Play the day and return how our tables compare with the exchange's. Raises DemoFailed, OrderDenied."""
    exchange = Exchange(simulator_url)
    orders = OrderService(broker(), clock.now)
    say = _teller(out)

    routine.sync_calendar(broker(), clock.now)
    KISFetcher(broker(), clock.now).sync_portfolio()
    say(_("the account is synced"))

    first = _chased_buy(orders, exchange, say)
    _partly_filled_buy(orders, exchange, say)
    _refused_buy(orders, say)
    _profit_sale(orders, exchange, say)
    _sale_by_hand(exchange, first.stock_code, say)

    _wait(_("every order to settle"), lambda: not TradeOrder.objects.filter(status__in=UNSETTLED).exists())
    reconcile(broker(), clock.now)
    KISFetcher(broker(), clock.now).sync_portfolio()
    verdict = judge(exchange.ledger(), rehearsal.since())
    out.write("\n" + _report() + f"\n{verdict}\n")
    return verdict


def _teller(out: TextIO) -> Callable[[str], None]:
    def say(line: str) -> None:
        out.write(f"{clock.now():%H:%M:%S}  {line}\n")
        out.flush()

    return say


def _chased_buy(orders: OrderService, exchange: Exchange, say: Callable[[str], None]) -> TradeOrder:
    """A buy two ticks under a price that stands still: it rests, is chased a tick at a time, and fills."""
    price = broker().quote(CHASED, Market.KRX).price
    exchange.freeze(CHASED, price)
    order = _ordered(orders.place(Intent(CHASED, Side.BUY, 10, strategy="buy_normal", plan=_plan())))
    say(
        _("a buy of 10 {name} rests at {price:,}, two ticks under {last:,}").format(
            name=order.stock_name, price=order.price, last=price
        )
    )
    _wait(_("the chase to fill it"), lambda: _family_filled(order) == order.qty)
    retries = order.retries.count()
    say(_("chased {retries} times and filled").format(retries=retries))
    exchange.let_go(CHASED)
    return order


def _partly_filled_buy(orders: OrderService, exchange: Exchange, say: Callable[[str], None]) -> None:
    """A buy of more than the best level holds: filled in parts as the market comes to it."""
    price = broker().quote(PARTLY, Market.KRX).price
    exchange.freeze(PARTLY, price)
    book = broker().book(PARTLY, Market.KRX)
    qty = book.asks[0].qty + 30
    order = _ordered(orders.place(Intent(PARTLY, Side.BUY, qty, strategy="buy_urgent", plan=_plan())))
    say(
        _("a buy of {qty:,} {name} meets {level:,} at the best ask").format(
            qty=qty, name=order.stock_name, level=book.asks[0].qty
        )
    )
    _wait(_("a partial fill"), lambda: 0 < _family_filled(order) < qty or _family_filled(order) == qty)
    exchange.let_go(PARTLY)
    _wait(_("the rest to fill"), lambda: _family_filled(order) == qty)
    parts = TradeExecution.objects.filter(order__in=TradeOrder.objects.filter(_family(order))).count()
    say(_("filled in {parts} parts").format(parts=parts))


def _refused_buy(orders: OrderService, say: Callable[[str], None]) -> None:
    """A buy of a blacklisted stock must not leave the house."""
    try:
        orders.place(Intent(FORBIDDEN, Side.BUY, 10, strategy="buy_normal"))
    except OrderDenied as denied:
        say(_("a blacklisted buy is refused: {why}").format(why=guards.say_all(denied.reasons)))
    else:
        raise DemoFailed(_("a blacklisted stock was bought"))


def _profit_sale(orders: OrderService, exchange: Exchange, say: Callable[[str], None]) -> None:
    """A sale two ticks over the price, taken by a market that rises to it."""
    price = broker().quote(CHASED, Market.KRX).price
    exchange.freeze(CHASED, price)
    order = _ordered(orders.place(Intent(CHASED, Side.SELL, 4, strategy="sell_profit", plan=_plan())))
    say(
        _("a sale of 4 {name} rests at {price:,}, two ticks over {last:,}").format(
            name=order.stock_name, price=order.price, last=price
        )
    )
    exchange.freeze(CHASED, step(order.price, 1))
    _wait(_("the sale to fill"), lambda: _family_filled(order) == order.qty)
    say(_("sold at {price:,.0f}").format(price=order.average_fill or order.price))


def _sale_by_hand(exchange: Exchange, code: str, say: Callable[[str], None]) -> None:
    """A sale straight at the exchange, as in the broker's app: AEGIS must notice."""
    number = exchange.sell_by_hand(code, 3, broker().book(code, Market.KRX).bids[0].price)
    say(_("3 shares are sold by hand, order {number}").format(number=number))
    by_hand = TradeOrder.objects.filter(origin=TradeOrder.Origin.EXTERNAL, order_no=number, filled_qty=3)
    _wait(_("the sale by hand to be noticed"), by_hand.exists)
    say(_("AEGIS has noticed it"))


def _plan() -> Plan:
    """Return the settings' chase, hurried: nobody wants to watch a price stand still for half a minute."""
    return replace(default_plan(), wait_seconds=min(default_plan().wait_seconds, WAIT_SECONDS))


def _ordered(order: TradeOrder) -> TradeOrder:
    if not order.order_no:
        raise DemoFailed(f"{order}: {order.status} {order.refusal}")
    return order


def _family(order: TradeOrder) -> Q:
    return Q(pk=order.root_pk) | Q(root_id=order.root_pk)


def _family_filled(order: TradeOrder) -> int:
    order.refresh_from_db()
    return sum(TradeOrder.objects.filter(_family(order)).values_list("filled_qty", flat=True))


def _wait(what: str, happened: Callable[[], bool]) -> None:
    gives_up_at = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > gives_up_at:
            raise DemoFailed(_("waited {seconds:.0f} seconds for {what}").format(seconds=PATIENCE_SECONDS, what=what))
        time.sleep(0.1)


def _report() -> str:
    """Return today's orders as a table, a family a line, with how fast its fills were known."""
    today = clock.now().astimezone(KST).date()
    head = [
        _("stock"),
        _("side"),
        _("strategy"),
        _("asked"),
        _("filled quantity"),
        _("average"),
        _("retries"),
        _("known in ms"),
    ]
    roots = TradeOrder.objects.filter(order_date=today, root=None).order_by("id")
    return table([head, *(_line(root) for root in roots)])


def _line(root: TradeOrder) -> list[str]:
    family = list(TradeOrder.objects.filter(_family(root)))
    filled = sum(order.filled_qty for order in family)
    amount = sum(order.filled_amount for order in family)
    known_ms = [
        notice.committed_ms
        for notice in RawNotice.objects.filter(order__in=family, kind=NoticeKind.FILLED).exclude(committed_ms=None)
    ]
    return [
        f"{root.stock_name} {root.stock_code}",
        str(root.get_order_type_display()),
        root.strategy or str(root.get_origin_display()),
        f"{root.qty:,}",
        f"{filled:,}",
        f"{amount / filled:,.1f}" if filled else "-",
        str(len(family) - 1),
        ", ".join(f"{ms:.1f}" for ms in known_ms) or "-",
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns; a Korean letter is two columns wide on a terminal."""
    widths = [max(_width(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
