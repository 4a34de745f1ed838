"""The only writer of `market_macro` and `program_trades`: figures of the whole market, minute by minute.

The feeds come first (`stream.macro`); `sync` requests from the broker, once, the figures that a minute still lacks.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from django.db import transaction

from aegis import basis
from aegis.broker import Broker, BrokerError, Refused
from aegis.sessions import KST
from aegis.terms import Market
from market import queries
from market.models import MarketMacro, ProgramTrade

log = logging.getLogger(__name__)

KOSPI, KOSDAQ, KOSPI200 = "0001", "1001", "2001"
INDEX_FIELDS = {KOSPI: "kospi", KOSDAQ: "kosdaq", KOSPI200: "kospi200"}
PROGRAM_FIELDS = ["sold_qty", "bought_qty", "net_qty", "net_won"]

Figures = Mapping[str, Decimal | int | str]


def minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


@transaction.atomic
def store_figures(figures: Figures, *, at: datetime) -> MarketMacro:
    """Set figures of the minute of `at`, by field, and calculate its basis if the index and the future are known."""
    row, _ = MarketMacro.objects.select_for_update().get_or_create(time=minute_of(at))
    for name, value in figures.items():
        setattr(row, name, value)
    if row.kospi200 and row.kospi200_futures:
        row.basis = basis.basis(row.kospi200, row.kospi200_futures)
        row.basis_rate = basis.basis_rate_pct(row.kospi200, row.kospi200_futures)
        row.regime = basis.regime(row.basis_rate)
    row.save()
    return row


def store_programs(figures: Mapping[str, Mapping[str, int]], *, at: datetime) -> None:
    """Set the program trading of each stock since the open, as of the minute of `at`. `figures` by code and field."""
    ProgramTrade.objects.bulk_create(
        [ProgramTrade(stock_code=code, time=minute_of(at), **values) for code, values in figures.items()],
        update_conflicts=True,
        unique_fields=["stock_code", "time"],
        update_fields=PROGRAM_FIELDS,
    )


def sync_macro(broker: Broker, *, now: datetime) -> MarketMacro | None:
    """Request the figures that the current minute lacks; None if KRX is closed or no figure was received.

    A figure that cannot be read does not prevent the others.
    """
    if not queries.is_market_open(Market.KRX, now):
        return None
    row = MarketMacro.objects.filter(time=minute_of(now)).first() or MarketMacro()
    figures: dict[str, Any] = {}
    for name, fetch in _missing_figures(broker, row, now):
        try:
            figures |= fetch()
        except Refused as refusal:  # paper trading does not offer every figure
            log.info("%s is not available: %s", name, refusal)
        except BrokerError as error:
            log.warning("%s cannot be read now: %s", name, error)
    return store_figures(figures, at=now) if figures else None


def _missing_figures(broker: Broker, row: MarketMacro, now: datetime) -> Iterable[tuple[str, Callable[[], Figures]]]:
    if row.kospi200_futures is None or row.kospi200 is None:
        yield "the future", lambda: _future(broker, now)
    for code in (KOSPI, KOSDAQ):
        if getattr(row, INDEX_FIELDS[code]) is None:
            yield f"index {code}", partial(_index, broker, code)
    yield "who holds futures", lambda: _positions(broker)


def _index(broker: Broker, code: str) -> Figures:
    return {INDEX_FIELDS[code]: broker.index(code)}


def _future(broker: Broker, now: datetime) -> Figures:
    quote = broker.future(near_future(broker, now))
    return {"futures_code": quote.code, "kospi200_futures": quote.points, "kospi200": quote.kospi200}


def near_future(broker: Broker, now: datetime) -> str:
    """Return the contract that expires next, requested from the broker once a day."""
    return queries.futures_code(now.astimezone(KST).date()) or broker.near_future()


def _positions(broker: Broker) -> Figures:
    positions = broker.futures_positions()
    return {
        "foreign_net": positions.foreign,
        "institution_net": positions.institution,
        "individual_net": positions.individual,
    }
