"""Order operations (주문): cash orders, amend and cancel, orderable cash and shares."""

from aegis.terms import Market, OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import fixed, percent_of
from simulator.api.request import ApiReply, Call, account_reply
from simulator.exchange.order_entry import ChangeRequest
from simulator.exchange.orders import NewOrder, Order, Request

# live TR ids of the user's specification that imply NXT
_NXT_IDS = ("TTTN0802U", "TTTN0801U", "TTTN0803U")
_DEPOSIT_ID = "TTTC8434R"
_PAPER_LOWEST_PRICE = 1_000
_PAPER_KINDS = frozenset(OrderKind(code) for code in ("00", "01", "02", "03", "04"))
_MARGIN_MULTIPLE = 2.5  # 증거금율 40 %

_DONE_LIVE = ("APBK0013", "주문 전송 완료 되었습니다.")
_DONE_PAPER = {
    (Request.NEW, Side.BUY): ("40600000", "모의투자 매수주문이 완료 되었습니다."),
    (Request.NEW, Side.SELL): ("40590000", "모의투자 매도주문이 완료 되었습니다."),
    (Request.AMEND, Side.BUY): ("40620000", "모의투자 정정주문이 완료 되었습니다."),
    (Request.AMEND, Side.SELL): ("40620000", "모의투자 정정주문이 완료 되었습니다."),
    (Request.CANCEL, Side.BUY): ("40630000", "모의투자 취소주문이 완료 되었습니다."),
    (Request.CANCEL, Side.SELL): ("40630000", "모의투자 취소주문이 완료 되었습니다."),
}


def buy(call: Call) -> ApiReply:
    return _place(call, Side.BUY)


def sell(call: Call) -> ApiReply:
    return _place(call, Side.SELL)


def _place(call: Call, side: Side) -> ApiReply:
    """order-cash (주식주문 현금)."""
    kind = _kind(call)
    price, stop_price = _prices(call, kind)
    new_order = NewOrder(
        account=call.account,
        code=_tradable(call),
        side=side,
        market=_market(call),
        kind=kind,
        quantity=call.integer("ORD_QTY"),
        price=price,
        stop_price=stop_price,
        tag=call.tag,
    )
    return _accepted(call, call.firm.order_entry.place(new_order, call.now))


def amend_or_cancel(call: Call) -> ApiReply:
    """order-rvsecncl (주식주문 정정취소)."""
    request = call.text("RVSE_CNCL_DVSN_CD")
    if request not in ("01", "02"):
        raise RequestRefused("body not built", "RVSE_CNCL_DVSN_CD")
    is_cancel = request == "02"
    kind = OrderKind.LIMIT if is_cancel else _kind(call)
    price, stop_price = (0, 0) if is_cancel else _prices(call, kind)
    change_request = ChangeRequest(
        account=call.account,
        number=call.integer("ORGN_ODNO"),
        is_cancel=is_cancel,
        kind=kind,
        quantity=call.integer("ORD_QTY"),
        price=price,
        is_whole_rest=call.text("QTY_ALL_ORD_YN") == "Y",
        stop_price=stop_price,
        market=_market(call),
        is_ignored=call.is_ignored,
    )
    return _accepted(call, call.firm.order_entry.change(change_request, call.now))


def _tradable(call: Call) -> str:
    """Return the stock code of an order. Raises RequestRefused. Paper trading refuses stocks below 1,000 won."""
    code = call.text("PDNO")
    stock = call.firm.exchange.stock(code)
    if call.is_paper and call.firm.exchange.price(code) < _PAPER_LOWEST_PRICE:
        raise RequestRefused("unknown stock", stock.code)
    return code


def _kind(call: Call) -> OrderKind:
    try:
        kind = OrderKind(call.text("ORD_DVSN"))
    except ValueError:
        raise RequestRefused("kind not taken now", call.text("ORD_DVSN")) from None
    if call.is_paper and kind not in _PAPER_KINDS:
        raise RequestRefused("kind not taken now", kind)
    return kind


def _prices(call: Call, kind: OrderKind) -> tuple[int, int]:
    price = call.integer("ORD_UNPR") if call.text("ORD_UNPR") else 0
    if kind is OrderKind.POST_CLOSE and price:
        raise RequestRefused("body not built", "ORD_UNPR")
    trigger = call.integer("CNDT_PRIC") if call.text("CNDT_PRIC") else 0
    if kind is OrderKind.STOP_LIMIT and not trigger:
        raise RequestRefused("body not built", "CNDT_PRIC")
    return price, trigger


def _market(call: Call) -> Market:
    """Return the venue of a call, KRX if it names none. Raises RequestRefused."""
    if call.tr_id in _NXT_IDS:
        return Market.NXT
    name = call.text("EXCG_ID_DVSN_CD")
    if not name:
        return Market.KRX
    if name not in Market.__members__:
        raise RequestRefused("field invalid", "EXCG_ID_DVSN_CD")
    if call.is_paper and name != "KRX":
        raise RequestRefused("venue not on paper")
    return Market(name)


def _accepted(call: Call, order: Order) -> ApiReply:
    msg_cd, msg1 = _DONE_PAPER[order.request, order.side] if call.is_paper else _DONE_LIVE
    # paper trading does not pad order numbers
    number = str(order.number) if call.is_paper else f"{order.number:010d}"
    output = {"KRX_FWDG_ORD_ORGNO": order.branch, "ODNO": number, "ORD_TMD": order.time}
    return ApiReply({"rt_cd": "0", "msg_cd": msg_cd, "msg1": msg1, "output": output})


def orderable(call: Call) -> ApiReply:
    """inquire-psbl-order (매수가능조회)."""
    exchange = call.firm.exchange
    cash = exchange.orderable_cash(call.account)
    price = _calculation_price(call)
    # cash minus the commission on a buy of that amount
    amount = max(0, int(cash / 1.000140527))
    margin_amount = int(amount * _MARGIN_MULTIPLE)
    output = {
        "ord_psbl_cash": str(cash),
        "ord_psbl_sbst": "0",
        "ruse_psbl_amt": "0",
        "fund_rpch_chgs": "0",
        "psbl_qty_calc_unpr": str(price),
        "nrcvb_buy_amt": str(amount),
        "nrcvb_buy_qty": str(amount // price if price else 0),
        "max_buy_amt": str(margin_amount),
        "max_buy_qty": str(margin_amount // price if price else 0),
        "cma_evlu_amt": "0",
        "ovrs_re_use_amt_wcrc": "0",
        "ord_psbl_frcr_amt_wcrc": "0",
    }
    if call.tr_id == _DEPOSIT_ID:  # the user's specification reads the deposit here
        account = exchange.account(call.account)
        total = str(exchange.total_asset(call.account))
        output |= {"dnca_tot_amt": str(account.deposit), "tot_evlu_amt": total, "nass_amt": total}
    return account_reply(call, output=output)


def _calculation_price(call: Call) -> int:
    """Return the price, in won, by which quantities are calculated: the upper limit for an order without a price."""
    code = call.text("PDNO")
    if not code:
        return 0
    call.firm.exchange.stock(code)
    if call.text("ORD_DVSN") in ("", "00") and call.text("ORD_UNPR") not in ("", "0"):
        return call.integer("ORD_UNPR")
    return call.firm.exchange.venue(code).highest


def sellable(call: Call) -> ApiReply:
    """inquire-psbl-sell (매도가능수량조회)."""
    exchange = call.firm.exchange
    code = call.text("PDNO")
    stock = exchange.stock(code)
    holding = exchange.account(call.account).holdings.get(code)
    if holding is None:
        raise RequestRefused("product not found")
    price = exchange.price(code)
    gain = price * holding.quantity - holding.cost
    output = {
        "pdno": code,
        "prdt_name": stock.name,
        "buy_qty": str(holding.bought_today),
        "sll_qty": str(holding.sold_today),
        "cblc_qty": str(holding.quantity),
        "nsvg_qty": "0",
        "ord_psbl_qty": str(exchange.sellable(call.account, code)),
        "pchs_avg_pric": fixed(holding.average, 4),
        "pchs_amt": str(holding.cost),
        "now_pric": str(price),
        "evlu_amt": str(price * holding.quantity),
        "evlu_pfls_amt": str(gain),
        "evlu_pfls_rt": percent_of(gain, holding.cost),
    }
    return account_reply(call, output=output)
