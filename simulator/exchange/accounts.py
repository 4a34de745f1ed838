"""Customers' cash and shares in the broker's accounting.

Shares change with the trade, cash two trading days later; the D+2 column (가수도정산금액) shows the change
at once. The average price has four decimals. A sale does not change it.
"""

from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

from aegis.terms import Side

OPENING_CASH = 100_000_000
_FOUR_DECIMALS = Decimal("0.0001")


@dataclass(slots=True)
class AccountHolding:
    """Shares of one stock. A row sold to zero stays until its sale is settled."""

    code: str
    quantity: int = 0
    average: Decimal = Decimal(0)
    bought_today: int = 0
    sold_today: int = 0
    bought_yesterday: int = 0
    sold_yesterday: int = 0
    shown_until: date | None = None

    @property
    def cost(self) -> int:
        """Purchase cost of the shares, in whole won (매입금액)."""
        return int((self.average * self.quantity).quantize(Decimal(1), ROUND_HALF_UP))

    def buy(self, quantity: int, amount: int) -> None:
        total = self.average * self.quantity + amount
        self.quantity += quantity
        self.average = (total / self.quantity).quantize(_FOUR_DECIMALS, ROUND_HALF_UP)
        self.bought_today += quantity

    def sell(self, quantity: int) -> None:
        self.quantity -= quantity
        self.sold_today += quantity


@dataclass(slots=True)
class AccountDay:
    """Totals of one day's trades, in won. `bought` and `sold` exclude `costs`."""

    bought: int = 0
    sold: int = 0
    costs: int = 0


@dataclass(slots=True)
class BrokerAccount:
    """A customer's account. `deposit` is settled cash; `unsettled` is the cash change by settlement date, in won."""

    number: str
    deposit: int = OPENING_CASH
    unsettled: dict[date, int] = field(default_factory=dict)
    holdings: dict[str, AccountHolding] = field(default_factory=dict)
    today: AccountDay = field(default_factory=AccountDay)
    yesterday: AccountDay = field(default_factory=AccountDay)
    total_yesterday: int = OPENING_CASH

    @property
    def cash_d2(self) -> int:
        return self.deposit + sum(self.unsettled.values())

    def cash_on(self, day: date) -> int:
        """Return the cash, in won, after everything due by `day` is settled."""
        return self.deposit + sum(amount for due, amount in self.unsettled.items() if due <= day)

    def fill(self, *, side: Side, code: str, quantity: int, amount: int, costs: int, due: date) -> None:
        """Book a fill of `amount` won: shares now, cash on `due`."""
        holding = self.holdings.setdefault(code, AccountHolding(code))
        if side is Side.BUY:
            holding.buy(quantity, amount)
            self.today.bought += amount
        else:
            holding.sell(quantity)
            holding.shown_until = due
            self.today.sold += amount
        self.today.costs += costs
        self.unsettled[due] = self.unsettled.get(due, 0) - side.sign * amount - costs

    def settle(self, day: date) -> None:
        """Move amounts that are due by `day` into the deposit."""
        for due in [due for due in self.unsettled if due <= day]:
            self.deposit += self.unsettled.pop(due)

    def roll(self, day: date, total_at_close: int) -> None:
        """Begin trading day `day`: today's totals become yesterday's. `total_at_close` is in won."""
        self.total_yesterday = total_at_close
        self.yesterday, self.today = self.today, AccountDay()
        for holding in list(self.holdings.values()):
            holding.bought_yesterday, holding.bought_today = holding.bought_today, 0
            holding.sold_yesterday, holding.sold_today = holding.sold_today, 0
            if not holding.quantity and (holding.shown_until is None or holding.shown_until <= day):
                del self.holdings[holding.code]
