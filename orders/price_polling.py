"""REST fallback polling: asks for the prices of holdings that no feed covers, because the socket is down or full."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from aegis.broker import Broker, BrokerError
from aegis.terms import Market
from infra.advisory_lock import advisory_lock
from kis.status import StreamStatus
from market import queries
from market.models import Stock
from portfolio import ledger
from portfolio.models import PriceSource
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

_FEEDS = {Market.KRX: "H0STCNT0", Market.NXT: "H0NXCNT0"}
_logged_codes: frozenset[str] = frozenset()


def poll(broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> int:
    """Ask for the price of every holding without a feed, while its venue trades; return the number of prices read.

    One process at a time. The call limit for quotations determines how long it takes.
    """
    venue = queries.get_available_market(now())
    codes = _codes_without_feed(status, venue) if venue is not None and queries.is_trading(venue, now()) else []
    _log_change(frozenset(codes), status)
    if venue is None or not codes:
        return 0
    with advisory_lock("polling") as is_ours:
        return _poll_prices(broker, codes, venue, now) if is_ours else 0


def _codes_without_feed(status: StreamStatus, venue: Market) -> list[str]:
    codes = [holding.stock_code for holding in PortfolioService().get_portfolio()]
    if venue is Market.NXT:
        codes = list(Stock.objects.filter(pk__in=codes, trades_on_nxt=True).values_list("pk", flat=True))
    topics = status.held if status.is_alive else ()
    return [code for code in codes if f"{_FEEDS[venue]}:{code}" not in topics]


def _poll_prices(broker: Broker, codes: Iterable[str], venue: Market, now: Callable[[], datetime]) -> int:
    count = 0
    for code in codes:
        at = now()
        try:
            price = broker.quote(code, venue).price
        except BrokerError as error:
            log.warning("the price of %s cannot be read: %s", code, error)
            break
        ledger.mark({code: price}, PriceSource.POLL, at=at)
        count += 1
    return count


def _log_change(codes: frozenset[str], status: StreamStatus) -> None:
    """Log the start, each change and the end of polling; each holding records the source of its price."""
    global _logged_codes
    if codes == _logged_codes:
        return
    if codes:
        reason = "the socket is full" if status.is_alive else f"the socket is {status.state}"
        log.warning("%s: polling the prices of %s", reason, ", ".join(sorted(codes)))
    else:
        log.info("polling ended: every holding has a feed again, or its market is closed")
    _logged_codes = codes
