"""Every REST operation as one row: where it is, what it is called, who offers it, how it pages.

Source: the official repository koreainvestment/open-trading-api (2026-07-09) and the broker's workbook
of 2026-06-25; `old_*` are the ids before 2025, still accepted. `spec` holds what the user's own
specification calls the same thing, where the two differ.
"""

from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from aegis.broker import NotSent
from aegis.terms import Market
from kis.environment import Dialect, Environment
from kis.outputs import OUTPUTS, Outputs


class Effect(Enum):
    READ = "READ"  # may be repeated
    COMMAND = "COMMAND"  # changes something: sent once


class Urgency(StrEnum):
    """Who goes first when calls are short, the most urgent first.

    A stop's sale and a cancel that a person requested are ranks of work (`kis.serving`), not of operations. A chase's
    calls come after those of new orders. The rest is served by what it asks for.
    """

    STOP = "STOP"
    CANCEL = "CANCEL"
    ORDER = "ORDER"
    CHASE = "CHASE"
    ACCOUNT = "ACCOUNT"
    QUOTE = "QUOTE"
    BACKFILL = "BACKFILL"

    def rank_of(self) -> int:
        """Return its place, 0 for the most urgent."""
        return list(Urgency).index(self)


@dataclass(frozen=True, slots=True)
class Spec:
    """An operation under the user's own ids (spec §2.2, §11.2)."""

    tr_id: str
    nxt_tr_id: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class TR:
    """One operation. `cursor` names the paging keys' suffix (`100`, `200` or none), None where no cursor pages.

    A paged operation's list is `listed`, and no two of its rows agree in all columns of `key`: its pages are
    held against that. Rows may well be equal in a list that does not page (two trades of one second). `page_rows`
    is what the broker puts on a page at most, `paper_page_rows` on paper where that differs.
    """

    name: str
    method: str
    path: str
    effect: Effect
    urgency: Urgency
    live: str
    paper: str = ""
    old_live: str = ""
    old_paper: str = ""
    spec: Spec | None = None
    cursor: str | None = None
    listed: str = "output"
    key: tuple[str, ...] = ()
    page_rows: int = 0
    paper_page_rows: int = 0

    @property
    def outputs(self) -> Outputs:
        """What stands in the reply, output by output; empty where the operation is none of the catalogue's."""
        return OUTPUTS.get(self.name, {})

    def page_rows_of(self, environment: Environment) -> int:
        """Return how many rows a full page has."""
        return (self.paper_page_rows if environment.is_paper else 0) or self.page_rows

    @property
    def is_ledger(self) -> bool:
        """Whether the broker's ledger (원장) answers it, which has a limit of its own (EGW00215)."""
        return "/trading/" in self.path

    def address(self, environment: Environment, dialect: Dialect, market: Market) -> tuple[str, str]:
        """Return the path and the TR id to send. Raises NotSent where the environment does not offer it."""
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
_ORDER, _ACCOUNT, _QUOTE, _BACKFILL = Urgency.ORDER, Urgency.ACCOUNT, Urgency.QUOTE, Urgency.BACKFILL

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
    listed="output1",
    # a stock has one line in cash and one for each kind and day of credit (UNVERIFIED: documents show no more)
    key=("pdno", "trad_dvsn_name", "loan_dt"),
    page_rows=50,
    paper_page_rows=20,
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
    page_rows=50,
)
ORDERS = TR(
    "inquire-daily-ccld",
    "GET",
    _TRADING + "inquire-daily-ccld",
    _R,
    _ACCOUNT,
    live="TTTC0081R",
    paper="VTTC0081R",
    old_live="TTTC8001R",  # its paper twin VTTC8001R answers without rows, at all times
    cursor="100",
    listed="output1",
    key=("ord_dt", "ord_gno_brno", "odno", "pdno", "sll_buy_dvsn_cd"),
    page_rows=100,
    paper_page_rows=15,
)
# the same operation for days before those that ORDERS reaches; it lags behind during the day
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
DAILY_PRICE = TR(
    "inquire-daily-price",
    "GET",
    _QUOTES + "inquire-daily-price",
    _R,
    _BACKFILL,
    live="FHKST01010400",
    paper="FHKST01010400",
    key=("stck_bsop_date",),
    page_rows=30,
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
    page_rows=24,
)
STOCK_INFO = TR("search-stock-info", "GET", _QUOTES + "search-stock-info", _R, _QUOTE, live="CTPF1002R")
PRODUCT_INFO = TR("search-info", "GET", _QUOTES + "search-info", _R, _QUOTE, live="CTPF1604R")
ACCOUNT_BALANCE = TR(
    "inquire-account-balance", "GET", _TRADING + "inquire-account-balance", _R, _ACCOUNT, live="CTRP6548R"
)
DAILY_CHART = TR(
    "inquire-daily-itemchartprice",
    "GET",
    _QUOTES + "inquire-daily-itemchartprice",
    _R,
    _BACKFILL,
    live="FHKST03010100",
    paper="FHKST03010100",
    listed="output2",
    key=("stck_bsop_date",),
    page_rows=100,
)
MINUTES_TODAY = TR(
    "inquire-time-itemchartprice",
    "GET",
    _QUOTES + "inquire-time-itemchartprice",
    _R,
    _BACKFILL,
    live="FHKST03010200",
    paper="FHKST03010200",
    listed="output2",
    key=("stck_bsop_date", "stck_cntg_hour"),
    page_rows=30,
)
MINUTES_OF_DAY = TR(
    "inquire-time-dailychartprice",
    "GET",
    _QUOTES + "inquire-time-dailychartprice",
    _R,
    _BACKFILL,
    live="FHKST03010230",
    listed="output2",
    key=("stck_bsop_date", "stck_cntg_hour"),
    page_rows=120,
)
VI_STATUS = TR(
    "inquire-vi-status",
    "GET",
    _QUOTES + "inquire-vi-status",
    _R,
    _QUOTE,
    live="FHPST01390000",
    key=("mksc_shrn_iscd", "bsop_date", "cntg_vi_hour"),
    page_rows=30,
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
    listed="output2",
    key=("stck_bsop_date",),
    page_rows=50,
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
FUTURES_CHART = TR(
    "inquire-daily-fuopchartprice",
    "GET",
    _FUTURES + "inquire-daily-fuopchartprice",
    _R,
    _BACKFILL,
    live="FHKIF03020100",
    paper="FHKIF03020100",
    listed="output2",
    key=("stck_bsop_date",),
    page_rows=100,
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
PROGRAM_TRADES = TR(
    "program-trade-by-stock", "GET", _QUOTES + "program-trade-by-stock", _R, _QUOTE, live="FHPPG04650101"
)
INVESTORS_BY_DAY = TR(
    "inquire-investor-daily-by-market",
    "GET",
    _QUOTES + "inquire-investor-daily-by-market",
    _R,
    _BACKFILL,
    live="FHPTJ04040000",
)
OVERSEAS_PRICE = TR(
    "overseas price",
    "GET",
    "/uapi/overseas-price/v1/quotations/price",
    _R,
    _QUOTE,
    live="HHDFS00000300",
    paper="HHDFS00000300",
)
OVERSEAS_OPEN_ORDERS = TR(
    "overseas inquire-nccs",
    "GET",
    "/uapi/overseas-stock/v1/trading/inquire-nccs",
    _R,
    _ACCOUNT,
    live="TTTS3018R",
    cursor="200",
    key=("ord_dt", "ord_gno_brno", "odno"),
)

OPERATIONS: tuple[TR, ...] = (
    BUY,
    SELL,
    REVISE_OR_CANCEL,
    BUYABLE,
    SELLABLE,
    BALANCE,
    ACCOUNT_BALANCE,
    OPEN_ORDERS,
    ORDERS,
    PRICE,
    BOOK,
    DAILY_PRICE,
    DAILY_CHART,
    MINUTES_TODAY,
    MINUTES_OF_DAY,
    HOLIDAYS,
    STOCK_INFO,
    PRODUCT_INFO,
    VI_STATUS,
    INDEX_PRICE,
    INDEX_CHART,
    FUTURES_PRICE,
    FUTURES_CHART,
    FUTURES_BOARD,
    INVESTORS_NOW,
    INVESTORS_BY_DAY,
    PROGRAM_TRADES,
    OVERSEAS_PRICE,
    OVERSEAS_OPEN_ORDERS,
)
