"""What a trade costs: the customer's commission and the state's taxes on sales.

Commission: spec §11.4, a contract of the customer, different by venue. Taxes: dated by law; the
broker's notices of 2023 to 2026 (venue notes, "Costs"). Rates are percent, amounts whole won.

UNVERIFIED: commission and each tax are rounded down to the whole won once per order, on its traded total. The broker
may instead round per stock and day, or to ten won. A day with several fills settles it: inquire-daily-ccld has the
costs of orders (prsm_tlex_smtl), inquire-balance those of the day (thdt_tlex_amt).
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
        # the broker chooses the venue; KRX's rate is the higher of the two
        Market.SOR: Decimal("0.0140527"),
    }
)


def _pct(*rates: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, rates))


# first trade date of the rates, percent by board; newest first. A KOSPI sale pays two taxes: the securities
# transaction tax (증권거래세) and the special rural tax (농어촌특별세); each is rounded down to the whole won.
SALES_TAXES_PCT: tuple[tuple[date, Mapping[Board, tuple[Decimal, ...]]], ...] = (
    (date(2026, 1, 1), {Board.KOSPI: _pct("0.05", "0.15"), Board.KOSDAQ: _pct("0.20"), Board.KONEX: _pct("0.10")}),
    (date(2025, 1, 1), {Board.KOSPI: _pct("0.00", "0.15"), Board.KOSDAQ: _pct("0.15"), Board.KONEX: _pct("0.10")}),
    (date(2024, 1, 1), {Board.KOSPI: _pct("0.03", "0.15"), Board.KOSDAQ: _pct("0.18"), Board.KONEX: _pct("0.10")}),
    (date(2023, 1, 1), {Board.KOSPI: _pct("0.05", "0.15"), Board.KOSDAQ: _pct("0.20"), Board.KONEX: _pct("0.10")}),
)


@dataclass(frozen=True, slots=True)
class Rates:
    """The customer's own rates in percent, by venue. A rate given here overrides the tables."""

    commission_pct: Mapping[Market, Decimal] = field(default_factory=dict)
    tax_pct: Mapping[Market, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cost:
    """The commission and tax of one trade, in won."""

    fee: int
    tax: int

    @property
    def total(self) -> int:
        return self.fee + self.tax


def sales_taxes_pct(on: date, board: Board, instrument: Instrument) -> tuple[Decimal, ...]:
    """Return the taxes on a sale, in percent, by trade date. Funds, notes and warrants pay none.

    Raises ValueError for a date before the first row of the table.
    """
    if instrument is not Instrument.STOCK:
        return ()
    for since, by_board in SALES_TAXES_PCT:
        if on >= since:
            return by_board[board]
    raise ValueError(f"no sales tax is known for {on}: the table begins {SALES_TAXES_PCT[-1][0]}")


def sales_tax_pct(on: date, board: Board, instrument: Instrument) -> Decimal:
    """Return the sum of the taxes on a sale, in percent. Raises ValueError as `sales_taxes_pct` does."""
    return sum(sales_taxes_pct(on, board, instrument), Decimal(0))


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
    """Return commission and tax, in whole won (rounded down), of an order that traded `amount` won in total.

    Source: spec §11.5. Taxes depend on date, board and instrument; a buy pays none. A tax rate in `rates` replaces all
    taxes of a stock and is rounded once.
    """
    rates = rates or Rates()
    fee = _cut(amount, rates.commission_pct.get(market, COMMISSION_PCT[market]))
    if side is Side.BUY:
        return Cost(fee=fee, tax=0)
    own_pct = rates.tax_pct.get(market)
    taxes = (
        sales_taxes_pct(on, board, instrument) if own_pct is None or instrument is not Instrument.STOCK else (own_pct,)
    )
    return Cost(fee=fee, tax=sum(_cut(amount, pct) for pct in taxes))


def _cut(amount: int, pct: Decimal) -> int:
    return int(amount * pct / 100)


def calc_fill_cost(
    amount: int,
    market: Market,
    side: Side,
    *,
    filled_before: int,
    on: date,
    board: Board = Board.KOSPI,
    instrument: Instrument = Instrument.STOCK,
    rates: Rates | None = None,
) -> Cost:
    """Return the cost that a fill of `amount` won adds to its order, which has already traded `filled_before` won.

    The costs of an order's fills add up to the cost of the whole order.
    UNVERIFIED: the commission of a SOR order that fills on two venues; here each fill has its venue's rate.
    """

    def cost(traded: int) -> Cost:
        return calc_fee(traded, market, side, on=on, board=board, instrument=instrument, rates=rates)

    before, after = cost(filled_before), cost(filled_before + amount)
    return Cost(fee=after.fee - before.fee, tax=after.tax - before.tax)
