"""The only writer of the calendar and the stock master."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta

from django.db import transaction
from django.db.models import Max

from aegis import sessions
from aegis.broker import Broker, BrokerError, Listing, OutcomeUnknown, Refused
from aegis.sessions import KST, DayKind, Phase
from aegis.terms import Board
from market import calendar
from market.models import Stock, TradingDay, TradingSession

log = logging.getLogger(__name__)

# how many days ahead an operator can see and correct
DAYS_AHEAD = 30
# the list of all stocks: from when the day's list is available, and the least part of a board's last list that it must
# have. UNVERIFIED: the hour; a first morning settles it
LISTED_FROM = time(7, 0)
LEAST_OF_A_BOARD = 0.8
LISTED_FIELDS = ["standard_code", "name", "board", "instrument", "sector", "is_halted", "listed_on"]
BATCH = 1_000
SATURDAY = 5


def sync_calendar(broker: Broker, first: date, *, now: datetime) -> int:
    """Store the coming days and their phases; return how many days the broker's calendar has.

    Days that are missing or implausible there fall back to the calendar library, and are requested again. A day that
    an operator corrected is not changed.
    """
    open_by_day = _ask_calendar(broker, first)
    days = [first + timedelta(days=offset) for offset in range(DAYS_AHEAD)]
    rows = TradingDay.objects.in_bulk(days)
    for day in sorted({*days, *open_by_day}):
        _keep_day(day, rows.get(day), open_by_day.get(day), now=now)
    return len(open_by_day)


def _ask_calendar(broker: Broker, first: date) -> dict[date, bool]:
    """Return which days are open by the broker, without implausible days; empty if the whole calendar is."""
    try:
        calendar_days = broker.calendar(first)
    except BrokerError as error:
        log.warning("the broker's calendar cannot be read, the library's is used: %s", error)
        return {}
    open_by_day = {day.day: day.is_open for day in calendar_days if not (day.is_open and day.day.weekday() >= SATURDAY)}
    if len(open_by_day) < len(calendar_days):
        log.warning(
            "the broker's calendar has %d duplicate days or open weekend days", len(calendar_days) - len(open_by_day)
        )
    if not any(is_open for day, is_open in open_by_day.items() if calendar.is_trading_day(day)):
        log.warning("the broker's calendar has no open day from %s on: the library's is used", first)
        return {}
    return open_by_day


@transaction.atomic
def _keep_day(day: date, row: TradingDay | None, broker_is_open: bool | None, *, now: datetime) -> None:
    source = TradingDay.Source.LIBRARY if broker_is_open is None else TradingDay.Source.BROKER
    if row is not None and row.source == TradingDay.Source.OPERATOR:
        if broker_is_open is not None and broker_is_open != row.is_open:
            log.warning("%s: the broker says open=%s, the operator's open=%s stands", day, broker_is_open, row.is_open)
        TradingDay.objects.filter(pk=day).update(synced_at=now)
        return
    if row is not None and broker_is_open is None and row.source == TradingDay.Source.BROKER:
        return  # the broker reported this day before
    library_is_open = calendar.is_trading_day(day)
    is_open = library_is_open if broker_is_open is None else broker_is_open
    if is_open != library_is_open:
        log.warning("%s: the broker says open=%s, the calendar library open=%s", day, is_open, library_is_open)
    defaults = {
        "is_open": is_open,
        "kind": calendar.kind_of(day) if is_open else DayKind.ORDINARY,
        "source": source,
        "note": calendar.closed_for(day) or "",
        "synced_at": now,
    }
    day_row, _ = TradingDay.objects.update_or_create(pk=day, defaults=defaults)
    if [session.as_phase() for session in day_row.sessions.all()] != _phases(day_row):
        reset_phases(day_row)


def _phases(day: TradingDay) -> list[Phase]:
    """Return the phases of a day by the rules of its kind, in the order of its sessions."""
    phases = sessions.phases_of(day.date, DayKind(day.kind)) if day.is_open else ()
    return sorted(phases, key=lambda phase: (phase.market, phase.starts_at, phase.name))


@transaction.atomic
def reset_phases(day: TradingDay) -> None:
    """Replace a day's phases by those of the rules of its kind."""
    day.sessions.all().delete()
    TradingSession.objects.bulk_create(
        TradingSession(
            day=day,
            market=phase.market,
            phase=phase.name,
            starts_at=phase.starts_at,
            ends_at=phase.ends_at,
            matching=phase.matching,
            order_kinds=" ".join(sorted(kind.value for kind in phase.kinds)),
        )
        for phase in _phases(day)
    )


@transaction.atomic
def correct_day(day: TradingDay, *, by_the_rules: bool, now: datetime) -> None:
    """Mark a day as corrected by an operator; `by_the_rules` also resets its phases to those of its kind."""
    day.source, day.synced_at = TradingDay.Source.OPERATOR, now
    day.save(update_fields=["source", "synced_at"])
    if by_the_rules:
        reset_phases(day)


def sync_stock(broker: Broker, code: str, *, now: datetime) -> Stock:
    """Request one row of the stock master and store it. Raises BrokerError; Refused if there is no such stock."""
    info = broker.stock(code)
    stock, _ = Stock.objects.update_or_create(
        pk=code,
        defaults={
            "name": info.name,
            "board": info.board,
            "instrument": info.instrument,
            "sector": info.sector,
            "trades_on_nxt": info.trades_on_nxt,
            "is_halted": info.is_halted,
            "synced_at": now,
        },
    )
    return stock


def sync_listings(broker: Broker, *, now: datetime) -> int:
    """Update the stock master from the broker's list of all stocks; return how many are listed.

    The data of `sync_stock` that the list lacks or has less exactly (NXT, the sector) stays. A list that is broken, or
    lacks too much of a board, changes nothing. Raises BrokerError.
    """
    # the last line of a duplicate code counts: one statement cannot write a row twice
    listings = list({listing.code: listing for listing in broker.listings()}.values())
    _check_boards(listings)
    day = now.astimezone(KST).date()
    rows = [
        Stock(
            code=listing.code,
            standard_code=listing.standard_code,
            name=listing.name,
            board=listing.board,
            instrument=listing.instrument,
            sector=listing.sector,
            is_halted=listing.is_halted,
            listed_on=day,
        )
        for listing in listings
    ]
    with transaction.atomic():
        synced_sectors = dict(Stock.objects.exclude(synced_at=None).exclude(sector="").values_list("pk", "sector"))
        for row in rows:
            row.sector = synced_sectors.get(row.code, row.sector)
        Stock.objects.bulk_create(
            rows, BATCH, update_conflicts=True, unique_fields=["code"], update_fields=LISTED_FIELDS
        )
    return len(rows)


def sync_listings_of_the_day(broker: Broker, *, now: datetime) -> None:
    """Call `sync_listings` once a day, when the day's list is available. Raises BrokerError."""
    moment = now.astimezone(KST)
    if moment.time() >= LISTED_FROM and not Stock.objects.filter(listed_on=moment.date()).exists():
        log.info("%d stocks are listed", sync_listings(broker, now=now))


def _check_boards(listings: Sequence[Listing]) -> None:
    """Compare a list with the previous one. Raises OutcomeUnknown if a board has shrunk below LEAST_OF_A_BOARD."""
    newest = Stock.objects.aggregate(day=Max("listed_on"))["day"]
    previous_counts = Counter(
        Stock.objects.exclude(listed_on=None).filter(listed_on=newest).values_list("board", flat=True)
    )
    counts = Counter(listing.board for listing in listings)
    for board, count in previous_counts.items():
        if counts[Board(board)] < count * LEAST_OF_A_BOARD:
            message = (
                f"the list of {board} has {counts[Board(board)]} stocks where there were {count}: it is not believed"
            )
            raise OutcomeUnknown(message, call="listings")


def sync_stocks(broker: Broker, codes: Iterable[str], *, now: datetime) -> int:
    """Request the master rows of these stocks, unless already requested today; return how many were stored.

    A stock that the broker refuses is logged and skipped. Raises NotSent, OutcomeUnknown.
    """
    synced_codes = set(Stock.objects.filter(synced_at__date=now.astimezone(KST).date()).values_list("pk", flat=True))
    stored = 0
    for code in sorted(set(codes) - synced_codes):
        try:
            sync_stock(broker, code, now=now)
            stored += 1
        except Refused as refusal:
            log.warning("the broker has no master data of %s: %s", code, refusal)
    return stored


def sync_calendar_of_the_day(broker: Broker, *, now: datetime) -> None:
    """Request the calendar unless the broker has reported today: it asks for at most one request a day.

    If today is known from the library only, the next call requests it again.
    """
    today = now.astimezone(KST).date()
    reported_days = TradingDay.objects.exclude(source=TradingDay.Source.LIBRARY)
    if not reported_days.filter(pk=today, synced_at__date=today).exists():
        sync_calendar(broker, today, now=now)
