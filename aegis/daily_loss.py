"""The result of a day's trading: the value of the shares and today's fills, measured from today's base prices.

Deposits and withdrawals are not part of it, and an ex-rights day or a split moves its own base price. Shares that were
moved in or out without a trade count at the base price, as if they had been moved before the day began.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from aegis.ticks import DAILY_LIMIT_PERCENT


@dataclass(frozen=True, slots=True)
class StockDay:
    """One stock's day, in shares and won. `qty` shares are held now, at `price`.

    A price that may not be of today (`is_of_today` is false) counts only within the day's limits: before the first
    trade a balance may show yesterday's price. `paid_won` and `received_won` are today's fills with commission and tax.
    `base_price` is today's 기준가, None if no price is known to measure the day from.
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
        """The profit or loss of the stock today, None if it is not known."""
        if self.base_price is None:
            return self.qty * self.price + self.received_won - self.paid_won if self.qty_at_start == 0 else None
        value = self.qty * self._price_of_today(self.base_price)
        return value + self.received_won - self.paid_won - self.qty_at_start * self.base_price

    def _price_of_today(self, base_price: int) -> int:
        is_possible = abs(self.price - base_price) * 100 <= base_price * DAILY_LIMIT_PERCENT or self.is_of_today
        return self.price if is_possible and self.price else base_price


@dataclass(frozen=True, slots=True)
class DayResult:
    """The profit or loss of all stocks together today, in won. `unknown` has the codes that it does not include."""

    won: int = 0
    unknown: tuple[str, ...] = ()


def result_of(stocks: Iterable[StockDay]) -> DayResult:
    """Return the sum of the stocks' results, as far as they are known."""
    results = {stock.code: stock.result_won for stock in stocks}
    known_won = sum(result for result in results.values() if result is not None)
    return DayResult(known_won, tuple(code for code, result in results.items() if result is None))
