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

# how far ahead an operator may look, and correct
DAYS_AHEAD = 30
# of the list of every stock: when the day's is there, and how much of a board may be gone from it since the last.
# UNVERIFIED: the hour; a first morning settles it
LISTED_FROM = time(7, 0)
LEAST_OF_A_BOARD = 0.8
LISTED_FIELDS = ["standard_code", "name", "board", "instrument", "sector", "is_halted", "listed_on"]
BATCH = 1_000
SATURDAY = 5


def sync_calendar(broker: Broker, first: date, *, now: datetime) -> int:
    """Lay down the coming days and their phases; return how many of them the broker told of.

    What it does not tell, or tells against all reason, a calendar library fills in, to be asked again. A day
    that an operator corrected stays as corrected.
    """
    told = _ask_calendar(broker, first)
    days = [first + timedelta(days=number) for number in range(DAYS_AHEAD)]
    known = TradingDay.objects.in_bulk(days)
    for day in sorted({*days, *told}):
        _keep_day(day, known.get(day), told.get(day), now=now)
    return len(told)


def _ask_calendar(broker: Broker, first: date) -> dict[date, bool]:
    """Return which days are open as far as the broker says so in earnest."""
    try:
        answer = broker.calendar(first)
    except BrokerError as error:
        log.warning("the broker's calendar is not to be had, the library's is used: %s", error)
        return {}
    told = {day.day: day.is_open for day in answer if not (day.is_open and day.day.weekday() >= SATURDAY)}
    if len(told) < len(answer):
        log.warning("the broker's calendar has %d days twice or open on a weekend", len(answer) - len(told))
    if not any(is_open for day, is_open in told.items() if calendar.is_trading_day(day)):
        log.warning("the broker's calendar knows no open day from %s on: the library's is used", first)
        return {}
    return told


@transaction.atomic
def _keep_day(day: date, row: TradingDay | None, told: bool | None, *, now: datetime) -> None:
    source = TradingDay.Source.LIBRARY if told is None else TradingDay.Source.BROKER
    if row is not None and row.source == TradingDay.Source.OPERATOR:
        if told is not None and told != row.is_open:
            log.warning("%s: the broker says open=%s, the operator's open=%s stands", day, told, row.is_open)
        TradingDay.objects.filter(pk=day).update(synced_at=now)
        return
    if row is not None and told is None and row.source == TradingDay.Source.BROKER:
        return  # it was told before
    ordinary = calendar.is_trading_day(day)
    is_open = ordinary if told is None else told
    if is_open != ordinary:
        log.warning("%s: the broker says open=%s, the calendar library open=%s", day, is_open, ordinary)
    defaults = {
        "is_open": is_open,
        "kind": calendar.kind_of(day) if is_open else DayKind.ORDINARY,
        "source": source,
        "note": calendar.closed_for(day) or "",
        "synced_at": now,
    }
    kept, _ = TradingDay.objects.update_or_create(pk=day, defaults=defaults)
    if [session.as_phase() for session in kept.sessions.all()] != _phases(kept):
        lay_phases(kept)


def _phases(day: TradingDay) -> list[Phase]:
    """Return the phases that the rules give a day, in the order of its sessions."""
    phases = sessions.phases_of(day.date, DayKind(day.kind)) if day.is_open else ()
    return sorted(phases, key=lambda phase: (phase.market, phase.starts_at, phase.name))


@transaction.atomic
def lay_phases(day: TradingDay) -> None:
    """Lay down a day's phases by the rules of its kind, instead of those it has."""
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
    """Keep a day as an operator has it; `by_the_rules` lays down the phases of its kind anew."""
    day.source, day.synced_at = TradingDay.Source.OPERATOR, now
    day.save(update_fields=["source", "synced_at"])
    if by_the_rules:
        lay_phases(day)


def sync_stock(broker: Broker, code: str, *, now: datetime) -> Stock:
    """Ask for one row of the stock master and keep it. Raises BrokerError; Refused where there is no such stock."""
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
    """Bring the stock master in step with the broker's list of every stock; return how many are listed.

    What the broker told of a stock by its code (NXT, its sector) stays. A list that is broken, or
    has lost a good part of a board, changes nothing. Raises BrokerError.
    """
    # of a code that is listed twice the last line counts: one statement cannot write a row twice
    found = list({each.code: each for each in broker.listings()}.values())
    _check_boards(found)
    day = now.astimezone(KST).date()
    rows = [
        Stock(
            code=each.code,
            standard_code=each.standard_code,
            name=each.name,
            board=each.board,
            instrument=each.instrument,
            sector=each.sector,
            is_halted=each.is_halted,
            listed_on=day,
        )
        for each in found
    ]
    with transaction.atomic():
        asked_for = dict(Stock.objects.exclude(synced_at=None).exclude(sector="").values_list("pk", "sector"))
        for row in rows:
            row.sector = asked_for.get(row.code, row.sector)
        Stock.objects.bulk_create(
            rows, BATCH, update_conflicts=True, unique_fields=["code"], update_fields=LISTED_FIELDS
        )
    return len(rows)


def sync_listings_of_the_day(broker: Broker, *, now: datetime) -> None:
    """Do so once a day, when the day's list is there. Raises BrokerError."""
    moment = now.astimezone(KST)
    if moment.time() >= LISTED_FROM and not Stock.objects.filter(listed_on=moment.date()).exists():
        log.info("%d stocks are listed", sync_listings(broker, now=now))


def _check_boards(found: Sequence[Listing]) -> None:
    """Hold a list against the one before it. Raises OutcomeUnknown where a board has shrunk beyond belief."""
    newest = Stock.objects.aggregate(day=Max("listed_on"))["day"]
    known = Counter(Stock.objects.exclude(listed_on=None).filter(listed_on=newest).values_list("board", flat=True))
    listed = Counter(each.board for each in found)
    for board, count in known.items():
        if listed[Board(board)] < count * LEAST_OF_A_BOARD:
            words = (
                f"the list of {board} has {listed[Board(board)]} stocks where there were {count}: it is not believed"
            )
            raise OutcomeUnknown(words, call="listings")


def sync_stocks(broker: Broker, codes: Iterable[str], *, now: datetime) -> int:
    """Ask for the master's rows of these stocks that were not asked for today; return how many were learned.

    A stock the broker does not know is told of and left out. Raises NotSent, OutcomeUnknown.
    """
    known = set(Stock.objects.filter(synced_at__date=now.astimezone(KST).date()).values_list("pk", flat=True))
    learned = 0
    for code in sorted(set(codes) - known):
        try:
            sync_stock(broker, code, now=now)
            learned += 1
        except Refused as refusal:
            log.warning("the stock master has nothing on %s: %s", code, refusal)
    return learned


def sync_calendar_of_the_day(broker: Broker, *, now: datetime) -> None:
    """Ask for the calendar if today was not told yet: the broker wishes to be asked once a day at most.

    A day that only the library knows is asked for again the next time. Raises BrokerError.
    """
    today = now.astimezone(KST).date()
    told = TradingDay.objects.exclude(source=TradingDay.Source.LIBRARY)
    if not told.filter(pk=today, synced_at__date=today).exists():
        sync_calendar(broker, today, now=now)
