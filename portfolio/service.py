"""PortfolioService: what strategies, screens and guards read. Always the database, never the broker."""

from collections.abc import Sequence

from portfolio.models import AccountSnapshot, Portfolio


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
