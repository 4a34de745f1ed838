"""The table of REST operations: path, TR ids, environments that offer it, and paging.

Source: the official repository koreainvestment/open-trading-api (2026-07-09) and the broker's workbook of 2026-06-25.
`old_*` are the TR ids from before 2025, which are still accepted. `spec` has the TR ids of the AEGIS specification,
if they differ.
"""

from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from aegis.broker import NotSent
from aegis.terms import Market
from kis.environment import Dialect, Environment
from kis.schema import OUTPUTS, Outputs


class Effect(Enum):
    READ = "READ"  # may be sent again
    COMMAND = "COMMAND"  # changes something: sent once


class CallPriority(StrEnum):
    """The priority of a call when slots are scarce, most urgent first.

    STOP, CANCEL (a cancel that a person requested) and CHASE are priorities of work (`kis.serving`), not of
    operations. Other calls have the priority of their operation.
    """

    STOP = "STOP"
    CANCEL = "CANCEL"
    ORDER = "ORDER"
    CHASE = "CHASE"
    ACCOUNT = "ACCOUNT"
    QUOTE = "QUOTE"
    BACKFILL = "BACKFILL"

    @property
    def rank(self) -> int:
        """Return the rank of this priority, 0 for the most urgent."""
        return list(CallPriority).index(self)


@dataclass(frozen=True, slots=True)
class Spec:
    """The TR ids and the path of an operation in the AEGIS specification (spec §2.2, §11.2)."""

    tr_id: str
    nxt_tr_id: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class TR:
    """One operation. `cursor` is the suffix of the paging keys (`100` or empty), None if no cursor pages.

    `list_output` is the output with the list of a paged operation. The columns of `key` identify a row of it: the
    client uses them to detect pages that overlap. In a list without pages rows may be equal (two trades of one second).
    """

    name: str
    method: str
    path: str
    effect: Effect
    priority: CallPriority
    live: str
    paper: str = ""
    old_live: str = ""
    old_paper: str = ""
    spec: Spec | None = None
    cursor: str | None = None
    list_output: str = "output"
    key: tuple[str, ...] = ()

    @property
    def outputs(self) -> Outputs:
        """The columns of the reply by output; empty if `kis.schema` does not have the operation."""
        return OUTPUTS.get(self.name, {})

    @property
    def is_ledger(self) -> bool:
        """Whether the broker's ledger (원장) answers the call. It has a limit of its own (EGW00215)."""
        return "/trading/" in self.path

    def address(self, environment: Environment, dialect: Dialect, market: Market) -> tuple[str, str]:
        """Return the path and the TR id to send. Raises NotSent if the environment does not offer the operation."""
        if environment.is_paper and not self.paper:
            raise NotSent("paper trading does not offer this operation", code="EGW02006", call=self.name)
        if dialect is Dialect.OFFICIAL:
            return self.path, self.paper if environment.is_paper else self.live
        if environment.is_paper:
            return self.path, self.old_paper or self.paper
        if self.spec is None:
            return self.path, self.old_live or self.live
        by_venue = self.spec.nxt_tr_id if market is Market.NXT else ""
        return self.spec.path or self.path, by_venue or self.spec.tr_id


_TRADING = "/uapi/domestic-stock/v1/trading/"
_QUOTES = "/uapi/domestic-stock/v1/quotations/"
_FUTURES = "/uapi/domestic-futureoption/v1/quotations/"
_R, _C = Effect.READ, Effect.COMMAND
_ORDER, _ACCOUNT = CallPriority.ORDER, CallPriority.ACCOUNT
_QUOTE, _BACKFILL = CallPriority.QUOTE, CallPriority.BACKFILL

BUY = TR(
    "order-cash buy",
    "POST",
    _TRADING + "order-cash",
    _C,
    _ORDER,
    live="TTTC0012U",
    paper="VTTC0012U",
    old_live="TTTC0802U",
    old_paper="VTTC0802U",
    spec=Spec("TTTC0802U", nxt_tr_id="TTTN0802U"),
)
SELL = TR(
    "order-cash sell",
    "POST",
    _TRADING + "order-cash",
    _C,
    _ORDER,
    live="TTTC0011U",
    paper="VTTC0011U",
    old_live="TTTC0801U",
    old_paper="VTTC0801U",
    spec=Spec("TTTC0801U", nxt_tr_id="TTTN0801U"),
)
REVISE_OR_CANCEL = TR(
    "order-rvsecncl",
    "POST",
    _TRADING + "order-rvsecncl",
    _C,
    _ORDER,
    live="TTTC0013U",
    paper="VTTC0013U",
    old_live="TTTC0803U",
    old_paper="VTTC0803U",
)
BUYABLE = TR(
    "inquire-psbl-order",
    "GET",
    _TRADING + "inquire-psbl-order",
    _R,
    _ACCOUNT,
    live="TTTC8908R",
    paper="VTTC8908R",
    spec=Spec("TTTC8434R"),
)
SELLABLE = TR("inquire-psbl-sell", "GET", _TRADING + "inquire-psbl-sell", _R, _ACCOUNT, live="TTTC8408R")
BALANCE = TR(
    "inquire-balance",
    "GET",
    _TRADING + "inquire-balance",
    _R,
    _ACCOUNT,
    live="TTTC8434R",
    paper="VTTC8434R",
    spec=Spec("TTTC8434R", nxt_tr_id="TTTN8434R"),
    cursor="100",
    list_output="output1",
    # a stock has one line for cash and one per kind and day of credit (UNVERIFIED: documents show no more)
    key=("pdno", "trad_dvsn_name", "loan_dt"),
)
OPEN_ORDERS = TR(
    "inquire-psbl-rvsecncl",
    "GET",
    _TRADING + "inquire-psbl-rvsecncl",
    _R,
    _ACCOUNT,
    live="TTTC0084R",
    old_live="TTTC8036R",
    spec=Spec("TTTC8036R", nxt_tr_id="TTTN8036R", path=_TRADING + "inquire-nccs"),
    cursor="100",
    key=("ord_gno_brno", "odno", "pdno", "sll_buy_dvsn_cd"),
)
ORDERS = TR(
    "inquire-daily-ccld",
    "GET",
    _TRADING + "inquire-daily-ccld",
    _R,
    _ACCOUNT,
    live="TTTC0081R",
    paper="VTTC0081R",
    old_live="TTTC8001R",  # its paper counterpart VTTC8001R always answers without rows
    cursor="100",
    list_output="output1",
    key=("ord_dt", "ord_gno_brno", "odno", "pdno", "sll_buy_dvsn_cd"),
)
# the same operation for days that ORDERS does not reach; it lags behind during the day
OLDER_ORDERS = replace(ORDERS, live="CTSC9215R", paper="VTSC9215R", old_live="CTSC9115R")
PRICE = TR("inquire-price", "GET", _QUOTES + "inquire-price", _R, _QUOTE, live="FHKST01010100", paper="FHKST01010100")
BOOK = TR(
    "inquire-asking-price-exp-ccn",
    "GET",
    _QUOTES + "inquire-asking-price-exp-ccn",
    _R,
    _QUOTE,
    live="FHKST01010200",
    paper="FHKST01010200",
)
HOLIDAYS = TR(
    "chk-holiday",
    "GET",
    _QUOTES + "chk-holiday",
    _R,
    _BACKFILL,
    live="CTCA0903R",
    cursor="",
    key=("bass_dt",),
)
STOCK_INFO = TR("search-stock-info", "GET", _QUOTES + "search-stock-info", _R, _QUOTE, live="CTPF1002R")
DAILY_CHART = TR(
    "inquire-daily-itemchartprice",
    "GET",
    _QUOTES + "inquire-daily-itemchartprice",
    _R,
    _BACKFILL,
    live="FHKST03010100",
    paper="FHKST03010100",
    list_output="output2",
    key=("stck_bsop_date",),
)
MINUTES_TODAY = TR(
    "inquire-time-itemchartprice",
    "GET",
    _QUOTES + "inquire-time-itemchartprice",
    _R,
    _BACKFILL,
    live="FHKST03010200",
    paper="FHKST03010200",
    list_output="output2",
    key=("stck_bsop_date", "stck_cntg_hour"),
)
MINUTES_OF_DAY = TR(
    "inquire-time-dailychartprice",
    "GET",
    _QUOTES + "inquire-time-dailychartprice",
    _R,
    _BACKFILL,
    live="FHKST03010230",
    list_output="output2",
    key=("stck_bsop_date", "stck_cntg_hour"),
)
INDEX_PRICE = TR("inquire-index-price", "GET", _QUOTES + "inquire-index-price", _R, _QUOTE, live="FHPUP02100000")
INDEX_CHART = TR(
    "inquire-daily-indexchartprice",
    "GET",
    _QUOTES + "inquire-daily-indexchartprice",
    _R,
    _BACKFILL,
    live="FHKUP03500100",
    paper="FHKUP03500100",
    list_output="output2",
    key=("stck_bsop_date",),
)
FUTURES_PRICE = TR(
    "futures inquire-price",
    "GET",
    _FUTURES + "inquire-price",
    _R,
    _QUOTE,
    live="FHMIF10000000",
    paper="FHMIF10000000",
    spec=Spec("FHKIF03010200"),
)
FUTURES_BOARD = TR(
    "display-board-futures", "GET", _FUTURES + "display-board-futures", _R, _BACKFILL, live="FHPIF05030200"
)
INVESTORS_NOW = TR(
    "inquire-investor-time-by-market",
    "GET",
    _QUOTES + "inquire-investor-time-by-market",
    _R,
    _QUOTE,
    live="FHPTJ04030000",
    spec=Spec("FHKIF03020100"),
)
OPERATIONS: tuple[TR, ...] = (
    BUY,
    SELL,
    REVISE_OR_CANCEL,
    BUYABLE,
    SELLABLE,
    BALANCE,
    OPEN_ORDERS,
    ORDERS,
    PRICE,
    BOOK,
    DAILY_CHART,
    MINUTES_TODAY,
    MINUTES_OF_DAY,
    HOLIDAYS,
    STOCK_INFO,
    INDEX_PRICE,
    INDEX_CHART,
    FUTURES_PRICE,
    FUTURES_BOARD,
    INVESTORS_NOW,
)
