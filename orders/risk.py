"""The operator's limits and rates, the trading state, and the denials of `aegis.risk` in the operator's language."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TypedDict

from django.conf import settings
from django.utils.translation import gettext

from aegis.broker import BrokerError
from aegis.denials import Denial
from aegis.fees import Rates
from aegis.risk import Limits
from aegis.terms import Market
from aegis.trading_state import TradingState
from infra import sql
from kis.errors import advice
from orders.models import TradingSwitch
from portfolio.service import PortfolioService


def limits() -> Limits:
    """Return the operator's limits from the settings."""
    return Limits(
        order_won=settings.MAX_ORDER_WON,
        day_won=settings.MAX_DAY_WON,
        position_percent=settings.MAX_POSITION_PERCENT,
        collar_percent=settings.MAX_COLLAR_PERCENT,
        orders_per_minute=settings.MAX_ORDERS_PER_MINUTE,
        excluded_sectors=tuple(settings.EXCLUDED_SECTORS),
    )


class Position(TypedDict):
    """Fields of `RiskInputs`: the shares held, and the account's total in won, None before the first balance."""

    held_qty: int
    total_asset: int | None


def position(code: str) -> Position:
    """Return the holding of a stock and the account's total, as last known."""
    holding, snapshot = PortfolioService().get_holding(code), PortfolioService().get_snapshot()
    return {
        "held_qty": holding.quantity if holding else 0,
        "total_asset": snapshot.total_asset if snapshot else None,
    }


def trading_state() -> TradingState:
    """Return the trading state, ACTIVE before its first change."""
    rows = sql.query("SELECT state FROM trading_switch WHERE id = %(switch)s", {"switch": TradingSwitch.ONLY_PK})
    return TradingState(rows[0][0]) if rows else TradingState.ACTIVE


def rates() -> Rates:
    """Return the customer's rates, in percent. The settings override the dated rates of `aegis.fees`."""
    # an SOR order is charged as KRX, the more expensive of the two venues
    krx_fee, krx_tax = settings.KIS_FEE_RATE, settings.KIS_TAX_TOTAL
    own_fees = {Market.KRX: krx_fee, Market.NXT: settings.KIS_NXT_FEE_RATE, Market.SOR: krx_fee}
    own_taxes = {Market.KRX: krx_tax, Market.NXT: settings.KIS_NXT_TAX_TOTAL, Market.SOR: krx_tax}
    return Rates(commission_pct=_without_none(own_fees), tax_pct=_without_none(own_taxes))


def _without_none(rates: dict[Market, Decimal | None]) -> dict[Market, Decimal]:
    return {market: rate for market, rate in rates.items() if rate is not None}


def denial_text(reason: Denial) -> str:
    """Return a denial in the operator's language."""
    return gettext(reason.sentence).format(**reason.figures)


def error_text(error: BrokerError) -> str:
    """Return the text of a broker error, with advice if there is any."""
    hint = advice(error.code, error.message)
    return f"{error} ({gettext(hint)})" if hint else str(error)


def denial_texts(reasons: Sequence[Denial]) -> str:
    return "; ".join(denial_text(reason) for reason in reasons)
