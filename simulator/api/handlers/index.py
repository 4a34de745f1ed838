"""Indexes (업종지수) and index futures (지수선물): prices, charts, the list of contracts."""

from datetime import date
from itertools import islice, takewhile

from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import change_sign, fixed, percent_of
from simulator.api.handlers.chart import UNITS, read_date
from simulator.api.request import ApiReply, Body, Call, quotation_reply
from simulator.exchange.index_model import (
    INDEXES,
    KOSPI,
    KOSPI200,
    Contract,
    IndexQuote,
    SimulatedFuture,
    SimulatedIndexDay,
    take_newest,
)

INDEX_ROWS, FUTURES_ROWS, VI_ROWS = 50, 100, 30
_NIGHT = ("CM", "EU")


def _index(call: Call) -> IndexQuote:
    code = call.text("FID_INPUT_ISCD")
    if call.text("FID_COND_MRKT_DIV_CODE") != "U":
        raise RequestRefused("field invalid", "MRKT_DIV_CODE")
    if code not in INDEXES:
        raise RequestRefused("quotation of unknown stock")
    return call.firm.index_model.index(code)


def index_price(call: Call) -> ApiReply:
    """inquire-index-price (국내업종 현재지수)."""
    quote = _index(call)
    model, today = call.firm.index_model, call.firm.exchange.world.today()
    year = [day for day in take_newest(model.index_days(quote.code), 250) if day.day.year == call.now.year]
    before = next(day for day in model.index_days(quote.code) if day.day < today)
    year = year or [before]
    high, low = max(year, key=lambda day: day.high), min(year, key=lambda day: day.low)
    total = quote.ask_quantity + quote.bid_quantity

    def change_fields(price: float) -> tuple[str, str, str]:
        return (
            fixed(price - quote.before, 2),
            change_sign(price, quote.before),
            percent_of(price - quote.before, quote.before),
        )

    now, opened, top, bottom = (change_fields(price) for price in (quote.last, quote.open, quote.high, quote.low))
    return quotation_reply(
        output={
            "bstp_nmix_prpr": fixed(quote.last, 2),
            "bstp_nmix_prdy_vrss": now[0],
            "prdy_vrss_sign": now[1],
            "bstp_nmix_prdy_ctrt": now[2],
            "acml_vol": str(quote.volume),
            "prdy_vol": str(before.volume),
            "acml_tr_pbmn": str(quote.amount),
            "prdy_tr_pbmn": str(before.amount),
            "bstp_nmix_oprc": fixed(quote.open, 2),
            "prdy_nmix_vrss_nmix_oprc": opened[0],
            "oprc_vrss_prpr_sign": opened[1],
            "bstp_nmix_oprc_prdy_ctrt": opened[2],
            "bstp_nmix_hgpr": fixed(quote.high, 2),
            "prdy_nmix_vrss_nmix_hgpr": top[0],
            "hgpr_vrss_prpr_sign": top[1],
            "bstp_nmix_hgpr_prdy_ctrt": top[2],
            "bstp_nmix_lwpr": fixed(quote.low, 2),
            "prdy_clpr_vrss_lwpr": bottom[0],
            "lwpr_vrss_prpr_sign": bottom[1],
            "prdy_clpr_vrss_lwpr_rate": bottom[2],
            "ascn_issu_cnt": str(quote.ups),
            "uplm_issu_cnt": str(quote.at_upper),
            "stnr_issu_cnt": str(quote.flats),
            "down_issu_cnt": str(quote.downs),
            "lslm_issu_cnt": str(quote.at_lower),
            "dryy_bstp_nmix_hgpr": fixed(high.high, 2),
            "dryy_hgpr_vrss_prpr_rate": percent_of(high.high - quote.last, high.high),
            "dryy_bstp_nmix_hgpr_date": f"{high.day:%Y%m%d}",
            "dryy_bstp_nmix_lwpr": fixed(low.low, 2),
            "dryy_lwpr_vrss_prpr_rate": percent_of(low.low - quote.last, low.low),
            "dryy_bstp_nmix_lwpr_date": f"{low.day:%Y%m%d}",
            "total_askp_rsqn": str(quote.ask_quantity),
            "total_bidp_rsqn": str(quote.bid_quantity),
            "seln_rsqn_rate": percent_of(quote.ask_quantity, total),
            "shnu_rsqn_rate": percent_of(quote.bid_quantity, total),
            "ntby_rsqn": str(quote.bid_quantity - quote.ask_quantity),
        }
    )


def _merge_by_unit(call: Call, days: "list[SimulatedIndexDay]") -> list[SimulatedIndexDay]:
    """Return the days, or merged into weeks, months or years if the call requests those. Raises RequestRefused."""
    unit = call.text("FID_PERIOD_DIV_CODE")
    if unit not in UNITS:
        raise RequestRefused("field invalid", "FID_PERIOD_DIV_CODE")
    if unit == "D":
        return days
    groups: dict[tuple[int, ...], list[SimulatedIndexDay]] = {}
    for day in days:
        groups.setdefault(_period_key(day.day, unit), []).append(day)
    return [
        SimulatedIndexDay(
            group[0].day,
            group[-1].open,
            max(day.high for day in group),
            min(day.low for day in group),
            group[0].close,
            sum(day.volume for day in group),
            sum(day.amount for day in group),
        )
        for group in groups.values()
    ]


def _period_key(day: date, unit: str) -> tuple[int, ...]:
    if unit == "W":
        return tuple(day.isocalendar()[:2])
    return (day.year, day.month) if unit == "M" else (day.year,)


def _chart_range(call: Call, rows: int) -> tuple[date, date, int]:
    """Return a chart's first and last date, and the maximum number of days for its rows."""
    days_per_row = {"D": 1, "W": 5, "M": 22, "Y": 250}.get(call.text("FID_PERIOD_DIV_CODE"), 1)
    return read_date(call, "FID_INPUT_DATE_1"), read_date(call, "FID_INPUT_DATE_2"), rows * days_per_row


def index_chart(call: Call) -> ApiReply:
    """inquire-daily-indexchartprice (국내주식업종기간별시세): fifty rows, newest first."""
    quote = _index(call)
    since, until, count = _chart_range(call, INDEX_ROWS)
    model, today = call.firm.index_model, call.firm.exchange.world.today()
    source = model.index_days(quote.code, until)
    days = _merge_by_unit(call, list(islice(takewhile(lambda day: day.day >= since, source), count)))
    before = next(day for day in model.index_days(quote.code) if day.day < today)
    head = {
        "prdy_vrss_sign": change_sign(quote.last, quote.before),
        "bstp_nmix_prdy_ctrt": percent_of(quote.last - quote.before, quote.before),
        "prdy_nmix": fixed(quote.before, 2),
        "acml_vol": str(quote.volume),
        "acml_tr_pbmn": str(quote.amount),
        "hts_kor_isnm": quote.name,
        "bstp_nmix_prpr": fixed(quote.last, 2),
        "bstp_cls_code": quote.code,
        "prdy_vol": str(before.volume),
        "bstp_nmix_oprc": fixed(quote.open, 2),
        "bstp_nmix_hgpr": fixed(quote.high, 2),
        "bstp_nmix_lwpr": fixed(quote.low, 2),
        "futs_prdy_oprc": fixed(before.open, 2),
        "futs_prdy_hgpr": fixed(before.high, 2),
        "futs_prdy_lwpr": fixed(before.low, 2),
    }
    rows = [
        {
            "stck_bsop_date": f"{day.day:%Y%m%d}",
            "bstp_nmix_prpr": fixed(day.close, 2),
            "bstp_nmix_oprc": fixed(day.open, 2),
            "bstp_nmix_hgpr": fixed(day.high, 2),
            "bstp_nmix_lwpr": fixed(day.low, 2),
            "acml_vol": str(day.volume),
            "acml_tr_pbmn": str(day.amount),
            "mod_yn": "N",
        }
        for day in days[:INDEX_ROWS]
    ]
    return quotation_reply(output1=head, output2=rows)


# --- futures


def _contract(call: Call) -> Contract:
    contract = call.firm.index_model.contract(call.text("FID_INPUT_ISCD"), call.now.date())
    if contract is None:
        raise RequestRefused("quotation of unknown stock")
    return contract


def future_price(call: Call) -> ApiReply:
    """futureoption inquire-price (선물옵션 시세): the contract, KOSPI and KOSPI200."""
    model = call.firm.index_model
    spots = {"output2": _index_fields(call, KOSPI), "output3": _index_fields(call, KOSPI200)}
    if call.text("FID_COND_MRKT_DIV_CODE") in _NIGHT:  # night codes get a reply with empty values
        front = model.contracts(call.now.date())[0]
        return quotation_reply(output1=dict.fromkeys(_future_fields(model.future(front, call.now)), ""), **spots)
    return quotation_reply(output1=_future_fields(model.future(_contract(call), call.now)), **spots)


def _future_fields(quote: SimulatedFuture) -> Body:
    upper, lower = quote.before * 1.08, quote.before * 0.92
    return {
        "hts_kor_isnm": quote.contract.name,
        "futs_prpr": fixed(quote.last, 2),
        "futs_prdy_vrss": fixed(quote.last - quote.before, 2),
        "prdy_vrss_sign": change_sign(quote.last, quote.before),
        "futs_prdy_clpr": fixed(quote.before, 2),
        "futs_prdy_ctrt": percent_of(quote.last - quote.before, quote.before),
        "acml_vol": str(quote.volume),
        "acml_tr_pbmn": str(_turnover(quote)),
        "hts_otst_stpl_qty": str(quote.open_interest),
        "otst_stpl_qty_icdc": str(quote.volume // 300),
        "futs_oprc": fixed(quote.open, 2),
        "futs_hgpr": fixed(quote.high, 2),
        "futs_lwpr": fixed(quote.low, 2),
        "futs_mxpr": fixed(upper, 2),
        "futs_llam": fixed(lower, 2),
        "basis": fixed(quote.fair - quote.spot, 2),
        "futs_sdpr": fixed(quote.before, 2),
        "hts_thpr": fixed(quote.fair, 2),
        "dprt": percent_of(quote.last - quote.fair, quote.fair),
        "crbr_aply_mxpr": fixed(upper, 2),
        "crbr_aply_llam": fixed(lower, 2),
        "futs_last_tr_date": f"{quote.contract.last_day:%Y%m%d}",
        "hts_rmnn_dynu": str(quote.days_left),
        "futs_lstn_medm_hgpr": fixed(quote.high * 1.09, 2),
        "futs_lstn_medm_lwpr": fixed(quote.low * 0.87, 2),
        "delta_val": "1.0000",
        "gama": "0.0000",
        "theta": "0.0000",
        "vega": "0.0000",
        "rho": "0.0000",
        "hist_vltl": "18.42",
        "hts_ints_vltl": "0.00",
        "mrkt_basis": fixed(quote.last - quote.spot, 2),
        "acpr": "0.00",
    }


def _turnover(quote: SimulatedFuture) -> int:
    """Return the day's amount in million won. A contract is worth 250,000 won per point."""
    return int(quote.volume * quote.last * 0.25)


def _index_fields(call: Call, code: str) -> Body:
    quote = call.firm.index_model.index(code)
    return {
        "bstp_cls_code": code,
        "hts_kor_isnm": quote.name,
        "bstp_nmix_prpr": fixed(quote.last, 2),
        "prdy_vrss_sign": change_sign(quote.last, quote.before),
        "bstp_nmix_prdy_vrss": fixed(quote.last - quote.before, 2),
        "bstp_nmix_prdy_ctrt": percent_of(quote.last - quote.before, quote.before),
    }


def future_chart(call: Call) -> ApiReply:
    """inquire-daily-fuopchartprice (선물옵션기간별시세): a hundred rows, newest first."""
    contract = _contract(call)
    quote = call.firm.index_model.future(contract, call.now)
    since, until, count = _chart_range(call, FUTURES_ROWS)
    source = call.firm.index_model.future_days(contract, until)
    days = _merge_by_unit(call, list(islice(takewhile(lambda day: day.day >= since, source), count)))
    today = call.firm.exchange.world.today()
    before = next(day for day in call.firm.index_model.future_days(contract, None) if day.day < today)
    spot = call.firm.index_model.index(KOSPI200)
    output1 = {
        "futs_prdy_vrss": fixed(quote.last - quote.before, 2),
        "prdy_vrss_sign": change_sign(quote.last, quote.before),
        "futs_prdy_ctrt": percent_of(quote.last - quote.before, quote.before),
        "futs_prdy_clpr": fixed(quote.before, 2),
        "acml_vol": str(quote.volume),
        "acml_tr_pbmn": str(_turnover(quote)),
        "hts_kor_isnm": contract.name,
        "futs_prpr": fixed(quote.last, 2),
        "futs_shrn_iscd": contract.code,
        "prdy_vol": str(before.volume),
        "futs_mxpr": fixed(quote.before * 1.08, 2),
        "futs_llam": fixed(quote.before * 0.92, 2),
        "futs_oprc": fixed(quote.open, 2),
        "futs_hgpr": fixed(quote.high, 2),
        "futs_lwpr": fixed(quote.low, 2),
        "futs_prdy_oprc": fixed(before.open, 2),
        "futs_prdy_hgpr": fixed(before.high, 2),
        "futs_prdy_lwpr": fixed(before.low, 2),
        "futs_askp": fixed(quote.last + 0.05, 2),
        "futs_bidp": fixed(quote.last, 2),
        "basis": fixed(quote.fair - quote.spot, 2),
        "kospi200_nmix": fixed(spot.last, 2),
        "kospi200_prdy_vrss": fixed(spot.last - spot.before, 2),
        "kospi200_prdy_ctrt": percent_of(spot.last - spot.before, spot.before),
        "kospi200_prdy_vrss_sign": change_sign(spot.last, spot.before),
        "hts_otst_stpl_qty": str(quote.open_interest),
        "otst_stpl_qty_icdc": str(quote.volume // 300),
        "tday_rltv": "101.25",
        "hts_thpr": fixed(quote.fair, 2),
        "dprt": percent_of(quote.last - quote.fair, quote.fair),
    }
    rows = [
        {
            "stck_bsop_date": f"{day.day:%Y%m%d}",
            "futs_prpr": fixed(day.close, 2),
            "futs_oprc": fixed(day.open, 2),
            "futs_hgpr": fixed(day.high, 2),
            "futs_lwpr": fixed(day.low, 2),
            "acml_vol": str(day.volume),
            "acml_tr_pbmn": str(day.amount),
            "mod_yn": "N",
        }
        for day in days[:FUTURES_ROWS]
    ]
    return quotation_reply(output1=output1, output2=rows)


def futures_board(call: Call) -> ApiReply:
    """display-board-futures (국내옵션전광판 선물): the listed contracts, front month first."""
    boards = {"": call.firm.index_model.contracts, "MKI": call.firm.index_model.minis}
    board = boards.get(call.text("FID_COND_MRKT_CLS_CODE"))
    rows = []
    # weekly and KOSDAQ150 contracts are not simulated
    for contract in board(call.now.date()) if board else ():
        quote = call.firm.index_model.future(contract, call.now)
        rows.append(
            {
                "futs_shrn_iscd": contract.code,
                "hts_kor_isnm": contract.name,
                "futs_prpr": fixed(quote.last, 2),
                "futs_prdy_vrss": fixed(quote.last - quote.before, 2),
                "prdy_vrss_sign": change_sign(quote.last, quote.before),
                "futs_prdy_ctrt": percent_of(quote.last - quote.before, quote.before),
                "hts_thpr": fixed(quote.fair, 2),
                "acml_vol": str(quote.volume),
                "futs_askp": fixed(quote.last + 0.05, 2),
                "futs_bidp": fixed(quote.last, 2),
                "hts_otst_stpl_qty": str(quote.open_interest),
                "futs_hgpr": fixed(quote.high, 2),
                "futs_lwpr": fixed(quote.low, 2),
                "hts_rmnn_dynu": str(quote.days_left),
                "total_askp_rsqn": "412",
                "total_bidp_rsqn": "398",
                "futs_antc_cnpr": "0.00",
                "futs_antc_cntg_vrss": "0.00",
                "antc_cntg_vrss_sign": "3",
                "antc_cntg_prdy_ctrt": "0.00",
            }
        )
    return quotation_reply(output=rows)
