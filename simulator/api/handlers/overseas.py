"""Overseas operations: US prices, and overseas accounts, which are empty."""

from simulator.api.formatting import change_sign, fixed, padded
from simulator.api.request import ApiReply, Call, account_reply, quotation_reply
from simulator.exchange.index_model import us_share, us_share_quote


def overseas_price(call: Call) -> ApiReply:
    """Overseas price (해외주식 현재체결가). An unknown symbol has empty figures."""
    venue, symbol = call.text("EXCD"), call.text("SYMB")
    share = us_share(venue, symbol)
    names = ["rsym", "zdiv", "base", "pvol", "last", "sign", "diff", "rate", "tvol", "tamt", "ordy"]
    if share is None:
        return quotation_reply(output=dict.fromkeys(names, "") | {"rsym": f"D{venue}{symbol}"})
    quote = us_share_quote(call.firm.exchange.world.seed, share, call.now)
    change = quote.last - share.base
    output = {
        "rsym": f"D{venue}{symbol}",
        "zdiv": "4",
        "base": fixed(share.base, 4),
        "pvol": str(int(4e9 / share.base)),
        "last": fixed(quote.last, 4),
        "sign": change_sign(quote.last, share.base),
        "diff": fixed(abs(change), 4),
        "rate": f" {change / share.base * 100:+.2f}",
        "tvol": str(quote.volume),
        "tamt": str(int(quote.volume * quote.last)),
        "ordy": "매도불가" if not quote.session else "매수가능",
    }
    return quotation_reply(output=output)


def overseas_open_orders(call: Call) -> ApiReply:
    """Overseas inquire-nccs (해외주식 미체결내역): none, because overseas orders are not simulated."""
    assert call.account
    reply = account_reply(
        call, is_empty=True, ctx_area_fk200=padded("", 200), ctx_area_nk200=padded("", 200), output=[]
    )
    return ApiReply(reply.body, "D")


def overseas_balance(call: Call) -> ApiReply:
    """Overseas inquire-present-balance (해외주식 체결기준현재잔고): no shares, no foreign cash."""
    assert call.account
    return account_reply(call, is_empty=True, output1=[], output2=[], output3={})


def overseas_holdings(call: Call) -> ApiReply:
    """Overseas inquire-balance (해외주식 잔고): none."""
    assert call.account
    blank = {"ctx_area_fk200": padded("", 200), "ctx_area_nk200": padded("", 200)}
    totals = dict.fromkeys(("frcr_pchs_amt1", "ovrs_rlzt_pfls_amt", "ovrs_tot_pfls", "rlzt_erng_rt"), "0.00000")
    return ApiReply(account_reply(call, is_empty=True, output1=[], output2=totals).body | blank, "D")


def overseas_profits(call: Call) -> ApiReply:
    """Overseas inquire-period-profit (해외주식 기간손익): none."""
    assert call.account
    blank = {"ctx_area_fk200": padded("", 200), "ctx_area_nk200": padded("", 200)}
    totals = dict.fromkeys(("stck_sll_amt_smtl", "stck_buy_amt_smtl", "smtl_fee1", "ovrs_rlzt_pfls_tot_amt"), "0")
    return ApiReply(account_reply(call, is_empty=True, output1=[], output2=totals).body | blank, "D")
