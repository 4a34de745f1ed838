"""The only writer of `daily_prices` (일봉): the newest day every evening, and the past on request.

Prices are adjusted for splits and issues (수정주가), so a corporate action changes a stock's whole past: if a stored
price and the broker's differ, all of the stock's days are fetched again. A day is stored once its last phase is over.
The progress of a stock's backfill is a row, so another process can continue an interrupted one, page by page.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from time import monotonic

from django.db import transaction
from django.db.models import Min

from aegis.broker import Broker, BrokerError, DayPrice, Refused
from aegis.sessions import KST
from infra.advisory_lock import advisory_lock
from market import queries
from market.models import DailyPrice, PriceBackfill

log = logging.getLogger(__name__)

# rows of a page of the daily chart
PAGE = 100
# how far an evening's fetch goes back, for missed days and adjusted prices
OVERLAP = timedelta(days=30)
FIGURES = ["open", "high", "low", "close", "volume"]
TURN_SECONDS = 20.0
LOCK_NAME = "backfill"

Prices = Sequence[DayPrice]


def sync_daily_prices(broker: Broker, codes: Iterable[str], *, last: date, now: datetime) -> int:
    """Fetch the newest days of each stock up to `last`, a final day; return how many rows were stored.

    A stock that the broker refuses is logged and skipped. Raises NotSent, OutcomeUnknown.
    """
    stored = 0
    for code in codes:
        try:
            prices = broker.daily_chart(code, last - OVERLAP, last)
        except Refused as refusal:
            log.warning("no daily prices of %s: %s", code, refusal)
            continue
        if _is_adjusted(code, prices):
            log.warning("the prices of %s were adjusted for a split or an issue: fetching its past again", code)
            _restart_backfill(code, now=now)
        _keep(code, prices)
        stored += len(prices)
    return stored


def _is_adjusted(code: str, prices: Prices) -> bool:
    """Whether the close of a stored day differs from the broker's."""
    stored_closes = dict(
        DailyPrice.objects.filter(stock_code=code, date__in=[p.day for p in prices]).values_list("date", "close")
    )
    return any(stored_closes.get(price.day, price.close) != price.close for price in prices)


@transaction.atomic
def _restart_backfill(code: str, *, now: datetime) -> None:
    defaults = {"since": _oldest(code, now.astimezone(KST).date()), "updated_at": now}
    row, is_new = PriceBackfill.objects.select_for_update().get_or_create(pk=code, defaults=defaults)
    if not is_new:
        _reset(row)
        row.updated_at = now
        row.save()


def _reset(row: PriceBackfill) -> None:
    """Restart the backfill of a stock, from the oldest stored day if that is earlier."""
    row.since = _oldest(row.stock_code, row.since)
    row.reached, row.through, row.is_done, row.failure = None, None, False, ""


def _oldest(code: str, day: date) -> date:
    """Return the oldest stored day of a stock, or `day` if that is older."""
    oldest = DailyPrice.objects.filter(stock_code=code).aggregate(day=Min("date"))["day"]
    return min(oldest or day, day)


def _keep(code: str, prices: Prices) -> None:
    DailyPrice.objects.bulk_create(
        [
            DailyPrice(stock_code=code, date=price.day, **{name: getattr(price, name) for name in FIGURES})
            for price in prices
        ],
        update_conflicts=True,
        unique_fields=["stock_code", "date"],
        update_fields=FIGURES,
    )


@transaction.atomic
def want(codes: Iterable[str], since: date, *, last: date, now: datetime) -> None:
    """Request the backfill of these stocks from `since` to `last`. Days already fetched are not fetched again."""
    requested = set(codes)
    for row in PriceBackfill.objects.select_for_update().filter(pk__in=requested).order_by("pk"):
        row.is_done = row.is_done and row.since <= since and row.through is not None and row.through >= last
        row.since, row.failure, row.updated_at = min(row.since, since), "", now
        row.save()
    PriceBackfill.objects.bulk_create(
        [PriceBackfill(pk=code, since=since, updated_at=now) for code in sorted(requested)], ignore_conflicts=True
    )


def unfinished() -> list[str]:
    """Return the codes of the stocks whose backfill is not done, without those that the broker refused."""
    return list(PriceBackfill.objects.filter(is_done=False, failure="").values_list("pk", flat=True))


def fetch_next_page(broker: Broker, code: str, *, last: date, now: datetime) -> PriceBackfill:
    """Fetch the next page of a stock's backfill, newest days first. Raises NotSent, OutcomeUnknown: no change then."""
    row = PriceBackfill.objects.get(pk=code)
    first, until = _next_page(row, last)
    prices: Prices = ()
    failure = ""
    try:
        if first <= until:
            prices = broker.daily_chart(code, first, until)
    except Refused as refusal:
        failure = str(refusal)[:200]
    return _take(row, prices, failure, last=last, now=now)


def _next_page(row: PriceBackfill, last: date) -> tuple[date, date]:
    """Return the first and the last day of the next page."""
    if row.through is None or row.reached is None:
        return row.since, last
    if row.through < last:
        return row.through - OVERLAP, last
    return row.since, row.reached - timedelta(days=1)


@transaction.atomic
def _take(requested: PriceBackfill, prices: Prices, failure: str, *, last: date, now: datetime) -> PriceBackfill:
    """Store a page, unless the row has changed since the request: then the page is requested again."""
    row = PriceBackfill.objects.select_for_update().get(pk=requested.pk)
    if _state(row) != _state(requested):
        return row
    if failure:
        row.failure = failure
    elif row.through is None or row.reached is None or row.through >= last:
        _go_back(row, prices)
        row.through = row.through or last
    else:
        _catch_up(row, prices, last)
    row.updated_at = now
    row.save()
    return row


def _state(row: PriceBackfill) -> tuple[object, ...]:
    return row.since, row.reached, row.through, row.is_done, row.failure, row.updated_at


def _go_back(row: PriceBackfill, prices: Prices) -> None:
    """Store a page of the past, back to `since` at most: a short page is the last one."""
    reached = row.since if len(prices) < PAGE else prices[-1].day
    if _is_adjusted(row.stock_code, prices):
        row.since = _oldest(row.stock_code, row.since)
    _keep(row.stock_code, prices)
    # a stock that was listed after `since` has no older days
    row.reached, row.is_done = reached, reached <= row.since


def _catch_up(row: PriceBackfill, prices: Prices, last: date) -> None:
    """Store the days since the last run. If they fill a page, or prices were adjusted, restart the backfill."""
    if len(prices) == PAGE or _is_adjusted(row.stock_code, prices):
        _reset(row)
        return
    _keep(row.stock_code, prices)
    row.through = last
    row.is_done = row.reached is not None and row.reached <= row.since


def continue_backfill(broker: Broker, *, last: date, now: datetime) -> int:
    """Fetch pages of unfinished backfills for TURN_SECONDS at most; return how many pages."""
    ends_at, pages = monotonic() + TURN_SECONDS, 0
    with advisory_lock(LOCK_NAME) as is_ours:
        for code in unfinished() if is_ours else ():
            is_done = False
            while not is_done and monotonic() < ends_at:
                try:
                    row = fetch_next_page(broker, code, last=last, now=now)
                except BrokerError as error:
                    log.info("the backfill of %s waits: %s", code, error)
                    return pages
                pages += 1
                is_done = row.is_done or bool(row.failure)
    return pages


def sync_missing(broker: Broker, codes: Iterable[str], *, now: datetime) -> None:
    """Fetch the prices of the last final day for those of these stocks that lack them. Raises BrokerError."""
    last = queries.last_final_day(now)
    stored_codes = set(DailyPrice.objects.filter(date=last).values_list("stock_code", flat=True))
    sync_daily_prices(broker, sorted(set(codes) - stored_codes), last=last, now=now)
