"""KISFetcher writes the broker's balance to our tables. Only it and the realtime handlers change them."""

from collections.abc import Callable
from datetime import datetime

from aegis.broker import Broker
from portfolio import ledger
from portfolio.models import AccountSnapshot


class KISFetcher:
    """Syncs the portfolio from the broker's balance. Source: spec §0.3."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    def sync_portfolio(self) -> AccountSnapshot:
        """Read the balance and store it, whole or not at all; return its snapshot. Raises BrokerError."""
        balance = self._broker.balance()
        return ledger.replace(balance, now=self._now())
