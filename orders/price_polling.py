"""Prices of what we hold, asked for where no feed tells them: while the socket is down, or full."""

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
_told: frozenset[str] = frozenset()


def poll(broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> int:
    """Ask the price of every holding that no feed tells of, while its venue trades; return how many were told.

    One process at a time; the allowance of quotations decides how long it takes.
    """
    venue = queries.get_available_market(now())
    codes = _unheard(status, venue) if venue is not None and queries.is_trading(venue, now()) else []
    _say(frozenset(codes), status)
    if venue is None or not codes:
        return 0
    with advisory_lock("polling") as is_ours:
        return _ask(broker, codes, venue, now) if is_ours else 0


def _unheard(status: StreamStatus, venue: Market) -> list[str]:
    held = [holding.stock_code for holding in PortfolioService().get_portfolio()]
    if venue is Market.NXT:
        held = list(Stock.objects.filter(pk__in=held, trades_on_nxt=True).values_list("pk", flat=True))
    heard = status.held if status.is_alive else ()
    return [code for code in held if f"{_FEEDS[venue]}:{code}" not in heard]


def _ask(broker: Broker, codes: Iterable[str], venue: Market, now: Callable[[], datetime]) -> int:
    asked = 0
    for code in codes:
        at = now()
        try:
            price = broker.quote(code, venue).price
        except BrokerError as error:
            log.warning("the price of %s cannot be asked for: %s", code, error)
            break
        ledger.mark({code: price}, PriceSource.POLL, at=at)
        asked += 1
    return asked


def _say(codes: frozenset[str], status: StreamStatus) -> None:
    """Tell the log when asking begins, changes and ends; the holdings themselves bear their price's source."""
    global _told
    if codes == _told:
        return
    if codes:
        why = "the socket is full" if status.is_alive else f"the socket is {status.state}"
        log.warning("%s: prices are asked for instead, of %s", why, ", ".join(sorted(codes)))
    else:
        log.info("every holding's price is heard again, or its market is closed: none is asked for")
    _told = codes
