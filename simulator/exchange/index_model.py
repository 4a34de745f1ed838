"""Figures derived from the stocks: indexes, index futures, turnover by investor group. Also a few US shares.

Indexes follow the listed stocks by capitalisation. Futures follow KOSPI200 with a carry, a slow swing and some
noise, all from the seed; `basis_percent` fixes the basis for a rehearsal.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from hashlib import blake2b
from itertools import islice
from math import exp, pi, sin
from types import MappingProxyType

from aegis.sessions import KST
from aegis.terms import Board, Instrument, Market, Side
from simulator.exchange.daily_history import History, HistoryDay
from simulator.exchange.exchange import Exchange
from simulator.exchange.listings import ListedStock
from simulator.exchange.market_maker import Venue

KOSPI, KOSDAQ, KOSPI200 = "0001", "1001", "2001"


@dataclass(frozen=True, slots=True)
class IndexRule:
    """An index: its name, its level on the world's first day, and its membership predicate."""

    name: str
    level: float
    counts: Callable[[ListedStock], bool]


INDEXES: Mapping[str, IndexRule] = MappingProxyType(
    {
        KOSPI: IndexRule("종합", 3_212.48, lambda stock: stock.board is Board.KOSPI),
        KOSDAQ: IndexRule("KOSDAQ", 806.95, lambda stock: stock.board is Board.KOSDAQ),
        KOSPI200: IndexRule("KOSPI200", 432.57, lambda stock: stock.in_kospi200),
    }
)


@dataclass(frozen=True, slots=True)
class IndexQuote:
    """An index now. Volume is in thousand shares, amount in million won, as the broker prints them."""

    code: str
    name: str
    last: float
    before: float
    open: float
    high: float
    low: float
    volume: int
    amount: int
    ups: int
    downs: int
    flats: int
    at_upper: int
    at_lower: int
    ask_quantity: int
    bid_quantity: int


@dataclass(frozen=True, slots=True)
class SimulatedIndexDay:
    """One day of an index or of a futures contract."""

    day: date
    open: float
    high: float
    low: float
    close: float
    volume: int
    amount: int


@dataclass(frozen=True, slots=True)
class Contract:
    """A KOSPI200 futures contract (지수선물). It expires on the second Thursday of its month."""

    code: str
    name: str
    last_day: date


@dataclass(frozen=True, slots=True)
class SimulatedFuture:
    contract: Contract
    last: float
    before: float
    open: float
    high: float
    low: float
    volume: int
    fair: float
    spot: float
    days_left: int
    open_interest: int


@dataclass(slots=True)
class _Range:
    """The day's extremes of a calculated value, which has no trades of its own."""

    day: date
    first: float
    high: float
    low: float

    def take(self, value: float) -> None:
        self.high = max(self.high, value)
        self.low = min(self.low, value)


FUTURES_TICK = 0.05
CARRY_PER_YEAR = 0.024
_OPEN, _CLOSE = time(8, 45), time(15, 45)


@dataclass(slots=True)
class IndexModel:
    """Calculates indexes and futures for one exchange."""

    exchange: Exchange
    history: History
    seed: int
    basis_percent: float | None = None  # futures over spot in percent; None: from the seed
    _ranges: dict[str, _Range] = field(default_factory=dict)
    _last_totals: dict[str, tuple[int, int]] = field(default_factory=dict)

    # --- indexes

    def index(self, code: str) -> IndexQuote:
        """Return an index now. Its extremes are those of the moments at which it was calculated."""
        rule, venues = INDEXES[code], self._members(code)
        last = self._level(rule, venues, lambda venue: venue.tape.last)
        before = self._level(rule, venues, lambda venue: venue.base)
        opened = self._level(rule, venues, lambda venue: venue.tape.open or venue.base)
        day = self._range(code, opened)
        day.take(last)
        return IndexQuote(
            code=code,
            name=rule.name,
            last=last,
            before=before,
            open=opened,
            high=day.high,
            low=day.low,
            volume=sum(venue.tape.volume for venue in venues) // 1_000,
            amount=sum(venue.tape.amount for venue in venues) // 1_000_000,
            ups=sum(venue.tape.last > venue.base for venue in venues),
            downs=sum(venue.tape.last < venue.base for venue in venues),
            flats=sum(venue.tape.last == venue.base for venue in venues),
            at_upper=sum(venue.tape.last == venue.highest for venue in venues),
            at_lower=sum(venue.tape.last == venue.lowest for venue in venues),
            ask_quantity=sum(venue.book.total(Side.SELL) for venue in venues),
            bid_quantity=sum(venue.book.total(Side.BUY) for venue in venues),
        )

    def index_days(self, code: str, until: date | None = None) -> Iterator[SimulatedIndexDay]:
        """Yield the days of an index, newest first, back to the latest listing date of its members."""
        rule, venues = INDEXES[code], self._members(code)
        stocks = [venue.stock for venue in venues]
        histories = [self.history.days(venue.stock.code, venue.tape, until) for venue in venues]
        for days in zip(*histories, strict=False):
            opened, high, low, close = (_average(rule, stocks, days, name) for name in ("open", "high", "low", "close"))
            top, bottom = max(opened, close), min(opened, close)
            # the stocks do not reach their extremes at the same moment
            yield SimulatedIndexDay(
                day=days[0].day,
                open=opened,
                high=top + (high - top) * 0.4,
                low=bottom - (bottom - low) * 0.4,
                close=close,
                volume=sum(day.volume for day in days) // 1_000,
                amount=sum(day.amount for day in days) // 1_000_000,
            )

    def since_last(self, code: str, volume: int, amount: int) -> tuple[int, int]:
        """Return the volume and amount traded since the last call for this index."""
        before = self._last_totals.get(code, (volume, amount))
        self._last_totals[code] = volume, amount
        return max(0, volume - before[0]), max(0, amount - before[1])

    def _members(self, code: str) -> list[Venue]:
        rule = INDEXES[code]
        venues = self.exchange.venues_of(Market.KRX)
        members = [v for v in venues if v.stock.instrument is Instrument.STOCK and rule.counts(v.stock)]
        return members or venues

    def _level(self, rule: IndexRule, venues: list[Venue], price: Callable[[Venue], int]) -> float:
        weight = sum(venue.stock.base_price * venue.stock.listed_shares for venue in venues)
        worth = sum(price(venue) * venue.stock.listed_shares for venue in venues)
        return round(rule.level * worth / weight, 2)

    def _range(self, name: str, first: float) -> _Range:
        today = self.exchange.world.today()
        day_range = self._ranges.get(name)
        if day_range is None or day_range.day != today:
            day_range = self._ranges[name] = _Range(today, first, first, first)
        return day_range

    # --- futures

    def contracts(self, day: date) -> list[Contract]:
        """Return the listed quarterly contracts, front month (근월물) first."""
        return _listed_contracts(day, "A01", "F", every=3, count=4)

    def minis(self, day: date) -> list[Contract]:
        """Return the listed monthly mini contracts (미니), front month first."""
        return _listed_contracts(day, "A05", "미니 F", every=1, count=3)

    def contract(self, code: str, day: date) -> Contract | None:
        return next((c for c in (*self.contracts(day), *self.minis(day)) if c.code == code), None)

    def future(self, contract: Contract, now: datetime) -> SimulatedFuture:
        """Return a contract now."""
        quote = self.index(KOSPI200)
        last = _on_tick(quote.last * self._premium(contract, now))
        at_open = datetime.combine(self.exchange.world.today(), _OPEN, KST)
        opened = _on_tick(quote.open * self._premium(contract, at_open))
        day = self._range(contract.code, opened)
        day.take(last)
        days_left = (contract.last_day - now.date()).days + 1
        return SimulatedFuture(
            contract=contract,
            last=last,
            before=_on_tick(quote.before * self._fair_premium(contract, now.date())),
            open=opened,
            high=day.high,
            low=day.low,
            volume=self._contracts_traded(contract, now),
            fair=round(quote.last * self._fair_premium(contract, now.date()), 2),
            spot=quote.last,
            days_left=days_left,
            open_interest=260_000 - 55_000 * self._rank(contract, now),
        )

    def future_days(self, contract: Contract, until: date | None) -> Iterator[SimulatedIndexDay]:
        """Yield the days of a contract, newest first, as far back as the index has days."""
        for day in self.index_days(KOSPI200, until):
            premium = self._fair_premium(contract, day.day) + 0.002 * (_noise(self.seed, f"{day.day}") - 0.5)
            prices = (_on_tick(price * premium) for price in (day.open, day.high, day.low, day.close))
            opened, high, low, close = prices
            volume = 180_000 + int(90_000 * _noise(self.seed, f"{day.day}:volume"))
            yield SimulatedIndexDay(day.day, opened, high, low, close, volume, int(volume * close * 0.25))

    def _fair_premium(self, contract: Contract, day: date) -> float:
        return 1 + CARRY_PER_YEAR * max(0, (contract.last_day - day).days) / 365

    def _premium(self, contract: Contract, now: datetime) -> float:
        """Return futures over spot: the carry, a swing of forty minutes, noise that changes each second."""
        if self.basis_percent is not None:
            return 1 + self.basis_percent / 100
        seconds = int((now - datetime.combine(now.date(), time(), KST)).total_seconds())
        phase = _noise(self.seed, f"{now.date()}:{contract.code}") * 2 * pi
        swing = 0.0022 * sin(seconds / 2_400 * 2 * pi + phase)
        jitter = 0.0003 * (_noise(self.seed, f"{now.date()}:{contract.code}:{seconds}") - 0.5)
        return self._fair_premium(contract, now.date()) + swing + jitter

    def _rank(self, contract: Contract, now: datetime) -> int:
        """Return how many contracts of its kind expire earlier."""
        contracts = self.contracts(now.date())
        return (contracts if contract in contracts else self.minis(now.date())).index(contract)

    def _contracts_traded(self, contract: Contract, now: datetime) -> int:
        share = share_of(now, _OPEN, _CLOSE)
        day_volume = int(
            210_000
            / 20 ** self._rank(contract, now)
            * (0.7 + 0.6 * _noise(self.seed, f"{now.date()}:{contract.code}:traded"))
        )
        return int(day_volume * share)

    # --- investors

    def investors(self, market: str, now: datetime) -> dict[str, tuple[int, int, int, int]]:
        """Return today's turnover by investor group: shares sold and bought, million won sold and bought."""
        quote = self.index(KOSDAQ if market == "KSQ" else KOSPI)
        sums = {}
        for group, share in INVESTORS.items():
            day = f"{now.date()}:{market}:{group}"
            lean = (_noise(self.seed, day) - 0.5) * 0.12 + 0.02 * sin(now.timestamp() / 3_000 + hash_fraction(day))
            sold, bought = share * (1 - lean), share * (1 + lean)
            sums[group] = (
                int(quote.volume * 1_000 * sold),
                int(quote.volume * 1_000 * bought),
                int(quote.amount * sold),
                int(quote.amount * bought),
            )
        return sums


# each investor group's share of the turnover
INVESTORS: Mapping[str, float] = MappingProxyType(
    {
        "frgn": 0.32,
        "prsn": 0.45,
        "orgn": 0.21,
        "scrt": 0.07,
        "ivtr": 0.05,
        "pe_fund": 0.03,
        "bank": 0.005,
        "insu": 0.015,
        "mrbn": 0.005,
        "fund": 0.035,
        "etc_orgt": 0.004,
        "etc_corp": 0.016,
    }
)


def _listed_contracts(day: date, prefix: str, name: str, *, every: int, count: int) -> list[Contract]:
    contracts: list[Contract] = []
    year, month = day.year, every
    while len(contracts) < count:
        last_day = second_thursday(year, month)
        if last_day >= day:
            contracts.append(Contract(f"{prefix}{year % 10}{month:02d}", f"{name} {year}{month:02d}", last_day))
        month += every
        if month > 12:
            year, month = year + 1, every
    return contracts


def second_thursday(year: int, month: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(3 - first.weekday()) % 7 + 7)


def share_of(now: datetime, opens: time, closes: time) -> float:
    """Return the elapsed part of a session, 0 to 1."""
    day = now.date()
    begin, end = datetime.combine(day, opens, KST), datetime.combine(day, closes, KST)
    return min(1.0, max(0.0, (now - begin) / (end - begin)))


def hash_fraction(text: str) -> float:
    """Return a number from 0 to 1 that depends on the text only."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def _noise(seed: int, text: str) -> float:
    return hash_fraction(f"{seed}:{text}")


def _average(rule: IndexRule, stocks: list[ListedStock], days: tuple[HistoryDay, ...], name: str) -> float:
    weight = sum(stock.base_price * stock.listed_shares for stock in stocks)
    worth: float = sum(getattr(day, name) * stock.listed_shares for stock, day in zip(stocks, days, strict=True))
    return round(rule.level * worth / weight, 2)


def _on_tick(price: float) -> float:
    return round(round(price / FUTURES_TICK) * FUTURES_TICK, 2)


def take_newest(days: Iterator[SimulatedIndexDay], count: int) -> list[SimulatedIndexDay]:
    return list(islice(days, count))


# --- overseas


@dataclass(frozen=True, slots=True)
class UsShare:
    """A US share: symbol, venue, previous close in dollars."""

    symbol: str
    venue: str
    base: float


US_SHARES: Mapping[str, UsShare] = MappingProxyType(
    {
        row.symbol: row
        for row in (
            UsShare("AAPL", "NAS", 271.49),
            UsShare("MSFT", "NAS", 472.12),
            UsShare("NVDA", "NAS", 178.88),
            UsShare("TSLA", "NAS", 391.09),
            UsShare("AMZN", "NAS", 220.69),
            UsShare("GOOGL", "NAS", 299.66),
            UsShare("META", "NAS", 594.25),
            UsShare("QQQ", "NAS", 590.07),
            UsShare("IBM", "NYS", 297.44),
            UsShare("KO", "NYS", 72.91),
            UsShare("SPY", "AMS", 659.03),
            UsShare("BTG", "AMS", 4.32),
        )
    }
)
_DAYTIME = {"BAQ": "NAS", "BAY": "NYS", "BAA": "AMS"}


@dataclass(frozen=True, slots=True)
class UsShareQuote:
    share: UsShare
    last: float
    open: float
    high: float
    low: float
    volume: int
    session: str  # 1 regular, 2 pre-market, 3 after-market; empty while closed


def us_share(venue: str, symbol: str) -> UsShare | None:
    """Return a US share by venue and symbol. A daytime venue code means its regular venue."""
    share = US_SHARES.get(symbol)
    return share if share is not None and share.venue == _DAYTIME.get(venue, venue) else None


def us_share_quote(seed: int, share: UsShare, now: datetime) -> UsShareQuote:
    """Return a US share's quote at a moment, on a path that the seed draws for the whole night."""
    session, opened_at = us_session(now)
    minutes = max(0, int((now - opened_at).total_seconds() // 60)) if session else 390
    path = [_us_share_price(seed, share, opened_at, minute) for minute in range(0, minutes + 1, 5)]
    last = _us_share_price(seed, share, opened_at, minutes)
    volume = int(4e9 / share.base / 390 * minutes)
    return UsShareQuote(share, last, path[0], max(*path, last), min(*path, last), volume, session)


def _us_share_price(seed: int, share: UsShare, opened_at: datetime, minute: int) -> float:
    day = f"{opened_at:%Y%m%d}:{share.symbol}"
    drift = (_noise(seed, day) - 0.5) * 0.03 * minute / 390
    swing = 0.006 * sin(minute / 47 + _noise(seed, f"{day}:phase") * 6) + 0.002 * sin(minute / 7)
    return round(share.base * exp(drift + swing), 4 if share.base < 1 else 2)


def us_session(now: datetime) -> tuple[str, datetime]:
    """Return the US session at a moment (1, 2, 3 or empty) and its regular open in KST, by US summer time."""
    local = now.astimezone(KST)
    is_summer = _is_us_summer(local.date())
    opens = time(22, 30) if is_summer else time(23, 30)
    evening = local if local.hour >= 12 else local - timedelta(days=1)
    opened_at = datetime.combine(evening.date(), opens, KST)
    if opened_at.weekday() >= 5:
        return "", opened_at
    since = local - opened_at
    if timedelta(0) <= since < timedelta(hours=6, minutes=30):
        return "1", opened_at
    if timedelta(hours=-5, minutes=-30) <= since < timedelta(0):
        return "2", opened_at
    if timedelta(hours=6, minutes=30) <= since < timedelta(hours=10, minutes=30):
        return "3", opened_at
    return "", opened_at


def _is_us_summer(day: date) -> bool:
    march, november = date(day.year, 3, 1), date(day.year, 11, 1)
    second_sunday = march + timedelta(days=(6 - march.weekday()) % 7 + 7)
    first_sunday = november + timedelta(days=(6 - november.weekday()) % 7)
    return second_sunday <= day < first_sunday
