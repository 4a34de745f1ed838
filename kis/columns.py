"""What stands in which column of every realtime record: wire name, our name, unit. Facts only.

From the broker's own samples and workbook (2026-06, 2026-09) and recorded frames. A `#` stands for a level's
number. A record may be wider than any layout here: layouts grow at the end, and what is known is read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any

NOTHING = ("", "(null)")


class Unit(StrEnum):
    """What a value counts. Each has one type: text, bool, int, or Decimal where it may have decimals."""

    TEXT = "text"
    FLAG = "flag"  # Y or N
    HHMMSS = "hhmmss"
    DATE = "yyyymmdd"
    WON = "won"
    WON_EXACT = "won_exact"  # averages and midpoints: half a tick is no whole number of won
    SHARES = "shares"
    THOUSAND_SHARES = "kshares"
    MILLION_WON = "mwon"
    HUNDRED_MILLION_WON = "100mwon"
    CONTRACTS = "contracts"
    COUNT = "count"
    POINTS = "points"
    PERCENT = "pct"
    FOREIGN = "foreign"  # the market's own currency
    UNSTATED = "unstated"  # the broker does not say


def text(value: str) -> str:
    return "" if value in NOTHING else value


def flag(value: str) -> bool:
    return value == "Y"


def whole(value: str) -> int | None:
    """Return a whole number, None where the broker has none to tell. Raises ValueError."""
    return None if value in NOTHING else int(value)


def number(value: str) -> Decimal | None:
    """Return a number, None where the broker has none to tell. Raises ValueError."""
    if value in NOTHING:
        return None
    try:
        exact = Decimal(value)
    except InvalidOperation:
        exact = Decimal("nan")
    if not exact.is_finite():
        raise ValueError(f"{value!r} is not a number")
    return exact


_DIGITS = MappingProxyType({Unit.HHMMSS: 6, Unit.DATE: 8})
WHOLE = (
    Unit.WON,
    Unit.SHARES,
    Unit.THOUSAND_SHARES,
    Unit.MILLION_WON,
    Unit.HUNDRED_MILLION_WON,
    Unit.CONTRACTS,
    Unit.COUNT,
)
EXACT = (Unit.WON_EXACT, Unit.POINTS, Unit.PERCENT, Unit.FOREIGN, Unit.UNSTATED)
NUMBERS = (*WHOLE, *EXACT)
CONVERTERS: Mapping[Unit, Callable[[str], Any]] = MappingProxyType(
    {
        **dict.fromkeys((Unit.TEXT, Unit.HHMMSS, Unit.DATE), text),
        Unit.FLAG: flag,
        **dict.fromkeys(WHOLE, whole),
        **dict.fromkeys(EXACT, number),
    }
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a record: the broker's name, ours, and what the value counts."""

    wire: str
    name: str
    unit: Unit

    def read(self, value: str) -> Any:
        """Return the value typed. Raises ValueError."""
        return CONVERTERS[self.unit](value)

    def fits(self, value: str) -> bool:
        """Whether a value looks like one of this column's unit."""
        if value in NOTHING:
            return True
        if digits := _DIGITS.get(self.unit):
            return len(value) == digits and value.isascii() and value.isdigit()
        if self.unit is Unit.FLAG:
            return value in ("Y", "N")
        try:
            self.read(value)
        except ValueError:
            return False
        return True


Layout = tuple[Column, ...]


def _block(facts: str) -> Layout:
    return tuple(Column(wire, name, Unit(unit)) for wire, name, unit in map(str.split, facts.strip().splitlines()))


def _levels(block: Layout, count: int) -> Layout:
    """Return each numbered column `count` times over, one kind after the other."""
    return tuple(each for column in block for each in (_numbered([column], count) if "#" in column.wire else [column]))


def _numbered(columns: Iterable[Column], count: int) -> list[Column]:
    """Return `columns` level by level."""
    return [
        Column(column.wire.replace("#", str(n)), column.name.replace("#", str(n)), column.unit)
        for n in range(1, count + 1)
        for column in columns
    ]


def _renamed(layout: Layout, wire: str, to: str) -> Layout:
    return tuple(Column(to, c.name, c.unit) if c.wire == wire else c for c in layout)


def _without(layout: Layout, *wires: str) -> Layout:
    return tuple(column for column in layout if column.wire not in wires)


_TRADE = _block("""
MKSC_SHRN_ISCD code text
STCK_CNTG_HOUR hhmmss hhmmss
STCK_PRPR price won
PRDY_VRSS_SIGN change_sign text
PRDY_VRSS change won
PRDY_CTRT change_pct pct
WGHN_AVRG_STCK_PRC average_price won_exact
STCK_OPRC open won
STCK_HGPR high won
STCK_LWPR low won
ASKP1 ask won
BIDP1 bid won
CNTG_VOL qty shares
ACML_VOL volume shares
ACML_TR_PBMN value won
SELN_CNTG_CSNU sell_trades count
SHNU_CNTG_CSNU buy_trades count
NTBY_CNTG_CSNU net_trades count
CTTR strength pct
SELN_CNTG_SMTN sold_qty shares
SHNU_CNTG_SMTN bought_qty shares
CCLD_DVSN taker text
SHNU_RATE buy_ratio pct
PRDY_VOL_VRSS_ACML_VOL_RATE volume_to_yesterday_pct pct
OPRC_HOUR open_at hhmmss
OPRC_VRSS_PRPR_SIGN from_open_sign text
OPRC_VRSS_PRPR from_open won
HGPR_HOUR high_at hhmmss
HGPR_VRSS_PRPR_SIGN from_high_sign text
HGPR_VRSS_PRPR from_high won
LWPR_HOUR low_at hhmmss
LWPR_VRSS_PRPR_SIGN from_low_sign text
LWPR_VRSS_PRPR from_low won
BSOP_DATE trade_date yyyymmdd
NEW_MKOP_CLS_CODE phase_code text
TRHT_YN is_halted flag
ASKP_RSQN1 ask_qty shares
BIDP_RSQN1 bid_qty shares
TOTAL_ASKP_RSQN total_ask_qty shares
TOTAL_BIDP_RSQN total_bid_qty shares
VOL_TNRT turnover_pct pct
PRDY_SMNS_HOUR_ACML_VOL yesterday_volume_by_now shares
PRDY_SMNS_HOUR_ACML_VOL_RATE volume_to_yesterday_by_now_pct pct
HOUR_CLS_CODE hour_class text
MRKT_TRTM_CLS_CODE auction_end_class text
VI_STND_PRC vi_reference_price won
MARKET_CLS_CODE market_class text
""")
_BOOK = _block("""
MKSC_SHRN_ISCD code text
BSOP_HOUR hhmmss hhmmss
HOUR_CLS_CODE hour_class text
ASKP# ask_price_# won
BIDP# bid_price_# won
ASKP_RSQN# ask_qty_# shares
BIDP_RSQN# bid_qty_# shares
TOTAL_ASKP_RSQN total_ask_qty shares
TOTAL_BIDP_RSQN total_bid_qty shares
OVTM_TOTAL_ASKP_RSQN after_hours_ask_qty shares
OVTM_TOTAL_BIDP_RSQN after_hours_bid_qty shares
ANTC_CNPR expected_price won
ANTC_CNQN expected_qty shares
ANTC_VOL expected_volume shares
ANTC_CNTG_VRSS expected_change won
ANTC_CNTG_VRSS_SIGN expected_change_sign text
ANTC_CNTG_PRDY_CTRT expected_change_pct pct
ACML_VOL volume shares
TOTAL_ASKP_RSQN_ICDC total_ask_qty_change shares
TOTAL_BIDP_RSQN_ICDC total_bid_qty_change shares
OVTM_TOTAL_ASKP_ICDC after_hours_ask_qty_change shares
OVTM_TOTAL_BIDP_ICDC after_hours_bid_qty_change shares
STCK_DEAL_CLS_CODE deal_class text
""")
_KRX_MIDPOINT = _block("""
MID_PRC mid_price won_exact
MIDP_TOTAL_RSQN mid_qty shares
MIDP_CLS_CODE mid_side text
MARKET_CLS_CODE market_class text
""")
_BOTH_MIDPOINTS = _block("""
KMID_PRC krx_mid_price won_exact
KMID_TOTAL_RSQN krx_mid_qty shares
KMID_CLS_CODE krx_mid_side text
NMID_PRC nxt_mid_price won_exact
NMID_TOTAL_RSQN nxt_mid_qty shares
NMID_CLS_CODE nxt_mid_side text
ANTC_EXCH_CLS_CODE expected_venue text
""")
_NOTICE = _block("""
CUST_ID hts_id text
ACNT_NO account text
ODER_NO order_no text
OODER_NO original_no text
SELN_BYOV_CLS side text
RCTF_CLS changed text
ODER_KIND kind text
ODER_COND condition text
STCK_SHRN_ISCD code text
CNTG_QTY qty shares
CNTG_UNPR price won
STCK_CNTG_HOUR hhmmss hhmmss
RFUS_YN refused text
CNTG_YN filled text
ACPT_YN accepted text
BRNC_NO branch text
ODER_QTY order_qty shares
ACNT_NAME account_name text
ORD_COND_PRC stop_price won
ORD_EXG_GB venue text
POPUP_YN pops_up flag
FILLER filler text
CRDT_CLS credit text
CRDT_LOAN_DATE credit_date yyyymmdd
CNTG_ISNM40 name text
ODER_PRC order_price won
""")
# the narrow notice ends otherwise: venue and pop-up share a column
_NARROW_NOTICE_END = _block("""
ORD_EXG_GB+POPUP_YN venue text
CRDT_CLS credit text
CRDT_LOAN_DATE credit_date yyyymmdd
CNTG_ISNM40 name text
ODER_PRC order_price won
""")
_FUTURES_NOTICE = _block("""
CUST_ID hts_id text
ACNT_NO account text
ODER_NO order_no text
OODER_NO original_no text
SELN_BYOV_CLS side text
RCTF_CLS changed text
ODER_KIND2 kind text
STCK_SHRN_ISCD code text
CNTG_QTY qty contracts
CNTG_UNPR price points
STCK_CNTG_HOUR hhmmss hhmmss
RFUS_YN refused text
CNTG_YN filled text
ACPT_YN accepted text
BRNC_NO branch text
ODER_QTY order_qty contracts
ACNT_NAME account_name text
CNTG_ISNM name text
ODER_COND condition text
ORD_GRP order_group text
ORD_GRPSEQ order_group_no text
ORDER_PRC order_price points
""")
_OVERSEAS_NOTICE = _block("""
CUST_ID hts_id text
ACNT_NO account text
ODER_NO order_no text
OODER_NO original_no text
SELN_BYOV_CLS side text
RCTF_CLS changed text
ODER_KIND2 kind text
STCK_SHRN_ISCD code text
CNTG_QTY qty shares
CNTG_UNPR price foreign
STCK_CNTG_HOUR hhmmss hhmmss
RFUS_YN refused text
CNTG_YN filled text
ACPT_YN accepted text
BRNC_NO branch text
ODER_QTY order_qty shares
ACNT_NAME account_name text
CNTG_ISNM name text
ODER_COND condition text
DEBT_GB loan text
DEBT_DATE loan_date yyyymmdd
START_TM begins_at hhmmss
END_TM ends_at hhmmss
TM_DIV_TP time_kind text
CNTG_UNPR12 price_exact foreign
""")
_PROGRAM = _block("""
MKSC_SHRN_ISCD code text
STCK_CNTG_HOUR hhmmss hhmmss
SELN_CNQN sold_qty shares
SELN_TR_PBMN sold_won won
SHNU_CNQN bought_qty shares
SHNU_TR_PBMN bought_won won
NTBY_CNQN net_qty shares
NTBY_TR_PBMN net_won won
SELN_RSQN sell_waiting_qty shares
SHNU_RSQN buy_waiting_qty shares
WHOL_NTBY_QTY net_waiting_qty shares
""")
_STATE = _block("""
MKSC_SHRN_ISCD code text
TRHT_YN is_halted flag
TR_SUSP_REAS_CNTT reason text
MKOP_CLS_CODE phase_code text
ANTC_MKOP_CLS_CODE expected_phase_code text
MRKT_TRTM_CLS_CODE auction_extension text
DIVI_APP_CLS_CODE allotment text
ISCD_STAT_CLS_CODE state_code text
VI_CLS_CODE in_vi flag
OVTM_VI_CLS_CODE in_after_hours_vi flag
EXCH_CLS_CODE venue text
""")
_MEMBERS = _block("""
MKSC_SHRN_ISCD code text
SELN2_MBCR_NAME# seller_# text
BYOV_MBCR_NAME# buyer_# text
TOTAL_SELN_QTY# sold_qty_# shares
TOTAL_SHNU_QTY# bought_qty_# shares
SELN_MBCR_GLOB_YN_# seller_is_foreign_# flag
SHNU_MBCR_GLOB_YN_# buyer_is_foreign_# flag
SELN_MBCR_NO# seller_no_# text
SHNU_MBCR_NO# buyer_no_# text
SELN_MBCR_RLIM# seller_share_# pct
SHNU_MBCR_RLIM# buyer_share_# pct
SELN_QTY_ICDC# sold_qty_change_# shares
SHNU_QTY_ICDC# bought_qty_change_# shares
GLOB_TOTAL_SELN_QTY foreign_sold_qty shares
GLOB_TOTAL_SHNU_QTY foreign_bought_qty shares
GLOB_TOTAL_SELN_QTY_ICDC foreign_sold_qty_change shares
GLOB_TOTAL_SHNU_QTY_ICDC foreign_bought_qty_change shares
GLOB_NTBY_QTY foreign_net_qty shares
GLOB_SELN_RLIM foreign_sold_share pct
GLOB_SHNU_RLIM foreign_bought_share pct
SELN2_MBCR_ENG_NAME# seller_english_# text
BYOV_MBCR_ENG_NAME# buyer_english_# text
""")
_NAV = _block("""
MKSC_SHRN_ISCD code text
NAV nav won_exact
NAV_PRDY_VRSS_SIGN change_sign text
NAV_PRDY_VRSS change won_exact
NAV_PRDY_CTRT change_pct pct
OPRC_NAV open won_exact
HPRC_NAV high won_exact
LPRC_NAV low won_exact
""")
_INDEX = _block("""
BSTP_CLS_CODE code text
BSOP_HOUR hhmmss hhmmss
PRPR_NMIX points points
PRDY_VRSS_SIGN change_sign text
BSTP_NMIX_PRDY_VRSS change points
ACML_VOL volume kshares
ACML_TR_PBMN value mwon
PCAS_VOL tick_volume kshares
PCAS_TR_PBMN tick_value mwon
PRDY_CTRT change_pct pct
OPRC_NMIX open points
NMIX_HGPR high points
NMIX_LWPR low points
OPRC_VRSS_NMIX_PRPR from_open points
OPRC_VRSS_NMIX_SIGN from_open_sign text
HGPR_VRSS_NMIX_PRPR from_high points
HGPR_VRSS_NMIX_SIGN from_high_sign text
LWPR_VRSS_NMIX_PRPR from_low points
LWPR_VRSS_NMIX_SIGN from_low_sign text
PRDY_CLPR_VRSS_OPRC_RATE open_to_yesterday_pct pct
PRDY_CLPR_VRSS_HGPR_RATE high_to_yesterday_pct pct
PRDY_CLPR_VRSS_LWPR_RATE low_to_yesterday_pct pct
UPLM_ISSU_CNT at_upper_limit count
ASCN_ISSU_CNT rising count
STNR_ISSU_CNT flat count
DOWN_ISSU_CNT falling count
LSLM_ISSU_CNT at_lower_limit count
QTQT_ASCN_ISSU_CNT quoted_rising count
QTQT_DOWN_ISSU_CNT quoted_falling count
TICK_VRSS tick_balance count
""")
# UNVERIFIED: its units are taken to be the index's; one frame held against the exchange's figures settles it
_INDEX_PROGRAM = _block("""
BSTP_CLS_CODE code text
BSOP_HOUR hhmmss hhmmss
ARBT_SELN_ENTM_CNQN arbitrage_sold_entrusted_qty kshares
ARBT_SELN_ONSL_CNQN arbitrage_sold_own_qty kshares
ARBT_SHNU_ENTM_CNQN arbitrage_bought_entrusted_qty kshares
ARBT_SHNU_ONSL_CNQN arbitrage_bought_own_qty kshares
NABT_SELN_ENTM_CNQN other_sold_entrusted_qty kshares
NABT_SELN_ONSL_CNQN other_sold_own_qty kshares
NABT_SHNU_ENTM_CNQN other_bought_entrusted_qty kshares
NABT_SHNU_ONSL_CNQN other_bought_own_qty kshares
ARBT_SELN_ENTM_CNTG_AMT arbitrage_sold_entrusted_value mwon
ARBT_SELN_ONSL_CNTG_AMT arbitrage_sold_own_value mwon
ARBT_SHNU_ENTM_CNTG_AMT arbitrage_bought_entrusted_value mwon
ARBT_SHNU_ONSL_CNTG_AMT arbitrage_bought_own_value mwon
NABT_SELN_ENTM_CNTG_AMT other_sold_entrusted_value mwon
NABT_SELN_ONSL_CNTG_AMT other_sold_own_value mwon
NABT_SHNU_ENTM_CNTG_AMT other_bought_entrusted_value mwon
NABT_SHNU_ONSL_CNTG_AMT other_bought_own_value mwon
ARBT_SMTN_SELN_VOL arbitrage_sold_qty kshares
ARBT_SMTM_SELN_VOL_RATE arbitrage_sold_qty_pct pct
ARBT_SMTN_SELN_TR_PBMN arbitrage_sold_value mwon
ARBT_SMTM_SELN_TR_PBMN_RATE arbitrage_sold_value_pct pct
ARBT_SMTN_SHNU_VOL arbitrage_bought_qty kshares
ARBT_SMTM_SHNU_VOL_RATE arbitrage_bought_qty_pct pct
ARBT_SMTN_SHNU_TR_PBMN arbitrage_bought_value mwon
ARBT_SMTM_SHNU_TR_PBMN_RATE arbitrage_bought_value_pct pct
ARBT_SMTN_NTBY_QTY arbitrage_net_qty kshares
ARBT_SMTM_NTBY_QTY_RATE arbitrage_net_qty_pct pct
ARBT_SMTN_NTBY_TR_PBMN arbitrage_net_value mwon
ARBT_SMTM_NTBY_TR_PBMN_RATE arbitrage_net_value_pct pct
NABT_SMTN_SELN_VOL other_sold_qty kshares
NABT_SMTM_SELN_VOL_RATE other_sold_qty_pct pct
NABT_SMTN_SELN_TR_PBMN other_sold_value mwon
NABT_SMTM_SELN_TR_PBMN_RATE other_sold_value_pct pct
NABT_SMTN_SHNU_VOL other_bought_qty kshares
NABT_SMTM_SHNU_VOL_RATE other_bought_qty_pct pct
NABT_SMTN_SHNU_TR_PBMN other_bought_value mwon
NABT_SMTM_SHNU_TR_PBMN_RATE other_bought_value_pct pct
NABT_SMTN_NTBY_QTY other_net_qty kshares
NABT_SMTM_NTBY_QTY_RATE other_net_qty_pct pct
NABT_SMTN_NTBY_TR_PBMN other_net_value mwon
NABT_SMTM_NTBY_TR_PBMN_RATE other_net_value_pct pct
WHOL_ENTM_SELN_VOL entrusted_sold_qty kshares
ENTM_SELN_VOL_RATE entrusted_sold_qty_pct pct
WHOL_ENTM_SELN_TR_PBMN entrusted_sold_value mwon
ENTM_SELN_TR_PBMN_RATE entrusted_sold_value_pct pct
WHOL_ENTM_SHNU_VOL entrusted_bought_qty kshares
ENTM_SHNU_VOL_RATE entrusted_bought_qty_pct pct
WHOL_ENTM_SHNU_TR_PBMN entrusted_bought_value mwon
ENTM_SHNU_TR_PBMN_RATE entrusted_bought_value_pct pct
WHOL_ENTM_NTBY_QT entrusted_net_qty kshares
ENTM_NTBY_QTY_RAT entrusted_net_qty_pct pct
WHOL_ENTM_NTBY_TR_PBMN entrusted_net_value mwon
ENTM_NTBY_TR_PBMN_RATE entrusted_net_value_pct pct
WHOL_ONSL_SELN_VOL own_sold_qty kshares
ONSL_SELN_VOL_RATE own_sold_qty_pct pct
WHOL_ONSL_SELN_TR_PBMN own_sold_value mwon
ONSL_SELN_TR_PBMN_RATE own_sold_value_pct pct
WHOL_ONSL_SHNU_VOL own_bought_qty kshares
ONSL_SHNU_VOL_RATE own_bought_qty_pct pct
WHOL_ONSL_SHNU_TR_PBMN own_bought_value mwon
ONSL_SHNU_TR_PBMN_RATE own_bought_value_pct pct
WHOL_ONSL_NTBY_QTY own_net_qty kshares
ONSL_NTBY_QTY_RATE own_net_qty_pct pct
WHOL_ONSL_NTBY_TR_PBMN own_net_value mwon
ONSL_NTBY_TR_PBMN_RATE own_net_value_pct pct
TOTAL_SELN_QTY whole_sold_qty kshares
WHOL_SELN_VOL_RATE whole_sold_qty_pct pct
TOTAL_SELN_TR_PBMN whole_sold_value mwon
WHOL_SELN_TR_PBMN_RATE whole_sold_value_pct pct
SHNU_CNTG_SMTN whole_bought_qty kshares
WHOL_SHUN_VOL_RATE whole_bought_qty_pct pct
TOTAL_SHNU_TR_PBMN whole_bought_value mwon
WHOL_SHUN_TR_PBMN_RATE whole_bought_value_pct pct
WHOL_NTBY_QTY whole_net_qty kshares
WHOL_SMTM_NTBY_QTY_RATE whole_net_qty_pct pct
WHOL_NTBY_TR_PBMN whole_net_value mwon
WHOL_NTBY_TR_PBMN_RATE whole_net_value_pct pct
ARBT_ENTM_NTBY_QTY arbitrage_entrusted_net_qty kshares
ARBT_ENTM_NTBY_TR_PBMN arbitrage_entrusted_net_value mwon
ARBT_ONSL_NTBY_QTY arbitrage_own_net_qty kshares
ARBT_ONSL_NTBY_TR_PBMN arbitrage_own_net_value mwon
NABT_ENTM_NTBY_QTY other_entrusted_net_qty kshares
NABT_ENTM_NTBY_TR_PBMN other_entrusted_net_value mwon
NABT_ONSL_NTBY_QTY other_own_net_qty kshares
NABT_ONSL_NTBY_TR_PBMN other_own_net_value mwon
ACML_VOL volume kshares
ACML_TR_PBMN value mwon
""")
_FUTURE = _block("""
FUTS_SHRN_ISCD code text
BSOP_HOUR hhmmss hhmmss
FUTS_PRDY_VRSS change points
PRDY_VRSS_SIGN change_sign text
FUTS_PRDY_CTRT change_pct pct
FUTS_PRPR points points
FUTS_OPRC open points
FUTS_HGPR high points
FUTS_LWPR low points
LAST_CNQN qty contracts
ACML_VOL volume contracts
ACML_TR_PBMN value unstated
HTS_THPR theoretical points
MRKT_BASIS basis points
DPRT disparity_pct pct
NMSC_FCTN_STPL_PRC near_price points
FMSC_FCTN_STPL_PRC far_price points
SPEAD_PRC spread points
HTS_OTST_STPL_QTY open_interest contracts
OTST_STPL_QTY_ICDC open_interest_change contracts
OPRC_HOUR open_at hhmmss
OPRC_VRSS_PRPR_SIGN from_open_sign text
OPRC_VRSS_NMIX_PRPR from_open points
HGPR_HOUR high_at hhmmss
HGPR_VRSS_PRPR_SIGN from_high_sign text
HGPR_VRSS_NMIX_PRPR from_high points
LWPR_HOUR low_at hhmmss
LWPR_VRSS_PRPR_SIGN from_low_sign text
LWPR_VRSS_NMIX_PRPR from_low points
SHNU_RATE buy_ratio pct
CTTR strength pct
ESDG disparity points
OTST_STPL_RGBF_QTY_ICDC open_interest_tick contracts
THPR_BASIS theoretical_basis points
FUTS_ASKP1 ask points
FUTS_BIDP1 bid points
ASKP_RSQN1 ask_qty contracts
BIDP_RSQN1 bid_qty contracts
SELN_CNTG_CSNU sell_trades count
SHNU_CNTG_CSNU buy_trades count
NTBY_CNTG_CSNU net_trades count
SELN_CNTG_SMTN sold_qty contracts
SHNU_CNTG_SMTN bought_qty contracts
TOTAL_ASKP_RSQN total_ask_qty contracts
TOTAL_BIDP_RSQN total_bid_qty contracts
PRDY_VOL_VRSS_ACML_VOL_RATE volume_to_yesterday_pct pct
DSCS_BLTR_ACML_QTY block_qty contracts
DYNM_MXPR dynamic_upper points
DYNM_LLAM dynamic_lower points
DYNM_PRC_LIMT_YN dynamic_limit text
""")
_FUTURES_BOOK = _block("""
FUTS_SHRN_ISCD code text
BSOP_HOUR hhmmss hhmmss
FUTS_ASKP# ask_price_# points
FUTS_BIDP# bid_price_# points
ASKP_CSNU# ask_orders_# count
BIDP_CSNU# bid_orders_# count
ASKP_RSQN# ask_qty_# contracts
BIDP_RSQN# bid_qty_# contracts
TOTAL_ASKP_CSNU total_ask_orders count
TOTAL_BIDP_CSNU total_bid_orders count
TOTAL_ASKP_RSQN total_ask_qty contracts
TOTAL_BIDP_RSQN total_bid_qty contracts
TOTAL_ASKP_RSQN_ICDC total_ask_qty_change contracts
TOTAL_BIDP_RSQN_ICDC total_bid_qty_change contracts
""")
_OVERSEAS_TRADE = _block("""
RSYM key text
SYMB symbol text
ZDIV decimals count
TYMD business_date yyyymmdd
XYMD local_date yyyymmdd
XHMS local_hhmmss hhmmss
KYMD korean_date yyyymmdd
KHMS korean_hhmmss hhmmss
OPEN open foreign
HIGH high foreign
LOW low foreign
LAST price foreign
SIGN change_sign text
DIFF change foreign
RATE change_pct pct
PBID bid foreign
PASK ask foreign
VBID bid_qty shares
VASK ask_qty shares
EVOL qty shares
TVOL volume shares
TAMT value foreign
BIVL sold_qty shares
ASVL bought_qty shares
STRN strength pct
MTYP session text
""")
_OVERSEAS_BOOK_HEAD = _block("""
RSYM key text
SYMB symbol text
ZDIV decimals count
XYMD local_date yyyymmdd
XHMS local_hhmmss hhmmss
KYMD korean_date yyyymmdd
KHMS korean_hhmmss hhmmss
BVOL total_bid_qty shares
AVOL total_ask_qty shares
BDVL total_bid_qty_change shares
ADVL total_ask_qty_change shares
""")
_OVERSEAS_LEVEL = _block("""
PBID# bid_price_# foreign
PASK# ask_price_# foreign
VBID# bid_qty_# shares
VASK# ask_qty_# shares
DBID# bid_qty_change_# shares
DASK# ask_qty_change_# shares
""")

_TRADE_ELSEWHERE = _renamed(_TRADE, "CCLD_DVSN", "CNTG_CLS_CODE")
_BOOK_10 = _levels(_BOOK, 10)
_AFTER_HOURS_BOOK = _without(_levels(_BOOK, 9), "STCK_DEAL_CLS_CODE")
_TRADES_ELSEWHERE = (_TRADE_ELSEWHERE[:46], _TRADE_ELSEWHERE)
_KRX_BOOK = (*_BOOK_10, *_KRX_MIDPOINT)
_UNIFIED_BOOK = (*_BOOK_10, *_BOTH_MIDPOINTS)
# NXT's book was once printed with its own midpoint alone
_NXT_BOOK_NARROW = (*_BOOK_10, *_BOTH_MIDPOINTS[3:6])
_NOTICES = ((*_NOTICE[:18], *_NARROW_NOTICE_END), _NOTICE)
# the venue in the last column has not been seen on the wire
_STATES = (_STATE[:10], _STATE)
_MEMBERS_5 = (_levels(_MEMBERS, 5),)

# TR id to its known layouts, the narrowest first
LAYOUTS: Mapping[str, tuple[Layout, ...]] = MappingProxyType(
    {
        "H0STCNI0": _NOTICES,
        "H0STCNI9": _NOTICES,
        "H0STCNT0": (_TRADE[:46], _TRADE),
        "H0NXCNT0": _TRADES_ELSEWHERE,
        "H0UNCNT0": _TRADES_ELSEWHERE,
        "H0STASP0": (_BOOK_10, _KRX_BOOK[:62], _KRX_BOOK),
        "H0NXASP0": (_NXT_BOOK_NARROW, _UNIFIED_BOOK[:65]),
        "H0UNASP0": (_UNIFIED_BOOK[:65], _UNIFIED_BOOK),
        "H0STANC0": (_TRADE_ELSEWHERE[:45],),
        "H0NXANC0": (_TRADE_ELSEWHERE[:46],),
        "H0UNANC0": (_TRADE_ELSEWHERE[:46],),
        "H0STOUP0": (_TRADE_ELSEWHERE[:43],),
        "H0STOAC0": (_TRADE_ELSEWHERE[:43],),
        "H0STOAA0": (_AFTER_HOURS_BOOK,),
        "H0STPGM0": (_PROGRAM,),
        "H0NXPGM0": (_PROGRAM,),
        "H0UNPGM0": (_PROGRAM,),
        "H0STMKO0": _STATES,
        "H0NXMKO0": _STATES,
        "H0UNMKO0": _STATES,
        "H0STMBC0": _MEMBERS_5,
        "H0NXMBC0": _MEMBERS_5,
        "H0UNMBC0": _MEMBERS_5,
        "H0STNAV0": (_NAV,),
        "H0UPCNT0": (_INDEX,),
        "H0UPANC0": (_INDEX,),
        "H0UPPGM0": (_INDEX_PROGRAM,),
        "H0IFCNT0": (_FUTURE,),
        "H0IFASP0": (_levels(_FUTURES_BOOK, 5),),
        "H0MFCNT0": (_without(_FUTURE, "DSCS_BLTR_ACML_QTY"),),
        "H0MFASP0": (_levels(_FUTURES_BOOK, 5),),
        "H0IFCNI0": (_FUTURES_NOTICE,),
        "H0IFCNI9": (_FUTURES_NOTICE,),
        "H0GSCNI0": (_OVERSEAS_NOTICE,),
        "H0GSCNI9": (_OVERSEAS_NOTICE,),
        "HDFSCNT0": (_OVERSEAS_TRADE,),
        "HDFSASP0": ((*_OVERSEAS_BOOK_HEAD, *_numbered(_OVERSEAS_LEVEL, 10)),),
        "HDFSASP1": ((*_OVERSEAS_BOOK_HEAD, *_numbered(_OVERSEAS_LEVEL, 1)),),
    }
)


def widths(tr_id: str) -> tuple[int, ...]:
    """Return the known record widths of a TR, the least first."""
    return tuple(map(len, LAYOUTS[tr_id]))


def index_of(tr_id: str, name: str) -> int:
    """Return where our `name` stands in every layout of a TR. Raises ValueError where they disagree."""
    places = {[column.name for column in layout].index(name) for layout in LAYOUTS[tr_id]}
    if len(places) != 1:
        raise ValueError(f"{tr_id}: {name} stands in different places")
    return places.pop()
