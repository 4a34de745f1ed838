"""What a day's trading has won or lost: today's value of the shares and today's fills, from today's base prices.

Neither a deposit nor a withdrawal is part of it, and an ex-rights day or a split moves its own base price. Shares that
came or went without a trade count at the base price, as if they had been there, or not, since the morning.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from aegis.ticks import DAILY_LIMIT_PERCENT


@dataclass(frozen=True, slots=True)
class StockDay:
    """One stock's day, in shares and won. `qty` is held now, at `price`.

    A price that is not surely of today (`is_of_today`) counts only within the day's limits: a balance may show
    yesterday's before the first trade. `paid_won` and `received_won` are today's fills with commission and tax.
    `base_price` is today's 기준가, None if no price is known from which the day could be measured.
    """

    code: str
    qty: int
    price: int
    base_price: int | None
    bought_qty: int = 0
    sold_qty: int = 0
    paid_won: int = 0
    received_won: int = 0
    is_of_today: bool = True

    @property
    def qty_at_start(self) -> int:
        return self.qty - self.bought_qty + self.sold_qty

    @property
    def result_won(self) -> int | None:
        """Return what the stock has won or lost today, None if that cannot be known."""
        if self.base_price is None:
            return self.qty * self.price + self.received_won - self.paid_won if self.qty_at_start == 0 else None
        value = self.qty * self._price_of_today(self.base_price)
        return value + self.received_won - self.paid_won - self.qty_at_start * self.base_price

    def _price_of_today(self, base_price: int) -> int:
        is_possible = abs(self.price - base_price) * 100 <= base_price * DAILY_LIMIT_PERCENT or self.is_of_today
        return self.price if is_possible and self.price else base_price


@dataclass(frozen=True, slots=True)
class DayResult:
    """What all stocks together have won or lost today. `unknown` names those that are not in it."""

    won: int = 0
    unknown: tuple[str, ...] = ()


def result_of(stocks: Iterable[StockDay]) -> DayResult:
    """Return the sum of the stocks' days, as far as it can be known."""
    results = {stock.code: stock.result_won for stock in stocks}
    known = sum(result for result in results.values() if result is not None)
    return DayResult(known, tuple(code for code, result in results.items() if result is None))
