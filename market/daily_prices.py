"""The only writer of `daily_prices` (일봉): each evening's, and the past on demand.

Prices are adjusted for splits and issues (수정주가), so a corporate action rewrites a stock's whole past: where
a price we keep and the broker's no longer agree, that stock's past is fetched anew. A day is kept once its
last phase is over. How far a stock's past was fetched is a row, so whoever is interrupted is followed by
whoever comes next, page by page.
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
# what an evening looks back on: days somebody missed, and prices that were adjusted
OVERLAP = timedelta(days=30)
FIGURES = ["open", "high", "low", "close", "volume"]
TURN_SECONDS = 20.0
ERRAND = "backfill"

Prices = Sequence[DayPrice]


def sync(broker: Broker, codes: Iterable[str], *, last: date, now: datetime) -> int:
    """Fetch the newest days of each stock up to `last`, a final one; return how many rows were told.

    Raises NotSent, OutcomeUnknown; a stock that the broker refuses is told of and left out.
    """
    kept = 0
    for code in codes:
        try:
            prices = broker.daily_chart(code, last - OVERLAP, last)
        except Refused as refusal:
            log.warning("no daily prices of %s: %s", code, refusal)
            continue
        if _is_adjusted(code, prices):
            log.warning("the prices of %s were adjusted for a split or an issue: its past is fetched anew", code)
            _want_anew(code, now=now)
        _keep(code, prices)
        kept += len(prices)
    return kept


def _is_adjusted(code: str, prices: Prices) -> bool:
    """Whether a day that we keep closed at another price by now."""
    kept = dict(
        DailyPrice.objects.filter(stock_code=code, date__in=[p.day for p in prices]).values_list("date", "close")
    )
    return any(kept.get(price.day, price.close) != price.close for price in prices)


@transaction.atomic
def _want_anew(code: str, *, now: datetime) -> None:
    defaults = {"since": _oldest(code, now.astimezone(KST).date()), "updated_at": now}
    row, is_new = PriceBackfill.objects.select_for_update().get_or_create(pk=code, defaults=defaults)
    if not is_new:
        _begin_again(row)
        row.updated_at = now
        row.save()


def _begin_again(row: PriceBackfill) -> None:
    """Have all of a stock's past fetched anew, those days too that were kept before anybody wanted its past."""
    row.since = _oldest(row.stock_code, row.since)
    row.reached, row.through, row.is_done, row.failure = None, None, False, ""


def _oldest(code: str, day: date) -> date:
    """Return the oldest day we keep of a stock, `day` where that is older."""
    kept = DailyPrice.objects.filter(stock_code=code).aggregate(day=Min("date"))["day"]
    return min(kept or day, day)


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
    """Have the past of these stocks fetched from `since` to `last`; what was fetched already is not again."""
    wanted = set(codes)
    for row in PriceBackfill.objects.select_for_update().filter(pk__in=wanted).order_by("pk"):
        row.is_done = row.is_done and row.since <= since and row.through is not None and row.through >= last
        row.since, row.failure, row.updated_at = min(row.since, since), "", now
        row.save()
    PriceBackfill.objects.bulk_create(
        [PriceBackfill(pk=code, since=since, updated_at=now) for code in sorted(wanted)], ignore_conflicts=True
    )


def unfinished() -> list[str]:
    """Return whose past is not fetched yet, but those the broker refused."""
    return list(PriceBackfill.objects.filter(is_done=False, failure="").values_list("pk", flat=True))


def advance(broker: Broker, code: str, *, last: date, now: datetime) -> PriceBackfill:
    """Fetch one more page of a stock's past, the newest first. Raises NotSent, OutcomeUnknown: nothing changed then."""
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
    """Return the first and the last day of what is to be asked for next."""
    if row.through is None or row.reached is None:
        return row.since, last
    if row.through < last:
        return row.through - OVERLAP, last
    return row.since, row.reached - timedelta(days=1)


@transaction.atomic
def _take(seen: PriceBackfill, prices: Prices, failure: str, *, last: date, now: datetime) -> PriceBackfill:
    """Keep a page, unless somebody has wanted the past otherwise while it was on its way: then it is asked for anew."""
    row = PriceBackfill.objects.select_for_update().get(pk=seen.pk)
    if _state(row) != _state(seen):
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
    """Keep a page that begins where the past was wanted from: a short one is all that there is."""
    reached = row.since if len(prices) < PAGE else prices[-1].day
    if _is_adjusted(row.stock_code, prices):
        row.since = _oldest(row.stock_code, row.since)
    _keep(row.stock_code, prices)
    # a stock listed later than wanted has no more
    row.reached, row.is_done = reached, reached <= row.since


def _catch_up(row: PriceBackfill, prices: Prices, last: date) -> None:
    """Keep what came since the last time; where that is more than a page, or prices were adjusted, begin again."""
    if len(prices) == PAGE or _is_adjusted(row.stock_code, prices):
        _begin_again(row)
        return
    _keep(row.stock_code, prices)
    row.through = last
    row.is_done = row.reached is not None and row.reached <= row.since


def carry_on(broker: Broker, *, last: date, now: datetime) -> int:
    """Fetch pages of what is not done yet, for a while; return how many."""
    ends_at, pages = monotonic() + TURN_SECONDS, 0
    with advisory_lock(ERRAND) as is_ours:
        for code in unfinished() if is_ours else ():
            is_done = False
            while not is_done and monotonic() < ends_at:
                try:
                    row = advance(broker, code, last=last, now=now)
                except BrokerError as error:
                    log.info("the past of %s waits: %s", code, error)
                    return pages
                pages += 1
                is_done = row.is_done or bool(row.failure)
    return pages


def sync_missing(broker: Broker, codes: Iterable[str], *, now: datetime) -> None:
    """Fetch what is missing of the last final day's prices of these stocks. Raises BrokerError."""
    last = queries.last_final_day(now)
    known = set(DailyPrice.objects.filter(date=last).values_list("stock_code", flat=True))
    sync(broker, sorted(set(codes) - known), last=last, now=now)
