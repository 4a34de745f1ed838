"""Time in the simulated market: steps, phases, change of day.

A gap longer than `CATCH_UP` is not stepped through. `fast_forward` passes it: resting orders that the price reaches
still fill, all phase boundaries apply, and only the last `SETTLE` is stepped. A skipped whole day is one bar per
stock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import partial

from aegis import ticks
from aegis.sessions import KST, Matching, Phase, PhaseName
from aegis.terms import Market, OrderKind
from simulator.exchange import order_flow
from simulator.exchange.calendar import is_trading_day, next_trading_day, phases_on
from simulator.exchange.conditional_orders import OffBookOrders
from simulator.exchange.exchange import VENUES, BookChanged, Exchange, StatusChanged
from simulator.exchange.fast_forward import FastForward
from simulator.exchange.market_maker import MakerFill, Venue
from simulator.exchange.orders import KRX_AFTER, Order, OrderStatus
from simulator.exchange.trade_tape import Tape

STEP = timedelta(seconds=0.5)
CATCH_UP = timedelta(seconds=60)
SETTLE = timedelta(seconds=1)
MARK_EVERY = timedelta(minutes=1)
SINGLE_PRICE_EVERY = timedelta(minutes=10)
INTERRUPTION = timedelta(minutes=2)
STATIC_LIMIT_PCT = 10
_MINUTE = timedelta(minutes=1)

_SPECIAL_KINDS = {
    PhaseName.PRE_OPEN_CLOSE: {OrderKind.PRE_OPEN_CLOSE},
    PhaseName.POST_CLOSE: {OrderKind.POST_CLOSE},
    PhaseName.AFTER_HOURS_SINGLE: {OrderKind.AFTER_HOURS_SINGLE},
    PhaseName.PRE_MARKET: {OrderKind.GTP_LIMIT, OrderKind.GTP_BEST, OrderKind.GTP_OWN_BEST},
}
_MOVES_TO_NXT = frozenset({OrderKind.LIMIT, OrderKind.BEST, OrderKind.OWN_BEST})


@dataclass(frozen=True, slots=True)
class Boundary:
    """A moment at which a venue's phase changes. By `rank`, ends come before beginnings."""

    at: datetime
    rank: int
    act: Callable[[datetime], None]


class SessionClock:
    """Moves one exchange through time."""

    def __init__(self, exchange: Exchange, offbook: OffBookOrders, seed: int) -> None:
        self._exchange = exchange
        self._offbook = offbook
        self._seed = seed
        self._fast_forward = FastForward(exchange, offbook, seed)
        self._boundaries: list[Boundary] = []
        self._stepped_from: datetime | None = None  # time before this moment is skipped
        self._manual_step = 10**6  # steps of the control API use numbers beyond the day's own

    # --- entries

    def advance(self, now: datetime, *, stepping: bool = True) -> None:
        """Bring the market to `now`: all due events happen in order."""
        exchange = self._exchange
        is_first = exchange.market_time is None
        if is_first:
            self._begin(now)
        assert exchange.market_time is not None
        if now < exchange.market_time:
            self._rewind(now)
        is_jump = now - exchange.market_time > CATCH_UP
        self._stepped_from = now - SETTLE if is_jump else exchange.market_time
        self._advance_days(now)
        while self._boundaries and self._boundaries[0].at <= now:
            boundary = self._boundaries.pop(0)
            self._pass_time(boundary.at, stepping=stepping)
            boundary.act(boundary.at)
        self._pass_time(now, stepping=stepping)
        if is_jump and stepping:
            for venue in exchange.venues.values():
                venue.quote_if_changed()
        is_marked = exchange.world.step == self._step_number(now)
        if is_first or (is_jump and stepping and not is_marked):
            self.mark(now)

    def step(self, count: int, now: datetime) -> None:
        """Let the crowd act `count` times at `now`, independent of the clock."""
        for _ in range(count):
            self._manual_step += 1
            self._step_all(self._manual_step, now, self._active(now))

    def set_price(self, code: str, price: int, now: datetime) -> None:
        """Trade a stock tick by tick to `price` on each open venue; on other venues only set the price."""
        exchange = self._exchange
        for market in VENUES:
            venue = exchange.venues.get((code, market))
            if venue is None:
                continue
            if self._is_continuous(market, now) and not venue.is_auction:
                exchange.book_fills(venue, venue.walk_to(price, now))
                venue.static_reference = price  # a price set by the control API causes no interruption
                self._offbook.step(venue, now, order_flow.draw_step(self._seed, now.date(), venue.stream, 0))
            else:
                venue.set_price(price)
            exchange.record("price", now, code=code, market=market, price=price)
            exchange.publish(BookChanged(code, market))

    # --- days

    def _begin(self, now: datetime) -> None:
        exchange, world = self._exchange, self._exchange.world
        if world.day is None:
            day = now.date() if is_trading_day(now.date()) else next_trading_day(now.date(), -1)
            exchange.record("world", now, seed=self._seed, date=day.isoformat())
            self._start_day(day, {code: stock.base_price for code, stock in self._exchange.listed.items()})
        else:
            self._open_venues()
            self._restore()

    def _restore(self) -> None:
        """Restore the market of a rebuilt world from its last mark, and put the orders back into their queues."""
        exchange, world = self._exchange, self._exchange.world
        for name, mark in world.marks.items():
            code, market = name.split(":")
            venue = exchange.venues.get((code, Market(market)))
            if venue is not None:
                _restore_venue(venue, mark, world.today())
                venue.tape.minutes.update(world.bars.get(name, {}))
        for name, (_, price) in world.last_prices.items():
            code, market = name.split(":")
            if (code, Market(market)) in exchange.venues:
                exchange.venues[code, Market(market)].set_price(price)
        for interruption in world.interruptions:
            if not interruption.ended:  # the process stopped before the interruption ended
                exchange.record("resumption", code=interruption.code, ended=interruption.began)
        for code, tape in exchange.unified.items():
            tape.merge_from(exchange.venues[code, market].tape for market in VENUES)
        day = datetime.combine(world.today(), time(), KST)
        exchange.market_time = day + world.step * STEP
        self._boundaries = [boundary for boundary in self._boundaries if boundary.at > exchange.market_time]
        self._set_modes(exchange.market_time)
        for order in world.all_open():
            venue = exchange.venues.get((order.code, order.venue))
            if venue is None:
                continue
            if self._offbook.is_off_book(order, venue):
                self._offbook.hold(order)
            else:
                exchange.add_to_book(order)
        for venue in exchange.venues.values():
            venue.quote()  # after the customers' orders, which the maker's levels must not cross

    def _rewind(self, now: datetime) -> None:
        """Continue from `now` after the clock was set back; earlier events stay."""
        exchange = self._exchange
        if now.date() < exchange.world.today():
            day = now.date() if is_trading_day(now.date()) else next_trading_day(now.date(), -1)
            self._expire_all(now)
            self._start_day(day, {code: self._close_of(code) for code in self._exchange.listed})
            return
        exchange.set_time(now)
        self._boundaries = [boundary for boundary in self._timeline(exchange.world.today()) if boundary.at > now]
        self._set_modes(now)

    def _advance_days(self, now: datetime) -> None:
        """Close the current day and start the next, until `now` is reached."""
        exchange = self._exchange
        while True:
            next_day = next_trading_day(exchange.world.today())
            if next_day > now.date():
                return
            midnight = datetime.combine(next_day, time(), KST)
            is_skipped = next_trading_day(next_day) <= now.date()
            self._finish_day(midnight)
            self._start_day(next_day, {code: self._close_of(code) for code in self._exchange.listed})
            if is_skipped:
                self._pass_day(next_day)

    def _finish_day(self, midnight: datetime) -> None:
        while self._boundaries:
            boundary = self._boundaries.pop(0)
            self._pass_time(boundary.at, stepping=True)
            boundary.act(boundary.at)
        self._expire_all(midnight)

    def _pass_day(self, day: date) -> None:
        """Pass a skipped day as one bar per stock."""
        self._boundaries = []
        noon = datetime.combine(day, time(12), KST)
        for venue in self._exchange.venues_of(Market.KRX):
            code = venue.stock.code
            if code in self._exchange.world.frozen:
                continue
            change, *shape = order_flow.day_return(self._seed, day, code)
            close = self._on_grid(venue, venue.base * (1 + change))
            spread = venue.base * 0.006
            for price in (
                self._on_grid(venue, venue.base + (shape[0] - 0.5) * spread),
                self._on_grid(venue, max(venue.base, close) + shape[1] * spread),
                self._on_grid(venue, min(venue.base, close) - shape[2] * spread),
                close,
            ):
                venue.add_trade(noon, price, venue.usual_quantity * 800, None)

    def _on_grid(self, venue: Venue, price: float) -> int:
        snapped = ticks.adjust_price_to_tick(max(1, int(price)), "down", venue.stock.instrument)
        return min(venue.highest, max(venue.lowest, snapped))

    def _close_of(self, code: str) -> int:
        venue = self._exchange.venue(code)
        return ticks.adjust_price_to_tick(venue.closing_price, "down", venue.stock.instrument)

    def _start_day(self, day: date, bases: dict[str, int]) -> None:
        exchange, world = self._exchange, self._exchange.world
        at = datetime.combine(day, time(), KST)
        totals = {}
        if world.day is not None:
            totals = {number: exchange.total_asset(number, bases) for number in world.accounts}
            bars = {venue.stock.code: _day_bar(venue) for venue in exchange.venues_of(Market.KRX)}
            exchange.record("close", at, date=world.day.isoformat(), bars=bars)
            for number, account in world.accounts.items():
                if any(due <= day for due in account.unsettled):
                    exchange.record("settlement", at, account=number, date=day.isoformat())
        exchange.record("day", at, date=day.isoformat(), bases=bases, totals=totals)
        self._open_venues()
        exchange.set_time(at)

    def _open_venues(self) -> None:
        exchange, world = self._exchange, self._exchange.world
        self._offbook.clear()
        exchange.unified = {
            code: Tape(last=world.bases[code]) for code, stock in exchange.listed.items() if stock.on_nxt
        }
        exchange.venues = {
            (code, market): Venue(stock, market, world.bases[code], self._seed, exchange.unified.get(code))
            for code, stock in self._exchange.listed.items()
            for market in VENUES
            if market is Market.KRX or stock.on_nxt
        }
        self._boundaries = self._timeline(world.today())

    # --- phases

    def _timeline(self, day: date) -> list[Boundary]:
        boundaries = []
        for phase in phases_on(day):
            if phase.market not in VENUES:
                continue
            starts_at, ends_at = (datetime.combine(day, moment, KST) for moment in (phase.starts_at, phase.ends_at))
            boundaries.append(Boundary(starts_at, 1, partial(self._enter, phase)))
            boundaries.append(Boundary(ends_at, 0, partial(self._leave, phase)))
            if phase.name is PhaseName.AFTER_HOURS_SINGLE:
                moment = starts_at + SINGLE_PRICE_EVERY
                while moment < ends_at:
                    boundaries.append(Boundary(moment, 0, partial(self._match_single_price, phase)))
                    moment += SINGLE_PRICE_EVERY
        return sorted(boundaries, key=lambda boundary: (boundary.at, boundary.rank))

    def _enter(self, phase: Phase, at: datetime) -> None:
        for venue in self._exchange.venues_of(phase.market):
            if phase.matching is Matching.AUCTION:
                venue.open_auction()
                self._offbook.enter_auction(venue)
                if phase.name is PhaseName.CLOSING_AUCTION:
                    self._offbook.free_conditional_limits(venue, at)
            elif phase.matching is Matching.CONTINUOUS:
                venue.quote()

    def _leave(self, phase: Phase, at: datetime) -> None:
        if phase.matching is Matching.AUCTION:
            self._uncross(phase.market, at)
        if phase.name is PhaseName.CLOSING_AUCTION:
            self._close_regular(at)
        for order in self._exchange.world.all_open():
            if order.venue is phase.market and self._ends_with(order, phase):
                self._expire(order, at)

    def _close_regular(self, at: datetime) -> None:
        """At the end of the regular session: save closes and move resting SOR orders to NXT."""
        exchange = self._exchange
        for venue in exchange.venues_of(Market.KRX):
            venue.close_regular()
        for order in exchange.world.all_open():
            moves = order.market is Market.SOR and order.venue is Market.KRX and order.kind in _MOVES_TO_NXT
            if moves and (order.code, Market.NXT) in exchange.venues:
                exchange.remove_from_book(order, order.remaining)
                exchange.record("change", at, date=order.date.isoformat(), number=order.number, venue=Market.NXT)
                exchange.add_to_book(order)

    # --- interruptions (VI) and halts

    def interrupt(self, code: str, kind: str, now: datetime) -> bool:
        """Put a stock into a two-minute auction (VI). Return False if it does not trade continuously now."""
        exchange = self._exchange
        krx = exchange.venue(code)
        trading = [v for v in self._venues_of(code) if not v.is_auction and self._is_continuous(v.market, now)]
        if krx not in trading:
            return False
        standard = krx.static_reference or krx.tape.open or krx.base
        exchange.record(
            "interruption", now, code=code, kind=kind, price=krx.tape.last, standard=standard, began=f"{now:%H%M%S}"
        )
        for venue in trading:
            venue.open_auction()
            self._offbook.enter_auction(venue)
            exchange.publish(StatusChanged(code, venue.market))
        self._boundaries.append(Boundary(now + INTERRUPTION, 0, partial(self._resume, code)))
        self._boundaries.sort(key=lambda boundary: (boundary.at, boundary.rank))
        return True

    def _resume(self, code: str, at: datetime) -> None:
        exchange = self._exchange
        exchange.record("resumption", at, code=code, ended=f"{at:%H%M%S}")
        for venue in self._venues_of(code):
            # a closing auction that started in the meantime continues
            if venue.is_auction and self._is_continuous(venue.market, at):
                exchange.book_fills(venue, venue.uncross(at))
                self._offbook.leave_auction(venue)
                venue.static_reference = venue.tape.last
                exchange.publish(BookChanged(code, venue.market))
            exchange.publish(StatusChanged(code, venue.market))

    def halt(self, code: str, halted: bool, now: datetime) -> None:
        """Halt a stock's trading (거래정지) or resume it. Its resting orders wait."""
        self._exchange.record("halt", now, code=code, halted=halted)
        for venue in self._venues_of(code):
            self._exchange.publish(StatusChanged(code, venue.market))

    def set_market_operation(self, operation: str, now: datetime, *, halted: bool | None = None) -> None:
        """Publish a market operation code for all stocks. `halted` halts or resumes all trading; None does neither."""
        self._exchange.record("market_operation", now, code=operation)
        for code in self._exchange.listed:
            if halted is not None:
                self._exchange.record("halt", now, code=code, halted=halted)
            for venue in self._venues_of(code):
                self._exchange.publish(StatusChanged(code, venue.market))

    def _venues_of(self, code: str) -> list[Venue]:
        venues = self._exchange.venues
        return [venues[code, market] for market in VENUES if (code, market) in venues]

    def _is_continuous(self, market: Market, now: datetime) -> bool:
        return any(phase.matching is Matching.CONTINUOUS for phase in self._exchange.phases(market, now))

    def _at_close(self, now: datetime) -> set[Market]:
        """Return the markets that trade at a closing price only."""
        phases = {market: self._exchange.phases(market, now) for market in VENUES}
        return {
            market
            for market, current in phases.items()
            if current and all(phase.matching is Matching.FIXED for phase in current)
        }

    def _interrupt_if_volatile(self, venue: Venue, at: datetime) -> None:
        """Interrupt a stock whose price is 10 % or more from its static reference."""
        standard = venue.static_reference or venue.tape.open
        if standard and abs(venue.tape.last - standard) * 100 >= STATIC_LIMIT_PCT * standard:
            self.interrupt(venue.stock.code, "1", at)

    def _match_single_price(self, phase: Phase, at: datetime) -> None:
        self._uncross(phase.market, at)
        for venue in self._exchange.venues_of(phase.market):
            venue.open_auction()

    def _uncross(self, market: Market, at: datetime) -> None:
        for venue in self._exchange.venues_of(market):
            self._exchange.book_fills(venue, venue.uncross(at))
            self._offbook.leave_auction(venue)
            self._exchange.publish(BookChanged(venue.stock.code, market))

    def _ends_with(self, order: Order, phase: Phase) -> bool:
        """Return whether an order expires at the end of `phase`."""
        if phase.name in _SPECIAL_KINDS:
            return order.kind in _SPECIAL_KINDS[phase.name]
        if phase.market is Market.NXT:
            return phase.name is PhaseName.AFTER_MARKET
        if order.kind in KRX_AFTER:
            return phase.name is PhaseName.AFTER_MARKET
        return phase.name is PhaseName.CLOSING_AUCTION

    def _expire(self, order: Order, at: datetime) -> None:
        self._exchange.withdraw(order, order.remaining, OrderStatus.EXPIRED, at, reason="expiry")

    def _expire_all(self, at: datetime) -> None:
        for order in self._exchange.world.all_open():
            self._expire(order, at)

    def _set_modes(self, now: datetime) -> None:
        for market in VENUES:
            is_auction = any(p.matching is Matching.AUCTION for p in self._exchange.phases(market, now))
            for venue in self._exchange.venues_of(market):
                if venue.is_auction != is_auction:
                    venue.is_auction = is_auction
                    venue.quote()

    # --- steps

    def _active(self, now: datetime) -> list[Venue]:
        """Return the venues that trade at `now`."""
        exchange = self._exchange
        idle = exchange.world.frozen | exchange.world.halted
        alive = {market for market in VENUES if exchange.phases(market, now)}
        return [venue for (code, market), venue in exchange.venues.items() if market in alive and code not in idle]

    def _pass_time(self, until: datetime, *, stepping: bool) -> None:
        """Pass the time up to `until`, in which no phase begins or ends."""
        exchange = self._exchange
        assert exchange.market_time is not None
        assert self._stepped_from is not None
        start = exchange.market_time
        exchange.set_time(until)
        active = self._active(start)
        if not active or not stepping:
            return
        skipped_until = min(until, self._stepped_from)
        if start < skipped_until:
            self._fast_forward.pass_time(start, skipped_until, active, self._at_close(start))
            start = skipped_until
        day = datetime.combine(exchange.world.today(), time(), KST)
        for number in range((start - day) // STEP + 1, (until - day) // STEP + 1):
            at = day + number * STEP
            self._step_all(number, at, active)
            if number % (MARK_EVERY // STEP) == 0:
                self.mark(at)

    def _step_all(self, number: int, at: datetime, active: list[Venue]) -> None:
        exchange = self._exchange
        day = exchange.world.today()
        krx_leads = self._is_continuous(Market.KRX, at)
        at_close = self._at_close(at)
        for venue in active:
            if venue.market in at_close:
                self._offbook.step(venue, at, order_flow.draw_step(self._seed, day, venue.stream, number))
                continue
            lead = None
            if venue.market is Market.NXT and krx_leads:
                lead = exchange.venues[venue.stock.code, Market.KRX].anchor
            draw = order_flow.draw_step(self._seed, day, venue.stream, number)
            hits: list[MakerFill] = venue.step(draw, at, lead)
            if hits:
                exchange.book_fills(venue, hits)
            self._offbook.step(venue, at, draw)
            if hits and venue.market is Market.KRX and not venue.is_auction:
                self._interrupt_if_volatile(venue, at)
            exchange.publish(BookChanged(venue.stock.code, venue.market))

    def _step_number(self, at: datetime) -> int:
        return (at - datetime.combine(self._exchange.world.today(), time(), KST)) // STEP

    def mark(self, at: datetime) -> None:
        """Record the state of the market, so that a restart can continue from it."""
        number = self._step_number(at)
        minute = f"{at - _MINUTE:%H%M}"
        venues, bars = {}, {}
        for (code, market), venue in self._exchange.venues.items():
            tape = venue.tape
            if not tape.volume:
                continue
            venues[f"{code}:{market}"] = _venue_mark(venue)
            bar = tape.built_bar(minute)
            if bar is not None:
                bars[f"{code}:{market}"] = [bar.open, bar.high, bar.low, bar.close, bar.volume, bar.amount]
        self._exchange.record("mark", at, step=number, minute=minute, venues=venues, bars=bars)


def _day_bar(venue: Venue) -> list[int]:
    tape, bar = venue.tape, venue.regular_close
    if bar is not None:
        return [bar.open, bar.high, bar.low, bar.close, bar.volume, bar.amount]
    if not tape.volume:
        return [tape.last, tape.last, tape.last, tape.last, 0, 0]
    return [tape.open, tape.high, tape.low, tape.last, tape.volume, tape.amount]


def _venue_mark(venue: Venue) -> list[int | str]:
    tape = venue.tape
    times = [f"{at:%H%M%S}" if at else "" for at in (tape.open_at, tape.high_at, tape.low_at)]
    return [
        tape.last, tape.open, tape.high, tape.low, tape.volume, tape.amount, tape.buys, tape.sells,
        tape.bought, tape.sold, venue.anchor, venue.home, *times,
    ]  # fmt: skip


def _restore_venue(venue: Venue, mark: list[int | str], day: date) -> None:
    tape = venue.tape
    numbers = [int(value) for value in mark[:12]]
    (tape.last, tape.open, tape.high, tape.low, tape.volume, tape.amount, tape.buys, tape.sells,
     tape.bought, tape.sold, venue.anchor, venue.home) = numbers  # fmt: skip
    moments = [
        datetime.combine(day, time(int(hhmmss[:2]), int(hhmmss[2:4]), int(hhmmss[4:])), KST) if hhmmss else None
        for hhmmss in map(str, mark[12:15])
    ]
    tape.open_at, tape.high_at, tape.low_at = moments
