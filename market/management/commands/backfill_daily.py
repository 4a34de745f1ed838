"""`manage.py backfill_daily 005930 --years 5`: fetches years of daily prices, page by page, and can be resumed."""

import argparse
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.codes import NotACode
from aegis.terms import Instrument
from infra import clock
from infra.advisory_lock import advisory_lock
from kis.factory import broker
from market import daily_prices, queries
from market.codes import ManyStocks, explain, resolve
from market.models import PriceBackfill, Stock

# how many calls run at once; the call limit decides how many are sent
THREADS = 4
BAR_WIDTH = 30
INTERRUPTED = 130


class Command(BaseCommand):
    help = _("Fetch years of daily prices, adjusted. If it is interrupted, run the same command again to continue.")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("codes", nargs="*", help=_("stock codes, as 005930"))
        parser.add_argument("--file", type=Path, help=_("a file of stock codes, one a line; # begins a comment"))
        parser.add_argument("--all", action="store_true", help=_("every stock of the stock master, warrants left out"))
        parser.add_argument("--years", type=_years, default=5, help=_("how far back (5)"))

    def handle(self, *args: Any, **options: Any) -> None:
        codes = _codes(options)
        now = clock.now()
        last = queries.last_final_day(now)
        daily_prices.want(codes, _years_before(last, options["years"]), last=last, now=now)
        with advisory_lock(daily_prices.LOCK_NAME) as is_ours:
            if not is_ours:
                raise CommandError(_("another process is fetching daily prices just now: it fetches these too"))
            self._run(codes, last)
        failed = PriceBackfill.objects.filter(pk__in=codes).exclude(failure="")
        for row in failed:
            self.stderr.write(f"{row.pk}: {row.failure}")
        template = _("{done} of {wanted} stocks have their daily prices since {since}")
        done = PriceBackfill.objects.filter(pk__in=codes, is_done=True).count()
        since = _years_before(last, options["years"])
        self.stdout.write(template.format(done=done, wanted=len(codes), since=since))
        if done < len(codes):
            sys.exit(1)

    def _run(self, codes: list[str], last: date) -> None:
        unfinished = [code for code in daily_prices.unfinished() if code in set(codes)]
        progress = Progress(self.stderr, len(codes), len(codes) - len(unfinished))
        stop = threading.Event()
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for future in _submit_all(pool, unfinished, last, stop, progress):
                    future.result()
            except KeyboardInterrupt:
                self.stderr.write("\n" + _("interrupted: run the same command again to continue"))
                sys.exit(INTERRUPTED)
            except BrokerError as error:
                raise CommandError(
                    _("the broker does not answer ({error}): run the same command again to continue").format(
                        error=error
                    )
                ) from error
            finally:
                stop.set()
        progress.end()


def _submit_all(
    pool: ThreadPoolExecutor, codes: Iterable[str], last: date, stop: threading.Event, progress: "Progress"
) -> Iterator[Future[None]]:
    return as_completed([pool.submit(_fetch, code, last, stop, progress) for code in codes])


def _fetch(code: str, last: date, stop: threading.Event, progress: "Progress") -> None:
    """Fetch all pages of one stock, or as many as possible until `stop` is set."""
    try:
        while not stop.is_set():
            row = daily_prices.fetch_next_page(broker(), code, last=last, now=clock.now())
            progress.page()
            if row.is_done or row.failure:
                progress.stock()
                return
    finally:
        connection.close()


class Progress:
    """A progress bar on a terminal, otherwise a line per tenth. Its methods may be called from any thread."""

    def __init__(self, out: Any, stocks: int, done: int) -> None:
        self._out, self._stocks, self._done, self._pages = out, stocks, done, 0
        self._is_terminal = out.isatty()
        self._lock = threading.Lock()

    def page(self) -> None:
        with self._lock:
            self._pages += 1
            if self._is_terminal:
                self._out.write(self._line(), ending="\r")

    def stock(self) -> None:
        with self._lock:
            self._done += 1
            if not self._is_terminal and self._done * 10 // self._stocks > (self._done - 1) * 10 // self._stocks:
                self._out.write(self._line())

    def end(self) -> None:
        if self._is_terminal:
            self._out.write(self._line())

    def _line(self) -> str:
        filled = BAR_WIDTH * self._done // self._stocks if self._stocks else BAR_WIDTH
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        return f"[{bar}] " + _("{done}/{stocks} stocks, {pages} pages").format(
            done=self._done, stocks=self._stocks, pages=self._pages
        )


def _codes(options: dict[str, Any]) -> list[str]:
    codes = [*options["codes"]]
    if options["file"]:
        try:
            lines = options["file"].read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise CommandError(_("{file} cannot be read: {why}").format(file=options["file"], why=error)) from error
        codes += [code for line in lines if (code := line.split("#")[0].strip())]
    all_codes = Stock.objects.exclude(instrument=Instrument.ELW).values_list("pk", flat=True) if options["all"] else []
    codes = [*_resolved(codes), *all_codes]
    if not codes:
        raise CommandError(_("name stocks, as 005930, or a --file of them, or --all"))
    return list(dict.fromkeys(codes))


def _resolved(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            yield resolve(text)
        except (NotACode, ManyStocks) as error:
            raise CommandError(explain(error)) from error


def _years(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 40:
        raise argparse.ArgumentTypeError(
            _("years {text} is not a whole number from 1 to 40: write it as 5").format(text=repr(text))
        )
    return int(text)


def _years_before(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year - years)
    except ValueError:  # 29 February
        return day.replace(year=day.year - years, day=28)
