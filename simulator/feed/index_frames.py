"""Rows of the market-wide and minor feeds: index, futures, program trading, status, overseas.

A builder takes the firm, the registration's key and the moment, and returns a row, or None if the feed has no data.
Columns: protocol notes §11.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from types import MappingProxyType

from aegis.sessions import PhaseName
from aegis.terms import Instrument, Market, Side
from simulator.api.formatting import change_sign, fixed, percent_of
from simulator.api.handlers.quote import expected_operation, merged_depth, vi_state
from simulator.broker import Firm
from simulator.exchange.index_model import INDEXES, SimulatedFuture, hash_fraction, us_share, us_share_quote
from simulator.exchange.listings import STOCKS
from simulator.exchange.market_maker import Venue
from simulator.feed.stock_frames import Row, book_row, expected_row

Builder = Callable[[Firm, str, datetime], Row | None]

_FUTURES_OPEN, _FUTURES_CLOSE = time(8, 45), time(15, 45)
_NIGHT_OPEN, _NIGHT_CLOSE = time(18, 0), time(6, 0)
_STOCKS_OPEN, _STOCKS_CLOSE = time(9, 0), time(15, 30)
_AFTER_HOURS_ENDED = date(2026, 9, 14)
_MEMBERS = ("한국투자증권", "미래에셋증권", "키움증권", "NH투자증권", "삼성증권")


def index(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0UPCNT0 (국내지수 체결), 30 columns."""
    if key not in INDEXES or not _STOCKS_OPEN <= now.time() <= _STOCKS_CLOSE or not firm.is_trading(now):
        return None
    return _index_row(firm, key, now)


def index_expected(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0UPANC0 (국내지수 예상체결): has data in the auctions only."""
    names = {phase.name for phase in firm.exchange.phases(Market.KRX, now)}
    if key not in INDEXES or not names & {PhaseName.OPENING_AUCTION, PhaseName.CLOSING_AUCTION}:
        return None
    return _index_row(firm, key, now)


def _index_row(firm: Firm, key: str, now: datetime) -> Row:
    quote = firm.index_model.index(key)
    volume, amount = firm.index_model.since_last(key, quote.volume, quote.amount)

    def change_fields(reference: float) -> Row:
        return [fixed(quote.last - reference, 2), change_sign(quote.last, reference)]

    return [
        key,
        f"{now:%H%M%S}",
        fixed(quote.last, 2),
        change_sign(quote.last, quote.before),
        fixed(quote.last - quote.before, 2),
        str(quote.volume),
        str(quote.amount),
        str(volume),
        str(amount),
        percent_of(quote.last - quote.before, quote.before),
        fixed(quote.open, 2),
        fixed(quote.high, 2),
        fixed(quote.low, 2),
        *change_fields(quote.open),
        *change_fields(quote.high),
        *change_fields(quote.low),
        percent_of(quote.open - quote.before, quote.before),
        percent_of(quote.high - quote.before, quote.before),
        percent_of(quote.low - quote.before, quote.before),
        str(quote.at_upper),
        str(quote.ups),
        str(quote.flats),
        str(quote.downs),
        str(quote.at_lower),
        "0",
        "0",
        str(quote.ups - quote.downs),
    ]


def index_program(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0UPPGM0 (국내지수 프로그램매매), 88 columns: arbitrage, non-arbitrage, both; entrusted, own account, both."""
    if key not in INDEXES or not firm.is_trading(now):
        return None
    quote = firm.index_model.index(key)
    lean = hash_fraction(f"{firm.exchange.world.seed}:{now.date()}:{key}:program") - 0.5
    # by kind (arbitrage or not), owner (entrusted or own account) and side: thousand shares and million won
    parts = {}
    for kind, share in (("arbt", 0.02), ("nabt", 0.22)):
        for owner, owner_share in (("entm", 0.9), ("onsl", 0.1)):
            for side, sign in (("seln", -1), ("shnu", 1)):
                weight = share * owner_share * (0.5 + sign * lean * 0.2)
                parts[kind, owner, side] = (int(quote.volume * weight), int(quote.amount * weight))
    row = [key, f"{now:%H%M%S}"]
    for unit in (0, 1):
        row += [str(parts[kind, owner, side][unit]) for kind in _KINDS for side in _SIDES for owner in _OWNERS]
    for kinds, owners in _BLOCKS:
        row += _sums(parts, kinds, owners, quote.volume, quote.amount)
    for kind in _KINDS:
        for owner in _OWNERS:
            row += [str(parts[kind, owner, "shnu"][unit] - parts[kind, owner, "seln"][unit]) for unit in (0, 1)]
    return [*row, str(quote.volume), str(quote.amount)]


_KINDS, _SIDES, _OWNERS = ("arbt", "nabt"), ("seln", "shnu"), ("entm", "onsl")
_BLOCKS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("arbt",), _OWNERS),
    (("nabt",), _OWNERS),
    (_KINDS, ("entm",)),
    (_KINDS, ("onsl",)),
    (_KINDS, _OWNERS),
)


def _sums(
    parts: Mapping[tuple[str, str, str], tuple[int, int]],
    kinds: tuple[str, ...],
    owners: tuple[str, ...],
    volume: int,
    amount: int,
) -> Row:
    """Return sold, bought and net, each as quantity, percent of `volume`, amount, percent of `amount`."""
    totals = {}
    for side in _SIDES:
        totals[side] = tuple(sum(parts[k, w, side][unit] for k in kinds for w in owners) for unit in (0, 1))
    totals["net"] = tuple(totals["shnu"][unit] - totals["seln"][unit] for unit in (0, 1))
    row: Row = []
    for side in (*_SIDES, "net"):
        quantity, won = totals[side]
        row += [str(quantity), percent_of(quantity, volume), str(won), percent_of(won, amount)]
    return row


# --- futures


def future(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0IFCNT0 (지수선물 체결), 50 columns."""
    quote = _future(firm, key, now)
    if quote is None or not _FUTURES_OPEN <= now.time() < _FUTURES_CLOSE or not firm.is_trading_day(now):
        return None
    return _future_row(firm, quote, now)


def night_future(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0MFCNT0 (야간선물 체결), 49 columns: no negotiated volume."""
    quote = _future(firm, key, now)
    if quote is None or not (now.time() >= _NIGHT_OPEN or now.time() < _NIGHT_CLOSE):
        return None
    row = _future_row(firm, quote, now)
    return [*row[:46], *row[47:]]


def _future(firm: Firm, key: str, now: datetime) -> SimulatedFuture | None:
    contract = firm.index_model.contract(key, now.date())
    return firm.index_model.future(contract, now) if contract else None


def _future_row(firm: Firm, quote: SimulatedFuture, now: datetime) -> Row:
    bought = quote.volume // 2
    sold = quote.volume - bought
    near, far = (firm.index_model.future(c, now).last for c in firm.index_model.contracts(now.date())[:2])

    def change_fields(reference: float) -> Row:
        return [change_sign(quote.last, reference), fixed(quote.last - reference, 2)]

    return [
        quote.contract.code,
        f"{now:%H%M%S}",
        fixed(quote.last - quote.before, 2),
        change_sign(quote.last, quote.before),
        percent_of(quote.last - quote.before, quote.before),
        fixed(quote.last, 2),
        fixed(quote.open, 2),
        fixed(quote.high, 2),
        fixed(quote.low, 2),
        "1",
        str(quote.volume),
        str(int(quote.volume * quote.last * 250)),
        fixed(quote.fair, 2),
        fixed(quote.last - quote.spot, 2),
        percent_of(quote.last - quote.fair, quote.fair),
        fixed(near, 2),
        fixed(far, 2),
        fixed(far - near, 2),
        str(quote.open_interest),
        str(quote.volume // 300),
        "084500",
        *change_fields(quote.open),
        "084500",
        *change_fields(quote.high),
        "084500",
        *change_fields(quote.low),
        "0.50",
        fixed(bought / sold * 100 if sold else 0, 2),
        fixed(quote.last - quote.fair, 2),
        "0",
        fixed(quote.fair - quote.spot, 2),
        fixed(quote.last + 0.05, 2),
        fixed(quote.last, 2),
        "12",
        "9",
        str(sold // 3),
        str(bought // 3),
        str(bought // 3 - sold // 3),
        str(sold),
        str(bought),
        "412",
        "398",
        percent_of(quote.volume, 210_000),
        "0",
        fixed(quote.before * 1.01, 2),
        fixed(quote.before * 0.99, 2),
        "2",
    ]


def future_book(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0IFASP0 (지수선물 호가), 38 columns; the night feed is H0MFASP0."""
    quote = _future(firm, key, now)
    if quote is None or not _FUTURES_OPEN <= now.time() < _FUTURES_CLOSE:
        return None
    return _future_book_row(firm, quote, now)


def night_future_book(firm: Firm, key: str, now: datetime) -> Row | None:
    quote = _future(firm, key, now)
    if quote is None or not (now.time() >= _NIGHT_OPEN or now.time() < _NIGHT_CLOSE):
        return None
    return _future_book_row(firm, quote, now)


def _future_book_row(firm: Firm, quote: SimulatedFuture, now: datetime) -> Row:
    sizes = [5 + int(60 * hash_fraction(f"{firm.exchange.world.seed}:{now:%H%M%S}:{n}")) for n in range(10)]
    asks, bids = sizes[:5], sizes[5:]
    return [
        quote.contract.code,
        f"{now:%H%M%S}",
        *(fixed(quote.last + 0.05 * (n + 1), 2) for n in range(5)),
        *(fixed(quote.last - 0.05 * n, 2) for n in range(5)),
        *(str(1 + size // 3) for size in asks),
        *(str(1 + size // 3) for size in bids),
        *map(str, asks),
        *map(str, bids),
        str(sum(1 + size // 3 for size in asks)),
        str(sum(1 + size // 3 for size in bids)),
        str(sum(asks)),
        str(sum(bids)),
        "0",
        "0",
    ]


# --- other feeds of one stock


def _venue(firm: Firm, key: str, market: Market) -> Venue | None:
    return firm.exchange.venues.get((key, Market.KRX if market is Market.SOR else market))


def program(market: Market) -> Builder:
    """H0STPGM0 and its counterparts (프로그램매매), 11 columns."""

    def build(firm: Firm, key: str, now: datetime) -> Row | None:
        venue = _venue(firm, key, market)
        if venue is None or not firm.is_trading(now):
            return None
        tape = venue.tape
        price = tape.average or tape.last
        sold, bought = tape.sold // 4, tape.bought // 4
        ask_quantity, bid_quantity = venue.book.total(Side.SELL) // 5, venue.book.total(Side.BUY) // 5
        return [
            key,
            f"{now:%H%M%S}",
            str(sold),
            str(int(sold * price)),
            str(bought),
            str(int(bought * price)),
            str(bought - sold),
            str(int((bought - sold) * price)),
            str(ask_quantity),
            str(bid_quantity),
            str(bid_quantity - ask_quantity),
        ]

    return build


def expected(market: Market) -> Builder:
    """H0STANC0 and its counterparts (예상체결): 45 columns, NXT and unified 46; has data in auctions only."""

    def build(firm: Firm, key: str, now: datetime) -> Row | None:
        venue = _venue(firm, key, market)
        if venue is None or not venue.is_auction:
            return None
        row = expected_row(firm, venue, now)
        return row if market is Market.KRX else [*row, str(venue.tape.open or venue.base)]

    return build


def status(market: Market) -> Builder:
    """H0STMKO0 and its counterparts (장운영정보): ten columns, as in the broker's frames."""

    def build(firm: Firm, key: str, now: datetime) -> Row | None:
        if key not in STOCKS:
            return None
        halted = key in firm.exchange.world.halted
        venue_market = Market.KRX if market is Market.SOR else market
        return [
            key,
            "Y" if halted else "N",
            "거래정지" if halted else "(null)",
            firm.exchange.world.operation or ("164" if halted else "" if market is Market.KRX else "AB1"),
            expected_operation(firm, venue_market, now),
            "",
            "",
            "58" if halted else "55",
            vi_state(firm, key),
            "N" if market is Market.KRX else "",
        ]

    return build


def members(market: Market) -> Builder:
    """H0STMBC0 and its counterparts (회원사), 78 columns: the five largest members on each side."""

    def build(firm: Firm, key: str, now: datetime) -> Row | None:
        venue = _venue(firm, key, market)
        if venue is None or not firm.is_trading(now):
            return None
        tape = venue.tape
        shares = [30, 22, 16, 12, 9]
        sold, bought = ([total * share // 100 for share in shares] for total in (tape.sold, tape.bought))
        return [
            key,
            *_MEMBERS,
            *_MEMBERS,
            *map(str, sold),
            *map(str, bought),
            *["N"] * 10,
            *(f"{number:03d}" for number in (3, 5, 50, 12, 30)),
            *(f"{number:03d}" for number in (3, 5, 50, 12, 30)),
            *(fixed(share, 2) for share in shares),
            *(fixed(share, 2) for share in shares),
            *["0"] * 10,
            "0",
            "0",
            "0",
            "0",
            "0",
            "0.00",
            "0.00",
            *["KIS", "MIRAE", "KIWOOM", "NH", "SAMSUNG"] * 2,
        ]

    return build


def nav(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0STNAV0 (국내 ETF NAV), 8 columns."""
    stock, venue = STOCKS.get(key), _venue(firm, key, Market.KRX)
    if stock is None or venue is None or stock.instrument is not Instrument.ETF or not firm.is_trading(now):
        return None
    tape = venue.tape
    value = tape.last * 1.0004
    return [
        key,
        fixed(value, 2),
        change_sign(value, venue.base),
        fixed(value - venue.base, 2),
        percent_of(value - venue.base, venue.base),
        *(fixed((price or venue.base) * 1.0004, 2) for price in (tape.open, tape.high, tape.low)),
    ]


def after_hours(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0STOUP0, H0STOAC0 (시간외 체결, 예상체결), 43 columns: until 2026-09-11."""
    venue = _venue(firm, key, Market.KRX)
    if venue is None or not _is_after_hours(firm, now):
        return None
    return expected_row(firm, venue, now)[:43]


def after_hours_book(firm: Firm, key: str, now: datetime) -> Row | None:
    """H0STOAA0 (시간외 호가), 54 columns, nine levels: until 2026-09-11."""
    venue = _venue(firm, key, Market.KRX)
    if venue is None or not _is_after_hours(firm, now):
        return None
    row = book_row(firm, (venue,), now)
    asks, bids = merged_depth((venue,), 9)
    levels = [
        *(str(asks[n][0] if n < len(asks) else 0) for n in range(9)),
        *(str(bids[n][0] if n < len(bids) else 0) for n in range(9)),
        *(str(asks[n][1] if n < len(asks) else 0) for n in range(9)),
        *(str(bids[n][1] if n < len(bids) else 0) for n in range(9)),
    ]
    return [*row[:3], *levels, *row[43:58]]


def _is_after_hours(firm: Firm, now: datetime) -> bool:
    if now.date() >= _AFTER_HOURS_ENDED:
        return False
    return any(phase.name is PhaseName.AFTER_HOURS_SINGLE for phase in firm.exchange.phases(Market.KRX, now))


# --- overseas


def us_trade(firm: Firm, key: str, now: datetime) -> Row | None:
    """HDFSCNT0 (해외주식 체결), 26 columns."""
    share = us_share(key[1:4], key[4:])
    if share is None:
        return None
    quote = us_share_quote(firm.exchange.world.seed, share, now)
    if not quote.session:
        return None
    local = now - timedelta(hours=14)
    change = quote.last - share.base
    size = 1 + int(300 * hash_fraction(f"{key}:{now:%H%M%S}"))
    return [
        key,
        share.symbol,
        "4",
        f"{local:%Y%m%d}",
        f"{local:%Y%m%d}",
        f"{local:%H%M%S}",
        f"{now:%Y%m%d}",
        f"{now:%H%M%S}",
        *(fixed(price, 4) for price in (quote.open, quote.high, quote.low, quote.last)),
        change_sign(quote.last, share.base),
        fixed(abs(change), 4),
        fixed(change / share.base * 100, 2),
        fixed(quote.last - 0.01, 4),
        fixed(quote.last + 0.01, 4),
        str(size * 2),
        str(size * 3),
        str(size),
        str(quote.volume),
        str(int(quote.volume * quote.last)),
        str(quote.volume * 49 // 100),
        str(quote.volume * 51 // 100),
        "104.08",
        quote.session,
    ]


def us_book(levels: int) -> Builder:
    """HDFSASP0 with ten levels (71 columns), HDFSASP1 with one (17)."""

    def build(firm: Firm, key: str, now: datetime) -> Row | None:
        share = us_share(key[1:4], key[4:])
        if share is None:
            return None
        quote = us_share_quote(firm.exchange.world.seed, share, now)
        if not quote.session:
            return None
        local = now - timedelta(hours=14)
        sizes = [1 + int(900 * hash_fraction(f"{key}:{now:%H%M%S}:{n}")) for n in range(20)]
        head = [
            key,
            share.symbol,
            "4",
            f"{local:%Y%m%d}",
            f"{local:%H%M%S}",
            f"{now:%Y%m%d}",
            f"{now:%H%M%S}",
            str(sum(sizes[:levels])),
            str(sum(sizes[10 : 10 + levels])),
            "0",
            "0",
        ]
        for n in range(levels):
            bid, ask = quote.last - 0.01 * (n + 1), quote.last + 0.01 * (n + 1)
            head += [fixed(bid, 4), fixed(ask, 4), str(sizes[n]), str(sizes[10 + n]), "0", "0"]
        return head

    return build


PERIODIC: Mapping[str, Builder] = MappingProxyType(
    {
        "H0UPCNT0": index,
        "H0UPANC0": index_expected,
        "H0UPPGM0": index_program,
        "H0IFCNT0": future,
        "H0IFASP0": future_book,
        "H0MFCNT0": night_future,
        "H0MFASP0": night_future_book,
        "H0STPGM0": program(Market.KRX),
        "H0NXPGM0": program(Market.NXT),
        "H0UNPGM0": program(Market.SOR),
        "H0STANC0": expected(Market.KRX),
        "H0NXANC0": expected(Market.NXT),
        "H0UNANC0": expected(Market.SOR),
        "H0STMBC0": members(Market.KRX),
        "H0NXMBC0": members(Market.NXT),
        "H0UNMBC0": members(Market.SOR),
        "H0STNAV0": nav,
        "H0STOUP0": after_hours,
        "H0STOAC0": after_hours,
        "H0STOAA0": after_hours_book,
        "HDFSCNT0": us_trade,
        "HDFSASP0": us_book(10),
        "HDFSASP1": us_book(1),
    }
)
# feeds that are sent when a stock's state changes, not periodically
STATUS: Mapping[str, tuple[Market, Builder]] = MappingProxyType(
    {
        "H0STMKO0": (Market.KRX, status(Market.KRX)),
        "H0NXMKO0": (Market.NXT, status(Market.NXT)),
        "H0UNMKO0": (Market.SOR, status(Market.SOR)),
    }
)
# feeds that can be registered but have no data: futures and overseas orders are not simulated
FEEDS_WITHOUT_DATA = frozenset({"H0IFCNI0", "H0IFCNI9", "H0GSCNI0", "H0GSCNI9"})


def is_key(firm: Firm, tr_id: str, key: str, now: datetime) -> bool:
    """Return whether `key` is a valid registration key of a feed."""
    if tr_id.startswith("H0UP"):
        return key in INDEXES
    if tr_id.startswith(("H0IF", "H0MF")):
        return firm.index_model.contract(key, now.date()) is not None
    if tr_id.startswith("HDFS"):
        return key[:1] in ("D", "R") and us_share(key[1:4], key[4:]) is not None
    return key in STOCKS
