"""Gathers the facts that `aegis.guards` judges, and says its reasons in the operator's language."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Case, Count, F, Max, Min, Q, QuerySet, Sum, Value, When
from django.utils.translation import gettext

from aegis.broker import OrderRequest
from aegis.fees import Rates
from aegis.guards import Facts, Limits, Others, Reason, TradingState, gettext_noop
from aegis.lifecycle import UNSETTLED, Status
from aegis.sessions import KST, Phase
from aegis.terms import Instrument, Market, Side
from aegis.ticks import DAILY_LIMIT_PERCENT
from market.models import Stock
from orders.models import BlacklistedStock, TradeOrder, TradingSwitch
from portfolio.service import PortfolioService

MINUTE = timedelta(minutes=1)
# an order that is still on its way after this may have lost its sender: it freezes like one of unknown fate
ON_ITS_WAY = timedelta(seconds=10)


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


def others(
    request: OrderRequest, *, now: datetime, request_id: str, strategy: str = "", family: int | None = None
) -> Others:
    """Return what our other orders mean for `request`: one question to the table of orders."""
    kin = Q(request_id=request_id) | Q(pk=family) | Q(root_id=family) if family else Q(request_id=request_id)
    today = Q(order_date=now.astimezone(KST).date())
    side, stock = Q(order_type=request.side), Q(stock_code=request.code)
    intent = today & Q(root=None, origin=TradeOrder.Origin.AEGIS)
    buys = Q(order_type=Side.BUY)
    unknown = Q(status=Status.UNKNOWN) | Q(status=Status.SUBMITTING, created_at__lte=now - ON_ITS_WAY)
    told = _orders().filter(today | Q(status__in=UNSETTLED)).exclude(kin)
    found = told.aggregate(
        last_minute=Count("pk", filter=intent & side & Q(created_at__gt=now - MINUTE)),
        bought=Sum("worth", filter=intent & buys & ~Q(status=Status.REJECTED)),
        twin=Max("pk", filter=intent & side & stock & _same(request, strategy, now)),
        frozen=Min("pk", filter=unknown & side & stock),
        unknown_cash=Sum("held_back", filter=unknown & buys),
        unknown_qty=Sum("qty", filter=unknown & stock & ~buys),
        open_buys=Sum(F("qty") - F("filled_qty"), filter=stock & buys & Q(status__in=UNSETTLED)),
    )
    return Others(
        last_minute=found["last_minute"],
        bought_today_won=found["bought"] or 0,
        twin=_name(found["twin"]),
        frozen_by=_name(found["frozen"]),
        unknown_cash_won=found["unknown_cash"] or 0,
        unknown_qty=found["unknown_qty"] or 0,
        open_buy_qty=found["open_buys"] or 0,
    )


def _orders() -> QuerySet[TradeOrder]:
    """Return orders with what each is worth; one without a price is held back for at the upper limit, as far as known.

    UNVERIFIED: the upper limit is that of the price at arrival here; the day's base may be higher.
    """
    upper = F("arrival_price") * (100 + DAILY_LIMIT_PERCENT) / Value(100)
    priced = Q(price__gt=0)
    return TradeOrder.objects.annotate(
        worth=F("qty") * Case(When(priced, then=F("price")), default=F("arrival_price")),
        held_back=F("qty") * Case(When(priced, then=F("price")), default=upper),
    )


def _same(request: OrderRequest, strategy: str, now: datetime) -> Q:
    """Match an order of seconds ago that asks for the same: by its price, or by the strategy that makes its price."""
    since = now - timedelta(seconds=settings.DUPLICATE_SECONDS)
    how = Q(price=request.price, strategy="") if not strategy else Q(strategy=strategy)
    return Q(qty=request.qty, created_at__gt=since) & how & ~Q(status=Status.REJECTED)


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
    switch = TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).first()
    return TradingState(switch.state) if switch else TradingState.ACTIVE


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


def say_all(reasons: Sequence[Reason]) -> str:
    return "; ".join(say(reason) for reason in reasons)
