"""What a trade costs: the customer's commission and the state's tax on sales.

Commission: spec §11.4, a contract of the customer, different by venue. Tax: dated by law; the
broker's notices of 2023 to 2026 (venue notes, "Costs"). Rates are percent, amounts whole won.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from types import MappingProxyType

from aegis.terms import Board, Instrument, Market, Side

COMMISSION_PCT: Mapping[Market, Decimal] = MappingProxyType(
    {
        Market.KRX: Decimal("0.0140527"),
        Market.NXT: Decimal("0.0139527"),
        # the broker routes it; KRX's rate is the dearer of the two
        Market.SOR: Decimal("0.0140527"),
    }
)

# first trade date of a rate, percent by board; newest first
SALES_TAX_PCT: tuple[tuple[date, Mapping[Board, Decimal]], ...] = (
    (date(2026, 1, 1), {Board.KOSPI: Decimal("0.20"), Board.KOSDAQ: Decimal("0.20"), Board.KONEX: Decimal("0.10")}),
    (date(2025, 1, 1), {Board.KOSPI: Decimal("0.15"), Board.KOSDAQ: Decimal("0.15"), Board.KONEX: Decimal("0.10")}),
    (date(2024, 1, 1), {Board.KOSPI: Decimal("0.18"), Board.KOSDAQ: Decimal("0.18"), Board.KONEX: Decimal("0.10")}),
    (date(2023, 1, 1), {Board.KOSPI: Decimal("0.20"), Board.KOSDAQ: Decimal("0.20"), Board.KONEX: Decimal("0.10")}),
)


@dataclass(frozen=True, slots=True)
class Rates:
    """The customer's own rates in percent, by venue; one given here wins over the tables."""

    commission_pct: Mapping[Market, Decimal] = field(default_factory=dict)
    tax_pct: Mapping[Market, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one trade costs, in won."""

    fee: int
    tax: int

    @property
    def total(self) -> int:
        return self.fee + self.tax


def sales_tax_pct(on: date, board: Board, instrument: Instrument) -> Decimal:
    """Return the tax on a sale, in percent, by trade date. Funds, notes and warrants pay none.

    Raises ValueError for a date before the first row of the table.
    """
    if instrument is not Instrument.STOCK:
        return Decimal(0)
    for since, by_board in SALES_TAX_PCT:
        if on >= since:
            return by_board[board]
    raise ValueError(f"no sales tax is known for {on}: the table begins {SALES_TAX_PCT[-1][0]}")


def calc_fee(
    amount: int,
    market: Market,
    side: Side,
    *,
    on: date,
    board: Board = Board.KOSPI,
    instrument: Instrument = Instrument.STOCK,
    rates: Rates | None = None,
) -> Cost:
    """Return commission and tax, in whole won (fractions dropped), of a trade worth `amount` won.

    Source: spec §11.5, with the tax by date, board and instrument, and none on a buy.
    """
    rates = rates or Rates()
    fee = int(amount * rates.commission_pct.get(market, COMMISSION_PCT[market]) / 100)
    if side is Side.BUY:
        return Cost(fee=fee, tax=0)
    tax_pct = rates.tax_pct.get(market)
    if tax_pct is None or instrument is not Instrument.STOCK:
        tax_pct = sales_tax_pct(on, board, instrument)
    return Cost(fee=fee, tax=int(amount * tax_pct / 100))
