"""Rows of the stock feeds, with the broker's columns. Source: protocol notes §11, recordings."""

from datetime import datetime

from aegis.sessions import Matching, PhaseName
from aegis.terms import FOK_KINDS, IOC_KINDS, Market, OrderKind, Side
from simulator.api.formatting import change_sign, fixed, percent_of, sign
from simulator.api.handlers.quote import market_operation, merged_depth
from simulator.api.list_printing import DEFAULT, Printing
from simulator.broker import Firm
from simulator.exchange.exchange import OrderNotice, OrderNoticeKind
from simulator.exchange.listings import STOCKS
from simulator.exchange.market_maker import Venue
from simulator.exchange.state import order_from_payload
from simulator.exchange.trade_tape import Tape, TapeTrade

Row = list[str]

_TAKER_CODES = {Side.BUY: "1", Side.SELL: "5"}
_CUSTOMER_NAME = "홍길동"


def trade_row(firm: Firm, venues: tuple[Venue, ...], tape: Tape, trade: TapeTrade) -> Row:
    """H0STCNT0 and its NXT and unified counterparts: one trade, 46 columns, 47 since 2026-09-14.

    The first of `venues` is the trade's venue; `tape` is the day of that venue, or of both together.
    """
    venue, stock = venues[0], venues[0].stock
    before = firm.history.yesterday(stock.code)
    (ask, ask_quantity), (bid, bid_quantity) = (levels[0] if levels else (0, 0) for levels in merged_depth(venues, 1))
    same_hour = int(before.volume * _share_of_day(trade.at))
    row = [
        stock.code,
        f"{trade.at:%H%M%S}",
        str(trade.price),
        sign(trade.price, venue.base, venue.lowest, venue.highest),
        str(trade.price - venue.base),
        percent_of(trade.price - venue.base, venue.base),
        fixed(trade.amount / trade.volume if trade.volume else 0, 2),
        str(trade.open),
        str(trade.high),
        str(trade.low),
        str(ask),
        str(bid),
        str(trade.quantity),
        str(trade.volume),
        str(trade.amount),
        str(trade.sells),
        str(trade.buys),
        str(trade.buys - trade.sells),
        fixed(trade.bought / trade.sold * 100 if trade.sold else 0, 2),
        str(trade.sold),
        str(trade.bought),
        _TAKER_CODES[trade.taker] if trade.taker else "",
        fixed(trade.bought / (trade.bought + trade.sold) if trade.bought + trade.sold else 0, 2),
        percent_of(trade.volume, before.volume),
        _clock(tape.open_at),
        change_sign(trade.price, trade.open),
        str(trade.price - trade.open),
        _clock(tape.high_at),
        change_sign(trade.price, trade.high),
        str(trade.price - trade.high),
        _clock(tape.low_at),
        change_sign(trade.price, trade.low),
        str(trade.price - trade.low),
        f"{firm.exchange.world.today():%Y%m%d}",
        market_operation(firm, venue.market, trade.at),
        "Y" if stock.code in firm.exchange.world.halted else "N",
        str(ask_quantity),
        str(bid_quantity),
        str(sum(v.book.total(Side.SELL) for v in venues)),
        str(sum(v.book.total(Side.BUY) for v in venues)),
        percent_of(trade.volume, stock.listed_shares),
        str(same_hour),
        percent_of(trade.volume, same_hour),
        hour_class(firm, venue, trade.at),
        "",
        str(tape.open or venue.base),
    ]
    return [*row, market_class(firm, venue.market, trade.at)] if firm.settings.wire == "2026-09" else row


def expected_row(firm: Firm, venue: Venue, now: datetime) -> Row:
    """H0STANC0 (예상체결): 45 columns of a trade, with the auction's expected price and quantity."""
    indication = venue.indication()
    tape = venue.tape
    price = indication.price or tape.last
    expected_trade = TapeTrade(
        now, price, indication.quantity, None, tape.open or price, max(tape.high, price), min(tape.low or price, price),
        tape.volume + indication.quantity, tape.amount + price * indication.quantity,
        tape.buys, tape.sells, tape.bought, tape.sold,
    )  # fmt: skip
    return trade_row(firm, (venue,), tape, expected_trade)[:45]


def book_row(firm: Firm, venues: tuple[Venue, ...], now: datetime) -> Row:
    """H0STASP0 and its counterparts: 59 columns; 63 since 2026-09-14 (NXT and unified 65 and 66)."""
    venue = venues[0]
    asks, bids = merged_depth(venues)
    expected = venue.indication()
    volume = sum(v.tape.volume for v in venues)
    change = expected.price - venue.base  # outside an auction the expected price is 0, and so is its change
    row = [
        venue.stock.code,
        f"{now:%H%M%S}",
        hour_class(firm, venue, now),
        *(str(asks[n][0] if n < len(asks) else 0) for n in range(10)),
        *(str(bids[n][0] if n < len(bids) else 0) for n in range(10)),
        *(str(asks[n][1] if n < len(asks) else 0) for n in range(10)),
        *(str(bids[n][1] if n < len(bids) else 0) for n in range(10)),
        str(sum(v.book.total(Side.SELL) for v in venues)),
        str(sum(v.book.total(Side.BUY) for v in venues)),
        "0",
        "0",
        str(expected.price),
        str(expected.quantity),
        str(volume if not expected.price else volume + expected.quantity),
        str(change),
        sign(expected.price, venue.base, -1, 10**9) if expected.price else "5",
        percent_of(change, venue.base),
        str(volume),
        "0",
        "0",
        "0",
        "0",
        "0",
    ]
    return row + _midpoints(firm, venues, now)


def _midpoints(firm: Firm, venues: tuple[Venue, ...], now: datetime) -> Row:
    """Return the columns after the first 59: midpoints and the market class."""
    is_new = firm.settings.wire == "2026-09"
    kind = venues[0].market if len(venues) == 1 else Market.SOR
    if kind is Market.KRX:
        return [*_midpoint(venues[0]), market_class(firm, kind, now)] if is_new else []
    venue_by_market = {venue.market: venue for venue in venues}
    columns = [*_midpoint(venue_by_market.get(Market.KRX)), *_midpoint(venue_by_market.get(Market.NXT))]
    return [*columns, "1"] if is_new and kind is Market.SOR else columns


def _midpoint(venue: Venue | None) -> Row:
    if venue is None:
        return ["0", "0", "0"]
    ask, bid = venue.book.best(Side.SELL), venue.book.best(Side.BUY)
    if ask is None or bid is None or venue.is_auction:
        return ["0", "0", "0"]
    return [fixed((ask + bid) / 2, 1).removesuffix(".0"), "0", "0"]


def notice_row(notice: OrderNotice, hts_id: str, width: int, printing: Printing = DEFAULT) -> Row:
    """H0STCNI0 and H0STCNI9: an order notice, 26 columns by the portal, 23 by many clients."""
    order = notice.order
    kind = OrderKind(order["kind"])
    is_fill = notice.kind is OrderNoticeKind.FILLED
    flags = {
        OrderNoticeKind.ACCEPTED: ("0", "1", "1"),
        OrderNoticeKind.CONFIRMED: ("0", "1", "2"),
        OrderNoticeKind.LAPSED: ("0", "1", "3"),
        OrderNoticeKind.REFUSED: ("1", "1", "1"),
        OrderNoticeKind.FILLED: ("0", "2", "2"),
    }[notice.kind]
    head = [
        hts_id,
        order["account"].replace("-", ""),
        f"{order['number']:010d}",
        f"{order['original']:010d}" if order["original"] else "",
        "02" if order["side"] == Side.BUY else "01",
        {"new": "0", "amend": "1", "cancel": "2"}[order["request"]],
        "00" if is_fill else kind,
        "1" if kind in IOC_KINDS else "2" if kind in FOK_KINDS else "0",
        order["code"],
        f"{notice.quantity:010d}",
        f"{notice.price:09d}",
        f"{notice.at:%H%M%S}",
        *flags,
        order["branch"],
        f"{order['quantity']:09d}",
        _CUSTOMER_NAME,
    ]
    exchange = _exchange_code(order)
    price = f"{printing.price(order_from_payload(order)):09d}" if is_fill else ""
    name = STOCKS[order["code"]].name
    if width == 23:
        return [*head, f"{exchange}Y", "10", "", name, price]
    stop = f"{order['stop_price']:09d}" if order["stop_price"] else ""
    return [*head, stop, exchange, "Y", "", "10", "", name, price]


def _exchange_code(order: dict[str, object]) -> str:
    """Return the code of an order's venue: 1 KRX, 2 NXT; for SOR orders 3 on KRX, 4 on NXT."""
    on_nxt = order["venue"] == Market.NXT
    if order["market"] == Market.SOR:
        return "4" if on_nxt else "3"
    return "2" if on_nxt else "1"


def hour_class(firm: Firm, venue: Venue, now: datetime) -> str:
    """Return HOUR_CLS_CODE: 0 continuous, B opening auction, C later auctions, A auctions after hours."""
    if not venue.is_auction:
        return "0"
    names = {phase.name for phase in firm.exchange.phases(venue.market, now)}
    if PhaseName.OPENING_AUCTION in names:
        return "B"
    return "A" if PhaseName.AFTER_HOURS_SINGLE in names or PhaseName.AFTER_AUCTION in names else "C"


def market_class(firm: Firm, market: Market, now: datetime) -> str:
    """Return MARKET_CLS_CODE: 1 before the market, 2 regular, 3 after the market, 5 at the closing price."""
    for phase in firm.exchange.phases(market, now):
        if phase.matching is Matching.FIXED:
            return "5"
        if phase.name in (PhaseName.OPENING_AUCTION, PhaseName.PRE_MARKET):
            return "1"
        if phase.name in (PhaseName.REGULAR, PhaseName.CLOSING_AUCTION):
            return "2"
    return "3"


def _clock(moment: datetime | None) -> str:
    return f"{moment:%H%M%S}" if moment else "000000"


def _share_of_day(moment: datetime) -> float:
    """Return the part of a day's volume, 0.01 to 1, that is usually traded by `moment`."""
    minutes = moment.hour * 60 + moment.minute - 9 * 60
    return min(1.0, max(0.01, minutes / 390))
