"""The scripted day: a few minutes of trading in three sessions on the simulator, with a report and a ledger check.

All processes run already: the workers chase, and the stream worker handles the fills. This module only orders, moves
prices, and places external orders as a customer would in the broker's app.
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
from aegis.sessions import KST, PhaseName
from aegis.terms import Market, OrderKind, Side
from aegis.ticks import adjust_price_to_tick, step
from aegis.trading_state import TradingState
from infra import clock
from kis.factory import broker
from market import reference_data
from ops import rehearsal_start
from orders import execution_quality, kill_switch, risk
from orders.models import RawNotice, TradeExecution, TradeOrder, TradingSwitch
from orders.reconcile import invalidate, reconcile
from orders.service import NO_CHASE, OrderDenied, OrderIntent, OrderService, default_plan
from portfolio.fetcher import KISFetcher
from portfolio.models import Portfolio
from rehearsal.ledger_check import Verdict, compare_with_ledger
from simulator.exchange.calendar import phases_on

PATIENCE_SECONDS = 45.0
# the waits of the chases: short, so that the day is
WAIT_SECONDS = 0.5
CHASED = "005930"
PARTLY = "004090"
PURSUED = "000660"
FORBIDDEN = "015760"


class DemoFailed(Exception):
    """An expected event of the script did not happen in time, or an unexpected one did."""


class RehearsalExchange:
    """The simulator's control routes, which the broker does not have, and external orders with their own app key."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def freeze(self, code: str, price: int) -> None:
        """Move the price to `price` won, tick by tick through the book, and keep it there."""
        self._control(f"/simulator/quotes/{code}", {"price": price, "freeze": True})

    def let_go(self, code: str) -> None:
        self._control(f"/simulator/quotes/{code}", {"freeze": False})

    def ledger(self) -> dict[str, Any]:
        account = str(settings.KIS_CREDENTIALS.account)
        response = self._http.get("/simulator/ledger", params={"account": account}).raise_for_status()
        return dict(response.json())

    def refuse(self, count: int) -> None:
        """Make the exchange refuse the next `count` orders, after the broker accepted them."""
        self._control("/simulator/faults", {"name": "refused_later", "count": count})

    def sell_externally(self, code: str, qty: int, price: int) -> str:
        """Sell by an external order, as the broker's app would, at `price` won. Return the order number."""
        fields = {"PDNO": code, "SLL_TYPE": "01", "ORD_QTY": str(qty), "CNDT_PRIC": ""}
        return self._order_externally("order-cash", "TTTC0011U", price, fields)

    def amend_externally(self, order: TradeOrder, price: int) -> str:
        """Amend the whole open quantity of an order externally to `price` won. Return the new order number."""
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
        headers = {**self._external_headers, "tr_id": tr_id, "custtype": "P"}
        reply = self._http.post(f"/uapi/domestic-stock/v1/trading/{operation}", json=body, headers=headers).json()
        if reply["rt_cd"] != "0":
            raise DemoFailed(f"the external {operation} was refused: {reply}")
        return str(reply["output"]["ODNO"])

    @cached_property
    def _external_headers(self) -> dict[str, str]:
        """The headers of the external orders' own app key. Cached: the broker issues one token a minute."""
        keys = {"appkey": "telephone", "appsecret": "telephone"}
        token = self._http.post("/oauth2/tokenP", json={"grant_type": "client_credentials", **keys}).json()
        return {"authorization": f"Bearer {token['access_token']}", **keys}

    def _control(self, path: str, body: dict[str, Any]) -> None:
        response = self._http.post(path, json=body)
        if response.is_error:
            raise DemoFailed(f"{path} {body}: {response.text}")


def play(simulator_url: str, out: TextIO | OutputWrapper) -> Verdict:
    """Play the day and compare our tables with the exchange's ledger. Raises DemoFailed, OrderDenied."""
    exchange = RehearsalExchange(simulator_url)
    orders = OrderService(broker(), clock.now)
    say = _printer(out)

    reference_data.sync_calendar_of_the_day(broker(), now=clock.now())
    KISFetcher(broker(), clock.now).sync_portfolio()
    say(_("the account is synced"))

    holdings = dict(Portfolio.objects.filter(quantity__gt=0).values_list("stock_code", "quantity"))
    _buy_before_opening(orders, say)
    _jump(Market.KRX, PhaseName.REGULAR, say)
    _sell_holdings(orders, holdings, say)
    market_chase = _start_market_chase(orders, exchange, say)
    chased = _chase_buy(orders, exchange, say)
    _fill_buy_in_parts(orders, exchange, say)
    _deny_blacklisted_buy(orders, say)
    _sell_at_profit(orders, exchange, say)
    _sell_urgently(orders, exchange, say)
    _sell_externally(exchange, chased.stock_code, say)
    _amend_externally(orders, exchange, say)
    _amend_buy(orders, exchange, say)
    _finish_market_chase(market_chase, exchange, say)
    _trip_switch(orders, exchange, say)
    _wait_until_settled()
    _jump(Market.NXT, PhaseName.AFTER_MARKET, say)
    _sell_after_close(orders, say)

    _wait_until_settled()
    reconcile(broker(), clock.now)
    KISFetcher(broker(), clock.now).sync_portfolio()
    verdict = compare_with_ledger(exchange.ledger(), rehearsal_start.ledger_start_date())
    out.write("\n" + _report() + f"\n{verdict}\n")
    return verdict


def _printer(out: TextIO | OutputWrapper) -> Callable[[str], None]:
    def say(line: str) -> None:
        out.write(f"{clock.now():%H:%M:%S}  {line}\n")
        out.flush()

    return say


def _wait_until_settled() -> None:
    _wait(_("every order to settle"), lambda: not TradeOrder.objects.filter(status__in=UNSETTLED).exists())


def _jump(market: Market, name: PhaseName, say: Callable[[str], None]) -> None:
    """Set the clock forward to just after the start of a phase of today."""
    today = clock.now().astimezone(KST).date()
    starts_at = next(phase.starts_at for phase in phases_on(today) if (phase.market, phase.name) == (market, name))
    moment = datetime.combine(today, starts_at, KST) + rehearsal_start.AFTER_OPENING
    if moment > clock.now():
        # the skipped hours must not count as time without an order list
        invalidate(moment)
        clock.set_now(moment)
    # read balance and order list at the new time: no order is sent before a reconciliation
    KISFetcher(broker(), clock.now).sync_portfolio()
    reconcile(broker(), clock.now)
    say(_("the clock is set to {time}").format(time=f"{clock.now():%H:%M}"))


def _buy_before_opening(orders: OrderService, say: Callable[[str], None]) -> None:
    """Buy in NXT's pre-market, an hour before KRX opens."""
    order = _require_accepted(
        orders.place(OrderIntent(CHASED, Side.BUY, 5, strategy="buy_urgent", plan=_hurried_plan()))
    )
    _wait(_("the buy before the opening to fill"), lambda: _filled_qty(order) == order.qty)
    template = _("bought {qty} {name} on {market} before the opening, at {price:,.0f}")
    say(template.format(qty=order.qty, name=order.stock_name, market=order.market, price=_average_price(order)))


def _sell_after_close(orders: OrderService, say: Callable[[str], None]) -> None:
    """Sell at market in NXT's after-market, which takes no market orders: AEGIS sends a limit order instead."""
    intent = OrderIntent(CHASED, Side.SELL, 1, market=Market.NXT, plan=_hurried_plan())
    order = _require_accepted(orders.place(intent))
    _wait(_("the sale after the close to fill"), lambda: _filled_qty(order) == order.qty)
    template = _("sold {qty} {name} on {market} after the close: a market order, sent as a limit at {price:,}")
    say(template.format(qty=order.qty, name=order.stock_name, market=order.market, price=order.price))


def _sell_holdings(orders: OrderService, holdings: dict[str, int], say: Callable[[str], None]) -> None:
    """Sell the holdings of earlier days at market: over many days they would reach the concentration limit."""
    for code, qty in holdings.items():
        order = _require_accepted(
            orders.place(OrderIntent(code, Side.SELL, qty, market=Market.KRX, plan=_hurried_plan()))
        )
        _wait(_("the sale of what is left to fill"), partial(_is_family_filled, order, qty))
        template = _("left from an earlier day: {qty:,} {name}, sold at {price:,.0f}")
        say(template.format(qty=qty, name=order.stock_name, price=_average_price(order)))


def _start_market_chase(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> TradeOrder:
    """Place a buy far under a price that does not move: its chase uses all retries, then goes to market."""
    price = _last_price(PURSUED)
    exchange.freeze(PURSUED, price)
    retries = default_plan().max_retries
    low = step(price, -(retries + 2))
    plan = replace(_hurried_plan(), market_after=True)
    order = _require_accepted(orders.place(OrderIntent(PURSUED, Side.BUY, 3, price=low, market=Market.KRX, plan=plan)))
    template = _(
        "a buy of 3 {name} rests at {price:,}, {ticks} ticks under {last:,}: too far to be reached by {retries} retries"
    )
    say(template.format(name=order.stock_name, price=low, ticks=retries + 2, last=price, retries=retries))
    return order


def _finish_market_chase(order: TradeOrder, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """Wait until the chase has gone to market and filled."""
    _wait(_("the chase to go to market"), lambda: _filled_qty(order) == order.qty)
    last = order.retries.order_by("-attempt").first()
    if last is None or not OrderKind(last.order_kind).is_market:
        raise DemoFailed(f"{order}: it filled before it went to market")
    template = _("chased {retries} times, at last at market, filled at {price:,.0f}")
    say(template.format(retries=order.retries.count(), price=_average_price(order)))
    exchange.let_go(PURSUED)


def _sell_urgently(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """Sell by the pricing styles of a stop and of an emergency: both are priced to meet the best bid at once."""
    for strategy in ("sell_stop", "sell_emergency"):
        order = _require_accepted(
            orders.place(OrderIntent(CHASED, Side.SELL, 1, strategy=strategy, plan=_hurried_plan()))
        )
        _wait(_("the sale to fill"), partial(_is_family_filled, order, order.qty))
        say(_("{strategy}: sold at {price:,.0f}").format(strategy=strategy, price=_average_price(order)))
    exchange.let_go(CHASED)


def _trip_switch(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """Have the exchange refuse orders of several stocks in a row: the trading state trips, and is resumed."""
    exchange.refuse(settings.MAX_REFUSALS)
    for qty in range(1, settings.MAX_REFUSALS + 1):
        code = (PARTLY, CHASED)[qty % 2]
        orders.place(OrderIntent(code, Side.BUY, qty, price=step(_last_price(code), -10), market=Market.KRX))
    switches = TradingSwitch.objects.exclude(state=TradingState.ACTIVE)
    _wait(_("the switch to trip"), switches.exists)
    try:
        orders.place(OrderIntent(CHASED, Side.BUY, 7, strategy="buy_normal"))
    except OrderDenied as denied:
        template = _("{count} refusals in a row trip the switch, and no buy passes: {why}")
        say(template.format(count=settings.MAX_REFUSALS, why=risk.denial_texts(denied.reasons)))
    else:
        raise DemoFailed(_("an order passed the switch"))
    kill_switch.resume(by="demo", reason=_("seen by a person"), at=clock.now())
    say(_("a person has looked and resumes"))


def _chase_buy(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> TradeOrder:
    """Place a buy two ticks under a price that does not move: it rests, is chased a tick at a time, and fills."""
    price = _last_price(CHASED)
    exchange.freeze(CHASED, price)
    order = _require_accepted(
        orders.place(OrderIntent(CHASED, Side.BUY, 10, strategy="buy_normal", plan=_hurried_plan()))
    )
    say(
        _("a buy of 10 {name} rests at {price:,}, two ticks under {last:,}").format(
            name=order.stock_name, price=order.price, last=price
        )
    )
    _wait(_("the chase to fill it"), lambda: _filled_qty(order) == order.qty)
    retries = order.retries.count()
    say(_("chased {retries} times and filled").format(retries=retries))
    return order


def _fill_buy_in_parts(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """Place a buy of more shares than the best ask has: it fills in parts as the price falls to it."""
    price = _last_price(PARTLY)
    exchange.freeze(PARTLY, price)
    book = broker().book(PARTLY, Market.KRX)
    qty = book.asks[0].qty + 30
    order = _require_accepted(
        orders.place(OrderIntent(PARTLY, Side.BUY, qty, strategy="buy_urgent", plan=_hurried_plan()))
    )
    say(
        _("a buy of {qty:,} {name} meets {level:,} at the best ask").format(
            qty=qty, name=order.stock_name, level=book.asks[0].qty
        )
    )
    _wait(_("a partial fill"), lambda: 0 < _filled_qty(order) < qty or _filled_qty(order) == qty)
    exchange.let_go(PARTLY)
    _wait(_("the rest to fill"), lambda: _filled_qty(order) == qty)
    parts = TradeExecution.objects.filter(order__in=order.family).count()
    say(_("filled in {parts} parts").format(parts=parts))


def _deny_blacklisted_buy(orders: OrderService, say: Callable[[str], None]) -> None:
    """Place a buy of a blacklisted stock: AEGIS must deny it."""
    try:
        orders.place(OrderIntent(FORBIDDEN, Side.BUY, 10, strategy="buy_normal"))
    except OrderDenied as denied:
        say(_("a blacklisted buy is refused: {why}").format(why=risk.denial_texts(denied.reasons)))
    else:
        raise DemoFailed(_("a blacklisted stock was bought"))


def _sell_at_profit(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """Place a sale two ticks over the price, which fills when the price rises to it."""
    price = _last_price(CHASED)
    exchange.freeze(CHASED, price)
    order = _require_accepted(
        orders.place(OrderIntent(CHASED, Side.SELL, 4, strategy="sell_profit", plan=_hurried_plan()))
    )
    say(
        _("a sale of 4 {name} rests at {price:,}, two ticks over {last:,}").format(
            name=order.stock_name, price=order.price, last=price
        )
    )
    exchange.freeze(CHASED, step(order.price, 1))
    _wait(_("the sale to fill"), lambda: _filled_qty(order) == order.qty)
    say(_("sold at {price:,.0f}").format(price=_average_price(order)))


def _sell_externally(exchange: RehearsalExchange, code: str, say: Callable[[str], None]) -> None:
    """Sell by an external order, as in the broker's app: AEGIS must record it."""
    number = exchange.sell_externally(code, 3, broker().book(code, Market.KRX).bids[0].price)
    say(_("3 shares are sold by an external order, number {number}").format(number=number))
    rows = TradeOrder.objects.filter(origin=TradeOrder.Origin.EXTERNAL, order_no=number, filled_qty=3)
    _wait(_("the external sale to be noticed"), rows.exists)
    say(_("AEGIS has noticed it"))


def _amend_externally(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """Amend a resting buy externally: the fill of the new order counts, and AEGIS chases neither order."""
    order = _place_resting_buy(orders, exchange, qty=2, plan=_hurried_plan())
    price = broker().book(CHASED, Market.KRX).asks[0].price
    number = exchange.amend_externally(order, price)
    say(
        _("order {old} is amended in the broker's app to {price:,}, order {number}").format(
            old=order.order_no, price=price, number=number
        )
    )
    replacements = TradeOrder.objects.filter(replaces=order, origin=TradeOrder.Origin.EXTERNAL, order_no=number)
    _wait(_("the external amend to be noticed"), replacements.filter(filled_qty=order.qty).exists)
    amended = TradeOrder.objects.filter(pk=order.pk, end_cause=EndCause.EXTERNAL_AMEND)
    _wait(_("the list to say what ended the amended order"), amended.exists)
    if order.retries.filter(origin=TradeOrder.Origin.AEGIS).exists():
        raise DemoFailed(f"{order}: something was ordered in place of what was amended externally")
    say(_("AEGIS follows it, {qty} filled, and orders nothing in its place").format(qty=order.qty))
    exchange.let_go(CHASED)


def _amend_buy(orders: OrderService, exchange: RehearsalExchange, say: Callable[[str], None]) -> None:
    """Amend a resting buy up to the best ask, by AEGIS: it fills."""
    order = _place_resting_buy(orders, exchange, qty=6, plan=NO_CHASE)
    price = broker().book(CHASED, Market.KRX).asks[0].price
    row = _require_accepted(orders.amend(order, price=price))
    _wait(_("the amended order to fill"), lambda: _filled_qty(order) == order.qty)
    template = _("order {old} is amended from {before:,} to {price:,}, order {number}, and filled")
    say(template.format(old=order.order_no, before=order.price, price=price, number=row.order_no))
    exchange.let_go(CHASED)


def _place_resting_buy(orders: OrderService, exchange: RehearsalExchange, *, qty: int, plan: Plan) -> TradeOrder:
    """Place a buy five ticks under a price that does not move, and return it."""
    last = _last_price(CHASED)
    exchange.freeze(CHASED, last)
    intent = OrderIntent(CHASED, Side.BUY, qty, price=step(last, -5), market=Market.KRX, plan=plan)
    return _require_accepted(orders.place(intent))


def _hurried_plan() -> Plan:
    """Return the default chase with a wait of at most `WAIT_SECONDS`, so that the demo stays short."""
    return replace(default_plan(), wait_seconds=min(default_plan().wait_seconds, WAIT_SECONDS))


def _require_accepted(order: TradeOrder) -> TradeOrder:
    if not order.order_no:
        raise DemoFailed(f"{order}: {order.status} {order.refusal}")
    return order


def _last_price(code: str) -> int:
    """Return the last price in won, on the tick grid: a trade at the middle of the book may lie between two ticks."""
    return adjust_price_to_tick(broker().quote(code, Market.KRX).price)


def _filled_qty(order: TradeOrder) -> int:
    order.refresh_from_db()
    return sum(order.family.values_list("filled_qty", flat=True))


def _average_price(order: TradeOrder) -> Decimal:
    family = order.family
    amount = sum(family.values_list("filled_amount", flat=True))
    return Decimal(amount) / _filled_qty(order)


def _is_family_filled(order: TradeOrder, qty: int) -> bool:
    return _filled_qty(order) == qty


def _wait(what: str, has_happened: Callable[[], bool]) -> None:
    """Wait until `has_happened`. Raises DemoFailed with `what` after `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not has_happened():
        if time.monotonic() > deadline:
            raise DemoFailed(_("waited {seconds:.0f} seconds for {what}").format(seconds=PATIENCE_SECONDS, what=what))
        time.sleep(0.1)


def _report() -> str:
    """Return today's orders as a table, one line per family, with the milliseconds until its fills were committed."""
    today = clock.now().astimezone(KST).date()
    header = [
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
    return table([header, *(_line(root) for root in roots)])


def _line(root: TradeOrder) -> list[str]:
    family = list(root.family)
    filled_qty = sum(order.filled_qty for order in family)
    amount = sum(order.filled_amount for order in family)
    committed_ms = [
        notice.committed_ms
        for notice in RawNotice.objects.filter(order__in=family, kind=NoticeKind.FILLED).exclude(committed_ms=None)
    ]
    return [
        f"{root.stock_name} {root.stock_code}",
        str(root.get_order_type_display()),
        str(root.get_origin_display()) if root.origin == TradeOrder.Origin.EXTERNAL else execution_quality.style(root),
        f"{root.qty:,}",
        f"{filled_qty:,}",
        f"{amount / filled_qty:,.1f}" if filled_qty else "-",
        str(len(family) - 1),
        ", ".join(f"{ms:.1f}" for ms in committed_ms) or "-",
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
