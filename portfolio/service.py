"""PortfolioService: what strategies, screens and guards read. Always the database, never the broker."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from aegis.positions import profit_rate_pct
from portfolio.models import AccountSnapshot, Portfolio


@dataclass(frozen=True, slots=True)
class Summary:
    """What we hold at the newest prices, and the account as last seen; won and percent.

    `seen_at` is when the account was, None before the first balance. `profit_today` is against yesterday's total.
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

    def get_portfolio(self) -> Sequence[Portfolio]:
        """Return the holdings with shares in them, by code."""
        return Portfolio.objects.exclude(quantity=0)

    def get_holding(self, stock_code: str) -> Portfolio | None:
        return Portfolio.objects.filter(stock_code=stock_code).exclude(quantity=0).first()

    def get_snapshot(self) -> AccountSnapshot | None:
        """Return the account as last seen, None before the first sync."""
        return AccountSnapshot.objects.order_by("-timestamp").first()

    def get_total_asset(self) -> int:
        """Return the total asset in won as last seen, 0 before the first sync."""
        snapshot = self.get_snapshot()
        return snapshot.total_asset if snapshot else 0

    def get_summary(self) -> Summary:
        """Return holdings, totals and today's profit, in two queries.

        Prices that moved since the balance move the totals with them.
        """
        holdings, seen = list(self.get_portfolio()), self.get_snapshot()
        cost = int(sum((row.quantity * row.avg_price for row in holdings), Decimal(0)))
        valuation = sum(row.quantity * row.current_price for row in holdings)
        moved = valuation - seen.valuation if seen else 0
        return Summary(
            holdings=holdings,
            cost=cost,
            valuation=valuation,
            profit=valuation - cost,
            profit_rate=profit_rate_pct(Decimal(cost), valuation),
            deposit=seen.deposit if seen else 0,
            deposit_d2=seen.deposit_d2 if seen else 0,
            total_asset=seen.total_asset + moved if seen else valuation,
            profit_today=seen.net_profit_today + moved if seen else 0,
            seen_at=seen.timestamp if seen else None,
        )
