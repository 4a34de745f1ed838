"""Account operations (계좌): balance, open orders, orders and fills by day."""

from collections.abc import Sequence
from datetime import date

from aegis.terms import Board, Market, OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import fixed, percent_of
from simulator.api.list_printing import Printing
from simulator.api.request import ApiReply, Body, Call, account_reply, continuation_fields, page
from simulator.exchange.accounts import AccountHolding
from simulator.exchange.calendar import next_trading_day
from simulator.exchange.listings import STOCKS
from simulator.exchange.orders import Order, Request

BALANCE_ROWS, PAPER_BALANCE_ROWS = 50, 20
OPEN_ROWS = 50
DAILY_ROWS, PAPER_DAILY_ROWS = 100, 15

# paper trading answers the legacy TR id with an empty list
_EMPTY_ON_PAPER = "VTTC8001R"
_NXT_BALANCE, _NXT_OPEN = "TTTN8434R", "TTTN8036R"

KIND_NAMES = {
    OrderKind.LIMIT: "지정가",
    OrderKind.MARKET: "시장가",
    OrderKind.CONDITIONAL_LIMIT: "조건부지정가",
    OrderKind.BEST: "최유리지정가",
    OrderKind.OWN_BEST: "최우선지정가",
    OrderKind.PRE_OPEN_CLOSE: "장전시간외",
    OrderKind.POST_CLOSE: "장후시간외",
    OrderKind.AFTER_HOURS_SINGLE: "시간외단일가",
    OrderKind.LIMIT_IOC: "IOC지정가",
    OrderKind.LIMIT_FOK: "FOK지정가",
    OrderKind.MARKET_IOC: "IOC시장가",
    OrderKind.MARKET_FOK: "FOK시장가",
    OrderKind.BEST_IOC: "IOC최유리",
    OrderKind.BEST_FOK: "FOK최유리",
    OrderKind.MID: "중간가",
    OrderKind.STOP_LIMIT: "스톱지정가",
    OrderKind.MID_IOC: "중간가IOC",
    OrderKind.MID_FOK: "중간가FOK",
}


def kind_name(kind: OrderKind) -> str:
    return KIND_NAMES.get(kind, "지정가")


def account_balance(call: Call) -> ApiReply:
    """inquire-balance (주식잔고조회)."""
    account = call.account
    if call.text("INQR_DVSN") not in ("01", "02"):
        raise RequestRefused("field invalid", "INQR_DVSN")
    holdings: Sequence[AccountHolding] = list(call.firm.exchange.shown_account(account).holdings.values())
    if call.tr_id == _NXT_BALANCE:
        holdings = []  # both venues share one account: the KRX balance has all holdings
    if call.text("PRCS_DVSN") == "01":
        holdings = [holding for holding in holdings if holding.quantity]
    reply_page = page(
        call, holdings, lambda holding: holding.code, PAPER_BALANCE_ROWS if call.is_paper else BALANCE_ROWS
    )
    query_key = "^".join(
        [
            call.text("CANO"),
            call.text("ACNT_PRDT_CD"),
            "N",
            "N",
            call.text("INQR_DVSN"),
            call.text("UNPR_DVSN"),
            "N",
            "",
        ]
    )
    reply = account_reply(
        call,
        has_more=reply_page.has_more,
        **continuation_fields("" if call.is_paper else query_key, reply_page.cursor),
        output1=[_holding_row(call, account, holding) for holding in reply_page.rows],
        output2=[_totals(call, account)],
    )
    return ApiReply(reply.body, reply_page.tr_cont)


def _valuation_price(call: Call, code: str) -> int:
    """Return a holding's valuation price in won: KRX's regular one; by AFHR_FLPR_YN, X is NXT's, Y both venues'."""
    exchange, price_basis = call.firm.exchange, call.text("AFHR_FLPR_YN")
    nxt = exchange.venues.get((code, Market.NXT))
    if price_basis == "X" and nxt is not None and nxt.tape.volume:
        return nxt.tape.last
    if price_basis == "Y":
        unified = exchange.unified.get(code)
        return unified.last if unified is not None and unified.volume else exchange.price(code)
    return exchange.venue(code).closing_price


def _holding_row(call: Call, account: str, holding: AccountHolding) -> Body:
    exchange = call.firm.exchange
    price, base = _valuation_price(call, holding.code), exchange.venue(holding.code).base
    value = price * holding.quantity
    gain = value - holding.cost
    return {
        "pdno": holding.code,
        "prdt_name": STOCKS[holding.code].name,
        "trad_dvsn_name": "현금",
        "bfdy_buy_qty": str(holding.bought_yesterday),
        "bfdy_sll_qty": str(holding.sold_yesterday),
        "thdt_buyqty": str(holding.bought_today),
        "thdt_sll_qty": str(holding.sold_today),
        "hldg_qty": str(holding.quantity),
        "ord_psbl_qty": str(exchange.sellable(account, holding.code)),
        "pchs_avg_pric": fixed(holding.average, 4),
        "pchs_amt": str(holding.cost),
        "prpr": str(price),
        "evlu_amt": str(value),
        "evlu_pfls_amt": str(gain),
        "evlu_pfls_rt": percent_of(gain, holding.cost),
        "evlu_erng_rt": percent_of(gain, holding.cost, 8),
        "loan_dt": "",
        "loan_amt": "0",
        "stln_slng_chgs": "0",
        "expd_dt": "",
        "fltt_rt": percent_of(price - base, base, 2) + "000000",
        "bfdy_cprs_icdc": str(price - base),
        "item_mgna_rt_name": "20%",
        "grta_rt_name": "",
        "sbst_pric": str(base * 76 // 100 // 10 * 10),
        "stck_loan_unpr": "0.0000",
    }


def _totals(call: Call, number: str) -> Body:
    exchange = call.firm.exchange
    account = exchange.shown_account(number)
    value = sum(_valuation_price(call, holding.code) * holding.quantity for holding in account.holdings.values())
    cost = sum(holding.cost for holding in account.holdings.values())
    total = account.cash_d2 + value
    change = total - account.total_yesterday
    return {
        "dnca_tot_amt": str(account.deposit),
        "nxdy_excc_amt": str(account.cash_on(next_trading_day(exchange.world.today()))),
        "prvs_rcdl_excc_amt": str(account.cash_d2),
        "cma_evlu_amt": "0",
        "bfdy_buy_amt": str(account.yesterday.bought),
        "thdt_buy_amt": str(account.today.bought),
        "nxdy_auto_rdpt_amt": "0",
        "bfdy_sll_amt": str(account.yesterday.sold),
        "thdt_sll_amt": str(account.today.sold),
        "d2_auto_rdpt_amt": "0",
        "bfdy_tlex_amt": str(account.yesterday.costs),
        "thdt_tlex_amt": str(account.today.costs),
        "tot_loan_amt": "0",
        "scts_evlu_amt": str(value),
        "tot_evlu_amt": str(total),
        "nass_amt": str(total),
        "fncg_gld_auto_rdpt_yn": "",
        "pchs_amt_smtl_amt": str(cost),
        "evlu_amt_smtl_amt": str(value),
        "evlu_pfls_smtl_amt": str(value - cost),
        "tot_stln_slng_chgs": "0",
        "bfdy_tot_asst_evlu_amt": str(account.total_yesterday),
        "asst_icdc_amt": str(change),
        # live does not calculate it
        "asst_icdc_erng_rt": percent_of(change, account.total_yesterday, 8) if call.is_paper else "0.00000000",
    }


def amendable_orders(call: Call) -> ApiReply:
    """inquire-psbl-rvsecncl (주식정정취소가능주문조회)."""
    rows = sorted(_shown_open_orders(call), key=lambda order: -order.number)
    side = call.text("INQR_DVSN_2")
    if side in ("1", "2"):
        rows = [order for order in rows if order.side is (Side.SELL if side == "1" else Side.BUY)]
    if call.tr_id == _NXT_OPEN:
        rows = [order for order in rows if order.market is Market.NXT]
    reply_page = page(call, rows, lambda order: f"{order.number:010d}", OPEN_ROWS)
    query_key = f"{call.text('CANO')}^{call.text('ACNT_PRDT_CD')}^"
    reply = account_reply(
        call,
        has_more=reply_page.has_more,
        is_empty=not rows,
        **continuation_fields(query_key, reply_page.cursor),
        output=[_open_row(order, call.firm.printing) for order in reply_page.rows],
    )
    return ApiReply(reply.body, reply_page.tr_cont)


def open_orders_by_specification(call: Call) -> ApiReply:
    """inquire-nccs of the user's specification: open orders with `rmn_qty`."""
    reply = amendable_orders(call)
    for row in reply.body["output"]:
        row["rmn_qty"] = row["psbl_qty"]
    return reply


def _open_row(order: Order, printing: Printing) -> Body:
    amended = "정정*" if order.request is Request.AMEND else ""
    return {
        "ord_gno_brno": order.branch,
        "odno": f"{order.number:010d}",
        "orgn_odno": f"{order.original:010d}" if order.original else "",
        "ord_dvsn_name": kind_name(order.kind),
        "pdno": order.code,
        "prdt_name": STOCKS[order.code].name,
        "rvse_cncl_dvsn_name": f"{'매수' if order.side is Side.BUY else '매도'}{amended}" if amended else "",
        "ord_qty": str(order.quantity),
        "ord_unpr": str(printing.price(order)),
        "ord_tmd": order.time,
        "tot_ccld_qty": str(order.filled),
        "tot_ccld_amt": str(order.amount),
        "psbl_qty": str(order.remaining),
        "sll_buy_dvsn_cd": _side_code(order.side),
        "ord_dvsn_cd": order.kind,
        "mgco_aptm_odno": "",
        "excg_dvsn_cd": _board_code(order.code),
        "excg_id_dvsn_cd": order.market,
        "excg_id_dvsn_name": order.market,
        "stpm_cndt_pric": str(order.stop_price),
        "stpm_efct_occr_yn": "Y" if order.triggered else "N",
    }


def daily_orders(call: Call) -> ApiReply:
    """inquire-daily-ccld (주식일별주문체결조회)."""
    orders = _selected_orders(call)
    filled = sum(order.filled for order in orders)
    amount = sum(order.amount for order in orders)
    totals = {
        "tot_ord_qty": str(sum(order.quantity for order in orders)),
        "tot_ccld_qty": str(filled),
        "tot_ccld_amt": str(amount),
        "prsm_tlex_smtl": str(sum(order.fee + order.tax for order in orders)),
        "pchs_avg_pric": fixed(amount / filled if filled else 0, 4),
    }
    if call.tr_id == _EMPTY_ON_PAPER:
        orders = []
    size = PAPER_DAILY_ROWS if call.is_paper else DAILY_ROWS
    reply_page = page(call, orders, _order_key, size)
    query_key = (
        f"{call.text('CANO')}^{call.text('ACNT_PRDT_CD')}^{call.text('INQR_STRT_DT')}^{call.text('INQR_END_DT')}"
        f"^{call.text('PDNO') or ' '}^{call.text('CCLD_DVSN')}^{call.text('INQR_DVSN')}^"
    )
    reply = account_reply(
        call,
        has_more=reply_page.has_more,
        is_empty=not orders,
        **continuation_fields(query_key, reply_page.cursor),
        output1=[_daily_row(order, call.firm.printing) for order in reply_page.rows],
        output2=totals,
    )
    return ApiReply(reply.body, reply_page.tr_cont)


def _order_key(order: Order) -> str:
    return f"{order.date:%Y%m%d}^{order.number:010d}^"


def _shown_orders(call: Call) -> list[Order]:
    """Return the account's orders now, or at the earlier moment that a fault shows."""
    world = call.firm.exchange.world
    return world.orders_of(call.account) if call.as_of is None else world.orders_as_of(call.account, call.as_of)


def _shown_open_orders(call: Call) -> list[Order]:
    if call.as_of is None:
        return call.firm.exchange.world.open_orders(call.account)
    return [order for order in _shown_orders(call) if order.is_open]


def _selected_orders(call: Call) -> list[Order]:
    since, until = _day(call, "INQR_STRT_DT"), _day(call, "INQR_END_DT")
    orders = [order for order in _shown_orders(call) if since <= order.date <= until]
    side = call.text("SLL_BUY_DVSN_CD")
    if side in ("01", "02"):
        orders = [order for order in orders if _side_code(order.side) == side]
    if call.text("PDNO"):
        orders = [order for order in orders if order.code == call.text("PDNO")]
    if call.text("ODNO"):
        orders = [order for order in orders if str(order.number) == call.text("ODNO").lstrip("0")]
    if call.text("ORD_GNO_BRNO"):
        orders = [order for order in orders if order.branch == call.text("ORD_GNO_BRNO")]
    venue = call.text("EXCG_ID_DVSN_CD")
    if venue in Market.__members__:
        orders = [order for order in orders if order.market == venue]
    fill_filter = call.text("CCLD_DVSN")
    if fill_filter == "01":
        orders = [order for order in orders if order.filled]
    elif fill_filter == "02":
        orders = [order for order in orders if call.firm.printing.open_quantity(order)]
    return sorted(orders, key=lambda order: (order.date, order.number), reverse=call.text("INQR_DVSN") != "01")


def _day(call: Call, name: str) -> date:
    text = call.text(name)
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        raise RequestRefused("field invalid", name) from None


def _daily_row(order: Order, printing: Printing) -> Body:
    is_whole = order.amount % order.filled == 0 if order.filled else True
    return {
        "ord_dt": f"{order.date:%Y%m%d}",
        "ord_gno_brno": order.branch,
        "odno": f"{order.number:010d}",
        "orgn_odno": f"{order.original:010d}" if order.original else "",
        "ord_dvsn_name": kind_name(order.kind),
        "sll_buy_dvsn_cd": _side_code(order.side),
        "sll_buy_dvsn_cd_name": _side_name(order),
        "pdno": order.code,
        "prdt_name": STOCKS[order.code].name,
        "ord_qty": str(order.quantity),
        "ord_unpr": str(printing.price(order)),
        "ord_tmd": order.time,
        "tot_ccld_qty": str(order.filled),
        "avg_prvs": str(int(order.average)) if is_whole else fixed(order.average, 4),
        "cncl_yn": "Y" if printing.is_cancelled(order) else "",
        "tot_ccld_amt": str(order.amount),
        "loan_dt": "",
        "ordr_empno": "OpnAPI",
        "ord_dvsn_cd": order.kind,
        "cncl_cfrm_qty": str(printing.cancelled_quantity(order)),
        "rmn_qty": str(printing.open_quantity(order)),
        "rjct_qty": str(order.rejected),
        "ccld_cndt_name": _condition_name(order.kind),
        "inqr_ip_addr": "192.000.002.001",
        "cpbc_ordp_ord_rcit_dvsn_cd": "",
        "cpbc_ordp_infm_mthd_dvsn_cd": "",
        "infm_tmd": "",
        "ctac_tlno": "",
        "prdt_type_cd": "300",
        "excg_dvsn_cd": _board_code(order.code),
        "cpbc_ordp_mtrl_dvsn_cd": "11" if STOCKS[order.code].board is Board.KOSPI else "14",
        "ord_orgno": "00000",
        "rsvn_ord_end_dt": "",
        "excg_id_dvsn_Cd": order.market,
        "stpm_cndt_pric": str(order.stop_price),
        "stpm_efct_occr_dtmd": "",
    }


def _side_name(order: Order) -> str:
    side = "매수" if order.side is Side.BUY else "매도"
    if order.request is Request.NEW:
        return f"현금{side}"
    return f"{side}{'정정' if order.request is Request.AMEND else '취소'}*"


def _side_code(side: Side) -> str:
    return "02" if side is Side.BUY else "01"


def _board_code(code: str) -> str:
    return "02" if STOCKS[code].board is Board.KOSPI else "03"


def _condition_name(kind: OrderKind) -> str:
    if not kind.is_immediate:
        return "없음"
    return "FOK" if "FOK" in kind_name(kind) or kind.name.endswith("FOK") else "IOC"


_ASSET_CLASSES = 20


def assets(call: Call) -> ApiReply:
    """inquire-account-balance (투자계좌자산현황조회): asset classes without names, in a fixed order."""
    exchange, number = call.firm.exchange, call.account
    account = exchange.account(number)
    cost = sum(holding.cost for holding in account.holdings.values())
    value, total = exchange.holdings_value(number), exchange.total_asset(number)

    def asset_row(cost: int, value: int) -> Body:
        return {
            "pchs_amt": str(cost),
            "evlu_amt": str(value),
            "evlu_pfls_amt": str(value - cost),
            "crdt_lnd_amt": "0",
            "real_nass_amt": str(value),
            "whol_weit_rt": percent_of(value, total),
        }

    rows = [asset_row(0, 0) for _ in range(_ASSET_CLASSES)]
    rows[0] = asset_row(cost, value)  # 주식
    rows[17] = asset_row(account.cash_d2, account.cash_d2)  # 예수금 + CMA
    zeros = (
        "loan_amt_smtl tot_lnda_tot_ulst_lnda cma_auto_loan_amt tot_mgln_amt stln_evlu_amt crdt_fncg_amt "
        "ocl_apl_loan_amt pldg_stup_amt frcr_evlu_tota cma_evlu_amt tot_sbst_amt thdt_rcvb_amt ovrs_stck_evlu_amt1 "
        "ovrs_bond_evlu_amt mmf_cma_mgge_loan_amt sbsc_dncl_amt pbst_sbsc_fnds_loan_use_amt etpr_crdt_grnt_loan_amt"
    )
    totals = {
        "pchs_amt_smtl": str(cost),
        "nass_tot_amt": str(total),
        "evlu_pfls_amt_smtl": str(value - cost),
        "evlu_amt_smtl": str(value),
        "tot_asst_amt": str(total),
        "tot_dncl_amt": str(account.cash_d2),
        "dncl_amt": str(account.deposit),
        **dict.fromkeys(zeros.split(), "0"),
    }
    return account_reply(call, output1=rows, output2=totals)


def realised_profits(call: Call) -> ApiReply:
    """inquire-period-trade-profit (기간별매매손익현황조회): profits of a period's sales over their average cost."""
    account, exchange = call.account, call.firm.exchange
    since, until = _day(call, "INQR_STRT_DT"), _day(call, "INQR_END_DT")
    rows, fees, taxes = [], 0, 0
    for order in exchange.world.orders_of(account):
        if order.side is not Side.SELL or not order.filled or not since <= order.date <= until:
            continue
        holding = exchange.account(account).holdings.get(order.code)
        cost = int(holding.average * order.filled) if holding else order.amount
        gain = order.amount - cost - order.fee - order.tax
        fees, taxes = fees + order.fee, taxes + order.tax
        rows.append(
            {
                "trad_dt": f"{order.date:%Y%m%d}",
                "pdno": order.code,
                "prdt_name": STOCKS[order.code].name,
                "trad_dvsn_name": "현금",
                "loan_dt": "",
                "hldg_qty": str(holding.quantity if holding else 0),
                "pchs_unpr": fixed(cost / order.filled, 4),
                "buy_qty": "0",
                "buy_amt": "0",
                "sll_pric": fixed(order.average, 4),
                "sll_qty": str(order.filled),
                "sll_amt": str(order.amount),
                "rlzt_pfls": str(gain),
                "pfls_rt": percent_of(gain, cost),
                "fee": str(order.fee),
                "tl_tax": str(order.tax),
                "loan_int": "0",
            }
        )
    totals = {
        "sll_qty_smtl": str(sum(int(row["sll_qty"]) for row in rows)),
        "sll_tr_amt_smtl": str(sum(int(row["sll_amt"]) for row in rows)),
        "sll_fee_smtl": str(fees),
        "sll_tltx_smtl": str(taxes),
        "sll_excc_amt_smtl": str(sum(int(row["sll_amt"]) for row in rows) - fees - taxes),
        "buy_qty_smtl": "0",
        "buy_tr_amt_smtl": "0",
        "buy_fee_smtl": "0",
        "buy_tax_smtl": "0",
        "buy_excc_amt_smtl": "0",
        "tot_qty": str(sum(int(row["sll_qty"]) for row in rows)),
        "tot_tr_amt": str(sum(int(row["sll_amt"]) for row in rows)),
        "tot_fee": str(fees),
        "tot_tltx": str(taxes),
        "tot_excc_amt": str(sum(int(row["sll_amt"]) for row in rows) - fees - taxes),
        "tot_rlzt_pfls": str(sum(int(row["rlzt_pfls"]) for row in rows)),
        "loan_int": "0",
        "tot_pftrt": "0.00",
    }
    reply = account_reply(call, is_empty=not rows, **continuation_fields("", ""), output1=rows[::-1], output2=totals)
    return ApiReply(reply.body, "D")
