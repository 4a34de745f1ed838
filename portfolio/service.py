"""PortfolioService: what strategies, screens and guards read. Always the database, never the broker."""

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
    """What we hold at the newest prices, and the account as last seen; won and percent.

    `seen_at` is when the account was, None before the first balance. `deposit`, today's cash, is of that moment;
    `deposit_d2`, the cash after settlement, and `total_asset` follow the fills since, and the total the prices too.
    `profit_today` is the total less that of the day before the day of `seen_at`.
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
    """Reads what we hold. Source: spec §0.3."""

    def get_portfolio(self) -> QuerySet[Portfolio]:
        """Return the holdings with shares in them, by code."""
        return Portfolio.objects.exclude(quantity=0)

    def get_holding(self, stock_code: str) -> Portfolio | None:
        return Portfolio.objects.filter(stock_code=stock_code).exclude(quantity=0).first()

    def get_snapshot(self) -> AccountSnapshot | None:
        """Return the account as last seen, None before the first sync."""
        return _NEWEST.first()

    def get_total_asset(self) -> int:
        """Return the total asset in won as last seen, 0 before the first sync."""
        snapshot = self.get_snapshot()
        return snapshot.total_asset if snapshot else 0

    def get_summary(self) -> Summary:
        """Return holdings, totals and today's profit, in two queries.

        Prices that moved and fills that were counted since the balance move the totals with them: a buy turns cash
        into shares, a sale shares into cash, and neither is a profit by itself.
        """
        rows = list(Portfolio.objects.annotate(snapshot_id=Subquery(_NEWEST.values("pk")[:1])))
        # of the same moment as the rows: a balance between two queries would be counted twice or not at all
        seen = AccountSnapshot.objects.filter(pk=rows[0].snapshot_id).first() if rows else self.get_snapshot()
        holdings = [row for row in rows if row.quantity]
        cost = round(sum((row.quantity * row.avg_price for row in holdings), Decimal(0)))
        valuation = sum(row.quantity * row.current_price for row in holdings)
        moved = sum(row.moved_won for row in rows)
        return Summary(
            holdings=holdings,
            cost=cost,
            valuation=valuation,
            profit=valuation - cost,
            profit_rate=profit_rate_pct(Decimal(cost), valuation),
            deposit=seen.deposit if seen else 0,
            deposit_d2=seen.deposit_d2 - sum(row.line.paid_won for row in rows) if seen else 0,
            total_asset=seen.total_asset + moved if seen else valuation,
            profit_today=seen.net_profit_today + moved if seen else 0,
            seen_at=seen.timestamp if seen else None,
        )
