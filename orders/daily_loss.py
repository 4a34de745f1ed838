"""Today's loss by AEGIS's own figures, and the base prices (기준가) that it is measured from.

"Today" is a trading day that has begun. At night, at a weekend and on a holiday today's loss is 0: the broker's own
total shows the last trading day's loss until its day rolls over.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from time import monotonic

from django.db.models import Sum
from django.utils.translation import gettext

from aegis import sessions
from aegis.broker import Broker, BrokerError, Refused
from aegis.daily_loss import DayResult, StockDay, result_of
from aegis.sessions import KST
from aegis.terms import Market, Side
from aegis.ticks import DAILY_LIMIT_PERCENT
from market import queries
from orders import krx_prices
from orders.models import BasePrice, StopRule, TradeExecution
from portfolio.models import AccountSnapshot, Portfolio, PriceSource
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

# one balance sync asks for base prices for this long; the rest waits for the next sync
TURN_SECONDS = 10.0
KEPT_FOR = timedelta(days=30)
_MIDNIGHT = time(0)
# how much of the balance's valuation our holdings may lack before the account's own totals are used instead
UNEXPLAINED_PERCENT, UNEXPLAINED_WON = 10, 100_000


@dataclass(frozen=True, slots=True)
class DailyLoss:
    """Today's loss (0 for a profit) and yesterday's total, in won. `unknown` says what is not known, or is empty."""

    won: int = 0
    total_yesterday: int = 0
    unknown: str = ""


def began_at(now: datetime) -> datetime | None:
    """Return when today's trading began, None before that and on a day without trading."""
    starts_at = sessions.first_start(queries.today(now), now)
    return starts_at if starts_at is not None and now >= starts_at else None


def todays(now: datetime) -> DailyLoss:
    """Return today's loss."""
    if began_at(now) is None:
        return DailyLoss()
    snapshot = AccountSnapshot.objects.filter(timestamp__lte=now).order_by("-timestamp", "-pk").first()
    rows = {row.stock_code: row for row in Portfolio.objects.all()}
    result = result_of(_stocks(rows, now))
    total, is_known = _total_yesterday(snapshot, result, now)
    if snapshot is not None and (why := _unexplained(snapshot, rows)):
        by_totals = total - snapshot.valuation - snapshot.deposit_d2
        return DailyLoss(max(0, by_totals), total, why)
    return DailyLoss(max(0, -result.won), total, _unknown(result, is_total_known=is_known or result.won >= 0))


def _unknown(result: DayResult, *, is_total_known: bool) -> str:
    sentences = []
    if result.unknown:
        template = gettext("base price unknown for {count} stocks: neither loss nor gain of them counts yet ({codes})")
        sentences.append(template.format(count=len(result.unknown), codes=", ".join(result.unknown)))
    if not is_total_known:
        sentences.append(gettext("yesterday's total is not known: the loss in percent is measured by today's"))
    return "; ".join(sentences)


def _stocks(rows: dict[str, Portfolio], now: datetime) -> list[StockDay]:
    fills = _fills(now)
    codes = sorted({*(code for code, row in rows.items() if row.quantity), *fills})
    bases = _bases(codes, now)
    return [_stock(code, rows.get(code), bases.get(code), fills.get(code, {}), now) for code in codes]


def _stock(
    code: str, row: Portfolio | None, base: int | None, fills: dict[Side, tuple[int, int]], now: datetime
) -> StockDay:
    bought_qty, paid_won = fills.get(Side.BUY, (0, 0))
    sold_qty, received_won = fills.get(Side.SELL, (0, 0))
    return StockDay(
        code,
        row.quantity if row else 0,
        _price(row, base, now),
        base,
        bought_qty=bought_qty,
        sold_qty=sold_qty,
        paid_won=paid_won,
        received_won=received_won,
        is_of_today=row is not None and row.price_source != PriceSource.BALANCE,
    )


def _price(row: Portfolio | None, base: int | None, now: datetime) -> int:
    """Return a stock's price in won. A price of another day is replaced by today's base price if that is known."""
    if row is None:
        return base or 0
    is_old = row.priced_at is not None and row.priced_at.astimezone(KST).date() < now.astimezone(KST).date()
    return base if is_old and base else row.current_price


def _fills(now: datetime) -> dict[str, dict[Side, tuple[int, int]]]:
    """Return the shares of today's executions and the won paid or received, costs included, by stock and side."""
    executions = TradeExecution.objects.filter(order__order_date=now.astimezone(KST).date(), voided_at=None)
    sums = (
        executions.order_by()
        .values_list("stock_code", "order__order_type")
        .annotate(Sum("exec_qty"), Sum("exec_amount"), Sum("fee"), Sum("tax"))
    )
    fills: dict[str, dict[Side, tuple[int, int]]] = {}
    for code, order_type, qty, amount, fee, tax in sums:
        side = Side(order_type)
        fills.setdefault(code, {})[side] = (qty, amount + side.sign * (fee + tax))
    return fills


def _bases(codes: list[str], now: datetime) -> dict[str, int]:
    """Return today's base prices in won, as the broker reported them for this purpose or for a stop.

    A close never replaces one: on an ex-rights morning it differs, and would show a loss that does not exist.
    """
    today = now.astimezone(KST).date()
    stops = StopRule.objects.filter(based_on=today, base_price__gt=0, stock_code__in=codes)
    prices = dict(stops.values_list("stock_code", "base_price"))
    return prices | dict(BasePrice.objects.filter(date=today, stock_code__in=codes).values_list("stock_code", "price"))


def _total_yesterday(snapshot: AccountSnapshot | None, result: DayResult, now: datetime) -> tuple[int, bool]:
    """Return yesterday's total in won, and whether it is known.

    The newest snapshot has the broker's own total; its profit is 0 if the broker did not report one.
    """
    if snapshot is None:
        return 0, False
    if snapshot.net_profit_today:
        return snapshot.total_asset - snapshot.net_profit_today, True
    midnight = datetime.combine(now.astimezone(KST), _MIDNIGHT, KST)
    earlier = AccountSnapshot.objects.filter(timestamp__lt=midnight).order_by("-timestamp").first()
    if earlier is not None:
        return earlier.total_asset, True
    return snapshot.total_asset + max(0, -result.won), False


def _unexplained(snapshot: AccountSnapshot, rows: dict[str, Portfolio]) -> str:
    """Return a text if our holdings do not explain the account's valuation, empty if they do."""
    missing_won = snapshot.valuation - sum(row.balance_won for row in rows.values())
    if missing_won <= max(UNEXPLAINED_WON, snapshot.valuation * UNEXPLAINED_PERCENT // 100):
        return ""
    template = gettext("holdings worth {won:,} won cannot be read: the loss is measured by the account's totals")
    return template.format(won=missing_won)


def sync_base_prices(broker: Broker, now: Callable[[], datetime]) -> int:
    """Ask for the base prices of the holdings, once a trading day each; return how many were stored.

    The most valuable holdings are first: a holding's loss does not count while its base price is unknown. A base price
    that today's price contradicts is asked for again.
    """
    today = now().astimezone(KST).date()
    if began_at(now()) is None:
        return 0
    BasePrice.objects.filter(date__lt=today - KEPT_FOR).delete()
    known_prices = dict(BasePrice.objects.filter(date=today).values_list("stock_code", "price"))
    is_open = now() >= krx_prices.opens_at(now())
    rows = [
        row
        for row in PortfolioService().get_portfolio()
        if row.stock_code not in known_prices
        or (is_open and _is_beyond(row.current_price, known_prices[row.stock_code]))
    ]
    count, ends_at = 0, monotonic() + TURN_SECONDS
    for code in [row.stock_code for row in sorted(rows, key=lambda row: -row.quantity * row.current_price)]:
        if monotonic() > ends_at:
            break
        try:
            quote = broker.quote(code, Market.KRX)
            is_new = quote.base_price > 0 and krx_prices.is_of_today(quote, now(), broker)
        except Refused as error:
            log.warning("the base price of %s is refused: %s", code, error)
            continue
        except BrokerError as error:
            log.warning("the base price of %s cannot be asked for: %s", code, error)
            break
        if is_new and quote.base_price != known_prices.get(code):
            krx_prices.note_base_price(code, quote.base_price, today)
            count += 1
    return count


def _is_beyond(price: int, base_price: int) -> bool:
    """Whether a price is outside the day's limits around a base price, which then is of another day."""
    return price > 0 and abs(price - base_price) * 100 > base_price * DAILY_LIMIT_PERCENT
