"""Daily prices: final ones only, adjusted, and the past page by page, whoever is interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from aegis.broker import Broker, DayPrice, OutcomeUnknown
from config.env import BASE_DIR
from infra import clock
from market import daily_prices, interest, queries
from market.models import DailyPrice, PriceBackfill, Stock, WatchedStock
from simulator.api.server import Simulator
from tests.workers import environment

pytestmark = pytest.mark.django_db
ClockAt = Callable[..., datetime]
SAMSUNG, KEPCO = "005930", "015760"
FRIDAY, MONDAY = date(2026, 11, 20), date(2026, 11, 23)
SINCE = date(2024, 11, 20)


def kept(code: str = SAMSUNG) -> list[DayPrice]:
    rows = DailyPrice.objects.filter(stock_code=code).order_by("-date")
    return [DayPrice(row.date, row.open, row.high, row.low, row.close, row.volume) for row in rows]


def chart(broker: Broker, code: str, first: date, last: date) -> list[DayPrice]:
    """Return all of a stock's days, page by page."""
    found: list[DayPrice] = []
    while page := broker.daily_chart(code, first, last):
        found += page
        last = page[-1].day - timedelta(days=1)
    return found


def want(*codes: str, since: date = SINCE, last: date = FRIDAY) -> None:
    daily_prices.want(codes, since, last=last, now=clock.now())


def advance(broker: Broker, last: date = FRIDAY, code: str = SAMSUNG) -> PriceBackfill:
    return daily_prices.fetch_next_page(broker, code, last=last, now=clock.now())


class Adjusted:
    """The broker after a split: every price of its past is halved."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def daily_chart(self, code: str, first: date, last: date) -> Sequence[DayPrice]:
        halved = {name: lambda p, name=name: getattr(p, name) // 2 for name in ("open", "high", "low", "close")}
        prices = self._broker.daily_chart(code, first, last)
        return [replace(price, **{name: half(price) for name, half in halved.items()}) for price in prices]


class Meanwhile:
    """The broker, who answers only after somebody else has done something."""

    def __init__(self, broker: Broker, does: Callable[[], object]) -> None:
        self._broker, self._does = broker, does

    def daily_chart(self, code: str, first: date, last: date) -> Sequence[DayPrice]:
        prices = self._broker.daily_chart(code, first, last)
        self._does()
        return prices


class Silent:
    def daily_chart(self, code: str, first: date, last: date) -> Sequence[DayPrice]:
        raise OutcomeUnknown("no answer", call="inquire-daily-itemchartprice")


def test_a_day_is_final_when_its_last_phase_is_over(clock_at: ClockAt) -> None:
    assert queries.last_final_day(clock_at("2026-11-23 19:59:59")) == FRIDAY
    assert queries.last_final_day(clock_at("2026-11-23 20:00:00")) == MONDAY
    assert queries.last_final_day(clock_at("2026-11-22 12:00:00")) == FRIDAY


def test_what_we_watch_has_its_prices_each_evening_and_not_before(broker: Broker, clock_at: ClockAt) -> None:
    WatchedStock.objects.create(stock_code=SAMSUNG)
    clock_at("2026-11-23 19:59:00")
    daily_prices.sync_missing(broker, interest.codes(clock.now()), now=clock.now())
    assert kept()[0].day == FRIDAY
    clock_at("2026-11-23 20:00:00")
    daily_prices.sync_missing(broker, interest.codes(clock.now()), now=clock.now())
    assert kept() == chart(broker, SAMSUNG, kept()[-1].day, MONDAY)


def test_a_night_that_was_missed_is_made_up_in_the_morning(broker: Broker, clock_at: ClockAt) -> None:
    WatchedStock.objects.create(stock_code=SAMSUNG)
    clock_at("2026-11-24 07:30:00")
    daily_prices.sync_missing(broker, interest.codes(clock.now()), now=clock.now())
    assert kept()[0].day == MONDAY


def test_a_stock_the_broker_does_not_know_stops_nobody(broker: Broker) -> None:
    assert daily_prices.sync_daily_prices(broker, ["999999", SAMSUNG], last=FRIDAY, now=clock.now()) > 0
    assert kept("999999") == []


def test_the_past_comes_page_by_page_and_whoever_stops_is_followed(broker: Broker) -> None:
    want(SAMSUNG)
    first = advance(broker)
    assert (first.is_done, len(kept())) == (False, daily_prices.PAGE)
    with pytest.raises(OutcomeUnknown):
        advance(Silent())  # type: ignore[arg-type]
    pages = 1
    while not advance(broker).is_done:
        pages += 1
    assert kept() == chart(broker, SAMSUNG, SINCE, FRIDAY)
    assert pages < 6


def test_what_is_done_is_not_fetched_again(broker: Broker) -> None:
    want(SAMSUNG, since=date(2026, 10, 1))
    assert advance(broker).is_done
    want(SAMSUNG, since=date(2026, 10, 1))
    assert daily_prices.unfinished() == []
    want(SAMSUNG, since=date(2026, 9, 1))
    assert daily_prices.unfinished() == [SAMSUNG]
    assert advance(broker).is_done
    assert kept() == chart(broker, SAMSUNG, date(2026, 9, 1), FRIDAY)


def test_days_that_came_while_it_stood_still_are_fetched_too(broker: Broker, clock_at: ClockAt) -> None:
    want(SAMSUNG, last=date(2026, 10, 30))
    advance(broker, last=date(2026, 10, 30))
    clock_at("2026-11-23 21:00:00")
    want(SAMSUNG, last=MONDAY)
    while not advance(broker, last=MONDAY).is_done:
        pass
    assert kept() == chart(broker, SAMSUNG, SINCE, MONDAY)


def test_a_split_has_the_whole_past_fetched_anew(broker: Broker) -> None:
    want(SAMSUNG)
    while not advance(broker).is_done:
        pass
    after = Adjusted(broker)
    daily_prices.sync_daily_prices(after, [SAMSUNG], last=FRIDAY, now=clock.now())  # type: ignore[arg-type]
    assert daily_prices.unfinished() == [SAMSUNG]
    while daily_prices.continue_backfill(after, last=FRIDAY, now=clock.now()):  # type: ignore[arg-type]
        pass
    assert kept() == chart(after, SAMSUNG, SINCE, FRIDAY)  # type: ignore[arg-type]


def test_a_split_of_a_stock_nobody_backfilled_is_noticed_too(broker: Broker) -> None:
    daily_prices.sync_daily_prices(broker, [SAMSUNG], last=date(2026, 10, 30), now=clock.now())
    daily_prices.sync_daily_prices(Adjusted(broker), [SAMSUNG], last=FRIDAY, now=clock.now())  # type: ignore[arg-type]
    assert PriceBackfill.objects.get().since == DailyPrice.objects.order_by("date").first().date


@pytest.mark.parametrize("is_backfilled", [True, False], ids=["backfilled already", "for the first time"])
def test_a_split_reaches_as_far_back_as_prices_are_kept(broker: Broker, is_backfilled: bool) -> None:
    daily_prices.sync_daily_prices(broker, [SAMSUNG], last=date(2024, 11, 20), now=clock.now())
    oldest = kept()[-1].day
    if is_backfilled:
        want(SAMSUNG, since=date(2026, 10, 1))
        assert advance(broker).is_done
    else:
        daily_prices.sync_daily_prices(broker, [SAMSUNG], last=date(2026, 10, 1), now=clock.now())
        want(SAMSUNG, since=date(2026, 1, 1))
    after = Adjusted(broker)
    if is_backfilled:
        daily_prices.sync_daily_prices(after, [SAMSUNG], last=FRIDAY, now=clock.now())  # type: ignore[arg-type]
    while not advance(after).is_done:  # type: ignore[arg-type]
        pass
    assert kept() == chart(after, SAMSUNG, oldest, FRIDAY)  # type: ignore[arg-type]


def test_a_split_that_is_noticed_while_a_page_is_on_its_way_is_not_forgotten(broker: Broker) -> None:
    want(SAMSUNG)
    advance(broker)
    after = Adjusted(broker)
    notices = Meanwhile(broker, lambda: daily_prices.sync_daily_prices(after, [SAMSUNG], last=FRIDAY, now=clock.now()))  # type: ignore[arg-type]
    assert not advance(notices).is_done  # type: ignore[arg-type]
    while not advance(after).is_done:  # type: ignore[arg-type]
        pass
    assert kept() == chart(after, SAMSUNG, SINCE, FRIDAY)  # type: ignore[arg-type]


def test_who_wants_more_while_the_last_page_is_on_its_way_has_it(broker: Broker) -> None:
    want(SAMSUNG, since=date(2026, 10, 1))
    asks = Meanwhile(broker, lambda: want(SAMSUNG, since=date(2026, 9, 1)))
    assert not advance(asks).is_done  # type: ignore[arg-type]
    while not advance(broker).is_done:
        pass
    assert kept() == chart(broker, SAMSUNG, date(2026, 9, 1), FRIDAY)


def test_a_stock_the_broker_refuses_says_why_and_is_left_out(broker: Broker) -> None:
    want("999999", SAMSUNG)
    assert advance(broker, code="999999").failure
    assert daily_prices.unfinished() == [SAMSUNG]


@pytest.mark.django_db(transaction=True)
def test_the_command_fetches_and_says_so(broker: Broker, tmp_path: Path) -> None:
    codes, out, err = tmp_path / "codes.txt", StringIO(), StringIO()
    codes.write_text("015760  # 한국전력\n\n", encoding="utf-8")
    call_command("backfill_daily", SAMSUNG, file=codes, years=1, stdout=out, stderr=err)
    assert "2" in out.getvalue()
    assert "#" * 30 in err.getvalue()
    assert kept(KEPCO) == chart(broker, KEPCO, date(2025, 11, 20), FRIDAY)


@pytest.mark.django_db(transaction=True)
def test_the_command_takes_the_whole_master(broker: Broker) -> None:
    words = {"board": "KOSPI", "instrument": "STOCK", "synced_at": clock.now()}
    Stock.objects.create(code=KEPCO, name="한국전력", **words)
    Stock.objects.create(code="F70100026", name="a listed fund that the simulator does not have", **words)
    Stock.objects.create(code="J57A1B", name="a warrant", **{**words, "instrument": "ELW"})
    err = StringIO()
    with pytest.raises(SystemExit):
        call_command("backfill_daily", "--all", "--years", "1", stdout=StringIO(), stderr=err)
    assert kept(KEPCO)
    assert "F70100026" in err.getvalue()
    assert "J57A1B" not in err.getvalue()


@pytest.mark.parametrize("words", [[], ["삼성"], ["--file", "/none"], [SAMSUNG, "--years", "0"]])
def test_the_command_says_what_would_be_right(words: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("backfill_daily", *words, stdout=StringIO(), stderr=StringIO())


@pytest.mark.django_db(transaction=True)
def test_a_stock_that_failed_fails_the_command(broker: Broker) -> None:
    err = StringIO()
    with pytest.raises(SystemExit):
        call_command("backfill_daily", "999999", stdout=StringIO(), stderr=err)
    assert "999999" in err.getvalue()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_command_is_taken_up_where_it_stopped(
    broker: Broker, simulator: Simulator, how: signal.Signals
) -> None:
    codes = [SAMSUNG, KEPCO, "000660", "035420"]
    words = [sys.executable, "manage.py", "backfill_daily", *codes, "--years", "5"]

    def run() -> subprocess.Popen[bytes]:
        quiet: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        # a test run in the background ignores the interrupt, and its children would too
        quiet["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(words, cwd=BASE_DIR, env=environment() | {"KIS_CALLS_PER_SECOND": "20"}, **quiet)

    first, gives_up_at = run(), time.monotonic() + 60
    while DailyPrice.objects.count() < 5 * daily_prices.PAGE:
        assert time.monotonic() < gives_up_at
        assert first.poll() is None, first.communicate()[0].decode()
        time.sleep(0.02)
    os.kill(first.pid, how)
    first.communicate()
    had = DailyPrice.objects.count()
    assert daily_prices.unfinished()
    second = run()
    said = second.communicate(timeout=120)[0].decode()
    assert second.returncode == 0, said
    assert DailyPrice.objects.count() > had
    for code in codes:
        assert kept(code) == chart(broker, code, date(2021, 11, 20), FRIDAY)
