"""The bounds and rates as set, where the switch stands, and the words of `aegis.risk` as the operator reads them."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TypedDict

from django.conf import settings
from django.utils.translation import gettext

from aegis.broker import BrokerError
from aegis.denials import Denial
from aegis.fees import Rates
from aegis.risk import Limits, TradingState
from aegis.terms import Market, Side
from infra import sql
from kis.errors import advice
from orders.models import TradingSwitch
from portfolio.service import PortfolioService


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


class Position(TypedDict):
    """Figures of `RiskInputs`: shares held, and won, None before the account was first seen."""

    held_qty: int
    total_asset: int | None


def position(code: str) -> Position:
    """Return what the account holds of a stock, and its total, as last seen."""
    holding, snapshot = PortfolioService().get_holding(code), PortfolioService().get_snapshot()
    return {
        "held_qty": holding.quantity if holding else 0,
        "total_asset": snapshot.total_asset if snapshot else None,
    }


def trading_state() -> TradingState:
    """Return where the switch stands, ACTIVE before it was ever turned."""
    found = sql.fetch("SELECT state FROM trading_switch WHERE id = %(switch)s", {"switch": TradingSwitch.ONLY_PK})
    return TradingState(found[0][0]) if found else TradingState.ACTIVE


def arrival_percent(side: Side) -> Decimal:
    """Return how far a chase on this side may go from the price at arrival, in percent; 0: without a bound."""
    return settings.CHASE_ARRIVAL_PERCENT_BUY if side is Side.BUY else settings.CHASE_ARRIVAL_PERCENT_SELL


def rates() -> Rates:
    """Return the customer's rates: those of the settings where set, else the table's."""
    # what the broker routes by itself is reckoned as KRX's, the dearer of the two
    krx_fee, krx_tax = settings.KIS_FEE_RATE, settings.KIS_TAX_TOTAL
    own_fees = {Market.KRX: krx_fee, Market.NXT: settings.KIS_NXT_FEE_RATE, Market.SOR: krx_fee}
    own_taxes = {Market.KRX: krx_tax, Market.NXT: settings.KIS_NXT_TAX_TOTAL, Market.SOR: krx_tax}
    return Rates(commission_pct=_given(own_fees), tax_pct=_given(own_taxes))


def _given(rates: dict[Market, Decimal | None]) -> dict[Market, Decimal]:
    return {market: rate for market, rate in rates.items() if rate is not None}


def say(reason: Denial) -> str:
    """Return a reason in the operator's language."""
    return gettext(reason.sentence).format(**reason.figures)


def say_error(error: BrokerError) -> str:
    """Return a failure whole, with what to do about it where that is known."""
    what = advice(error.code, error.message)
    return f"{error} ({gettext(what)})" if what else str(error)


def say_all(reasons: Sequence[Denial]) -> str:
    return "; ".join(say(reason) for reason in reasons)
