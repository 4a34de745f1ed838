"""Compares each morning's base price (기준가) with the last close, and moves armed stops where they differ.

They differ on the morning of a distribution (권리락) or a split, when a share is worth less and nobody lost: until the
base price is counted in, a stop that was armed before holds fire. The close compared with is KRX's regular one, from
our own bar of the closing auction, or asked for once the broker's day has turned. Never the evening's daily price: it
contains trades of the after-market.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from time import monotonic

from django.utils.translation import gettext

from aegis import sessions
from aegis.broker import Broker, BrokerError, DayPrice, Quote
from aegis.sessions import KST
from aegis.terms import Market
from market import queries
from orders import krx_prices, stops
from orders.models import StopRule

log = logging.getLogger(__name__)

# so long before the first venue opens: time to ask for every stock at one call a second, and to report
# UNVERIFIED: that quotes are of the new day by then; the first recorded morning settles it. One that is not is known
# by its volume, and waited for
BEFORE_OPEN = timedelta(minutes=10)
REPORT_BEFORE_OPEN = timedelta(minutes=3)
# enough days to find the last one on which a stock that was halted had a price
LOOK_BACK = timedelta(days=60)
# adjusted prices are rounded to the won: a smaller ratio over days that were missed is none
SMALLEST = Decimal("0.01")
# what could not be asked for is tried again after so many seconds; a turn is over after so many, and the next goes on
TRY_AGAIN_SECONDS, TURN_SECONDS = 20.0, 10.0
# what the broker told and cannot be compared is asked about less and less: a day that has not turned yet, or a close
# that nobody knows
LONGEST_WAIT_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 600.0


class NotComparable(Exception):
    """What the broker tells says nothing of today's base price; it is asked at least once in `longest_seconds`."""

    def __init__(self, why: str, longest_seconds: float) -> None:
        super().__init__(why)
        self.longest_seconds = longest_seconds


def due(now: datetime) -> dict[str, list[StopRule]]:
    """Return the armed stops, by stock, whose base price of today is not counted in yet and may be asked for."""
    day, starts_at = now.astimezone(KST).date(), sessions.first_start(queries.today(now), now)
    if starts_at is None or now < starts_at - BEFORE_OPEN:
        return {}
    rows, opens = defaultdict(list), krx_prices.opens_at(now)
    for row in stops.armed():
        pause = row.looks.get("base_pause") or TRY_AGAIN_SECONDS
        tried_at = row.looks.get("base_at", 0.0)
        is_tried = 0 <= now.timestamp() - tried_at < pause and (now < opens or tried_at >= opens.timestamp())
        if (row.based_on is None or row.based_on < day) and not is_tried:
            rows[row.stock_code].append(row)
    return dict(rows)


def settle(broker: Broker, now: Callable[[], datetime]) -> None:
    """Count in the base price of today for every armed stop that lacks it; what fails is tried again."""
    ends_at = monotonic() + TURN_SECONDS
    for code, rows in due(now()).items():
        if monotonic() > ends_at:
            return
        _note_tried(rows, 0.0, now())
        try:
            _settle(code, rows, broker, now)
        except BrokerError as error:
            log.warning("the base price of %s cannot be compared: %s", code, error)
            _report(rows, gettext("its base price cannot be asked for: {error}").format(error=error), now())
        except NotComparable as reason:
            _note_tried(rows, reason.longest_seconds, now())
            _report(rows, str(reason), now())


def _note_tried(rows: list[StopRule], longest_seconds: float, at: datetime) -> None:
    """Note that the base price was asked about; the pause until the next time doubles up to `longest_seconds`."""
    for row in rows:
        looks = row.looks
        is_first = datetime.fromtimestamp(looks.get("base_at", 0.0), KST).date() != at.astimezone(KST).date()
        pause = 0.0 if is_first else looks.get("base_pause", 0.0)
        if longest_seconds:
            pause = min(longest_seconds, 2 * pause or TRY_AGAIN_SECONDS)
        row.looks = looks | {"base_at": at.timestamp(), "base_pause": pause}
        stops.note_looks(row.pk, row.looks)


def _settle(code: str, rows: list[StopRule], broker: Broker, now: Callable[[], datetime]) -> None:
    quote = broker.quote(code, Market.KRX)
    day, last = now().astimezone(KST).date(), _last_day(now())
    close = krx_prices.close_heard(code, last)
    if not krx_prices.is_of_today(quote, now(), broker):
        if quote.is_halted:
            why = gettext("it is halted: its base price is compared once KRX has opened")
            raise NotComparable(why, LONGEST_WAIT_SECONDS)
        raise NotComparable(gettext("the broker still tells the base price of the day before"), LONGEST_WAIT_SECONDS)
    if quote.base_price != close:
        close = _close_told(broker.daily_chart(code, last - LOOK_BACK, last, adjusted=False))
    if not close or not quote.base_price:
        why = gettext("its last close is not known, and the base price cannot be compared")
        raise NotComparable(why, LONGEST_PAUSE_SECONDS)
    ratio = Decimal(quote.base_price) / close
    words = gettext("base price {base:,} won, last close {close:,} won").format(base=quote.base_price, close=close)
    for row in rows:
        # an earlier version did not write down of which day a stop is; one armed today is of today
        is_new = row.based_on is None and row.counts_since.astimezone(KST).date() == day
        is_new = is_new or stops.is_in_todays_won(row, quote.base_price, day)
        moved = Decimal(1) if is_new else ratio * _missed(row, last, broker)
        stops.settle_base(row, quote.base_price, moved, words, day=day, at=now())


def settle_again(row: StopRule, quote: Quote, at: datetime) -> bool:
    """Count in the base price of a quote of KRX's session that tells another than the one counted in before the open.

    Whether it did: the broker's day had not turned then.
    """
    day = at.astimezone(KST).date()
    is_same = quote.base_price in (0, row.base_price)
    if row.based_on != day or not row.base_price or is_same or at < krx_prices.opens_at(at):
        return False
    template = gettext("base price {base:,} won, told as {before:,} won before the open")
    words = template.format(base=quote.base_price, before=row.base_price)
    ratio = Decimal(quote.base_price) / row.base_price
    krx_prices.note_base_price(row.stock_code, quote.base_price, day)
    stops.settle_base(row, quote.base_price, ratio, words, day=day, at=at)
    return True


def _last_day(now: datetime) -> date:
    """Return the newest trading day before today."""
    midnight = now.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    return queries.last_final_day(midnight)


def _close_told(prices: Sequence[DayPrice]) -> int:
    """Return the close of the newest day that the broker's chart tells, 0 if it tells none."""
    return max(prices, key=lambda price: price.day).close if prices else 0


def _missed(row: StopRule, last: date, broker: Broker) -> Decimal:
    """Return the ratio of base prices of the trading days between the stop's last one and `last`, which nobody saw.

    On each of these days adjusted and raw closes part by the same ratio as the base price from the close before.
    """
    if row.based_on is None or row.based_on >= last:
        return Decimal(1)
    before, newest = (_adjustment(row.stock_code, day, broker) for day in (row.based_on, last))
    ratio = before / newest if before and newest else Decimal(1)
    return ratio if abs(ratio - 1) >= SMALLEST else Decimal(1)


def _adjustment(code: str, day: date, broker: Broker) -> Decimal | None:
    """Return the adjusted close over the raw one of the newest day up to `day` that both charts tell."""
    adjusted, raw = (
        {price.day: price.close for price in broker.daily_chart(code, day - LOOK_BACK, day, adjusted=is_adjusted)}
        for is_adjusted in (True, False)
    )
    both = [each for each in adjusted.keys() & raw.keys() if raw[each]]
    return Decimal(adjusted[max(both)]) / raw[max(both)] if both else None


def _report(rows: list[StopRule], why: str, at: datetime) -> None:
    """Report that stops hold fire, shortly before the first venue opens or later; until then it is tried again."""
    starts_at = sessions.first_start(queries.today(at), at)
    if starts_at is None or at < starts_at - REPORT_BEFORE_OPEN:
        return
    for row in rows:
        if row.based_on is not None:
            stops.note_held(row, why, at)
