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

from aegis.broker import Broker, BrokerError, DayPrice, Refused
from market.models import DailyPrice, PriceBackfill
from market.turns import only_one

log = logging.getLogger(__name__)

# rows of a page of the daily chart
PAGE = 100
# what an evening looks back on: days somebody missed, and prices that were adjusted
OVERLAP = timedelta(days=30)
FIGURES = ["open", "high", "low", "close", "volume"]
TURN_SECONDS = 20.0
ERRAND = "backfill"


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


def _is_adjusted(code: str, prices: Sequence[DayPrice]) -> bool:
    """Whether a day that we keep closed at another price by now."""
    kept = dict(
        DailyPrice.objects.filter(stock_code=code, date__in=[p.day for p in prices]).values_list("date", "close")
    )
    return any(kept.get(price.day, price.close) != price.close for price in prices)


def _want_anew(code: str, *, now: datetime) -> None:
    oldest = DailyPrice.objects.filter(stock_code=code).order_by("date").values_list("date", flat=True).first()
    row, is_new = PriceBackfill.objects.get_or_create(pk=code, defaults={"since": oldest, "updated_at": now})
    if not is_new:
        _begin_again(row)
        row.updated_at = now
        row.save()


def _begin_again(row: PriceBackfill) -> None:
    row.reached, row.through, row.is_done, row.failure = None, None, False, ""


def _keep(code: str, prices: Sequence[DayPrice]) -> None:
    DailyPrice.objects.bulk_create(
        [
            DailyPrice(stock_code=code, date=price.day, **{name: getattr(price, name) for name in FIGURES})
            for price in prices
        ],
        update_conflicts=True,
        unique_fields=["stock_code", "date"],
        update_fields=FIGURES,
    )


def want(codes: Iterable[str], since: date, *, last: date, now: datetime) -> None:
    """Have the past of these stocks fetched from `since` to `last`; what was fetched already is not again."""
    wanted = set(codes)
    for row in PriceBackfill.objects.filter(pk__in=wanted):
        row.is_done = row.is_done and row.since <= since and row.through is not None and row.through >= last
        row.since, row.failure, row.updated_at = min(row.since, since), "", now
        row.save()
    known = set(PriceBackfill.objects.filter(pk__in=wanted).values_list("pk", flat=True))
    PriceBackfill.objects.bulk_create(
        [PriceBackfill(pk=code, since=since, updated_at=now) for code in sorted(wanted - known)], ignore_conflicts=True
    )


def unfinished() -> list[str]:
    """Return whose past is not fetched yet, but those the broker refused."""
    return list(PriceBackfill.objects.filter(is_done=False, failure="").values_list("pk", flat=True))


def advance(broker: Broker, code: str, *, last: date, now: datetime) -> PriceBackfill:
    """Fetch one more page of a stock's past, the newest first. Raises NotSent, OutcomeUnknown: nothing changed then."""
    row = PriceBackfill.objects.get(pk=code)
    try:
        if row.through is None or row.reached is None:
            _fetch_back(broker, row, last)
            row.through = last
        elif row.through < last:
            _catch_up(broker, row, last)
        else:
            _fetch_back(broker, row, row.reached - timedelta(days=1))
    except Refused as refusal:
        row.failure = str(refusal)[:200]
    row.updated_at = now
    row.save()
    return row


def _fetch_back(broker: Broker, row: PriceBackfill, last: date) -> None:
    prices = broker.daily_chart(row.stock_code, row.since, last) if last >= row.since else ()
    _keep(row.stock_code, prices)
    row.is_done = len(prices) < PAGE or prices[-1].day <= row.since
    # a stock listed later than wanted has no more
    row.reached = row.since if row.is_done else prices[-1].day


def _catch_up(broker: Broker, row: PriceBackfill, last: date) -> None:
    """Fetch what came since the last time; where that is more than a page, or prices were adjusted, begin again."""
    assert row.through is not None
    prices = broker.daily_chart(row.stock_code, row.through - OVERLAP, last)
    if len(prices) == PAGE or _is_adjusted(row.stock_code, prices):
        _begin_again(row)
        return
    _keep(row.stock_code, prices)
    row.through = last
    row.is_done = row.reached is not None and row.reached <= row.since


def carry_on(broker: Broker, *, last: date, now: datetime) -> int:
    """Fetch pages of what is not done yet, for a while; return how many."""
    ends_at, pages = monotonic() + TURN_SECONDS, 0
    with only_one(ERRAND) as is_ours:
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
