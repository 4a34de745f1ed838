"""Charts (차트): daily bars of a range, minute bars of today, minute bars of past days."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from hashlib import blake2b
from itertools import accumulate, islice, takewhile

from aegis import ticks
from aegis.terms import Side
from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import percent_of
from simulator.api.handlers.quote import StockQuote, company_figures, day_sign, quote_of
from simulator.api.request import ApiReply, Body, Call, quotation_reply
from simulator.exchange.daily_history import HistoryDay
from simulator.exchange.listings import ListedStock
from simulator.exchange.trade_tape import TapeBar

CHART_ROWS, MINUTE_ROWS, PAST_MINUTE_ROWS = 100, 30, 120
UNITS = ("D", "W", "M", "Y")
_CLOSES = time(15, 30)


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of one day. The bar's `amount` is the day's total up to its end, in won."""

    day: date
    at: str  # HHMM00
    bar: TapeBar


def daily(call: Call) -> ApiReply:
    """inquire-daily-itemchartprice (국내주식기간별시세): up to a hundred rows, newest first."""
    quote = quote_of(call)
    unit = call.text("FID_PERIOD_DIV_CODE")
    if unit not in UNITS:
        raise RequestRefused("field invalid", "FID_PERIOD_DIV_CODE")
    since, until = read_date(call, "FID_INPUT_DATE_1"), read_date(call, "FID_INPUT_DATE_2")
    periods = quote.firm.history.periods(quote.stock.code, quote.tape, unit, until)
    rows = islice(takewhile(lambda day: day.day >= since, periods), CHART_ROWS)
    return quotation_reply(output1=_chart_head(quote), output2=[_chart_row(quote.stock, day) for day in rows])


def read_date(call: Call, name: str) -> date:
    """Return a date. The year 0, which some clients send, means the earliest date. Raises RequestRefused."""
    text = call.text(name)
    if text.startswith("0000"):
        return date.min
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        raise RequestRefused("field invalid", name) from None


def _chart_head(quote: StockQuote) -> Body:
    tape, venue, base = quote.tape, quote.venues[0], quote.base
    before = quote.firm.history.yesterday(quote.stock.code)
    company = company_figures(quote)
    asks, bids = venue.book.depth(Side.SELL, 1), venue.book.depth(Side.BUY, 1)
    return {
        **change_of(quote),
        "stck_prdy_clpr": str(base),
        "acml_vol": str(tape.volume),
        "acml_tr_pbmn": str(tape.amount),
        "hts_kor_isnm": quote.stock.name,
        "stck_prpr": str(tape.last),
        "stck_shrn_iscd": quote.stock.code,
        "prdy_vol": str(before.volume),
        "stck_mxpr": str(venue.highest),
        "stck_llam": str(venue.lowest),
        "stck_oprc": str(tape.open),
        "stck_hgpr": str(tape.high),
        "stck_lwpr": str(tape.low),
        "stck_prdy_oprc": str(before.open),
        "stck_prdy_hgpr": str(before.high),
        "stck_prdy_lwpr": str(before.low),
        "askp": str(asks[0][0] if asks else 0),
        "bidp": str(bids[0][0] if bids else 0),
        "prdy_vrss_vol": str(tape.volume - before.volume),
        **{
            name: company[name]
            for name in ("vol_tnrt", "stck_fcam", "lstn_stcn", "cpfn", "hts_avls", "per", "eps", "pbr")
        },
        "itewhol_loan_rmnd_ratem": "0.19",
    }


def change_of(quote: StockQuote) -> Body:
    last, base = quote.tape.last, quote.base
    return {
        "prdy_vrss": str(last - base),
        "prdy_vrss_sign": quote.sign(last),
        "prdy_ctrt": percent_of(last - base, base),
    }


def _chart_row(stock: ListedStock, day: HistoryDay) -> Body:
    return {
        "stck_bsop_date": f"{day.day:%Y%m%d}",
        "stck_clpr": str(day.close),
        "stck_oprc": str(day.open),
        "stck_hgpr": str(day.high),
        "stck_lwpr": str(day.low),
        "acml_vol": str(day.volume),
        "acml_tr_pbmn": str(day.amount),
        "flng_cls_code": "00",
        "prtt_rate": "0.00",
        "mod_yn": "N",
        "prdy_vrss_sign": day_sign(stock, day),
        "prdy_vrss": str(day.close - day.before),
        "revl_issu_reas": "",
    }


def minutes(call: Call) -> ApiReply:
    """inquire-time-itemchartprice (주식당일분봉조회): thirty minutes up to a time of day, newest first.

    Only today's, even if FID_PW_DATA_INCU_YN is Y: clients page back until they reach the opening.
    """
    quote = quote_of(call)
    hour = call.text("FID_INPUT_HOUR_1")
    # zero or a future time means now
    latest = f"{call.now:%H%M%S}" if not hour.strip("0") else min(hour, f"{call.now:%H%M%S}")
    return _minute_reply(quote, _today(quote, latest), MINUTE_ROWS)


def past_minutes(call: Call) -> ApiReply:
    """inquire-time-dailychartprice (주식일별분봉조회): minutes of a day, up to a year ago, newest first."""
    quote = quote_of(call)
    day = read_date(call, "FID_INPUT_DATE_1")
    hour = call.text("FID_INPUT_HOUR_1")
    today = quote.firm.exchange.world.today()
    if call.now.date() - day > timedelta(days=366):
        return _minute_reply(quote, iter(()), PAST_MINUTE_ROWS)
    day_minutes: Iterator[Minute] = iter(())
    if day >= today:
        day_minutes = _today(quote, min(hour, f"{call.now:%H%M%S}"))
    else:
        past = next((p for p in quote.firm.history.days(quote.stock.code, None, day) if p.day <= day), None)
        if past is not None and past.day == day:
            day_minutes = (minute for minute in _generated_minutes(quote, past) if minute.at <= hour)
    if call.text("FID_PW_DATA_INCU_YN") == "Y":
        day_minutes = _chain(day_minutes, _earlier_days(quote, day))
    return _minute_reply(quote, day_minutes, PAST_MINUTE_ROWS)


def _minute_reply(quote: StockQuote, rows: Iterator[Minute], count: int) -> ApiReply:
    head = {
        **change_of(quote),
        "stck_prdy_clpr": str(quote.base),
        "acml_vol": str(quote.tape.volume),
        "acml_tr_pbmn": str(quote.tape.amount),
        "hts_kor_isnm": quote.stock.name,
        "stck_prpr": str(quote.tape.last),
    }
    return quotation_reply(output1=head, output2=[_minute_row(minute) for minute in islice(rows, count)])


def _minute_row(minute: Minute) -> Body:
    return {
        "stck_bsop_date": f"{minute.day:%Y%m%d}",
        "stck_cntg_hour": minute.at,
        "stck_prpr": str(minute.bar.close),
        "stck_oprc": str(minute.bar.open),
        "stck_hgpr": str(minute.bar.high),
        "stck_lwpr": str(minute.bar.low),
        "cntg_vol": str(minute.bar.volume),
        "acml_tr_pbmn": str(minute.bar.amount),
    }


def _chain(first: Iterator[Minute], second: Iterator[Minute]) -> Iterator[Minute]:
    yield from first
    yield from second


def _today(quote: StockQuote, latest: str) -> Iterator[Minute]:
    """Yield today's minutes back from `latest` (HHMMSS). A minute without a trade repeats the previous price."""
    bars = quote.tape.minutes
    if not bars:
        return
    day = quote.firm.exchange.world.today()
    first = min(bars)
    moment = datetime.combine(day, time(int(latest[:2]), int(latest[2:4])))
    while f"{moment:%H%M}" >= first:
        name = f"{moment:%H%M}"
        bar = bars.get(name)
        if bar is None:
            before = bars[max(key for key in bars if key < name)]
            bar = TapeBar(before.close, before.close, before.close, before.close, 0, before.amount)
        yield Minute(day, f"{name}00", bar)
        moment -= timedelta(minutes=1)


def _earlier_days(quote: StockQuote, before: date) -> Iterator[Minute]:
    for past in quote.firm.history.days(quote.stock.code, None):
        if past.day < before:
            yield from _generated_minutes(quote, past)


def _generated_minutes(quote: StockQuote, day: HistoryDay) -> Iterator[Minute]:
    """Yield generated minutes of a past day, newest first: a path within the day's range."""
    count = 391 - 9  # the closing auction has only its last minute
    path = _path(quote, day, count)
    worth = list(accumulate(path[1:]))
    moment = datetime.combine(day.day, _CLOSES)
    for index in range(count - 1, -1, -1):
        opened, close = path[index], path[index + 1]
        high, low = max(opened, close), min(opened, close)
        if index == count // 3:
            high = day.high
        if index == 2 * count // 3:
            low = day.low
        # the day's volume is divided equally, its amount in proportion to the prices
        volume = day.volume * (index + 1) // count - day.volume * index // count
        amount = day.amount * worth[index] // worth[-1]
        yield Minute(day.day, f"{moment:%H%M}00", TapeBar(opened, high, low, close, volume, amount))
        moment -= timedelta(minutes=10 if moment.time() == _CLOSES else 1)


def _path(quote: StockQuote, day: HistoryDay, count: int) -> list[int]:
    noise = blake2b(f"{quote.firm.exchange.world.seed}:{quote.stock.code}:{day.day}".encode(), digest_size=64).digest()
    width = max(1, (day.high - day.low) // 3)
    prices = []
    for index in range(count + 1):
        line = day.open + (day.close - day.open) * index / count
        wave = (noise[index * 64 // (count + 1)] - 128) / 128 * width * min(index, count - index) / count
        snapped = ticks.adjust_price_to_tick(max(1, int(line + wave)), "down", quote.stock.instrument)
        prices.append(min(day.high, max(day.low, snapped)))
    prices[0], prices[-1] = day.open, day.close
    return prices
