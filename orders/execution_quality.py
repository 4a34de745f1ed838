"""How well orders were executed, by the rows in the tables: for the command, the admin and strategies."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Sum
from django.db.models.functions import Coalesce

from aegis.execution_quality import Family, Quality, Savings, measure, savings, total
from aegis.sessions import KST
from aegis.terms import Instrument, OrderKind
from market import queries
from market.models import Stock
from orders.models import TradeExecution, TradeOrder


@dataclass(frozen=True, slots=True)
class QualityLine:
    """One family: its first order, the number of its later orders, its figures, and their quality if it has one."""

    root: TradeOrder
    retries: int
    family: Family
    quality: Quality | None


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The families ordered from `since` on, newest first, and the savings table over them."""

    since: date
    trading_days: int
    lines: Sequence[QualityLine]
    savings: Sequence[Savings]
    total: Savings


def report(now: datetime, *, days: int) -> QualityReport:
    """Return the quality of what AEGIS ordered today and on the `days` - 1 calendar days before."""
    today = now.astimezone(KST).date()
    since = today - timedelta(days=days - 1)
    lines = _lines(since)
    families = [line.family for line in lines]
    trading_days = max(1, len(queries.trading_days(since, today)))
    return QualityReport(
        since=since,
        trading_days=trading_days,
        lines=lines,
        savings=savings(families, trading_days=trading_days),
        total=total(families, trading_days=trading_days),
    )


def _lines(since: date) -> Sequence[QualityLine]:
    # the broker cannot have executed an order that never reached it
    roots = list(
        TradeOrder.objects.filter(root=None, origin=TradeOrder.Origin.AEGIS, order_date__gte=since)
        .exclude(order_no=None)
        .order_by("-id")
    )
    retries: dict[int, list[TradeOrder]] = defaultdict(list)
    for order in TradeOrder.objects.filter(root__in=roots).exclude(order_no=None):
        retries[order.root_pk].append(order)
    costs = _costs([root.pk for root in roots])
    instruments = dict(Stock.objects.filter(pk__in={root.stock_code for root in roots}).values_list("pk", "instrument"))
    return [_line(root, retries[root.pk], costs.get(root.pk, (0, 0)), instruments) for root in roots]


def _costs(roots: Sequence[int]) -> Mapping[int, tuple[int, int]]:
    """Return commission and tax in won of each family, by its root."""
    root = Coalesce("order__root_id", "order_id")
    rows = (
        TradeExecution.objects.filter(voided_at__isnull=True)
        .annotate(family=root)
        .filter(family__in=roots)
        .values("family")
        .annotate(fees=Sum("fee"), taxes=Sum("tax"))
    )
    return {row["family"]: (row["fees"], row["taxes"]) for row in rows}


def _line(
    root: TradeOrder, retries: Sequence[TradeOrder], cost: tuple[int, int], instruments: Mapping[str, str]
) -> QualityLine:
    family = Family(
        style=style(root),
        side=root.side,
        instrument=Instrument(instruments.get(root.stock_code, Instrument.STOCK)),
        on=root.order_date,
        asked_qty=root.qty,
        filled_qty=root.filled_qty + sum(order.filled_qty for order in retries),
        filled_amount=root.filled_amount + sum(order.filled_amount for order in retries),
        arrival_price=root.arrival_price,
        arrival_sweep_price=root.arrival_sweep_price,
        fees=cost[0],
        tax=cost[1],
    )
    return QualityLine(root=root, retries=len(retries), family=family, quality=measure(family))


def style(root: TradeOrder) -> str:
    """Return the pricing style of an order, or how else it was priced: limit or market."""
    if root.strategy:
        return root.strategy
    return "limit" if OrderKind(root.order_kind).is_priced else "market"
