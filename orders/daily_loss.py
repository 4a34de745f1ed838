"""Today's loss by our own figures, and the base prices (기준가) that it is measured from.

"Today" is a trading day that has begun. In a night, at a weekend and on a holiday there is no loss of today: the
broker's own total shows the last trading day's until its day rolls.
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

# a turn of the balance asks for base prices for so long; what is not known by then waits for the next
TURN_SECONDS = 10.0
KEPT_FOR = timedelta(days=30)
_MIDNIGHT = time(0)
# of the balance's valuation, what our holdings may lack before the account's own totals are believed instead
UNEXPLAINED_PERCENT, UNEXPLAINED_WON = 10, 100_000


@dataclass(frozen=True, slots=True)
class DailyLoss:
    """Today's loss in won (0 for a profit), and yesterday's total. `unknown` says in words what cannot be known."""

    won: int = 0
    total_yesterday: int = 0
    unknown: str = ""


def began_at(now: datetime) -> datetime | None:
    """Return when today's trading began, None before that and on a day without trading."""
    starts_at = sessions.first_start(queries.today(now), now)
    return starts_at if starts_at is not None and now >= starts_at else None


def todays(now: datetime) -> DailyLoss:
    """Return what today's trading has lost."""
    if began_at(now) is None:
        return DailyLoss()
    snapshot = AccountSnapshot.objects.filter(timestamp__lte=now).order_by("-timestamp", "-pk").first()
    rows = {row.stock_code: row for row in Portfolio.objects.all()}
    result = result_of(_stocks(rows, now))
    total, is_known = _total_yesterday(snapshot, result, now)
    if snapshot is not None and (missing := _unexplained(snapshot, rows)):
        by_totals = total - snapshot.valuation - snapshot.deposit_d2
        return DailyLoss(max(0, by_totals), total, missing)
    return DailyLoss(max(0, -result.won), total, _unknown(result, is_total_known=is_known or result.won >= 0))


def _unknown(result: DayResult, *, is_total_known: bool) -> str:
    words = []
    if result.unknown:
        sentence = gettext("base price unknown for {count} stocks: neither loss nor gain of them counts yet ({codes})")
        words.append(sentence.format(count=len(result.unknown), codes=", ".join(result.unknown)))
    if not is_total_known:
        words.append(gettext("yesterday's total is not known: the loss in percent is measured by today's"))
    return "; ".join(words)


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
    """Return what a stock is worth now: a price of another day is none, the day has not moved it."""
    if row is None:
        return base or 0
    is_old = row.priced_at is not None and row.priced_at.astimezone(KST).date() < now.astimezone(KST).date()
    return base if is_old and base else row.current_price


def _fills(now: datetime) -> dict[str, dict[Side, tuple[int, int]]]:
    """Return the shares of today's executions, and the won they cost or brought, costs included, by stock and side."""
    executions = TradeExecution.objects.filter(order__order_date=now.astimezone(KST).date(), voided_at=None)
    sums = (
        executions.order_by()
        .values_list("stock_code", "order__order_type")
        .annotate(Sum("exec_qty"), Sum("exec_amount"), Sum("fee"), Sum("tax"))
    )
    found: dict[str, dict[Side, tuple[int, int]]] = {}
    for code, order_type, qty, amount, fee, tax in sums:
        side = Side(order_type)
        found.setdefault(code, {})[side] = (qty, amount + side.sign * (fee + tax))
    return found


def _bases(codes: list[str], now: datetime) -> dict[str, int]:
    """Return today's base prices as the broker told them, for this or for a stop.

    No close stands for one: on an ex-rights morning it is another price, and would make a loss that nobody has.
    """
    today = now.astimezone(KST).date()
    stops = StopRule.objects.filter(based_on=today, base_price__gt=0, stock_code__in=codes)
    found = dict(stops.values_list("stock_code", "base_price"))
    return found | dict(BasePrice.objects.filter(date=today, stock_code__in=codes).values_list("stock_code", "price"))


def _total_yesterday(snapshot: AccountSnapshot | None, result: DayResult, now: datetime) -> tuple[int, bool]:
    """Return yesterday's total, and whether it is known.

    The broker's own is in the newest snapshot, whose profit is 0 if the broker did not tell it.
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
    """Return in words that our holdings do not explain the account's valuation, empty if they do."""
    missing = snapshot.valuation - sum(row.balance_won for row in rows.values())
    if missing <= max(UNEXPLAINED_WON, snapshot.valuation * UNEXPLAINED_PERCENT // 100):
        return ""
    words = gettext("holdings worth {won:,} won cannot be read: the loss is measured by the account's totals")
    return words.format(won=missing)


def sync_base_prices(broker: Broker, now: Callable[[], datetime]) -> int:
    """Ask for the base prices of what is held, once a trading day each; return how many were told.

    The holdings of most worth come first: a loss of one whose base price is unknown does not count. One that the day's
    price contradicts is asked for again.
    """
    today = now().astimezone(KST).date()
    if began_at(now()) is None:
        return 0
    BasePrice.objects.filter(date__lt=today - KEPT_FOR).delete()
    known = dict(BasePrice.objects.filter(date=today).values_list("stock_code", "price"))
    is_open = now() >= krx_prices.opens_at(now())
    rows = [
        row
        for row in PortfolioService().get_portfolio()
        if row.stock_code not in known or (is_open and _is_beyond(row.current_price, known[row.stock_code]))
    ]
    told, ends_at = 0, monotonic() + TURN_SECONDS
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
        if is_new and quote.base_price != known.get(code):
            krx_prices.note_base_price(code, quote.base_price, today)
            told += 1
    return told


def _is_beyond(price: int, base_price: int) -> bool:
    """Whether a price lies beyond the day's limits round a base price, which then is of another day."""
    return price > 0 and abs(price - base_price) * 100 > base_price * DAILY_LIMIT_PERCENT
