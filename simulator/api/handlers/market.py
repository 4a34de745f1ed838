"""Market-wide data: investors' trades, program trades, volatility interruptions (VI)."""

from itertools import pairwise

from aegis.terms import Board
from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import change_sign, fixed, percent_of
from simulator.api.handlers.chart import change_of, read_date
from simulator.api.handlers.quote import quote_of
from simulator.api.request import ApiReply, Body, Call, quotation_reply
from simulator.exchange.index_model import INDEXES, SimulatedIndexDay, take_newest
from simulator.exchange.listings import STOCKS

VI_ROWS = 30

# groups whose net quantity field is named a volume
_VOLUME_NAMES = ("pe_fund", "etc_orgt", "etc_corp")
_INVESTOR_MARKETS = ("KSP", "KSQ", "K2I", "999", "ETF", "ELW", "ETN", "MKI", "WKM", "WKI", "KQI")


def investors_now(call: Call) -> ApiReply:
    """inquire-investor-time-by-market (시장별 투자자매매동향 시세): one row of running totals."""
    market = call.text("FID_INPUT_ISCD")
    if market not in _INVESTOR_MARKETS:
        raise RequestRefused("field invalid", "FID_INPUT_ISCD")
    row: Body = {}
    for group, (sold, bought, sold_won, bought_won) in call.firm.index_model.investors(market, call.now).items():
        net = "ntby_vol" if group in _VOLUME_NAMES else "ntby_qty"
        row |= {
            f"{group}_seln_vol": str(sold),
            f"{group}_shnu_vol": str(bought),
            f"{group}_{net}": str(bought - sold),
            f"{group}_seln_tr_pbmn": str(sold_won),
            f"{group}_shnu_tr_pbmn": str(bought_won),
            f"{group}_ntby_tr_pbmn": str(bought_won - sold_won),
        }
    return quotation_reply(output=[row])


def program_turnover(call: Call) -> ApiReply:
    """program-trade-by-stock (종목별 프로그램매매추이): one row, the crowd's program trades up to now."""
    quote = quote_of(call)
    tape = quote.tape
    if not tape.volume:
        return quotation_reply(output=[])
    sold, bought = tape.sold // 4, tape.bought // 4
    price = tape.average or tape.last
    row = {
        "bsop_hour": f"{call.now:%H%M%S}",
        "stck_prpr": str(tape.last),
        **change_of(quote),
        "acml_vol": str(tape.volume),
        "whol_smtn_seln_vol": str(sold),
        "whol_smtn_shnu_vol": str(bought),
        "whol_smtn_ntby_qty": str(bought - sold),
        "whol_smtn_seln_tr_pbmn": str(int(sold * price)),
        "whol_smtn_shnu_tr_pbmn": str(int(bought * price)),
        "whol_smtn_ntby_tr_pbmn": str(int((bought - sold) * price)),
        "whol_ntby_vol_icdc": "0",
        "whol_ntby_tr_pbmn_icdc": "0",
    }
    return quotation_reply(output=[row])


def investors_daily(call: Call) -> ApiReply:
    """inquire-investor-daily-by-market (시장별 투자자매매동향 일별)."""
    code = call.text("FID_INPUT_ISCD")
    if code not in INDEXES:
        raise RequestRefused("quotation of unknown stock")
    until = read_date(call, "FID_INPUT_DATE_1")
    days = take_newest(call.firm.index_model.index_days(code, until), 101)
    rows = [_investor_day(call, day, before.close) for day, before in pairwise(days)]
    return quotation_reply(output=rows)


def _investor_day(call: Call, day: SimulatedIndexDay, before: float) -> Body:
    at_close = call.now.replace(year=day.day.year, month=day.day.month, day=day.day.day, hour=15, minute=30)
    sums = call.firm.index_model.investors(call.text("FID_INPUT_ISCD_1"), at_close)
    share = day.volume / max(1, call.firm.index_model.index(call.text("FID_INPUT_ISCD")).volume)
    net = {
        group: (int((row[1] - row[0]) * share / 1_000), int((row[3] - row[2]) * share)) for group, row in sums.items()
    }
    net["etc"] = (net["etc_orgt"][0] + net["etc_corp"][0], net["etc_orgt"][1] + net["etc_corp"][1])
    order = ("scrt", "ivtr", "pe_fund", "bank", "insu", "mrbn", "fund", "etc", "etc_orgt", "etc_corp")
    row: Body = {
        "stck_bsop_date": f"{day.day:%Y%m%d}",
        "bstp_nmix_prpr": fixed(day.close, 2),
        "bstp_nmix_prdy_vrss": fixed(day.close - before, 2),
        "prdy_vrss_sign": change_sign(day.close, before),
        "bstp_nmix_prdy_ctrt": percent_of(day.close - before, before),
        "bstp_nmix_oprc": fixed(day.open, 2),
        "bstp_nmix_hgpr": fixed(day.high, 2),
        "bstp_nmix_lwpr": fixed(day.low, 2),
        "stck_prdy_clpr": fixed(before, 2),
        "frgn_ntby_qty": str(net["frgn"][0]),
        "frgn_reg_ntby_qty": str(net["frgn"][0]),
        "frgn_nreg_ntby_qty": "0",
        "prsn_ntby_qty": str(net["prsn"][0]),
        "orgn_ntby_qty": str(net["orgn"][0]),
    }
    row |= {f"{group}_{'ntby_vol' if group in _VOLUME_NAMES else 'ntby_qty'}": str(net[group][0]) for group in order}
    row |= {
        "frgn_ntby_tr_pbmn": str(net["frgn"][1]),
        "frgn_reg_ntby_pbmn": str(net["frgn"][1]),
        "frgn_nreg_ntby_pbmn": "0",
        "prsn_ntby_tr_pbmn": str(net["prsn"][1]),
        "orgn_ntby_tr_pbmn": str(net["orgn"][1]),
    }
    return row | {f"{group}_ntby_tr_pbmn": str(net[group][1]) for group in order}


def interruptions(call: Call) -> ApiReply:
    """inquire-vi-status (변동성완화장치 현황): thirty rows, newest first."""
    code, market = call.text("FID_INPUT_ISCD"), call.text("FID_MRKT_CLS_CODE")
    kind, direction = call.text("FID_RANK_SORT_CLS_CODE"), call.text("FID_DIV_CLS_CODE")
    boards = {"K": Board.KOSPI, "Q": Board.KOSDAQ}
    rows = []
    for vi in reversed(call.firm.exchange.world.interruptions):
        stock = STOCKS[vi.code]
        if (code and vi.code != code) or (market in boards and stock.board is not boards[market]):
            continue
        if kind in ("1", "2", "3") and vi.kind != kind:
            continue
        if direction in ("1", "2") and (vi.price > vi.standard) != (direction == "1"):
            continue
        is_static = vi.kind == "1"
        rows.append(
            {
                "hts_kor_isnm": stock.name,
                "mksc_shrn_iscd": vi.code,
                "vi_cls_code": "N" if vi.ended else "Y",
                "bsop_date": f"{vi.day:%Y%m%d}",
                "cntg_vi_hour": vi.began,
                "vi_cncl_hour": vi.ended or "000000",
                "vi_kind_code": vi.kind,
                "vi_prc": str(vi.price),
                "vi_stnd_prc": str(vi.standard) if is_static else "0",
                "vi_dprt": percent_of(vi.price - vi.standard, vi.standard) if is_static else "0.00",
                "vi_dmc_stnd_prc": "0" if is_static else str(vi.standard),
                "vi_dmc_dprt": "0.00" if is_static else percent_of(vi.price - vi.standard, vi.standard),
                "vi_count": str(vi.count),
            }
        )
    return quotation_reply(output=rows[:VI_ROWS])
