"""KISBroker: implements the port `aegis.broker.Broker` with the REST client. Translation only, no policy."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, time, timedelta
from typing import TypeVar

from aegis.broker import (
    Acceptance,
    Balance,
    Book,
    BrokerError,
    BrokerOrderRef,
    CalendarDay,
    Holding,
    Level,
    OpenOrder,
    Orderable,
    OrderRecord,
    OrderRequest,
    OutcomeUnknown,
    PartialBalance,
    PartialResponse,
    Quote,
    Refused,
    StockInfo,
    UnparsedHolding,
    UnparsedLine,
)
from aegis.positions import merged_average, profit_rate_pct
from aegis.terms import Board, Instrument, Market, OrderKind, Side
from aegis.ticks import get_tick_size
from infra import clock
from kis import catalogue
from kis.catalogue import TR
from kis.client import BrokerReply, Client
from kis.environment import Dialect
from kis.market_data import Quotations, instrument
from kis.rest_values import BadField, Row, order_number

log = logging.getLogger(__name__)

SIDE_OF_CODE = {"01": Side.SELL, "02": Side.BUY}
BOARD_OF_ID = {"STK": Board.KOSPI, "KSQ": Board.KOSDAQ, "KNX": Board.KONEX}
SECURITY_GROUP = {"EF": Instrument.ETF, "EN": Instrument.ETN, "EW": Instrument.ELW}
BOOK_LEVELS = 10
BRANCH_DIGITS = 5
RECENT_MONTHS = 3
HALTED = "58"
Line = TypeVar("Line", OrderRecord, OpenOrder)
NOTHING_FOUND = "KIOK0560"


class KISBroker(Quotations):
    """The broker for one account."""

    def __init__(self, client: Client) -> None:
        self._client = client
        account = client.credentials.account
        self._account = {"CANO": account.cano, "ACNT_PRDT_CD": account.product}

    def place(self, request: OrderRequest) -> Acceptance:
        tr = catalogue.BUY if request.side is Side.BUY else catalogue.SELL
        body = {
            **self._account,
            "PDNO": request.code,
            "ORD_DVSN": request.kind.value,
            "ORD_QTY": str(request.qty),
            "ORD_UNPR": str(request.price if request.kind.is_priced else 0),
            "EXCG_ID_DVSN_CD": request.market.value,
            "SLL_TYPE": "01" if request.side is Side.SELL else "",
            "CNDT_PRIC": str(request.trigger) if request.trigger else "",
        }
        return _acceptance(self._client.call(tr, body, market=request.market, last_check=request.last_check))

    def cancel(self, placed: BrokerOrderRef) -> Acceptance:
        return self._change(placed, {"RVSE_CNCL_DVSN_CD": "02", "ORD_QTY": "0", "ORD_UNPR": "0", "QTY_ALL_ORD_YN": "Y"})

    def cancel_part(self, placed: BrokerOrderRef, qty: int) -> Acceptance:
        return self._change(placed, {"RVSE_CNCL_DVSN_CD": "02", "ORD_UNPR": "0", **_part(qty)})

    def amend(self, placed: BrokerOrderRef, *, price: int, qty: int | None) -> Acceptance:
        quantity = {"ORD_QTY": "0", "QTY_ALL_ORD_YN": "Y"} if qty is None else _part(qty)
        return self._change(placed, {"RVSE_CNCL_DVSN_CD": "01", "ORD_UNPR": str(price), **quantity})

    def _change(self, order_ref: BrokerOrderRef, changes: Mapping[str, str]) -> Acceptance:
        body = {
            **self._account,
            "KRX_FWDG_ORD_ORGNO": order_ref.branch,
            "ORGN_ODNO": order_ref.order_no,
            "ORD_DVSN": order_ref.kind.value,
            **changes,
            "CNDT_PRIC": "",
            "EXCG_ID_DVSN_CD": order_ref.market.value,
        }
        tr = catalogue.REVISE_OR_CANCEL
        return _acceptance(self._client.call(tr, body, market=order_ref.market, last_check=order_ref.last_check))

    def stock(self, code: str) -> StockInfo:
        if self._client.environment.is_paper:
            return self._stock_on_paper(code)
        row = self._client.call(catalogue.STOCK_INFO, {"PRDT_TYPE_CD": "300", "PDNO": code}).row()
        return StockInfo(
            code=row.text("pdno")[-len(code) :],
            name=row.text("prdt_abrv_name"),
            board=BOARD_OF_ID.get(row.text("mket_id_cd"), Board.KOSPI),
            instrument=SECURITY_GROUP.get(row.text("scty_grp_id_cd"), Instrument.STOCK),
            sector=row.text("idx_bztp_mcls_cd_name") or row.text("std_idst_clsf_cd_name"),
            # replies from before NXT opened have neither field: without a "Y", the stock trades on KRX only
            trades_on_nxt=row.optional("cptt_trad_tr_psbl_yn") == "Y" and row.optional("nxt_tr_stop_yn") != "Y",
            is_halted=row.text("tr_stop_yn") == "Y",
        )

    def _stock_on_paper(self, code: str) -> StockInfo:
        """Build the stock's information from quotations, because paper trading does not offer the stock-info call."""
        today = f"{clock.now():%Y%m%d}"
        chart = {
            **instrument(code, Market.KRX),
            "FID_INPUT_DATE_1": today,
            "FID_INPUT_DATE_2": today,
            "FID_PERIOD_DIV_CODE": "D",
            "FID_ORG_ADJ_PRC": "1",
        }
        name = self._client.call(catalogue.DAILY_CHART, chart).row("output1").text("hts_kor_isnm")
        row = self._client.call(catalogue.PRICE, instrument(code, Market.KRX)).row()
        price, tick = row.integer("stck_prpr"), row.integer("aspr_unit")
        is_share = tick == get_tick_size(price, Instrument.STOCK) or tick != get_tick_size(price, Instrument.ETF)
        return StockInfo(
            code=code,
            name=name or code,
            board=Board.KOSDAQ if row.optional("rprs_mrkt_kor_name").startswith("KOSDAQ") else Board.KOSPI,
            instrument=Instrument.STOCK if is_share else Instrument.ETF,
            sector=row.optional("bstp_kor_isnm"),
            trades_on_nxt=False,  # paper trades on KRX only
            is_halted=row.text("iscd_stat_cls_code") == HALTED,
        )

    def quote(self, code: str, market: Market) -> Quote:
        row = self._client.call(catalogue.PRICE, instrument(code, market)).row()
        return Quote(
            code=code,
            market=market,
            price=row.integer("stck_prpr"),
            base_price=row.integer("stck_sdpr"),
            upper_limit=row.integer("stck_mxpr"),
            lower_limit=row.integer("stck_llam"),
            is_halted=row.optional("temp_stop_yn") == "Y" or row.text("iscd_stat_cls_code") == HALTED,
            in_vi=row.optional("vi_cls_code") == "Y",
            tick=max(0, row.integer_or("aspr_unit", 0)),
            volume=max(0, row.integer_or("acml_vol", 0)),
        )

    def book(self, code: str, market: Market) -> Book:
        reply = self._client.call(catalogue.BOOK, instrument(code, market))
        row = reply.row("output1")
        expected = reply.row("output2").integer_or("antc_cnpr", 0) if "output2" in reply.body else 0
        return Book(code, market, asks=_levels(row, "askp"), bids=_levels(row, "bidp"), expected_price=max(0, expected))

    def orderable(self, code: str, kind: OrderKind, price: int) -> Orderable:
        parameters = {
            **self._account,
            "PDNO": code,
            "ORD_UNPR": str(price) if kind.is_priced else "",
            # 00 ignores the stock's own margin rate, 01 uses it
            "ORD_DVSN": kind.value if kind.is_priced else "01",
            "CMA_EVLU_AMT_ICLD_YN": "N",
            "OVRS_ICLD_YN": "N",
        }
        row = self._client.call(catalogue.BUYABLE, parameters).row()
        if self._client.dialect is Dialect.AEGIS_V3 and not row.optional("nrcvb_buy_amt"):
            deposit = row.integer("dnca_tot_amt")
            return Orderable(cash=deposit, qty=deposit // price if price else 0)
        return Orderable(cash=row.integer("nrcvb_buy_amt"), qty=row.integer("nrcvb_buy_qty"))

    def sellable_qty(self, code: str) -> int:
        if self._client.environment.is_paper:
            return self._sellable_on_paper(code)
        try:
            reply = self._client.call(catalogue.SELLABLE, {**self._account, "PDNO": code})
        except Refused as refusal:
            if refusal.code == NOTHING_FOUND:  # the account does not hold the stock
                return 0
            raise
        return reply.row().integer("ord_psbl_qty")

    def _sellable_on_paper(self, code: str) -> int:
        """Read the sellable shares from the balance, because paper trading does not offer inquire-psbl-sell."""
        balance = self.balance()
        for line in balance.unread if isinstance(balance, PartialBalance) else ():
            if line.code == code:
                raise OutcomeUnknown(str(line), call=catalogue.BALANCE.name)
        return sum(holding.sellable_qty for holding in balance.holdings if holding.code == code)

    def balance(self) -> Balance:
        asked_at = clock.now()
        parameters = {
            **self._account,
            "AFHR_FLPR_YN": "N",
            "OFL_YN": "",
            "INQR_DVSN": "01",  # 02, by stock, is not accepted everywhere any more: `_by_stock` merges them
            "UNPR_DVSN": "01",
            "FUND_STTL_ICLD_YN": "N",
            "FNCG_AMT_AUTO_RDPT_YN": "N",
            "PRCS_DVSN": "00",
        }
        replies = self._client.pages(catalogue.BALANCE, parameters)
        total = replies[-1].row("output2")
        if self._client.dialect is Dialect.AEGIS_V3 and not self._client.environment.is_paper:
            # the AEGIS specification requests two balances and adds them up (spec §11.5)
            replies += self._client.pages(catalogue.BALANCE, parameters, market=Market.NXT)
        rows = [row for reply in replies for row in reply.rows("output1") if row.optional("pdno")]
        holdings, unread = _read_holdings(rows)
        balance = Balance(
            asked_at=asked_at,
            holdings=holdings,
            deposit=total.integer("dnca_tot_amt"),
            deposit_d1=total.integer("nxdy_excc_amt"),
            deposit_d2=total.integer("prvs_rcdl_excc_amt"),
            valuation=total.integer("scts_evlu_amt"),
            total_asset=total.integer("tot_evlu_amt"),
            total_asset_yesterday=total.integer("bfdy_tot_asst_evlu_amt"),
        )
        return PartialBalance.of(balance, unread) if unread else balance

    def orders(self, first: date, last: date) -> Sequence[OrderRecord]:
        """Return every order of the days from `first` to `last`, oldest first.

        Raises PartialResponse if the older days, which the recent list does not reach, cannot be read. Its `read` has
        the orders of the recent days.
        """
        rows, unread = list[Row](), list[UnparsedLine]()
        parts = _split_by_reach(first, last, today=clock.now().date())
        for tr, since, until in parts:
            try:
                rows += self._order_rows(tr, since, until)
            except BrokerError as error:
                if tr is catalogue.ORDERS or len(parts) == 1:
                    raise
                unread.append(UnparsedLine("", f"orders from {since} to {until}: {error}"))
        return _lines(rows, _order_record, call=catalogue.ORDERS.name, unread=unread)

    def _order_rows(self, tr: TR, first: date, last: date) -> list[Row]:
        parameters = {
            **self._account,
            "INQR_STRT_DT": f"{first:%Y%m%d}",
            "INQR_END_DT": f"{last:%Y%m%d}",
            "SLL_BUY_DVSN_CD": "00",
            "PDNO": "",
            "ORD_GNO_BRNO": "",
            "ODNO": "",
            "CCLD_DVSN": "00",
            "INQR_DVSN": "01",
            "INQR_DVSN_1": "",
            "INQR_DVSN_3": "00",
            "EXCG_ID_DVSN_CD": "KRX" if self._client.environment.is_paper else "ALL",
        }
        replies = self._client.pages(tr, parameters)
        return [row for reply in replies for row in reply.rows("output1") if row.optional("odno")]

    def open_orders(self) -> Sequence[OpenOrder]:
        """Return every order that can still be cancelled, on every venue, external orders too."""
        if self._client.environment.is_paper:
            return self._open_on_paper()
        parameters = {**self._account, "INQR_DVSN_1": "0", "INQR_DVSN_2": "0"}
        replies = self._client.pages(catalogue.OPEN_ORDERS, parameters)
        if self._client.dialect is Dialect.AEGIS_V3:
            replies += self._client.pages(catalogue.OPEN_ORDERS, parameters, market=Market.NXT)
        # the two lists may have the same order
        rows = {_identity(row): row for reply in replies for row in reply.rows() if row.optional("odno")}
        return _lines(rows.values(), _open_order, call=catalogue.OPEN_ORDERS.name)

    def _open_on_paper(self) -> Sequence[OpenOrder]:
        """Select the open orders of today's orders, because paper trading does not offer the list of open orders."""
        today = clock.now().date()
        try:
            return _open_orders(self.orders(today, today))
        except PartialResponse as error:
            raise PartialResponse(_open_orders(error.read), error.unread, call=error.call) from error

    def calendar(self, first: date) -> Sequence[CalendarDay]:
        """Return the broker's list of days from `first` on. The broker asks for one call a day at most."""
        parameters = {"BASS_DT": f"{first:%Y%m%d}", "CTX_AREA_NK": "", "CTX_AREA_FK": ""}
        rows = self._client.call(catalogue.HOLIDAYS, parameters).rows()
        return [CalendarDay(row.day("bass_dt"), is_open=row.text("opnd_yn") == "Y") for row in rows]


def _part(qty: int) -> dict[str, str]:
    return {"ORD_QTY": str(qty), "QTY_ALL_ORD_YN": "N"}


def _acceptance(reply: BrokerReply) -> Acceptance:
    """Return the receipt of a command. Raises BadField if it has no order number: the outcome is then unknown.

    Only the order number is required. A missing or impossible branch becomes blank, as in the broker's own example of a
    cancel. A missing or impossible time becomes the current time.
    """
    row = reply.row()
    branch = row.optional("KRX_FWDG_ORD_ORGNO")
    return Acceptance(
        branch=branch if len(branch) <= BRANCH_DIGITS else "",
        order_no=row.order_number("ODNO"),
        accepted_at=_accepted_at(row),
    )


def _accepted_at(row: Row) -> time:
    try:
        return row.clock("ORD_TMD")
    except BadField as error:
        log.warning("the receipt has no readable time of acceptance: %s", error)
        return clock.now().time().replace(microsecond=0)


def _levels(row: Row, side: str) -> tuple[Level, ...]:
    levels = (
        Level(price=row.integer(f"{side}{n}"), qty=row.integer(f"{side}_rsqn{n}")) for n in range(1, BOOK_LEVELS + 1)
    )
    return tuple(level for level in levels if level.price and level.qty)


def _read_holdings(rows: Iterable[Row]) -> tuple[tuple[Holding, ...], list[UnparsedHolding]]:
    """Return one holding per stock, and the stocks with an unreadable line. These have no holding at all."""
    lines, unread = list[Holding](), dict[str, UnparsedHolding]()
    for row in rows:
        try:
            lines.append(_holding(row))
        except BadField as error:
            code = row.text("pdno")
            unread[code] = UnparsedHolding(code, row.optional("prdt_name"), error.message)
    return _by_stock(line for line in lines if line.code not in unread), list(unread.values())


def _holding(row: Row) -> Holding:
    """Return a line of the balance. A missing profit or profit rate is calculated from the other values."""
    qty, average, price = row.integer("hldg_qty"), row.decimal("pchs_avg_pric"), row.integer("prpr")
    return Holding(
        code=row.text("pdno"),
        name=row.optional("prdt_name"),
        qty=qty,
        sellable_qty=row.integer("ord_psbl_qty"),
        average_price=average,
        price=price,
        profit=row.integer_or("evlu_pfls_amt", round((price - average) * qty)),
        profit_rate=row.decimal_or("evlu_pfls_rt", profit_rate_pct(average, price)),
        bought_today=row.integer("thdt_buyqty"),
        sold_today=row.integer("thdt_sll_qty"),
    )


def _by_stock(lines: Iterable[Holding]) -> tuple[Holding, ...]:
    """Return one holding per stock. Shares bought on credit have lines of their own, which are merged."""
    holdings: dict[str, Holding] = {}
    for line in lines:
        earlier = holdings.get(line.code)
        holdings[line.code] = line if earlier is None else _merged(earlier, line)
    return tuple(holdings.values())


def _merged(first: Holding, second: Holding) -> Holding:
    average = merged_average(first.qty, first.average_price, second.qty, second.average_price)
    return replace(
        first,
        price=first.price or second.price,
        qty=first.qty + second.qty,
        sellable_qty=first.sellable_qty + second.sellable_qty,
        average_price=average,
        profit=first.profit + second.profit,
        profit_rate=profit_rate_pct(average, first.price or second.price),
        bought_today=first.bought_today + second.bought_today,
        sold_today=first.sold_today + second.sold_today,
    )


_MARKET_OF_TEXT: Mapping[str, Market] = {market.value: market for market in Market}


def _side(row: Row) -> Side:
    code = row.text("sll_buy_dvsn_cd")
    try:
        return SIDE_OF_CODE[code]
    except KeyError:
        raise BadField(f"sll_buy_dvsn_cd is {code!r}, neither a sale (01) nor a buy (02)") from None


def _kind(row: Row) -> OrderKind:
    code = row.text("ord_dvsn_cd")
    try:
        return OrderKind(code)
    except ValueError:
        raise BadField(f"ord_dvsn_cd is {code!r}, no order code known here") from None


def _split_by_reach(first: date, last: date, *, today: date) -> list[tuple[TR, date, date]]:
    """Return the operations to call, each with its first and last day, oldest days first.

    The recent list has the current month and the three whole months before it. On 22 April it starts on 1 January, in
    May on 1 February. Source: the broker's text of the operation ("3개월이내 기준: 개월수로 3개월").
    """
    month = today.year * 12 + today.month - 1 - RECENT_MONTHS
    recent_from = date(month // 12, month % 12 + 1, 1)
    older = (catalogue.OLDER_ORDERS, first, min(last, recent_from - timedelta(days=1)))
    recent = (catalogue.ORDERS, max(first, recent_from), last)
    return [part for part in (older, recent) if part[1] <= part[2]]


def _lines(
    rows: Iterable[Row], parse: Callable[[Row], Line], *, call: str, unread: Iterable[UnparsedLine] = ()
) -> list[Line]:
    """Return the lines of a list of orders. Raises PartialResponse, with each unparsed line, if any cannot be read.

    `unread` has lines that could not be read before.
    """
    lines, unread = list[Line](), list(unread)
    for row in rows:
        try:
            lines.append(parse(row))
        except BadField as error:
            unread.append(UnparsedLine(_order_number_or_blank(row), error.message))
    if unread:
        raise PartialResponse(lines, unread, call=call)
    return lines


def _order_number_or_blank(row: Row) -> str:
    try:
        return row.order_number("odno")
    except BadField:
        return ""


def _order_record(row: Row) -> OrderRecord:
    return OrderRecord(
        order_date=row.day("ord_dt"),
        branch=row.text("ord_gno_brno"),
        original_no=row.order_number("orgn_odno") if row.text("orgn_odno").strip("0 ") else "",
        code=row.text("pdno"),
        name=row.text("prdt_name"),
        side=_side(row),
        kind=_kind(row),
        # older replies have no venue, because there was only KRX
        market=_MARKET_OF_TEXT.get(row.optional("excg_id_dvsn_cd"), Market.KRX),
        qty=row.integer("ord_qty"),
        price=row.integer("ord_unpr"),
        placed_at=row.clock("ord_tmd"),
        filled_qty=row.integer("tot_ccld_qty"),
        filled_amount=row.integer("tot_ccld_amt"),
        open_qty=row.integer("rmn_qty"),
        cancelled_qty=row.integer("cncl_cfrm_qty"),
        rejected_qty=row.integer("rjct_qty"),
        is_cancelled=row.text("cncl_yn") == "Y",
        is_cancel="취소" in row.text("sll_buy_dvsn_cd_name"),
        order_no=row.order_number("odno"),
    )


def _identity(row: Row) -> tuple[str, ...]:
    """Return what identifies a line among the day's lines: each branch has its own numbers, so a number may repeat."""
    return order_number(row.text("odno")), *row.key(("ord_gno_brno", "pdno", "sll_buy_dvsn_cd"))


def _open_order(row: Row) -> OpenOrder:
    order_ref = BrokerOrderRef(
        order_date=clock.now().date(),
        branch=row.text("ord_gno_brno"),
        order_no=row.order_number("odno"),
        market=_MARKET_OF_TEXT.get(row.optional("excg_id_dvsn_cd"), Market.KRX),
        kind=_kind(row),
    )
    return OpenOrder(order_ref, row.text("pdno"), _side(row), row.integer("psbl_qty"))


def _open_orders(records: Iterable[OrderRecord]) -> list[OpenOrder]:
    return [_as_open_order(record) for record in records if record.open_qty and not record.is_cancel]


def _as_open_order(record: OrderRecord) -> OpenOrder:
    order_ref = BrokerOrderRef(record.order_date, record.branch, record.order_no, record.market, record.kind)
    return OpenOrder(order_ref, record.code, record.side, record.open_qty)
