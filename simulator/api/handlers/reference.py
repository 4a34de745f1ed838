"""Reference data (기준 정보): holidays, stock information."""

from datetime import date, timedelta

from aegis.terms import Board, Instrument
from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import padded
from simulator.api.request import ApiReply, Body, Call, account_reply
from simulator.exchange.calendar import is_business_day, is_trading_day
from simulator.exchange.listings import STOCKS, ListedStock

HOLIDAY_ROWS = 24
LAST_KNOWN_DAY = date(2028, 12, 31)
_HOLIDAY_KEY = 20


def holidays(call: Call) -> ApiReply:
    """chk-holiday (국내휴장일조회): 24 days from BASS_DT, or after the continuation key, which is the last day sent."""
    is_next = call.tr_cont == "N" and bool(call.text("CTX_AREA_NK"))
    text = call.text("CTX_AREA_NK" if is_next else "BASS_DT")
    try:
        first = date(int(text[:4]), int(text[4:6]), int(text[6:8])) + timedelta(days=is_next)
    except ValueError:
        raise RequestRefused("field invalid", "BASS_DT") from None
    days = [first + timedelta(days=offset) for offset in range(HOLIDAY_ROWS)]
    days = [day for day in days if day <= LAST_KNOWN_DAY]
    has_more = bool(days) and days[-1] < LAST_KNOWN_DAY
    reply = account_reply(call, has_more=has_more, is_empty=not days, output=[_holiday_row(day) for day in days])
    keys = {
        "ctx_area_nk": padded(f"{days[-1]:%Y%m%d}" if has_more else "", _HOLIDAY_KEY),
        "ctx_area_fk": padded(call.text("BASS_DT"), _HOLIDAY_KEY),
    }
    # unlike other lists, this one has a text without padding
    body = keys | reply.body | {"msg1": reply.body["msg1"].rstrip()}
    return ApiReply(body, ("M" if call.tr_cont == "N" else "F") if has_more else "D")


def _holiday_row(day: date) -> Body:
    def flag(is_true: bool) -> str:
        return "Y" if is_true else "N"

    is_open = is_trading_day(day)
    return {
        "bass_dt": f"{day:%Y%m%d}",
        "wday_dvsn_cd": f"{day.isoweekday() % 7 + 1:02d}",
        "bzdy_yn": flag(is_business_day(day)),
        "tr_day_yn": flag(is_business_day(day)),
        "opnd_yn": flag(is_open),
        "sttl_day_yn": flag(is_open),
    }


def stock_info(call: Call) -> ApiReply:
    """search-stock-info (주식기본조회)."""
    stock = STOCKS.get(call.text("PDNO"))
    if stock is None or call.text("PRDT_TYPE_CD") != "300":
        raise RequestRefused("product not found")
    reply = account_reply(call, output=_info(call, stock))
    return ApiReply(reply.body | {"msg_cd": "KIOK0530", "msg1": padded("조회되었습니다", 80)})


def _info(call: Call, stock: ListedStock) -> Body:
    world = call.firm.exchange.world
    is_kospi, is_fund = stock.board is Board.KOSPI, stock.instrument is not Instrument.STOCK
    halted = "Y" if stock.code in world.halted else "N"
    listing_date = f"{stock.listed_on:%Y%m%d}"
    price, base = call.firm.exchange.price(stock.code), world.bases[stock.code]
    substitute = base * 76 // 100 // 10 * 10
    names = {
        "prdt_name": stock.full_name,
        "prdt_name120": stock.full_name,
        "prdt_abrv_name": stock.name,
        "std_pdno": f"KR7{stock.code}00{sum(map(int, stock.code)) % 10}",
        "prdt_eng_name": stock.english,
        "prdt_eng_name120": stock.english,
        "prdt_eng_abrv_name": stock.english,
    }
    return {
        "pdno": f"00000A{stock.code}",
        "prdt_type_cd": "300",
        "mket_id_cd": "STK" if is_kospi else "KSQ",
        "scty_grp_id_cd": "EF" if is_fund else "ST",
        "excg_dvsn_cd": "02" if is_kospi else "03",
        "setl_mmdd": "12",
        "lstg_stqt": str(stock.listed_shares),
        "lstg_cptl_amt": "0",
        "cpta": str(stock.listed_shares * stock.par_value),
        "papr": str(stock.par_value),
        "issu_pric": str(stock.par_value),
        "kospi200_item_yn": "Y" if stock.in_kospi200 else "N",
        "scts_mket_lstg_dt": listing_date if is_kospi else "",
        "scts_mket_lstg_abol_dt": "",
        "kosdaq_mket_lstg_dt": "" if is_kospi else listing_date,
        "kosdaq_mket_lstg_abol_dt": "",
        "frbd_mket_lstg_dt": listing_date,
        "frbd_mket_lstg_abol_dt": "",
        "reits_kind_cd": "",
        "etf_dvsn_cd": "1" if is_fund else "0",
        "oilf_fund_yn": "N",
        "idx_bztp_lcls_cd": "002",
        "idx_bztp_mcls_cd": "013",
        "idx_bztp_scls_cd": "013",
        "stck_kind_cd": "000" if is_fund else "101",
        "mfnd_opng_dt": "",
        "mfnd_end_dt": "",
        "dpsi_erlm_cncl_dt": "",
        "etf_cu_qty": "50000" if is_fund else "0",
        **names,
        "dpsi_aptm_erlm_yn": "Y",
        "etf_txtn_type_cd": "00",
        "etf_type_cd": "",
        "lstg_abol_dt": "",
        "nwst_odst_dvsn_cd": "1",
        "sbst_pric": str(substitute),
        "thco_sbst_pric": str(substitute),
        "thco_sbst_pric_chng_dt": f"{world.today():%Y%m%d}",
        "tr_stop_yn": halted,
        "admn_item_yn": "N",
        "thdt_clpr": str(price),
        "bfdy_clpr": str(base),
        "clpr_chng_dt": f"{world.today():%Y%m%d}",
        "std_idst_clsf_cd": "032601" if stock.industry else "",
        "std_idst_clsf_cd_name": stock.industry,
        "idx_bztp_lcls_cd_name": "시가총액규모대" if stock.in_kospi200 else "시가총액규모중",
        "idx_bztp_mcls_cd_name": stock.sector,
        "idx_bztp_scls_cd_name": stock.sector,
        "ocr_no": "1147",
        "crfd_item_yn": "N",
        "elec_scty_yn": "Y",
        "issu_istt_cd": stock.code[:5],
        "etf_chas_erng_rt_dbnb": "1" if is_fund else "0",
        "etf_etn_ivst_heed_item_yn": "N",
        "stln_int_rt_dvsn_cd": "01",
        "frnr_psnl_lmt_rt": "0.00000000",
        "lstg_rqsr_issu_istt_cd": "",
        "lstg_rqsr_item_cd": "",
        "trst_istt_issu_istt_cd": "",
        "cptt_trad_tr_psbl_yn": "Y" if stock.on_nxt else "N",
        "nxt_tr_stop_yn": halted,
    }


def product_info(call: Call) -> ApiReply:
    """search-info (상품기본조회)."""
    stock = STOCKS.get(call.text("PDNO"))
    if stock is None or call.text("PRDT_TYPE_CD") != "300":
        raise RequestRefused("product not found")
    output = {
        "pdno": f"00000A{stock.code}",
        "prdt_type_cd": "300",
        "prdt_name": stock.full_name,
        "prdt_name120": stock.full_name,
        "prdt_abrv_name": stock.name,
        "prdt_eng_name": stock.english,
        "prdt_eng_name120": stock.english,
        "prdt_eng_abrv_name": stock.english,
        "std_pdno": f"KR7{stock.code}00{sum(map(int, stock.code)) % 10}",
        "shtn_pdno": stock.code,
        "prdt_sale_stat_cd": "",
        "prdt_risk_grad_cd": "",
        "prdt_clsf_cd": "101210",
        "prdt_clsf_name": "주권",
        "sale_strt_dt": "",
        "sale_end_dt": "",
        "wrap_asst_type_cd": "06",
        "ivst_prdt_type_cd": "06",
        "ivst_prdt_type_cd_name": "주식",
        "frst_erlm_dt": "",
    }
    reply = account_reply(call, output=output)
    return ApiReply(reply.body | {"msg_cd": "KIOK0530", "msg1": padded("조회되었습니다", 80)})
