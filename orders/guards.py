"""Gathers the facts that `aegis.guards` judges, and says its reasons in the operator's language."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils.translation import gettext

from aegis.broker import OrderRequest
from aegis.fees import COMMISSION_PCT, Rates
from aegis.guards import Facts, Reason, TradingState, gettext_noop
from aegis.sessions import KST
from aegis.terms import Instrument, Market, Side
from market import service as market
from market.models import Stock
from orders.models import BlacklistedStock, TradeOrder, TradingSwitch


def gather(request: OrderRequest, stock: Stock, *, now: datetime, **live: Any) -> Facts:
    """Return the facts about an order at `now`; `live` is what the broker was asked just before."""
    return Facts(
        request=request,
        now=now.astimezone(KST),
        state=trading_state(),
        phases=market.today(now),
        instrument=Instrument(stock.instrument),
        trades_on_nxt=stock.trades_on_nxt,
        blacklisted=blacklist_reason(request.code, now),
        **live,
    )


def trading_state() -> TradingState:
    switch = TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).first()
    return TradingState(switch.state) if switch else TradingState.ACTIVE


def may_send(order: TradeOrder) -> Reason | None:
    """Return why a committed order must not leave after all: the switch may have gone down meanwhile."""
    state = trading_state()
    if state is TradingState.ACTIVE or (state is TradingState.REDUCING and order.side is Side.SELL):
        return None
    return Reason("SWITCHED", gettext_noop("the switch went down before it was sent"))


def blacklist_reason(code: str, now: datetime) -> str | None:
    """Return why `code` must not be bought today, None where it may."""
    today = now.astimezone(KST).date()
    in_force = Q(until__isnull=True) | Q(until__gte=today)
    return BlacklistedStock.objects.filter(in_force, stock_code=code).values_list("reason", flat=True).first()


def rates() -> Rates:
    """Return the customer's rates: those of the settings where set, else the table's."""
    own_fees = {Market.KRX: settings.KIS_FEE_RATE, Market.NXT: settings.KIS_NXT_FEE_RATE}
    own_taxes = {Market.KRX: settings.KIS_TAX_TOTAL, Market.NXT: settings.KIS_NXT_TAX_TOTAL}
    return Rates(commission_pct={**COMMISSION_PCT, **_given(own_fees)}, tax_pct=_given(own_taxes))


def _given(rates: dict[Market, Decimal | None]) -> dict[Market, Decimal]:
    return {market: rate for market, rate in rates.items() if rate is not None}


def say(reason: Reason) -> str:
    """Return a reason in the operator's language."""
    return gettext(reason.sentence).format(**reason.figures)


def say_all(reasons: Sequence[Reason]) -> str:
    return "; ".join(say(reason) for reason in reasons)
