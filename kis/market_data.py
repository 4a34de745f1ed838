"""Reads market data from the broker: charts, indexes, futures. Translation only, no policy."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from aegis.broker import (
    ChartMinute,
    DayPrice,
    FutureQuote,
    FuturesPositions,
    Listing,
    OutcomeUnknown,
)
from aegis.sessions import KST
from aegis.terms import Market
from infra import clock
from kis import catalogue, stock_master
from kis.client import Client
from kis.environment import Dialect
from kis.rest_values import Row

# the code of a venue in quotation calls (조건 시장 분류 코드)
MARKET_DIVISION = {Market.KRX: "J", Market.NXT: "NX", Market.SOR: "UN"}
THURSDAY = 3
QUARTER_MONTHS = 3


class Quotations:
    """The market data methods of the port `aegis.broker.Broker`."""

    _client: Client

    def listings(self) -> Sequence[Listing]:
        return stock_master.listings(self._client.download)

    def daily_chart(self, code: str, first: date, last: date, *, adjusted: bool = True) -> Sequence[DayPrice]:
        reply = self._client.call(catalogue.DAILY_CHART, _days_of(code, first, last, adjusted=adjusted))
        return [_day_price(row) for row in reply.list_rows()]

    def minutes(self, code: str, market: Market, last: datetime) -> Sequence[ChartMinute]:
        moment = last.astimezone(KST)
        parameters = {**instrument(code, market), "FID_INPUT_HOUR_1": f"{moment:%H%M%S}", "FID_PW_DATA_INCU_YN": "N"}
        if moment.date() == clock.now().date():
            reply = self._client.call(catalogue.MINUTES_TODAY, {**parameters, "FID_ETC_CLS_CODE": ""})
        else:
            past = {**parameters, "FID_INPUT_DATE_1": f"{moment:%Y%m%d}", "FID_FAKE_TICK_INCU_YN": ""}
            reply = self._client.call(catalogue.MINUTES_OF_DAY, past)
        minutes = [_minute(row) for row in reply.list_rows()]
        return [minute for minute in minutes if minute.at.date() == moment.date()]

    def index(self, code: str) -> Decimal:
        parameters = {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": code}
        if not self._client.environment.is_paper and self._client.dialect is Dialect.OFFICIAL:
            return self._client.call(catalogue.INDEX_PRICE, parameters).row().decimal("bstp_nmix_prpr")
        # paper does not offer the price, and the AEGIS specification names the chart, whose head has the price too
        today = f"{clock.now():%Y%m%d}"
        parameters |= {"FID_INPUT_DATE_1": today, "FID_INPUT_DATE_2": today, "FID_PERIOD_DIV_CODE": "D"}
        return self._client.call(catalogue.INDEX_CHART, parameters).row("output1").decimal("bstp_nmix_prpr")

    def near_future(self) -> str:
        if self._client.environment.is_paper:  # paper does not offer the list of contracts
            return quarterly_future(clock.now().date())
        board = {"FID_COND_MRKT_DIV_CODE": "F", "FID_COND_SCR_DIV_CODE": "20503", "FID_COND_MRKT_CLS_CODE": ""}
        rows = self._client.call(catalogue.FUTURES_BOARD, board).rows()
        if not rows:
            raise OutcomeUnknown("no contract is listed", call=catalogue.FUTURES_BOARD.name)
        return min(rows, key=lambda row: row.integer("hts_rmnn_dynu")).text("futs_shrn_iscd")

    def future(self, code: str) -> FutureQuote:
        parameters = {"FID_COND_MRKT_DIV_CODE": "F", "FID_INPUT_ISCD": code}
        reply = self._client.call(catalogue.FUTURES_PRICE, parameters)
        return FutureQuote(
            code=code,
            points=reply.row("output1").decimal("futs_prpr"),
            kospi200=reply.row("output3").decimal("bstp_nmix_prpr"),
        )

    def futures_positions(self) -> FuturesPositions:
        # UNVERIFIED: that these names are lower case, as in the broker's own sample
        parameters = {"fid_input_iscd": "K2I", "fid_input_iscd_2": "F001"}
        row = self._client.call(catalogue.INVESTORS_NOW, parameters).row()
        return FuturesPositions(
            foreign=row.integer("frgn_ntby_qty"),
            institution=row.integer("orgn_ntby_qty"),
            individual=row.integer("prsn_ntby_qty"),
        )


def instrument(code: str, market: Market) -> dict[str, str]:
    return {"FID_COND_MRKT_DIV_CODE": MARKET_DIVISION[market], "FID_INPUT_ISCD": code}


def _days_of(code: str, first: date, last: date, *, adjusted: bool) -> dict[str, str]:
    return {
        **instrument(code, Market.KRX),
        "FID_INPUT_DATE_1": f"{first:%Y%m%d}",
        "FID_INPUT_DATE_2": f"{last:%Y%m%d}",
        "FID_PERIOD_DIV_CODE": "D",
        "FID_ORG_ADJ_PRC": "0" if adjusted else "1",
    }


def _day_price(row: Row) -> DayPrice:
    return DayPrice(
        day=row.day("stck_bsop_date"),
        open=row.integer("stck_oprc"),
        high=row.integer("stck_hgpr"),
        low=row.integer("stck_lwpr"),
        close=row.integer("stck_clpr"),
        volume=row.integer("acml_vol"),
    )


def _minute(row: Row) -> ChartMinute:
    return ChartMinute(
        at=datetime.combine(row.day("stck_bsop_date"), row.clock("stck_cntg_hour"), KST).replace(second=0),
        open=row.integer("stck_oprc"),
        high=row.integer("stck_hgpr"),
        low=row.integer("stck_lwpr"),
        close=row.integer("stck_prpr"),
        volume=row.integer("cntg_vol"),
        day_value=row.integer("acml_tr_pbmn"),
    )


def quarterly_future(day: date) -> str:
    """Return the code of the KOSPI200 future that expires next, on the second Thursday of a quarter's last month.

    The code is `A01`, the last digit of the year, and the month. UNVERIFIED: if that Thursday is a holiday, the future
    expires a day earlier.
    """
    year, month = day.year, QUARTER_MONTHS
    while (expiry := _second_thursday(year, month)) < day:
        year, month = (year, month + QUARTER_MONTHS) if month < 12 else (year + 1, QUARTER_MONTHS)
    return f"A01{expiry.year % 10}{expiry.month:02}"


def _second_thursday(year: int, month: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(THURSDAY - first.weekday()) % 7 + 7)
