"""Gathers the facts that `aegis.guards` judges, and says its reasons in the operator's language."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.utils.translation import gettext

from aegis.broker import BrokerError, OrderRequest
from aegis.fees import Rates
from aegis.guards import Facts, Limits, Others, Reason, TradingState, gettext_noop
from aegis.sessions import KST, Phase
from aegis.terms import Instrument, Market, Side
from aegis.ticks import DAILY_LIMIT_PERCENT
from kis.errors import advice
from market.models import Stock
from orders.models import BlacklistedStock, TradeOrder, TradingSwitch
from portfolio.service import PortfolioService

MINUTE = timedelta(minutes=1)
# an order that is still on its way after this may have lost its sender: it freezes like one of unknown fate
ON_ITS_WAY = timedelta(seconds=10)
NO_FAMILY = -1


def gather(
    request: OrderRequest,
    stock: Stock,
    phases: tuple[Phase, ...],
    *,
    now: datetime,
    request_id: str,
    strategy: str = "",
    family: int | None = None,
    **live: Any,
) -> Facts:
    """Return the facts about an order at `now`; `live` is what the broker was asked just before.

    `family` is the root of the order that this one chases for, None for an intent of its own.
    """
    return Facts(
        request=request,
        now=now.astimezone(KST),
        state=trading_state(),
        phases=phases,
        instrument=Instrument(stock.instrument),
        trades_on_nxt=stock.trades_on_nxt,
        is_retry=family is not None,
        sector=stock.sector,
        blacklisted=blacklist_reason(request.code, now),
        limits=limits(),
        others=others(request, now=now, request_id=request_id, strategy=strategy, family=family),
        **position(request),
        **live,
    )


def limits() -> Limits:
    """Return the operator's own bounds, as set."""
    return Limits(
        order_won=settings.MAX_ORDER_WON,
        day_won=settings.MAX_DAY_WON,
        position_percent=settings.MAX_POSITION_PERCENT,
        collar_percent=settings.MAX_COLLAR_PERCENT,
        orders_per_minute=settings.MAX_ORDERS_PER_MINUTE,
        excluded_sectors=tuple(settings.EXCLUDED_SECTORS),
    )


# every order of today, and every one that is not settled yet, but for the request's own family. Without a price an
# order is worth what the last trade was, and the broker holds back the upper limit: 30 % more, as far as known here.
# UNVERIFIED: the upper limit is reckoned from the price at arrival; the day's base may be higher
OTHERS = """
    SELECT count(*) FILTER (WHERE is_intent AND order_type = %(side)s AND created_at > %(a_minute_ago)s),
           sum(qty * worth) FILTER (WHERE is_intent AND order_type = 'BUY' AND status <> 'REJECTED'),
           max(id) FILTER (WHERE is_intent AND order_type = %(side)s AND stock_code = %(code)s AND qty = %(qty)s
                           AND status <> 'REJECTED' AND created_at > %(twin_since)s
                           AND strategy = %(strategy)s AND (strategy <> '' OR price = %(price)s)),
           min(id) FILTER (WHERE is_unknown AND order_type = %(side)s AND stock_code = %(code)s),
           sum(qty * held_back) FILTER (WHERE is_unknown AND order_type = 'BUY'),
           sum(qty) FILTER (WHERE is_unknown AND order_type = 'SELL' AND stock_code = %(code)s),
           sum(qty - filled_qty) FILTER (WHERE is_open AND order_type = 'BUY' AND stock_code = %(code)s)
    FROM (
        SELECT *,
               root_id IS NULL AND origin = 'AEGIS' AND order_date = %(today)s AS is_intent,
               status = 'UNKNOWN' OR (status = 'SUBMITTING' AND created_at <= %(silent_since)s) AS is_unknown,
               status IN ('PARTIAL', 'PENDING', 'SUBMITTING', 'UNKNOWN') AS is_open,
               CASE WHEN price > 0 THEN price ELSE arrival_price END AS worth,
               CASE WHEN price > 0 THEN price ELSE arrival_price * %(upper_percent)s / 100 END AS held_back
        FROM trade_orders
        WHERE (order_date = %(today)s OR status IN ('PARTIAL', 'PENDING', 'SUBMITTING', 'UNKNOWN'))
          AND request_id <> %(request_id)s AND id <> %(family)s AND coalesce(root_id, 0) <> %(family)s
    ) AS other
"""


def others(
    request: OrderRequest, *, now: datetime, request_id: str, strategy: str = "", family: int | None = None
) -> Others:
    """Return what our other orders mean for `request`: one question to the table of orders.

    It is asked twice for each order, once under a lock; the words are SQL because Django takes longer to put
    them together than PostgreSQL to answer.
    """
    figures = {
        "today": now.astimezone(KST).date(),
        "a_minute_ago": now - MINUTE,
        "silent_since": now - ON_ITS_WAY,
        "twin_since": now - timedelta(seconds=settings.DUPLICATE_SECONDS),
        "upper_percent": 100 + DAILY_LIMIT_PERCENT,
        "side": request.side.value,
        "code": request.code,
        "qty": request.qty,
        "price": request.price,
        "strategy": strategy,
        "request_id": request_id,
        "family": family or NO_FAMILY,
    }
    with connection.cursor() as cursor:
        cursor.execute(OTHERS, figures)
        last_minute, bought, twin, frozen, unknown_cash, unknown_qty, open_buys = cursor.fetchone()
    return Others(
        last_minute=last_minute,
        bought_today_won=int(bought or 0),
        twin=_name(twin),
        frozen_by=_name(frozen),
        unknown_cash_won=int(unknown_cash or 0),
        unknown_qty=int(unknown_qty or 0),
        open_buy_qty=int(open_buys or 0),
    )


def _name(pk: int | None) -> str:
    return f"#{pk}" if pk else ""


def position(request: OrderRequest) -> dict[str, int | None]:
    """Return what the account holds of a stock to buy, and its total as last seen."""
    if request.side is Side.SELL or not settings.MAX_POSITION_PERCENT:
        return {}
    holding, snapshot = PortfolioService().get_holding(request.code), PortfolioService().get_snapshot()
    return {
        "held_qty": holding.quantity if holding else 0,
        "total_asset": snapshot.total_asset if snapshot else None,
    }


def trading_state() -> TradingState:
    """Return where the switch stands, ACTIVE before it was ever turned."""
    state = TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).values_list("state", flat=True).first()
    return TradingState(state or TradingState.ACTIVE)


def may_send(order: TradeOrder) -> Reason | None:
    """Return why a committed order must not leave after all: the switch may have gone down meanwhile."""
    if trading_state().lets_pass(order.side):
        return None
    return Reason("SWITCHED", gettext_noop("the switch went down before it was sent"))


def blacklist_reason(code: str, now: datetime) -> str | None:
    """Return why `code` must not be bought today, None where it may."""
    today = now.astimezone(KST).date()
    in_force = Q(until__isnull=True) | Q(until__gte=today)
    return BlacklistedStock.objects.filter(in_force, stock_code=code).values_list("reason", flat=True).first()


def rates() -> Rates:
    """Return the customer's rates: those of the settings where set, else the table's."""
    # what the broker routes by itself is reckoned as KRX's, the dearer of the two
    krx_fee, krx_tax = settings.KIS_FEE_RATE, settings.KIS_TAX_TOTAL
    own_fees = {Market.KRX: krx_fee, Market.NXT: settings.KIS_NXT_FEE_RATE, Market.SOR: krx_fee}
    own_taxes = {Market.KRX: krx_tax, Market.NXT: settings.KIS_NXT_TAX_TOTAL, Market.SOR: krx_tax}
    return Rates(commission_pct=_given(own_fees), tax_pct=_given(own_taxes))


def _given(rates: dict[Market, Decimal | None]) -> dict[Market, Decimal]:
    return {market: rate for market, rate in rates.items() if rate is not None}


def say(reason: Reason) -> str:
    """Return a reason in the operator's language."""
    return gettext(reason.sentence).format(**reason.figures)


def say_error(error: BrokerError) -> str:
    """Return a failure whole, with what to do about it where that is known."""
    what = advice(error.code, error.message)
    return f"{error} ({gettext(what)})" if what else str(error)


def say_all(reasons: Sequence[Reason]) -> str:
    return "; ".join(say(reason) for reason in reasons)
