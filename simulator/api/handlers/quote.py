"""Quotations of one stock (시세): price, book, the last thirty days.

FID_COND_MRKT_DIV_CODE selects the venue: J is KRX, NX is NXT, UN is both together.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice, pairwise
from random import Random

from aegis import ticks
from aegis.sessions import Matching, PhaseName
from aegis.terms import Market, Side
from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import fixed, percent_of, sign
from simulator.api.request import ApiReply, Body, Call, quotation_reply
from simulator.broker import Firm
from simulator.exchange.daily_history import HistoryDay
from simulator.exchange.listings import STOCKS, ListedStock
from simulator.exchange.market_maker import Venue
from simulator.exchange.trade_tape import Tape

DIVISIONS = {"J": (Market.KRX,), "NX": (Market.NXT,), "UN": (Market.KRX, Market.NXT)}
DAILY_ROWS = 30
_HUNDRED_MILLION = 100_000_000


@dataclass(frozen=True, slots=True)
class StockQuote:
    """One stock on the venues that a call selects: one, or both together."""

    stock: ListedStock
    venues: tuple[Venue, ...]
    firm: Firm

    @property
    def lead(self) -> Venue:
        """The venue that traded last."""
        return max(self.venues, key=lambda venue: venue.tape.recent[-1].at.timestamp() if venue.tape.recent else 0.0)

    @property
    def tape(self) -> Tape:
        if len(self.venues) == 1:
            return self.venues[0].tape
        return self.firm.exchange.unified[self.stock.code]

    @property
    def base(self) -> int:
        return self.venues[0].base

    def sign(self, price: int) -> str:
        venue = self.venues[0]
        return sign(price, venue.base, venue.lowest, venue.highest)


def quote_of(call: Call) -> StockQuote:
    """Return the stock and venues of a quotation call. Raises RequestRefused."""
    division = call.text("FID_COND_MRKT_DIV_CODE")
    if division not in DIVISIONS:
        raise RequestRefused("field invalid", "MRKT_DIV_CODE")
    stock = STOCKS.get(call.text("FID_INPUT_ISCD").removeprefix("A"))
    if stock is None:
        raise RequestRefused("quotation of unknown stock")
    venues = call.firm.exchange.venues
    stock_venues = tuple(venues[stock.code, market] for market in DIVISIONS[division] if (stock.code, market) in venues)
    if not stock_venues:
        raise RequestRefused("quotation of unknown stock")
    return StockQuote(stock, stock_venues, call.firm)


def price(call: Call) -> ApiReply:
    """inquire-price (주식현재가 시세)."""
    quote = quote_of(call)
    return quotation_reply(
        output=_state(quote)
        | _today(quote)
        | _pivots(quote)
        | company_figures(quote)
        | _extremes(quote)
        | _other_fields(quote)
    )


def _state(quote: StockQuote) -> Body:
    stock, world = quote.stock, quote.firm.exchange.world
    halted = stock.code in world.halted
    body = {
        "iscd_stat_cls_code": "58" if halted else "55" if stock.in_kospi200 else "57",
        "marg_rate": "20.00" if stock.in_kospi200 else "40.00",
        "rprs_mrkt_kor_name": stock.market_label,
    }
    if stock.sector:  # the key is missing for stocks without a sector
        body["bstp_kor_isnm"] = stock.sector
    return body | {
        "temp_stop_yn": "Y" if halted else "N",
        "oprc_rang_cont_yn": "N",
        "clpr_rang_cont_yn": "N",
        "crdt_able_yn": "Y" if stock.in_kospi200 else "N",
        "grmn_rate_cls_code": "40",
        "elw_pblc_yn": "Y" if stock.in_kospi200 else "N",
    }


def _today(quote: StockQuote) -> Body:
    tape, venue = quote.tape, quote.venues[0]
    before = quote.firm.history.yesterday(quote.stock.code)
    return {
        "stck_prpr": str(tape.last),
        "prdy_vrss": str(tape.last - quote.base),
        "prdy_vrss_sign": quote.sign(tape.last),
        "prdy_ctrt": percent_of(tape.last - quote.base, quote.base),
        "acml_tr_pbmn": str(tape.amount),
        "acml_vol": str(tape.volume),
        "prdy_vrss_vol_rate": percent_of(tape.volume, before.volume),
        "stck_oprc": str(tape.open),
        "stck_hgpr": str(tape.high),
        "stck_lwpr": str(tape.low),
        "stck_mxpr": str(venue.highest),
        "stck_llam": str(venue.lowest),
        "stck_sdpr": str(quote.base),
        "wghn_avrg_stck_prc": fixed(tape.average, 2),
    }


def _pivots(quote: StockQuote) -> Body:
    before = quote.firm.history.yesterday(quote.stock.code)
    pivot = (before.high + before.low + before.close) // 3
    width = before.high - before.low
    first_up, first_down = 2 * pivot - before.low, 2 * pivot - before.high
    return {
        "hts_frgn_ehrt": fixed(_figure(quote.stock, "foreign", 2, 55), 2),
        "frgn_ntby_qty": "0",
        "pgtr_ntby_qty": str(quote.lead.tape.bought // 9 - quote.lead.tape.sold // 9),
        "pvt_scnd_dmrs_prc": str(pivot + width),
        "pvt_frst_dmrs_prc": str(first_up),
        "pvt_pont_val": str(pivot),
        "pvt_frst_dmsp_prc": str(first_down),
        "pvt_scnd_dmsp_prc": str(pivot - width),
        "dmrs_val": str((pivot + first_up) // 2),
        "dmsp_val": str((pivot + first_down) // 2),
    }


def company_figures(quote: StockQuote) -> Body:
    """Return the figures of the company and of its shares."""
    stock, venue, last = quote.stock, quote.venues[0], quote.tape.last
    capital = stock.listed_shares * stock.par_value // _HUNDRED_MILLION
    earnings, book = (
        _figure(stock, "eps", 0.03, 0.12) * stock.base_price,
        _figure(stock, "bps", 0.4, 1.4) * stock.base_price,
    )
    return {
        "cpfn": str(capital),
        "rstc_wdth_prc": str(venue.highest - venue.base),
        "stck_fcam": str(stock.par_value),
        "stck_sspr": str(venue.base * 76 // 100 // 10 * 10),
        "aspr_unit": str(ticks.get_tick_size(last, stock.instrument)),
        "hts_deal_qty_unit_val": "1",
        "lstn_stcn": str(stock.listed_shares),
        "hts_avls": str(last * stock.listed_shares // _HUNDRED_MILLION),
        "per": fixed(last / earnings, 2),
        "pbr": fixed(last / book, 2),
        "stac_month": "12",
        "vol_tnrt": percent_of(quote.tape.volume, stock.listed_shares),
        "eps": fixed(int(earnings), 2),
        "bps": fixed(int(book), 2),
    }


def _figure(stock: ListedStock, name: str, low: float, high: float) -> float:
    """Return an invented figure of the company, constant by stock and name."""
    return Random(f"{stock.code}:{name}").uniform(low, high)  # noqa: S311


def _extremes(quote: StockQuote) -> Body:
    days = list(islice(quote.firm.history.days(quote.stock.code, quote.tape), 250))
    year = [day for day in days if day.day.year == days[0].day.year]
    body: Body = {}
    for prefix, suffix, rows, key in (
        ("d250", "vrss_prpr_rate", days, "d250_{}"),
        ("dryy", "vrss_prpr_rate", year, "stck_dryy_{}"),
        ("w52", "vrss_prpr_ctrt", days[:245], "w52_{}"),
    ):
        high, low = max(rows, key=lambda day: day.high), min(rows, key=lambda day: day.low)
        for name, day, extreme in (("hgpr", high, high.high), ("lwpr", low, low.low)):
            rate_field = (f"{prefix}_{name}_{suffix}", percent_of(quote.tape.last - extreme, extreme))
            date_field = (f"{prefix}_{name}_date", f"{day.day:%Y%m%d}")
            body[key.format(name)] = str(extreme)
            body.update([date_field, rate_field] if prefix == "d250" else [rate_field, date_field])
    return body


def _other_fields(quote: StockQuote) -> Body:
    stock = quote.stock
    capital = stock.listed_shares * stock.par_value // _HUNDRED_MILLION
    return {
        "whol_loan_rmnd_rate": "0.19",
        "ssts_yn": "Y" if stock.in_kospi200 else "N",
        "stck_shrn_iscd": stock.code,
        "fcam_cnnm": f"{stock.par_value:,}",
        "cpfn_cnnm": f"{capital:,} 억",
        "frgn_hldn_qty": str(int(stock.listed_shares * _figure(stock, "foreign", 2, 55) / 100)),
        "vi_cls_code": vi_state(quote.firm, stock.code),
        "ovtm_vi_cls_code": "N",
        "last_ssts_cntg_qty": "0",
        "invt_caful_yn": "N",
        "mrkt_warn_cls_code": "00",
        "short_over_yn": "N",
        "sltr_yn": "N",
        "mang_issu_cls_code": "N",
    }


def asking_price(call: Call) -> ApiReply:
    """inquire-asking-price-exp-ccn (주식현재가 호가/예상체결)."""
    quote = quote_of(call)
    venue, tape = quote.lead, quote.tape
    asks, bids = merged_depth(quote.venues)
    expected = venue.indication()
    price = expected.price or tape.last
    levels: Body = {"aspr_acpt_hour": f"{call.now:%H%M%S}"}
    for prefix, rows, column in (("askp", asks, 0), ("bidp", bids, 0), ("askp_rsqn", asks, 1), ("bidp_rsqn", bids, 1)):
        levels |= {f"{prefix}{n}": str(rows[n - 1][column] if n <= len(rows) else 0) for n in range(1, 11)}
    for prefix in ("askp", "bidp"):
        levels |= {f"{prefix}_rsqn_icdc{n}": "0" for n in range(1, 11)}
    total_ask = sum(v.book.total(Side.SELL) for v in quote.venues)
    total_bid = sum(v.book.total(Side.BUY) for v in quote.venues)
    output1 = levels | {
        "total_askp_rsqn": str(total_ask),
        "total_bidp_rsqn": str(total_bid),
        "total_askp_rsqn_icdc": "0",
        "total_bidp_rsqn_icdc": "0",
        "ovtm_total_askp_icdc": "0",
        "ovtm_total_bidp_icdc": "0",
        "ovtm_total_askp_rsqn": "0",
        "ovtm_total_bidp_rsqn": "0",
        "ntby_aspr_rsqn": str(total_bid - total_ask),
        "new_mkop_cls_code": market_operation(call.firm, venue.market, call.now),
    }
    output2 = {
        "antc_mkop_cls_code": expected_operation(call.firm, venue.market, call.now),
        "stck_prpr": str(tape.last),
        "stck_oprc": str(tape.open),
        "stck_hgpr": str(tape.high),
        "stck_lwpr": str(tape.low),
        "stck_sdpr": str(quote.base),
        "antc_cnpr": str(price),
        "antc_cntg_vrss_sign": quote.sign(price),
        "antc_cntg_vrss": str(price - quote.base),
        "antc_cntg_prdy_ctrt": percent_of(price - quote.base, quote.base),
        "antc_vol": str(expected.quantity),
        "stck_shrn_iscd": quote.stock.code,
        "vi_cls_code": vi_state(quote.firm, quote.stock.code),
    }
    return quotation_reply(output1=output1, output2=output2)


def merged_depth(venues: tuple[Venue, ...], count: int = 10) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return asks and bids, as pairs of price and quantity, of one venue or summed over two, best first."""
    if len(venues) == 1:
        book = venues[0].book
        return book.depth(Side.SELL, count), book.depth(Side.BUY, count)
    sides = []
    for side in (Side.SELL, Side.BUY):
        sums: dict[int, int] = {}
        for venue in venues:
            for level_price, quantity in venue.book.depth(side, count):
                sums[level_price] = sums.get(level_price, 0) + quantity
        sides.append(sorted(sums.items(), reverse=side is Side.BUY)[:count])
    return sides[0], sides[1]


def market_operation(firm: Firm, market: Market, now: datetime) -> str:
    """Return the two-digit state of a venue (NEW_MKOP_CLS_CODE)."""
    phases = firm.exchange.phases(market, now)
    if not phases:
        return "10" if now.hour < 9 else "30"
    if any(phase.matching is Matching.AUCTION for phase in phases):
        return "10" if phases[0].name is PhaseName.OPENING_AUCTION else "21"
    if any(phase.name is PhaseName.POST_CLOSE for phase in phases):
        return "31"
    return "20"


def expected_operation(firm: Firm, market: Market, now: datetime) -> str:
    """Return the code of the current auction: 112 opening, 129 closing, 311 none."""
    names = {phase.name for phase in firm.exchange.phases(market, now)}
    if PhaseName.OPENING_AUCTION in names:
        return "112"
    return "129" if PhaseName.CLOSING_AUCTION in names else "311"


def daily_price(call: Call) -> ApiReply:
    """inquire-daily-price (주식현재가 일자별): thirty days, weeks or months."""
    quote = quote_of(call)
    unit = call.text("FID_PERIOD_DIV_CODE") or "D"
    if unit not in ("D", "W", "M"):
        raise RequestRefused("field invalid", "FID_PERIOD_DIV_CODE")
    rows = list(islice(quote.firm.history.periods(quote.stock.code, quote.tape, unit), DAILY_ROWS + 1))
    return quotation_reply(output=[_daily_row(quote, day, older) for day, older in pairwise(rows)])


def _daily_row(quote: StockQuote, day: HistoryDay, older: HistoryDay) -> Body:
    change = day.close - day.before
    return {
        "stck_bsop_date": f"{day.day:%Y%m%d}",
        "stck_oprc": str(day.open),
        "stck_hgpr": str(day.high),
        "stck_lwpr": str(day.low),
        "stck_clpr": str(day.close),
        "acml_vol": str(day.volume),
        "prdy_vrss_vol_rate": percent_of(day.volume - older.volume, older.volume),
        "prdy_vrss": str(change),
        "prdy_vrss_sign": day_sign(quote.stock, day),
        "prdy_ctrt": percent_of(change, day.before),
        "hts_frgn_ehrt": fixed(_figure(quote.stock, "foreign", 2, 55), 2),
        "frgn_ntby_qty": str(int((day.close - day.open) / max(1, day.open) * day.volume)),
        "flng_cls_code": "00",
        "acml_prtt_rate": "0.00",
    }


def vi_state(firm: Firm, code: str) -> str:
    """Return Y while a stock is interrupted (VI)."""
    return "Y" if any(vi.code == code and not vi.ended for vi in firm.exchange.world.interruptions) else "N"


def day_sign(stock: ListedStock, day: HistoryDay) -> str:
    lowest, highest = ticks.daily_limits(day.before, stock.instrument)
    return sign(day.close, day.before, lowest, highest)
