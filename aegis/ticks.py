"""The tick ladder (호가단위): which prices exist, and how to move between them.

Source: spec §9.1 for shares, on KRX and NXT alike; exchange-traded funds and notes have two tiers
(protocol notes §13), warrants (ELW) one. The broker's quote has the tick of any instrument at its
current price; a `quoted` tick that contradicts the ladder overrides it. Prices are whole won.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Protocol

from aegis.terms import Instrument

Direction = Literal["down", "up"]

# (first price of the next tier, tick below it); the last tier has no end
STOCK_LADDER: tuple[tuple[int, int], ...] = (
    (2_000, 1),
    (5_000, 5),
    (20_000, 10),
    (50_000, 50),
    (200_000, 100),
    (500_000, 500),
)
STOCK_TOP_TICK = 1_000
FUND_LADDER: tuple[tuple[int, int], ...] = ((2_000, 1),)
FUND_TOP_TICK = 5
WARRANT_TICK = 5

_LADDERS: Mapping[Instrument, tuple[tuple[tuple[int, int], ...], int]] = MappingProxyType(
    {
        Instrument.STOCK: (STOCK_LADDER, STOCK_TOP_TICK),
        Instrument.ETF: (FUND_LADDER, FUND_TOP_TICK),
        Instrument.ETN: (FUND_LADDER, FUND_TOP_TICK),
        Instrument.ELW: ((), WARRANT_TICK),
    }
)

DAILY_LIMIT_PERCENT = 30


class QuotedTick(Protocol):
    """The tick in the broker's quote and the price it applies to, in won. A `tick` of 0: the quote has none."""

    @property
    def price(self) -> int: ...

    @property
    def tick(self) -> int: ...


def get_tick_size(price: int, instrument: Instrument = Instrument.STOCK, *, quoted: QuotedTick | None = None) -> int:
    """Return the tick, in won, of the tier that holds `price`. Source: spec §9.2.

    A `quoted` tick that differs from the ladder's tick at and just below the quoted price shows that the ladder is
    wrong for this instrument: the quoted tick then applies at every price. A `quoted` tick that agrees with the ladder
    changes nothing.
    """
    if quoted is not None and quoted.tick:
        ladder = {_ladder_tick(quoted.price, instrument), _ladder_tick(quoted.price - 1, instrument)}
        if quoted.tick not in ladder:
            return quoted.tick
    return _ladder_tick(price, instrument)


def _ladder_tick(price: int, instrument: Instrument) -> int:
    ladder, top = _LADDERS[instrument]
    return next((tick for tier_end, tick in ladder if price < tier_end), top)


def adjust_price_to_tick(
    price: int,
    direction: Direction = "down",
    instrument: Instrument = Instrument.STOCK,
    *,
    quoted: QuotedTick | None = None,
) -> int:
    """Return `price`, in won, moved onto the tick grid.

    Source: spec §9.2. Rounding up may enter the next tier: 4,998 becomes 5,000.
    """
    tick = get_tick_size(price, instrument, quoted=quoted)
    if direction == "down":
        return price // tick * tick
    return -(-price // tick) * tick


def is_on_tick(price: int, instrument: Instrument = Instrument.STOCK, *, quoted: QuotedTick | None = None) -> bool:
    return price > 0 and price % get_tick_size(price, instrument, quoted=quoted) == 0


def step(price: int, ticks: int, instrument: Instrument = Instrument.STOCK, *, quoted: QuotedTick | None = None) -> int:
    """Return the price `ticks` steps up (down if negative) the ladder, in won, across tier edges.

    `price` is first rounded down to the grid. The result is never below one tick.
    """
    price = adjust_price_to_tick(price, "down", instrument, quoted=quoted)
    for _ in range(abs(ticks)):
        if ticks > 0:
            price += get_tick_size(price, instrument, quoted=quoted)
        else:
            lower = price - get_tick_size(price - 1, instrument, quoted=quoted)
            price = lower if lower > 0 else price
    return price


def daily_limits(base_price: int, instrument: Instrument = Instrument.STOCK) -> tuple[int, int]:
    """Return the lowest and highest price, in won, of a day that starts from `base_price` (기준가).

    The width is 30 % of the base, rounded down to the base's tick; both ends are then rounded inwards to the grid.
    66,000 gives (46,200, 85,800), as the broker's inquire-price shows.
    """
    tick = get_tick_size(base_price, instrument)
    width = base_price * DAILY_LIMIT_PERCENT // 100 // tick * tick
    lowest = adjust_price_to_tick(base_price - width, "up", instrument)
    highest = adjust_price_to_tick(base_price + width, "down", instrument)
    return lowest, highest
