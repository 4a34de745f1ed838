"""What the broker tells of the market as a whole and of its past. Translation only, no policy."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from aegis.broker import (
    ChartMinute,
    DayPrice,
    FutureQuote,
    FuturesPositions,
    Interruption,
    InvestorFlow,
    Listing,
    OutcomeUnknown,
    ProgramTrades,
)
from aegis.sessions import KST
from aegis.terms import Board, Market
from infra import clock
from kis import catalogue, stock_master
from kis.client import Client
from kis.environment import Dialect
from kis.rest_values import Row

# how quotations name a venue (조건 시장 분류 코드)
MARKET_DIVISION = {Market.KRX: "J", Market.NXT: "NX", Market.SOR: "UN"}
# a board as the investors' figures name it: the market and its industry of all
INVESTORS_OF_BOARD = {Board.KOSPI: ("KSP", "0001"), Board.KOSDAQ: ("KSQ", "1001")}
STATIC_VI, DYNAMIC_VI, BOTH_VI = "1", "2", "3"
MILLION = 1_000_000
THURSDAY = 3
QUARTER_MONTHS = 3


class Quotations:
    """The market's half of the port."""

    _client: Client

    def listings(self) -> Sequence[Listing]:
        return stock_master.listings(self._client.download)

    def daily_chart(self, code: str, first: date, last: date, *, adjusted: bool = True) -> Sequence[DayPrice]:
        reply = self._client.call(catalogue.DAILY_CHART, _days_of(code, first, last, adjusted=adjusted))
        return [day_price(row) for row in reply.listed()]

    def daily_history(self, code: str, first: date, last: date, *, adjusted: bool = True) -> Sequence[DayPrice]:
        def back(oldest: Row) -> Mapping[str, str] | None:
            before = oldest.day("stck_bsop_date") - timedelta(days=1)
            return {"FID_INPUT_DATE_2": f"{before:%Y%m%d}"} if before >= first else None

        if last < first:
            return []
        rows = self._client.walk(catalogue.DAILY_CHART, _days_of(code, first, last, adjusted=adjusted), back=back)
        return [day_price(row) for row in rows]

    def minutes(self, code: str, market: Market, last: datetime) -> Sequence[ChartMinute]:
        moment = last.astimezone(KST)
        parameters = {**instrument(code, market), "FID_INPUT_HOUR_1": f"{moment:%H%M%S}", "FID_PW_DATA_INCU_YN": "N"}
        if moment.date() == clock.now().date():
            reply = self._client.call(catalogue.MINUTES_TODAY, {**parameters, "FID_ETC_CLS_CODE": ""})
        else:
            past = {**parameters, "FID_INPUT_DATE_1": f"{moment:%Y%m%d}", "FID_FAKE_TICK_INCU_YN": ""}
            reply = self._client.call(catalogue.MINUTES_OF_DAY, past)
        minutes = [_minute(row) for row in reply.listed()]
        return [minute for minute in minutes if minute.at.date() == moment.date()]

    def index(self, code: str) -> Decimal:
        parameters = {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": code}
        if not self._client.environment.is_paper and self._client.dialect is Dialect.OFFICIAL:
            return self._client.call(catalogue.INDEX_PRICE, parameters).row().decimal("bstp_nmix_prpr")
        # paper does not offer the price, and the user's specification names the chart: its head has the price too
        today = f"{clock.now():%Y%m%d}"
        parameters |= {"FID_INPUT_DATE_1": today, "FID_INPUT_DATE_2": today, "FID_PERIOD_DIV_CODE": "D"}
        return self._client.call(catalogue.INDEX_CHART, parameters).row("output1").decimal("bstp_nmix_prpr")

    def near_future(self) -> str:
        if self._client.environment.is_paper:  # the list of contracts is not offered there
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
        row = self._investors_now("K2I", "F001")
        return FuturesPositions(
            foreign=row.integer("frgn_ntby_qty"),
            institution=row.integer("orgn_ntby_qty"),
            individual=row.integer("prsn_ntby_qty"),
        )

    def investors(self, board: Board) -> InvestorFlow:
        row = self._investors_now(*INVESTORS_OF_BOARD[board])
        return InvestorFlow(
            foreign=row.integer("frgn_ntby_tr_pbmn") * MILLION,
            institution=row.integer("orgn_ntby_tr_pbmn") * MILLION,
            individual=row.integer("prsn_ntby_tr_pbmn") * MILLION,
        )

    def _investors_now(self, market: str, industry: str) -> Row:
        # UNVERIFIED: that these names go in small letters, as the broker's own sample writes them
        parameters = {"fid_input_iscd": market, "fid_input_iscd_2": industry}
        return self._client.call(catalogue.INVESTORS_NOW, parameters).row()

    def program_trades(self, code: str, market: Market) -> ProgramTrades | None:
        rows = self._client.call(catalogue.PROGRAM_TRADES, instrument(code, market)).rows()
        rows = [row for row in rows if row.maybe("bsop_hour")]
        if not rows:
            return None
        newest = max(rows, key=lambda row: row.clock("bsop_hour"))
        return ProgramTrades(
            code=code,
            market=market,
            at=newest.clock("bsop_hour"),
            sold_qty=newest.integer("whol_smtn_seln_vol"),
            bought_qty=newest.integer("whol_smtn_shnu_vol"),
            sold_won=newest.integer("whol_smtn_seln_tr_pbmn"),
            bought_won=newest.integer("whol_smtn_shnu_tr_pbmn"),
        )

    def interruptions(self, day: date) -> Sequence[Interruption]:
        parameters = {
            "FID_DIV_CLS_CODE": "0",
            "FID_COND_SCR_DIV_CODE": "20139",
            "FID_MRKT_CLS_CODE": "0",
            "FID_INPUT_ISCD": "",
            "FID_RANK_SORT_CLS_CODE": "0",
            "FID_INPUT_DATE_1": f"{day:%Y%m%d}",
            "FID_TRGT_CLS_CODE": "",
            "FID_TRGT_EXLS_CLS_CODE": "",
        }
        rows = self._client.call(catalogue.VI_STATUS, parameters).listed()
        return [each for each in map(_interruption, rows) if each.day == day]


def instrument(code: str, market: Market) -> dict[str, str]:
    return {"FID_COND_MRKT_DIV_CODE": MARKET_DIVISION[market], "FID_INPUT_ISCD": code}


def _days_of(code: str, first: date, last: date, *, adjusted: bool) -> dict[str, str]:
    return {
        **instrument(code, Market.KRX),
        "FID_INPUT_DATE_1": f"{first:%Y%m%d}",
        "FID_INPUT_DATE_2": f"{last:%Y%m%d}",
        "FID_PERIOD_DIV_CODE": "D",
        "FID_ORG_ADJ_PRC": "0" if adjusted else "1",  # the other way round than in inquire-daily-price
    }


def day_price(row: Row) -> DayPrice:
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


def _interruption(row: Row) -> Interruption:
    kind = row.text("vi_kind_code")
    # the static standard is 0 where only the dynamic one was left behind
    standard = row.integer("vi_stnd_prc") or row.integer("vi_dmc_stnd_prc")
    return Interruption(
        code=row.text("mksc_shrn_iscd"),
        name=row.text("hts_kor_isnm"),
        day=row.day("bsop_date"),
        began_at=row.clock("cntg_vi_hour"),
        ended_at=None if row.text("vi_cls_code") == "Y" else row.clock("vi_cncl_hour"),
        is_static=kind in (STATIC_VI, BOTH_VI),
        is_dynamic=kind in (DYNAMIC_VI, BOTH_VI),
        price=row.integer("vi_prc"),
        standard_price=standard,
        count=row.integer("vi_count"),
    )


def quarterly_future(day: date) -> str:
    """Return the code of the KOSPI200 future that expires next: on the second Thursday of a quarter's last month.

    `A01`, the year's last digit, the month. UNVERIFIED: a holiday on that Thursday brings the expiry a day forward.
    """
    year, month = day.year, QUARTER_MONTHS
    while (expiry := _second_thursday(year, month)) < day:
        year, month = (year, month + QUARTER_MONTHS) if month < 12 else (year + 1, QUARTER_MONTHS)
    return f"A01{expiry.year % 10}{expiry.month:02}"


def _second_thursday(year: int, month: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(THURSDAY - first.weekday()) % 7 + 7)
