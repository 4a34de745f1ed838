"""KISFetcher: the broker's balance into our tables. With the realtime handlers, the only way in."""

from collections.abc import Callable
from datetime import datetime

from aegis.broker import Broker
from portfolio import ledger
from portfolio.models import AccountSnapshot


class KISFetcher:
    """Writes what the broker says we hold. Source: spec §0.3."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    def sync_portfolio(self) -> AccountSnapshot:
        """Ask for the balance and take it over, whole or not at all. Raises BrokerError."""
        balance = self._broker.balance()
        return ledger.replace(balance, now=self._now())
