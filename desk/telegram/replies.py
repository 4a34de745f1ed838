"""The answers to lines of text in a chat: texts and buttons, from the tables and services. Independent of Telegram.

Each command that trades needs the press of a button. A button stands for a `Confirmation`, whose key is the order's
request id. It is taken once, in a row that is committed before the broker is called; any further press is answered with
the outcome of the first. After `CONFIRM_FOR` a button does nothing. Halting needs no button.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Sum
from django.utils import translation
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.codes import NotACode, plain, without_commas
from aegis.lifecycle import UNSETTLED, Status
from aegis.sessions import KST
from aegis.terms import Side
from aegis.trading_state import TradingState
from desk import actions
from infra import clock
from kis import factory
from market.codes import ManyStocks, explain, resolve
from market.models import Stock
from monitor import health
from notify.models import Confirmation
from orders import kill_switch, risk
from orders.management.changing import OrderChange, describe_change, preview
from orders.management.console import Failure, describe_order, find_order, short, strategy_suffix
from orders.models import TradeExecution, TradeOrder, TradingSwitch
from orders.service import OrderDenied, OrderIntent, OrderService, PricedOrder
from orders.unknown import undecided
from portfolio.models import Portfolio
from portfolio.service import PortfolioService

CONFIRM_FOR = timedelta(seconds=60)
HOLDINGS_SHOWN = 20
ORDERS_SHOWN = 20
MARKET_WORDS = ("시장가", "market")
ALL_WORDS = ("전체", "all")

State = Confirmation.State
Buttons = Sequence[Sequence[tuple[str, str]]]


class InvalidCommand(Exception):
    """The line does not fit the command. The text explains the right form."""


@dataclass(frozen=True, slots=True)
class BotReply:
    """A text, and rows of buttons: the label of each, and the data to `press` for it."""

    text: str
    buttons: Buttons = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request of a chat: the chat, the time, and the words after the command."""

    chat: int
    now: datetime
    words: Sequence[str] = field(default_factory=tuple)

    @property
    def user(self) -> User:
        """Return the user that stands for this chat in the records. It cannot log in."""
        name = f"telegram{self.chat}"
        user, is_new = User.objects.get_or_create(username=name, defaults={"is_active": False})
        if is_new:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        return user


def answer(text: str, *, chat: int, now: datetime) -> BotReply:
    """Answer a line, in the language of its command."""
    first, *words = plain(text).split() or [""]
    name = first.lstrip("/").split("@")[0].lower()
    command = COMMANDS.get(name)
    with translation.override("en" if name.isascii() and command else "ko"):
        if command is None:
            return BotReply(_("No such command: {word}. /help lists them").format(word=first[:40]))
        try:
            return command(ChatRequest(chat, now, words))
        except (InvalidCommand, Failure) as error:
            return BotReply(error.message if isinstance(error, Failure) else str(error))
        except OrderDenied as denied:
            return BotReply(_("not ordered:") + "\n" + risk.denial_texts(denied.reasons))
        except BrokerError as error:
            return BotReply(_("the broker could not be asked: {error}").format(error=risk.error_text(error)))


def is_halt(text: str) -> bool:
    """Whether a line is to be carried out even if it arrives late."""
    first = (plain(text).split() or [""])[0].lstrip("/").split("@")[0].lower()
    return COMMANDS.get(first) in (_halt, _reduce)


def is_halting_button(data: str) -> bool:
    """Whether a button halts trading, so that it must not wait for other commands."""
    return data.startswith("halt:")


# --- commands that only read --------------------------------------------------------------------


def _balance(request: ChatRequest) -> BotReply:
    service = PortfolioService()
    snapshot = service.get_snapshot()
    if snapshot is None:
        return BotReply(_("no balance yet"))
    lines = [
        _("Total {total:,} won ({profit:+,} today)").format(
            total=snapshot.total_asset, profit=snapshot.net_profit_today
        ),
        _("Deposit {deposit:,} (D+2 {d2:,})").format(deposit=snapshot.deposit, d2=snapshot.deposit_d2),
    ]
    holdings = sorted(service.get_portfolio(), key=lambda row: -row.quantity * row.current_price)
    shown = holdings if request.words and request.words[0] in ALL_WORDS else holdings[:HOLDINGS_SHOWN]
    lines += [_holding(row) for row in shown]
    if rest := holdings[len(shown) :]:
        value = sum(row.quantity * row.current_price for row in rest)
        lines.append(_("and {count} more, {value:,} won: /balance all").format(count=len(rest), value=value))
    return BotReply("\n".join([*lines, _("as of {at}").format(at=short(snapshot.timestamp))]))


def _holding(row: Portfolio) -> str:
    return _("{name} {qty:,} × {price:,} = {value:,} ({rate:+}%)").format(
        name=row.stock_name,
        qty=row.quantity,
        price=row.current_price,
        value=row.quantity * row.current_price,
        rate=row.profit_rate,
    )


def _order_line(order: TradeOrder) -> str:
    return f"#{order.pk} {describe_order(order)} ({order.filled_qty:,}/{order.qty:,}){strategy_suffix(order)}"


def _list_reply(lines: Sequence[str], empty_text: str, total: int | None = None) -> BotReply:
    more = (total or 0) - len(lines)
    tail = [_("and {count} more").format(count=more)] if more > 0 else []
    return BotReply("\n".join([*lines, *tail]) or empty_text)


def _orders(request: ChatRequest) -> BotReply:
    rows = TradeOrder.objects.filter(order_date=request.now.astimezone(KST).date()).order_by("-id")
    return _list_reply([_order_line(row) for row in rows[:ORDERS_SHOWN]], _("no orders today"), rows.count())


def _open(request: ChatRequest) -> BotReply:
    rows = TradeOrder.objects.filter(status__in=UNSETTLED).order_by("-id")
    return _list_reply([_order_line(row) for row in rows[:ORDERS_SHOWN]], _("no open orders"), rows.count())


def _fills(request: ChatRequest) -> BotReply:
    midnight = request.now.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    rows = TradeExecution.objects.filter(executed_at__gte=midnight, voided_at=None).select_related("order")
    lines = [_fill_line(row) for row in rows.order_by("-executed_at", "-id")[:ORDERS_SHOWN]]
    if lines:
        profit = rows.aggregate(total=Sum("realized_profit", default=0))["total"]
        lines.insert(0, _("Realised profit {won:+,} won").format(won=profit))
    return _list_reply(lines, _("no fills today"), rows.count() + 1 if lines else 0)


def _fill_line(row: TradeExecution) -> str:
    line = _("{at} {name} {side} {qty:,} at {price:,.0f} #{order}").format(
        at=f"{row.executed_at.astimezone(KST):%H:%M:%S}",
        name=row.order.stock_name or row.stock_code,
        side=row.order.get_order_type_display(),
        qty=row.exec_qty,
        price=row.exec_price,
        order=row.order_id,
    )
    return line + strategy_suffix(row.order)


def _status(request: ChatRequest) -> BotReply:
    row = TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).first()
    lines = [_("Trading switch: {state}").format(state=row.get_state_display())] if row else []
    if row and row.reason:
        lines[0] += f" ({row.reason})"
    checks = health.check(request.now)
    lines += [f"🚨 {check.name}: {check.text}" for check in checks if not check.ok]
    if all(check.ok for check in checks):
        lines.append(_("All {count} checks are well").format(count=len(checks)))
    return BotReply("\n".join(lines))


def _unknown(request: ChatRequest) -> BotReply:
    """List the orders whose outcome is unknown, each with a button for every candidate and one for "never arrived"."""
    rows = list(undecided()[:ORDERS_SHOWN])
    lines, buttons = [], []
    for row in rows:
        lines.append(f"#{row.pk} {short(row.created_at)} {describe_order(row)}")
        choices = [(candidate["order_no"], f"#{row.pk} = {candidate['order_no']}") for candidate in row.candidates]
        for order_no, label in [*choices, ("", _("#{pk} never arrived").format(pk=row.pk))]:
            key = _confirmable(request, "DECIDE", {"order": row.pk, "order_no": order_no})
            buttons.append([(label, f"yes:{key}")])
        for candidate in row.candidates:
            template = _("  could be {order_no}: {market} {placed_at}, {qty:,} at {price:,}, filled {filled_qty:,}")
            lines.append(template.format(**candidate))
    return BotReply("\n".join(lines) or _("no outcome is unknown"), buttons)


def _help(request: ChatRequest) -> BotReply:
    lines = [
        _("/balance [all] - cash and holdings"),
        _("/orders - today's orders"),
        _("/open - unsettled orders"),
        _("/fills - today's fills"),
        _("/buy STOCK QTY [PRICE|market] - buy, after a button"),
        _("/sell STOCK QTY [PRICE|market] - sell, after a button"),
        _("/amend NUMBER PRICE [QTY] - move to another price, after a button"),
        _("/cancel NUMBER|all - cancel, after a button"),
        _("/reduce [WHY] - only sales pass, at once; stops go on"),
        _("/halt [WHY] - the same, and a button that stops sales and stops too"),
        _("/resume [WHY] - trade again, after a button"),
        _("/status - trading switch and failed checks"),
        _("/unknown - orders whose outcome is unknown"),
    ]
    return BotReply("\n".join(lines))


# --- commands that trade ------------------------------------------------------------------------


def _confirmable(request: ChatRequest, action: str, params: dict[str, Any]) -> str:
    """Save an action and its parameters for a button; return the key of the confirmation."""
    row = Confirmation.objects.create(
        key=uuid.uuid4().hex,
        chat=request.chat,
        action=action,
        params=params | {"language": translation.get_language()},
        created_at=request.now,
        expires_at=request.now + CONFIRM_FOR,
    )
    return row.key


def _with_buttons(request: ChatRequest, text: str, action: str, params: dict[str, Any]) -> BotReply:
    key = _confirmable(request, action, params)
    valid = _("The button is good for {seconds} s").format(seconds=CONFIRM_FOR.seconds)
    buttons = [[(_("Do it"), f"yes:{key}"), (_("Leave it"), f"no:{key}")]]
    return BotReply(f"{text}\n{valid}", buttons)


def _service() -> OrderService:
    return OrderService(factory.broker(), clock.now)


def _trade(request: ChatRequest, side: Side) -> BotReply:
    if len(request.words) < 2:
        raise InvalidCommand(_("Write it as /buy 005930 10; a price or the word market may follow"))
    params = _order_words(request, side)
    draft = _service().draft(_intent(params, "draft"))
    return _with_buttons(request, _question(draft), side.value, params)


def _order_words(request: ChatRequest, side: Side) -> dict[str, Any]:
    reading = _reading(request.words)
    at_market = reading.price.lower() in MARKET_WORDS
    default_strategy = "buy_normal" if side is Side.BUY else "sell_profit"
    return {
        "code": reading.code,
        "side": side.value,
        "qty": _shares(reading.qty),
        "strategy": "" if reading.price else default_strategy,
        "price": None if at_market or not reading.price else _won(reading.price),
    }


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the words of an order; a stock's name may contain spaces. `price` is empty if there is none."""

    code: str
    qty: str
    price: str


def _reading(words: Sequence[str]) -> Reading:
    """Return the reading of an order's words that fits the known stocks: in "KODEX 200 10", 200 belongs to the name.

    A code or a whole name has precedence over the beginning of a name. Raises InvalidCommand.
    """
    splits = [(" ".join(words[:-count]), *words[-count:], "") for count in (1, 2) if len(words) > count]
    exact = [Reading(code, qty, price) for name, qty, price, *_rest in splits if (code := _exact(name))]
    if not exact:
        # the shorter name first: a quantity and a price follow it
        likely = [split for split in reversed(splits) if all(_is_figure(word) for word in split[1:])]
        name, qty, price, *_rest = (likely or splits)[0]
        return Reading(_by_beginning(name), qty, price)
    if len(exact) > 1:
        names = ", ".join(sorted(reading.code for reading in exact))
        raise InvalidCommand(_("{words} could be {names}: write the code").format(words=" ".join(words), names=names))
    return exact[0]


def _is_figure(text: str) -> bool:
    return text == "" or text.lower() in MARKET_WORDS or text[0].isdigit()


def _exact(name: str) -> str:
    """Return the code of a stock by its code or its whole name; empty if `name` is neither. Raises InvalidCommand.

    A well-formed code that is not in our table is returned too: the broker decides whether it exists.
    """
    try:
        return resolve(name)
    except NotACode:
        return ""
    except ManyStocks as error:
        raise InvalidCommand(explain(error)) from error


def _by_beginning(prefix: str) -> str:
    """Return the code of the only stock whose name begins with `prefix`. Raises InvalidCommand."""
    matches = list(Stock.objects.filter(name__istartswith=prefix)[:6])
    if len(matches) == 1:
        return matches[0].code
    names = ", ".join(f"{stock.name} {stock.code}" for stock in matches)
    if matches:
        raise InvalidCommand(_("{words} could be {names}: write the code").format(words=prefix, names=names))
    raise InvalidCommand(_("no stock is called {words}: write its code, as 005930").format(words=prefix))


def _shares(text: str) -> int:
    return _whole(text, _("quantity {text} is not a whole number of shares above zero: write it as 10"))


def _won(text: str) -> int:
    return _whole(text, _("price {text} is not a whole number of won above zero: write it as 52000"))


def _whole(text: str, template: str) -> int:
    digits = without_commas(plain(text).removesuffix("주").removesuffix("원"))
    if not digits.isascii() or not digits.isdigit() or len(digits) > 12 or int(digits) < 1:
        raise InvalidCommand(template.format(text=repr(text)))
    return int(digits)


def _intent(params: dict[str, Any], request_id: str) -> OrderIntent:
    return OrderIntent(
        code=params["code"],
        side=Side(params["side"]),
        qty=params["qty"],
        strategy=params["strategy"],
        price=params["price"],
        request_id=request_id,
    )


def _question(draft: PricedOrder) -> str:
    request = draft.request
    price = f"{request.price:,}" if request.kind.is_priced else _("market price")
    lines = [
        _("{side} {name} ({code}) {qty:,} shares at {price}, {market}?").format(
            side=_("Buy") if request.side is Side.BUY else _("Sell"),
            name=draft.stock.name,
            code=request.code,
            qty=request.qty,
            price=price,
            market=request.market,
        ),
        _("Last price {last:,} won; about {cost:,} won in all").format(
            last=draft.quote.price, cost=request.qty * (request.price or draft.quote.price)
        ),
    ]
    return "\n".join(lines)


def _cancel(request: ChatRequest) -> BotReply:
    if len(request.words) != 1:
        raise InvalidCommand(_("Write it as /cancel 12 by the broker's number, /cancel #12 by ours, or /cancel all"))
    if request.words[0].lower() in ALL_WORDS:
        count = TradeOrder.objects.filter(status__in=UNSETTLED, origin=TradeOrder.Origin.AEGIS).count()
        return _with_buttons(
            request, _("Cancel all {count} open orders?").format(count=count), "CANCEL", {"order": None}
        )
    order = find_order(request.words[0])
    return _with_buttons(request, _("Cancel {order}?").format(order=_order_line(order)), "CANCEL", {"order": order.pk})


def _amend(request: ChatRequest) -> BotReply:
    """Offer a button that amends an order. A figure that ends in 주 is a quantity, the first other one the price."""
    order_no, *figures = request.words or [""]
    shares = [figure for figure in figures if figure.endswith("주")]
    others = [figure for figure in figures if not figure.endswith("주")]
    quantities = [*others[1:], *shares]
    if not figures or len(quantities) > 1:
        raise InvalidCommand(
            _("Write it as /amend #12 70100: the order and its new price, then how many shares move if not all")
        )
    order = find_order(order_no)
    change = OrderChange(
        price=_won(others[0]) if others else None,
        qty=_shares(quantities[0]) if quantities else None,
    )
    preview(order, change)
    params = {"order": order.pk, "price": change.price, "qty": change.qty}
    return _with_buttons(request, _("Amend {change}?").format(change=describe_change(order, change)), "AMEND", params)


def _reduce(request: ChatRequest) -> BotReply:
    reason = " ".join(request.words) or _("by Telegram")
    return BotReply(actions.stop_buying(by=request.user, reason=reason).text)


def _halt(request: ChatRequest) -> BotReply:
    """Change to REDUCING at once, which does no harm, and ask whether to halt sales and stops too."""
    if risk.trading_state() is TradingState.HALTED:
        return BotReply(_("Trading is halted already, and stays so"))
    reply = _reduce(request)
    reason = " ".join(request.words) or _("by Telegram")
    key = _confirmable(request, "HALT", {"reason": reason})
    lines = [
        reply.text,
        kill_switch.explain_halt(),
        _("The button is good for {seconds} s").format(seconds=CONFIRM_FOR.seconds),
    ]
    buttons = [(_("Sales only (recommended)"), f"reduce:{key}"), (_("Halt all"), f"halt:{key}")]
    return BotReply("\n".join(lines), [buttons])


def _resume(request: ChatRequest) -> BotReply:
    reason = " ".join(request.words) or _("by Telegram")
    return _with_buttons(request, _("Trade again?"), "RESUME", {"reason": reason})


# --- buttons ------------------------------------------------------------------------------------


def press(data: str, *, chat: int, now: datetime) -> BotReply:
    """Carry out the action of a button, once; a further press is answered with the outcome of the first."""
    choice, _sep, key = data.partition(":")
    row = Confirmation.objects.filter(pk=key, chat=chat).first()
    with translation.override(row.params.get("language", "ko") if row else "ko"):
        if row is None:
            return BotReply(_("This button is not known any more"))
        if (reply := _take(row.pk, is_yes=choice in ("yes", "halt"), now=now)) is not None:
            return BotReply(_reduce_now(row, now) if (choice, row.action) == ("reduce", "HALT") else reply)
        text = failure_text()
        try:
            text = _carry_out(row, ChatRequest(chat, now))
        finally:
            Confirmation.objects.filter(pk=row.pk).update(state=State.DONE, answer=text)
        return BotReply(text)


def _reduce_now(row: Confirmation, now: datetime) -> str:
    """Change to REDUCING, as the button says, if trading was resumed meanwhile; a halt stays."""
    if (state := risk.trading_state()) is TradingState.ACTIVE:
        return actions.stop_buying(by=ChatRequest(row.chat, now).user, reason=row.params["reason"]).text
    return (
        _("Only sales pass already") if state is TradingState.REDUCING else _("Trading is halted already, and stays so")
    )


def failure_text() -> str:
    """Return the answer for a button whose action raised: an order may have been sent."""
    return _("This failed, and it is unknown how far it was carried out: check /orders before you ask again")


@transaction.atomic(durable=True)
def _take(key: str, *, is_yes: bool, now: datetime) -> str | None:
    """Take a confirmation; return the answer if it is not to be carried out, None if this call has to do so.

    A confirmation that was taken is never carried out again. The process that took it may have died, but the row does
    not show how far it got.
    """
    row = Confirmation.objects.select_for_update().get(pk=key)
    if row.state == State.DONE:
        return _("Done already: {answer}").format(answer=row.answer)
    if row.state == State.DROPPED:
        return _("Dropped before: nothing is done")
    if row.state == State.TAKEN:
        return _under_way(row)
    is_in_time = row.created_at <= now <= row.expires_at
    row.state = State.TAKEN if is_yes and is_in_time else State.DROPPED
    row.save(update_fields=["state"])
    if row.state == State.TAKEN:
        return None
    return _("The button is too old: nothing is done, ask again") if is_yes else _("Left as it is")


def _under_way(row: Confirmation) -> str:
    """Return the present state of a button that was taken and has no answer yet."""
    order = TradeOrder.objects.filter(request_id=row.key).first()
    if order is not None:
        template = _("It was ordered when the button was first pressed: {line}. /cancel #{pk} cancels its open shares")
        return template.format(line=_order_line(order), pk=order.pk)
    return _("It has been under way since the button was first pressed. Do not ask again before /orders shows it")


def _carry_out(row: Confirmation, request: ChatRequest) -> str:
    try:
        return ACTIONS[row.action](row, request)
    except OrderDenied as denied:
        return _("not ordered:") + "\n" + risk.denial_texts(denied.reasons)
    except BrokerError as error:
        return _("not ordered, the broker could not be asked: {error}").format(error=risk.error_text(error))


def _place(row: Confirmation, request: ChatRequest) -> str:
    order = _service().place(_intent(row.params, row.key))
    actions.log_action(request.user, order, _("ordered by Telegram"))
    if order.state is Status.UNKNOWN:
        template = _("outcome unknown, it is being looked up; do not order again: {line}")
    elif order.state is Status.REJECTED:
        return _("refused: {line}: {why}").format(line=_order_line(order), why=order.refusal)
    else:
        template = _("ordered: {line}")
    return template.format(line=_order_line(order))


def _cancel_now(row: Confirmation, request: ChatRequest) -> str:
    pk = row.params["order"]
    if pk is None:
        return "\n".join(result.text for result in actions.cancel_all(by=request.user))
    return actions.cancel(TradeOrder.objects.get(pk=pk), by=request.user).text


def _amend_now(row: Confirmation, request: ChatRequest) -> str:
    change = OrderChange(row.params["price"], row.params["qty"])
    return actions.amend(TradeOrder.objects.get(pk=row.params["order"]), change, by=request.user).text


def _resume_now(row: Confirmation, request: ChatRequest) -> str:
    return actions.switch_to(TradingState.ACTIVE, by=request.user, reason=row.params["reason"]).text


def _halt_now(row: Confirmation, request: ChatRequest) -> str:
    return actions.switch_to(TradingState.HALTED, by=request.user, reason=row.params["reason"]).text


def _decide_now(row: Confirmation, request: ChatRequest) -> str:
    order = TradeOrder.objects.get(pk=row.params["order"])
    return actions.decide(order, row.params["order_no"] or None, by=request.user).text


ACTIONS: dict[str, Callable[[Confirmation, ChatRequest], str]] = {
    Side.BUY.value: _place,
    Side.SELL.value: _place,
    "AMEND": _amend_now,
    "CANCEL": _cancel_now,
    "HALT": _halt_now,
    "RESUME": _resume_now,
    "DECIDE": _decide_now,
}


def _buy(request: ChatRequest) -> BotReply:
    return _trade(request, Side.BUY)


def _sell(request: ChatRequest) -> BotReply:
    return _trade(request, Side.SELL)


_TABLE: Sequence[tuple[str, str, Callable[[ChatRequest], BotReply]]] = (
    ("잔고", "balance", _balance),
    ("주문", "orders", _orders),
    ("미체결", "open", _open),
    ("체결", "fills", _fills),
    ("매수", "buy", _buy),
    ("매도", "sell", _sell),
    ("정정", "amend", _amend),
    ("취소", "cancel", _cancel),
    ("매도만", "reduce", _reduce),
    ("중지", "halt", _halt),
    ("재개", "resume", _resume),
    ("상태", "status", _status),
    ("미확인", "unknown", _unknown),
    ("도움말", "help", _help),
)
COMMANDS = {name: command for korean, english, command in _TABLE for name in (korean, english)} | {"start": _help}
