"""Trading terms: the venues, sides, boards, instruments and order kinds of the exchanges.

Sources: the broker's workbook of 2026-09-11 (order codes, 주문구분) and its notice of 2026-09-09.
"""

from enum import StrEnum


class Market(StrEnum):
    """A venue (거래소) that an order may be sent to. SOR: the broker chooses between KRX and NXT."""

    KRX = "KRX"
    NXT = "NXT"
    SOR = "SOR"


class Side(StrEnum):
    """A side of an order. `sign` is +1 for a buy, which adds shares, and -1 for a sale."""

    sign: int

    BUY = "BUY"
    SELL = "SELL"


Side.BUY.sign, Side.SELL.sign = 1, -1


class Board(StrEnum):
    """Where a share is listed; it decides the tax on a sale."""

    KOSPI = "KOSPI"
    KOSDAQ = "KOSDAQ"
    KONEX = "KONEX"


class Instrument(StrEnum):
    """The type of a security. Only STOCK has the seven-tier tick ladder and pays tax on a sale."""

    STOCK = "STOCK"
    ETF = "ETF"
    ETN = "ETN"
    ELW = "ELW"


class OrderKind(StrEnum):
    """How an order is priced and how long it lives (주문구분, ORD_DVSN).

    `is_priced`: the order has a price in won; other kinds are sent with 0. `is_immediate`: immediate-or-cancel and
    fill-or-kill orders never rest in the book.
    """

    is_priced: bool
    is_market: bool
    is_immediate: bool

    LIMIT = "00"  # 지정가
    MARKET = "01"  # 시장가
    CONDITIONAL_LIMIT = "02"  # 조건부지정가: a market order in the closing auction
    BEST = "03"  # 최유리지정가: at the best opposite price
    OWN_BEST = "04"  # 최우선지정가: at the best price of its own side
    PRE_OPEN_CLOSE = "05"  # 장전 시간외 종가
    POST_CLOSE = "06"  # 장후 시간외 종가
    AFTER_HOURS_SINGLE = "07"  # 시간외 단일가, until 2026-09-11
    LIMIT_IOC = "11"
    LIMIT_FOK = "12"
    MARKET_IOC = "13"
    MARKET_FOK = "14"
    BEST_IOC = "15"
    BEST_FOK = "16"
    MID = "21"  # 중간가
    STOP_LIMIT = "22"  # 스톱지정가
    MID_IOC = "23"
    MID_FOK = "24"
    GTP_LIMIT = "27"  # NXT pre-market, cancelled at its end
    GTP_BEST = "28"
    GTP_OWN_BEST = "29"
    AFTER_LIMIT = "41"  # KRX after-market
    AFTER_LIMIT_IOC = "42"
    AFTER_LIMIT_FOK = "43"
    AFTER_BEST = "44"
    AFTER_BEST_IOC = "45"
    AFTER_BEST_FOK = "46"
    AFTER_OWN_BEST = "47"


PRICED = frozenset(
    {
        OrderKind.LIMIT,
        OrderKind.CONDITIONAL_LIMIT,
        OrderKind.AFTER_HOURS_SINGLE,
        OrderKind.LIMIT_IOC,
        OrderKind.LIMIT_FOK,
        OrderKind.STOP_LIMIT,
        OrderKind.GTP_LIMIT,
        OrderKind.AFTER_LIMIT,
        OrderKind.AFTER_LIMIT_IOC,
        OrderKind.AFTER_LIMIT_FOK,
    }
)
MARKET_KINDS = frozenset({OrderKind.MARKET, OrderKind.MARKET_IOC, OrderKind.MARKET_FOK})
IOC_KINDS = frozenset(
    {
        OrderKind.LIMIT_IOC,
        OrderKind.MARKET_IOC,
        OrderKind.BEST_IOC,
        OrderKind.MID_IOC,
        OrderKind.AFTER_LIMIT_IOC,
        OrderKind.AFTER_BEST_IOC,
    }
)
FOK_KINDS = frozenset(
    {
        OrderKind.LIMIT_FOK,
        OrderKind.MARKET_FOK,
        OrderKind.BEST_FOK,
        OrderKind.MID_FOK,
        OrderKind.AFTER_LIMIT_FOK,
        OrderKind.AFTER_BEST_FOK,
    }
)
for _kind in OrderKind:
    _kind.is_priced = _kind in PRICED
    _kind.is_market = _kind in MARKET_KINDS
    _kind.is_immediate = _kind in IOC_KINDS or _kind in FOK_KINDS
