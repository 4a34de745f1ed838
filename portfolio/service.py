"""PortfolioService: reads for strategies, screens and risk checks, from the database and never from the broker."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import QuerySet, Subquery

from aegis.positions import profit_rate_pct
from portfolio.models import AccountSnapshot, Portfolio

_NEWEST = AccountSnapshot.objects.order_by("-timestamp", "-pk")


@dataclass(frozen=True, slots=True)
class Summary:
    """The holdings at the newest prices, and the last known state of the account; won and percent.

    `seen_at` is the time of the newest snapshot, None before the first balance. `deposit`, today's cash, is of that
    time. `deposit_d2`, the cash after settlement, includes the fills since then; `total_asset` includes fills and price
    changes since then. `profit_today` is the total minus that of the day before the day of `seen_at`.
    """

    holdings: Sequence[Portfolio]
    cost: int
    valuation: int
    profit: int
    profit_rate: Decimal
    deposit: int
    deposit_d2: int
    total_asset: int
    profit_today: int
    seen_at: datetime | None


class PortfolioService:
    """Reads the portfolio. Source: spec §0.3."""

    def get_portfolio(self) -> QuerySet[Portfolio]:
        """Return the holdings with at least one share, ordered by code."""
        return Portfolio.objects.exclude(quantity=0)

    def get_holding(self, stock_code: str) -> Portfolio | None:
        return Portfolio.objects.filter(stock_code=stock_code).exclude(quantity=0).first()

    def get_snapshot(self) -> AccountSnapshot | None:
        """Return the newest account snapshot, None before the first sync."""
        return _NEWEST.first()

    def get_total_asset(self) -> int:
        """Return the total asset of the newest snapshot in won, 0 before the first sync."""
        snapshot = self.get_snapshot()
        return snapshot.total_asset if snapshot else 0

    def get_summary(self) -> Summary:
        """Return holdings, totals and today's profit, in two queries.

        The totals include the price changes and fills since the balance. A buy turns cash into shares, a sale shares
        into cash; neither is a profit by itself.
        """
        rows = list(Portfolio.objects.annotate(snapshot_id=Subquery(_NEWEST.values("pk")[:1])))
        # the snapshot that the rows belong to: a balance between two queries would count twice or not at all
        snapshot = AccountSnapshot.objects.filter(pk=rows[0].snapshot_id).first() if rows else self.get_snapshot()
        holdings = [row for row in rows if row.quantity]
        cost = round(sum((row.quantity * row.avg_price for row in holdings), Decimal(0)))
        valuation = sum(row.quantity * row.current_price for row in holdings)
        change_since_snapshot_won = sum(row.change_since_snapshot_won for row in rows)
        return Summary(
            holdings=holdings,
            cost=cost,
            valuation=valuation,
            profit=valuation - cost,
            profit_rate=profit_rate_pct(Decimal(cost), valuation),
            deposit=snapshot.deposit if snapshot else 0,
            deposit_d2=snapshot.deposit_d2 - sum(row.line.paid_won for row in rows) if snapshot else 0,
            total_asset=snapshot.total_asset + change_since_snapshot_won if snapshot else valuation,
            profit_today=snapshot.net_profit_today + change_since_snapshot_won if snapshot else 0,
            seen_at=snapshot.timestamp if snapshot else None,
        )
