"""The scripted day: a trader's few minutes of three sessions on the simulator, told as a report, judged by its ledger.

It runs in a house that is already up: the workers chase, the stream worker hears the fills, and this
module only orders, moves prices, and trades by hand as one would on a telephone.
"""

import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property, partial
from typing import Any, TextIO

import httpx
from django.conf import settings
from django.core.management.base import OutputWrapper
from django.utils.translation import gettext as _

from aegis.broker import NoticeKind
from aegis.chase import Plan
from aegis.lifecycle import UNSETTLED
from aegis.requests import EndCause
from aegis.risk import TradingState
from aegis.sessions import KST, PhaseName
from aegis.terms import Market, OrderKind, Side
from aegis.ticks import adjust_price_to_tick, step
from infra import clock
from kis.factory import broker
from market import reference_data
from ops import rehearsal_start
from orders import execution_quality, kill_switch, risk
from orders.models import RawNotice, TradeExecution, TradeOrder, TradingSwitch
from orders.reconcile import begin_anew, reconcile
from orders.service import NO_CHASE, OrderDenied, OrderIntent, OrderService, default_plan
from portfolio.fetcher import KISFetcher
from portfolio.models import Portfolio
from rehearsal.ledger_check import Verdict, judge
from simulator.exchange.calendar import phases_on

PATIENCE_SECONDS = 45.0
WAIT_SECONDS = 3.0
HURRIED_SECONDS = 1.5
CHASED = "005930"
PARTLY = "004090"
PURSUED = "000660"
FORBIDDEN = "015760"


class DemoFailed(Exception):
    """Something the script waited for did not happen in time."""


class RehearsalExchange:
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

    def refuse(self, count: int) -> None:
        """Let the exchange refuse the next so many orders, after the broker took them."""
        self._control("/simulator/faults", {"name": "refused_later", "count": count})

    def sell_externally(self, code: str, qty: int, price: int) -> str:
        """Sell as the broker's own app would: with a key of its own, past AEGIS. Return the order number."""
        fields = {"PDNO": code, "SLL_TYPE": "01", "ORD_QTY": str(qty), "CNDT_PRIC": ""}
        return self._order_externally("order-cash", "TTTC0011U", price, fields)

    def amend_externally(self, order: TradeOrder, price: int) -> str:
        """Amend all that is open of an order as the broker's own app would. Return the new order number."""
        fields = {
            "KRX_FWDG_ORD_ORGNO": order.branch,
            "ORGN_ODNO": str(order.order_no),
            "RVSE_CNCL_DVSN_CD": "01",
            "ORD_QTY": "0",
            "QTY_ALL_ORD_YN": "Y",
        }
        return self._order_externally("order-rvsecncl", "TTTC0013U", price, fields)

    def _order_externally(self, operation: str, tr_id: str, price: int, fields: dict[str, str]) -> str:
        account = settings.KIS_CREDENTIALS.account
        body = {
            "CANO": account.cano,
            "ACNT_PRDT_CD": account.product,
            "ORD_DVSN": "00",
            "ORD_UNPR": str(price),
            "EXCG_ID_DVSN_CD": "KRX",
            **fields,
        }
        headers = {**self._telephone, "tr_id": tr_id, "custtype": "P"}
        reply = self._http.post(f"/uapi/domestic-stock/v1/trading/{operation}", json=body, headers=headers).json()
        if reply["rt_cd"] != "0":
            raise DemoFailed(f"the external {operation} was refused: {reply}")
        return str(reply["output"]["ODNO"])

    @cached_property
    def _telephone(self) -> dict[str, str]:
        """The headers of the telephone's own key: the broker gives one token a minute."""
        keys = {"appkey": "telephone", "appsecret": "telephone"}
        token = self._http.post("/oauth2/tokenP", json={"grant_type": "client_credentials", **keys}).json()
        return {"authorization": f"Bearer {token['access_token']}", **keys}

    def _control(self, path: str, body: dict[str, Any]) -> None:
        response = self._http.post(path, json=body)
        if response.is_error:
            raise DemoFailed(f"{path} {body}: {response.text}")


def play(simulator_url: str, out: TextIO | OutputWrapper) -> Verdict:
    """Play the day and return how our tables compare with the exchange's. Raises DemoFailed, OrderDenied."""
    exchange = RehearsalExchange(simulator_url)
    orders = OrderService(broker(), clock.now)
    say = _printer(out)

    reference_data.sync_calendar_of_the_day(broker(), now=clock.now())
    KISFetcher(broker(), clock.now).sync_portfolio()
    say(_("the account is synced"))

    held = dict(Portfolio.objects.filter(quantity__gt=0).values_list("stock_code", "quantity"))
    _before_the_opening(orders, say)
    _jump(Market.KRX, PhaseName.REGULAR, say)
    _sale_of_what_is_left(orders, held, say)
    to_market = _buy_that_goes_to_market(orders, exchange, say)
    first = _chased_buy(orders, exchange, say)
    _partly_filled_buy(orders, exchange, say)
    _refused_buy(orders, say)
    _profit_sale(orders, exchange, say)
    _sales_that_must_go(orders, exchange, say)
    _sale_externally(exchange, first.stock_code, say)
    _amended_externally(orders, exchange, say)
    _amended(orders, exchange, say)
    _reached_market(to_market, exchange, say)
    _tripped_switch(orders, exchange, say)
    _settled()
    _jump(Market.NXT, PhaseName.AFTER_MARKET, say)
    _after_the_close(orders, say)

    _settled()
    reconcile(broker(), clock.now)
    KISFetcher(broker(), clock.now).sync_portfolio()
    verdict = judge(exchange.ledger(), rehearsal_start.since())
    out.write("\n" + _report() + f"\n{verdict}\n")
    return verdict


def _printer(out: TextIO | OutputWrapper) -> Callable[[str], None]:
    def say(line: str) -> None:
        out.write(f"{clock.now():%H:%M:%S}  {line}\n")
        out.flush()

    return say


def _settled() -> None:
    _wait(_("every order to settle"), lambda: not TradeOrder.objects.filter(status__in=UNSETTLED).exists())


def _jump(market: Market, name: PhaseName, say: Callable[[str], None]) -> None:
    """Set the clock forward to where a phase of today has just begun."""
    today = clock.now().astimezone(KST).date()
    begins = next(each.starts_at for each in phases_on(today) if (each.market, each.name) == (market, name))
    moment = datetime.combine(today, begins, KST) + rehearsal_start.AFTER_OPENING
    if moment > clock.now():
        # the hours between are no time in which the list was missing
        begin_anew(moment)
        clock.set_now(moment)
    # balance and orders as they are at this hour: nothing goes before the broker's list was seen
    KISFetcher(broker(), clock.now).sync_portfolio()
    reconcile(broker(), clock.now)
    say(_("the clock is set to {time}").format(time=f"{clock.now():%H:%M}"))


def _before_the_opening(orders: OrderService, say: Callable[[str], None]) -> None:
    """A buy in NXT's pre-market, an hour before KRX opens."""
    order = _ordered(orders.place(OrderIntent(CHASED, Side.BUY, 5, strategy="buy_urgent", plan=_plan())))
    _wait(_("the buy before the opening to fill"), lambda: _family_filled(order) == order.qty)
    words = _("bought {qty} {name} on {market} before the opening, at {price:,.0f}")
    say(words.format(qty=order.qty, name=order.stock_name, market=order.market, price=_family_average(order)))


def _after_the_close(orders: OrderService, say: Callable[[str], None]) -> None:
    """A sale at market in NXT's after-market, which takes no market orders: it goes as a limit, and says so."""
    intent = OrderIntent(CHASED, Side.SELL, 1, market=Market.NXT, plan=_plan())
    order = _ordered(orders.place(intent))
    _wait(_("the sale after the close to fill"), lambda: _family_filled(order) == order.qty)
    words = _("sold {qty} {name} on {market} after the close: a market order, sent as a limit at {price:,}")
    say(words.format(qty=order.qty, name=order.stock_name, market=order.market, price=order.price))


def _sale_of_what_is_left(orders: OrderService, held: dict[str, int], say: Callable[[str], None]) -> None:
    """Sales at market of what earlier days have left, or one day a buy would weigh too much."""
    for code, qty in held.items():
        order = _ordered(orders.place(OrderIntent(code, Side.SELL, qty, market=Market.KRX, plan=_plan())))
        _wait(_("the sale of what is left to fill"), partial(_is_filled, order, qty))
        words = _("left from an earlier day: {qty:,} {name}, sold at {price:,.0f}")
        say(words.format(qty=qty, name=order.stock_name, price=_family_average(order)))


def _buy_that_goes_to_market(
    orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]
) -> TradeOrder:
    """A buy that starts far under a price that stands still: every retry is used up, and at last it goes to market."""
    price = _price(PURSUED)
    exchange.freeze(PURSUED, price)
    retries = default_plan().max_retries
    low = step(price, -(retries + 2))
    plan = replace(default_plan(), wait_seconds=min(default_plan().wait_seconds, HURRIED_SECONDS), market_after=True)
    order = _ordered(orders.place(OrderIntent(PURSUED, Side.BUY, 3, price=low, market=Market.KRX, plan=plan)))
    words = _(
        "a buy of 3 {name} rests at {price:,}, {ticks} ticks under {last:,}: too far to be reached by {retries} retries"
    )
    say(words.format(name=order.stock_name, price=low, ticks=retries + 2, last=price, retries=retries))
    return order


def _reached_market(order: TradeOrder, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    _wait(_("the chase to go to market"), lambda: _family_filled(order) == order.qty)
    last = order.retries.order_by("-attempt").first()
    if last is None or not OrderKind(last.order_kind).is_market:
        raise DemoFailed(f"{order}: it filled before it went to market")
    words = _("chased {retries} times, at last at market, filled at {price:,.0f}")
    say(words.format(retries=order.retries.count(), price=_family_average(order)))
    exchange.let_go(PURSUED)


def _sales_that_must_go(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """A stop and an emergency: both meet the best bid at once."""
    for strategy in ("sell_stop", "sell_emergency"):
        order = _ordered(orders.place(OrderIntent(CHASED, Side.SELL, 1, strategy=strategy, plan=_plan())))
        _wait(_("the sale to fill"), partial(_is_filled, order, order.qty))
        say(_("{strategy}: sold at {price:,.0f}").format(strategy=strategy, price=_family_average(order)))
    exchange.let_go(CHASED)


def _tripped_switch(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """The exchange refuses orders of several stocks in a row: only sales pass by themselves, and a person resumes."""
    exchange.refuse(settings.MAX_REFUSALS)
    for qty in range(1, settings.MAX_REFUSALS + 1):
        code = (PARTLY, CHASED)[qty % 2]
        orders.place(OrderIntent(code, Side.BUY, qty, price=step(_price(code), -10), market=Market.KRX))
    tripped = TradingSwitch.objects.exclude(state=TradingState.ACTIVE)
    _wait(_("the switch to trip"), tripped.exists)
    try:
        orders.place(OrderIntent(CHASED, Side.BUY, 7, strategy="buy_normal"))
    except OrderDenied as denied:
        words = _("{count} refusals in a row trip the switch, and no buy passes: {why}")
        say(words.format(count=settings.MAX_REFUSALS, why=risk.say_all(denied.reasons)))
    else:
        raise DemoFailed(_("an order passed the switch"))
    kill_switch.resume(by="demo", reason=_("seen by a person"), at=clock.now())
    say(_("a person has looked and resumes"))


def _chased_buy(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> TradeOrder:
    """A buy two ticks under a price that stands still: it rests, is chased a tick at a time, and fills."""
    price = _price(CHASED)
    exchange.freeze(CHASED, price)
    order = _ordered(orders.place(OrderIntent(CHASED, Side.BUY, 10, strategy="buy_normal", plan=_plan())))
    say(
        _("a buy of 10 {name} rests at {price:,}, two ticks under {last:,}").format(
            name=order.stock_name, price=order.price, last=price
        )
    )
    _wait(_("the chase to fill it"), lambda: _family_filled(order) == order.qty)
    retries = order.retries.count()
    say(_("chased {retries} times and filled").format(retries=retries))
    return order


def _partly_filled_buy(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """A buy of more than the best level holds: filled in parts as the market comes to it."""
    price = _price(PARTLY)
    exchange.freeze(PARTLY, price)
    book = broker().book(PARTLY, Market.KRX)
    qty = book.asks[0].qty + 30
    order = _ordered(orders.place(OrderIntent(PARTLY, Side.BUY, qty, strategy="buy_urgent", plan=_plan())))
    say(
        _("a buy of {qty:,} {name} meets {level:,} at the best ask").format(
            qty=qty, name=order.stock_name, level=book.asks[0].qty
        )
    )
    _wait(_("a partial fill"), lambda: 0 < _family_filled(order) < qty or _family_filled(order) == qty)
    exchange.let_go(PARTLY)
    _wait(_("the rest to fill"), lambda: _family_filled(order) == qty)
    parts = TradeExecution.objects.filter(order__in=order.family).count()
    say(_("filled in {parts} parts").format(parts=parts))


def _refused_buy(orders: OrderService, say: Callable[[str], None]) -> None:
    """A buy of a blacklisted stock must not leave the house."""
    try:
        orders.place(OrderIntent(FORBIDDEN, Side.BUY, 10, strategy="buy_normal"))
    except OrderDenied as denied:
        say(_("a blacklisted buy is refused: {why}").format(why=risk.say_all(denied.reasons)))
    else:
        raise DemoFailed(_("a blacklisted stock was bought"))


def _profit_sale(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """A sale two ticks over the price, taken by a market that rises to it."""
    price = _price(CHASED)
    exchange.freeze(CHASED, price)
    order = _ordered(orders.place(OrderIntent(CHASED, Side.SELL, 4, strategy="sell_profit", plan=_plan())))
    say(
        _("a sale of 4 {name} rests at {price:,}, two ticks over {last:,}").format(
            name=order.stock_name, price=order.price, last=price
        )
    )
    exchange.freeze(CHASED, step(order.price, 1))
    _wait(_("the sale to fill"), lambda: _family_filled(order) == order.qty)
    say(_("sold at {price:,.0f}").format(price=_family_average(order)))


def _sale_externally(exchange: RehearsalExchange, code: str, say: Callable[[str], None]) -> None:
    """A sale straight at the exchange, as in the broker's app: AEGIS must notice."""
    number = exchange.sell_externally(code, 3, broker().book(code, Market.KRX).bids[0].price)
    say(_("3 shares are sold by hand, order {number}").format(number=number))
    external = TradeOrder.objects.filter(origin=TradeOrder.Origin.EXTERNAL, order_no=number, filled_qty=3)
    _wait(_("the sale by hand to be noticed"), external.exists)
    say(_("AEGIS has noticed it"))


def _amended_externally(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """A resting buy that the customer amends in the broker's app: its fill counts, and AEGIS chases neither order."""
    order = _resting_buy(orders, exchange, qty=2, plan=_plan())
    price = broker().book(CHASED, Market.KRX).asks[0].price
    number = exchange.amend_externally(order, price)
    say(
        _("order {old} is amended in the broker's app to {price:,}, order {number}").format(
            old=order.order_no, price=price, number=number
        )
    )
    external = TradeOrder.objects.filter(replaces=order, origin=TradeOrder.Origin.EXTERNAL, order_no=number)
    _wait(_("the external amend to be noticed"), external.filter(filled_qty=order.qty).exists)
    ended = TradeOrder.objects.filter(pk=order.pk, end_cause=EndCause.EXTERNAL_AMEND)
    _wait(_("the list to say what ended the amended order"), ended.exists)
    if order.retries.filter(origin=TradeOrder.Origin.AEGIS).exists():
        raise DemoFailed(f"{order}: something was ordered in place of what was amended externally")
    say(_("AEGIS follows it, {qty} filled, and orders nothing in its place").format(qty=order.qty))
    exchange.let_go(CHASED)


def _amended(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """A resting buy that AEGIS amends up to the best ask."""
    order = _resting_buy(orders, exchange, qty=6, plan=NO_CHASE)
    price = broker().book(CHASED, Market.KRX).asks[0].price
    row = _ordered(orders.amend(order, price=price))
    _wait(_("the amended order to fill"), lambda: _family_filled(order) == order.qty)
    words = _("order {old} is amended from {before:,} to {price:,}, order {number}, and filled")
    say(words.format(old=order.order_no, before=order.price, price=price, number=row.order_no))
    exchange.let_go(CHASED)


def _resting_buy(orders: OrderService, exchange: RehearsalExchange, *, qty: int, plan: Plan) -> TradeOrder:
    """A buy five ticks under a price that stands still."""
    last = _price(CHASED)
    exchange.freeze(CHASED, last)
    intent = OrderIntent(CHASED, Side.BUY, qty, price=step(last, -5), market=Market.KRX, plan=plan)
    return _ordered(orders.place(intent))


def _plan() -> Plan:
    """Return the settings' chase, hurried: nobody wants to watch a price stand still for half a minute."""
    return replace(default_plan(), wait_seconds=min(default_plan().wait_seconds, WAIT_SECONDS))


def _ordered(order: TradeOrder) -> TradeOrder:
    if not order.order_no:
        raise DemoFailed(f"{order}: {order.status} {order.refusal}")
    return order


def _price(code: str) -> int:
    """Return the last price on the grid: a trade at the middle of the book may lie between two ticks."""
    return adjust_price_to_tick(broker().quote(code, Market.KRX).price)


def _family_filled(order: TradeOrder) -> int:
    order.refresh_from_db()
    return sum(order.family.values_list("filled_qty", flat=True))


def _family_average(order: TradeOrder) -> Decimal:
    family = order.family
    amount = sum(family.values_list("filled_amount", flat=True))
    return Decimal(amount) / _family_filled(order)


def _is_filled(order: TradeOrder, qty: int) -> bool:
    return _family_filled(order) == qty


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
    family = list(root.family)
    filled = sum(order.filled_qty for order in family)
    amount = sum(order.filled_amount for order in family)
    known_ms = [
        notice.committed_ms
        for notice in RawNotice.objects.filter(order__in=family, kind=NoticeKind.FILLED).exclude(committed_ms=None)
    ]
    return [
        f"{root.stock_name} {root.stock_code}",
        str(root.get_order_type_display()),
        str(root.get_origin_display()) if root.origin == TradeOrder.Origin.EXTERNAL else execution_quality.style(root),
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
