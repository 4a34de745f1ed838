"""Looks at armed stops whose feed says nothing: the broker is asked for the price instead, and people are told.

A quiet stock is no deaf feed: what is told is a feed that nobody holds, or a price that it did not tell.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError
from django.utils.translation import gettext

from aegis import stops as rules
from aegis.broker import Broker, BrokerError, Quote
from aegis.sessions import KST, Matching, phases_at
from aegis.stops import Fired, NewHigh
from aegis.terms import Market
from kis.status import StreamStatus
from market import service as market
from market.models import DailyPrice, Stock
from market.turns import only_one
from orders import stops
from orders.models import StopRule
from portfolio.models import PortfolioEvent

log = logging.getLogger(__name__)

FEEDS = {Market.KRX: "H0STCNT0", Market.NXT: "H0NXCNT0"}
# no trade for so long is worth a question; a feed that holds the stock and tells of none is asked about less often
SILENT_AFTER = timedelta(seconds=15)


def watch(broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> list[int]:
    """Keep armed stops in step with their shares, look where their feed is silent; return what that triggered."""
    stops.keep(now())
    if market.get_available_market(now()) is None:
        return []
    with only_one("stop-watch") as is_ours:
        return [row.pk for row in stops.armed() if _is_fired(row, broker, status, now)] if is_ours else []


def _is_fired(row: StopRule, broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> bool:
    venue = _venue(row.stock_code, now())
    try:
        return venue is not None and _look(row, venue, broker, status, now)
    except (OperationalError, InterfaceError):
        raise
    except Exception:  # whatever is wrong with one stop, the others are looked at
        log.exception("stop %s: it cannot be watched", row.pk)
        return False


def ask(pk: int, broker: Broker, now: Callable[[], datetime]) -> bool:
    """Ask what the stock of an armed stop trades at, for its feed told a price that the day cannot have; whether it
    fired. Raises BrokerError.
    """
    row = StopRule.objects.filter(pk=pk, state=StopRule.State.ARMED).first()
    venue = _venue(row.stock_code, now()) if row else None
    if row is None or venue is None:
        return False
    return judge(row, broker.quote(row.stock_code, venue), now())


def _venue(code: str, now: datetime) -> Market | None:
    """Return where a stock trades now, None where it does not. Before and after hours some trade on KRX alone."""
    venue = market.get_available_market(now)
    if venue is Market.NXT and not Stock.objects.filter(pk=code, trades_on_nxt=True).exists():
        venue = Market.KRX
    return venue if venue and _trades(venue, now) else None


def _trades(venue: Market, now: datetime) -> bool:
    return any(phase.matching is Matching.CONTINUOUS for phase in phases_at(market.today(now), venue, now))


def _look(row: StopRule, venue: Market, broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> bool:
    """Ask for the price where the feed told none lately, and judge it; whether the stop fired."""
    is_held = status.is_alive and f"{FEEDS[venue]}:{row.stock_code}" in status.held
    if is_held and row.heard_at is not None and now() - row.heard_at < SILENT_AFTER:
        stops.note_silence(row, is_silent=False, words=gettext("its trades are heard again"), at=now())
        return False
    try:
        quote = broker.quote(row.stock_code, venue)
    except BrokerError as error:
        words = gettext("its trades are not heard, and its price cannot be asked for: {error}").format(error=error)
        stops.note_silence(row, is_silent=True, words=words, at=now())
        log.warning("stop %s: its price cannot be asked for: %s", row.pk, error)
        return False
    if not is_held or quote.price != row.heard_price:
        words = gettext("its trades are not heard: the broker is asked every few seconds instead ({price:,} won)")
        stops.note_silence(row, is_silent=True, words=words.format(price=quote.price), at=now())
    return judge(row, quote, now())


def judge(row: StopRule, quote: Quote, at: datetime) -> bool:
    """Hold an armed stop against a price that was asked for; whether it fired."""
    average = stops.average_price(row.stock_code, at)
    if average is None:
        return False
    close = closes([row.stock_code], at).get(row.stock_code)
    if quote.price not in rules.plausible(close, quote):
        stops.note_implausible(row.pk, quote.price, at)
        return False
    verdict = rules.evaluate(row.rule(average), quote.price)
    if isinstance(verdict, NewHigh):
        stops.note_high(row.pk, verdict.price)
    return isinstance(verdict, Fired) and stops.trigger(row.pk, quote.price, at, seen="REST")


def closes(codes: list[str], now: datetime) -> dict[str, int]:
    """Return the won that each stock closed at last, of those whose close says something about today.

    One that is not the last day's says nothing, nor does one of before a split of today.
    """
    today = now.astimezone(KST).date()
    last = market.last_final_day(now)
    known = dict(DailyPrice.objects.filter(date=last, stock_code__in=codes).values_list("stock_code", "close"))
    changed = PortfolioEvent.objects.filter(stock_code__in=codes, at__date=today).values_list("stock_code", flat=True)
    return {code: close for code, close in known.items() if code not in set(changed)}
