"""Compares each morning's base price (기준가) with the last close, and adjusts armed stops if they differ.

They differ on the morning of a distribution (권리락) or a split: a share is worth less, but the holder loses nothing. A
stop that was armed before sells nothing until the base price is counted in. The close is that of KRX's regular session,
from our own bar of the closing auction, or from the broker once its day has rolled over. The evening's daily price is
never used: it contains trades of the after-market.
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

# this long before the first venue opens: time to ask for every stock at one call a second, and to report
# UNVERIFIED: that quotes are of the new day by then; the first recorded morning settles it. An older quote is known by
# its volume, and asked for again
BEFORE_OPEN = timedelta(minutes=10)
REPORT_BEFORE_OPEN = timedelta(minutes=3)
# enough days to find the last one on which a stock that was halted had a price
LOOK_BACK = timedelta(days=60)
# adjusted prices are rounded to the won: over missed days, a ratio closer to 1 than this is only rounding
SMALLEST = Decimal("0.01")
# a failed request is tried again after the first; a turn ends after the second, and the next turn continues
TRY_AGAIN_SECONDS, TURN_SECONDS = 20.0, 10.0
# if the answer cannot be compared, the pauses grow up to these: the first if the broker's day has not rolled over yet,
# the second if the last close is not known
LONGEST_WAIT_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 600.0


class NotComparable(Exception):
    """The broker's answer does not give today's base price; it is asked at least once in `longest_seconds`."""

    def __init__(self, why: str, longest_seconds: float) -> None:
        super().__init__(why)
        self.longest_seconds = longest_seconds


def stops_without_base_price(now: datetime) -> dict[str, list[StopRule]]:
    """Return the armed stops, by stock, that lack today's base price and may ask for it now."""
    day, starts_at = now.astimezone(KST).date(), sessions.first_start(queries.today(now), now)
    if starts_at is None or now < starts_at - BEFORE_OPEN:
        return {}
    rows, opens = defaultdict(list), krx_prices.opens_at(now)
    for row in stops.armed():
        pause = row.poll_state.get("base_pause") or TRY_AGAIN_SECONDS
        tried_at = row.poll_state.get("base_at", 0.0)
        is_tried = 0 <= now.timestamp() - tried_at < pause and (now < opens or tried_at >= opens.timestamp())
        if (row.based_on is None or row.based_on < day) and not is_tried:
            rows[row.stock_code].append(row)
    return dict(rows)


def count_in_base_prices(broker: Broker, now: Callable[[], datetime]) -> None:
    """Count in today's base price for every armed stop that lacks it; a failure is tried again."""
    ends_at = monotonic() + TURN_SECONDS
    for code, rows in stops_without_base_price(now()).items():
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
    """Note that the base price was asked for; the pause until the next time doubles up to `longest_seconds`."""
    for row in rows:
        poll_state = row.poll_state
        is_first = datetime.fromtimestamp(poll_state.get("base_at", 0.0), KST).date() != at.astimezone(KST).date()
        pause = 0.0 if is_first else poll_state.get("base_pause", 0.0)
        if longest_seconds:
            pause = min(longest_seconds, 2 * pause or TRY_AGAIN_SECONDS)
        row.poll_state = poll_state | {"base_at": at.timestamp(), "base_pause": pause}
        stops.save_poll_state(row.pk, row.poll_state)


def _settle(code: str, rows: list[StopRule], broker: Broker, now: Callable[[], datetime]) -> None:
    quote = broker.quote(code, Market.KRX)
    day, last = now().astimezone(KST).date(), _last_day(now())
    close = krx_prices.auction_close(code, last)
    if not krx_prices.is_of_today(quote, now(), broker):
        if quote.is_halted:
            why = gettext("it is halted: its base price is compared once KRX has opened")
            raise NotComparable(why, LONGEST_WAIT_SECONDS)
        raise NotComparable(
            gettext("the broker still reports the base price of the previous day"), LONGEST_WAIT_SECONDS
        )
    if quote.base_price != close:
        close = _newest_close(broker.daily_chart(code, last - LOOK_BACK, last, adjusted=False))
    if not close or not quote.base_price:
        why = gettext("its last close is not known, and the base price cannot be compared")
        raise NotComparable(why, LONGEST_PAUSE_SECONDS)
    ratio = Decimal(quote.base_price) / close
    detail = gettext("base price {base:,} won, last close {close:,} won").format(base=quote.base_price, close=close)
    for row in rows:
        # an earlier version did not store the day of a stop's prices; a stop armed today has today's
        is_new = row.based_on is None and row.counts_since.astimezone(KST).date() == day
        is_new = is_new or stops.is_in_todays_won(row, quote.base_price, day)
        factor = Decimal(1) if is_new else ratio * _missed_ratio(row, last, broker)
        stops.settle_base(row, quote.base_price, factor, detail, day=day, at=now())


def correct_base_price(row: StopRule, quote: Quote, at: datetime) -> bool:
    """Count in the base price of a quote of KRX's session if it differs from the one counted in before the open.

    Return whether it did. They differ if the broker's day had not rolled over before the open.
    """
    day = at.astimezone(KST).date()
    is_same = quote.base_price in (0, row.base_price)
    if row.based_on != day or not row.base_price or is_same or at < krx_prices.opens_at(at):
        return False
    template = gettext("base price {base:,} won, reported as {before:,} won before the open")
    detail = template.format(base=quote.base_price, before=row.base_price)
    ratio = Decimal(quote.base_price) / row.base_price
    krx_prices.note_base_price(row.stock_code, quote.base_price, day)
    stops.settle_base(row, quote.base_price, ratio, detail, day=day, at=at)
    return True


def _last_day(now: datetime) -> date:
    """Return the newest trading day before today."""
    midnight = now.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    return queries.last_final_day(midnight)


def _newest_close(prices: Sequence[DayPrice]) -> int:
    """Return the close, in won, of the newest day of the broker's chart, 0 if the chart is empty."""
    return max(prices, key=lambda price: price.day).close if prices else 0


def _missed_ratio(row: StopRule, last: date, broker: Broker) -> Decimal:
    """Return the ratio of base prices over the trading days after the stop's last one, up to `last`, that were missed.

    On each of these days the base price differs from the close before by the same ratio as adjusted and raw closes.
    """
    if row.based_on is None or row.based_on >= last:
        return Decimal(1)
    before, newest = (_adjustment(row.stock_code, day, broker) for day in (row.based_on, last))
    ratio = before / newest if before and newest else Decimal(1)
    return ratio if abs(ratio - 1) >= SMALLEST else Decimal(1)


def _adjustment(code: str, day: date, broker: Broker) -> Decimal | None:
    """Return adjusted over raw close of the newest day up to `day` that both charts have, None if there is none."""
    adjusted, raw = (
        {price.day: price.close for price in broker.daily_chart(code, day - LOOK_BACK, day, adjusted=is_adjusted)}
        for is_adjusted in (True, False)
    )
    common_days = [chart_day for chart_day in adjusted.keys() & raw.keys() if raw[chart_day]]
    return Decimal(adjusted[max(common_days)]) / raw[max(common_days)] if common_days else None


def _report(rows: list[StopRule], why: str, at: datetime) -> None:
    """Report that stops sell nothing, but no earlier than shortly before the first venue opens."""
    starts_at = sessions.first_start(queries.today(at), at)
    if starts_at is None or at < starts_at - REPORT_BEFORE_OPEN:
        return
    for row in rows:
        if row.based_on is not None:
            stops.report_awaiting_base_price(row, why, at)
