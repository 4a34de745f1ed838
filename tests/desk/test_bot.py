"""The desk's answers, and the bot that carries them: real services, a real simulator, a Bot API on loopback."""

import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections

from aegis.broker import Broker
from aegis.codes import plain
from aegis.terms import Side
from aegis.trading_state import TradingState
from desk.telegram import replies
from desk.telegram.bot import HALT_THREADS, THREADS, Bot, _again_after
from desk.telegram.replies import BotReply
from infra import clock
from kis import factory
from market import reference_data
from market.models import Stock
from monitor import health
from notify.models import Confirmation
from notify.telegram import BotAPI, Declined, TelegramError, Unanswered, Unreachable
from orders import kill_switch, risk
from orders.models import BrokerRequest, StopRule, SwitchChange, TradeOrder
from orders.reconcile import reconcile
from orders.service import OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from portfolio.models import AccountSnapshot, Portfolio
from simulator.api.server import Simulator
from tests.desk.botapi import TOKEN, FakeTelegram, Sent, serve

CHAT = 4711
STRANGER = 999


@pytest.fixture
def desk(broker: Broker, simulator: Simulator) -> Simulator:
    """A desk with an account that was synced, and 삼성전자 standing still at 70,000 won."""
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price("005930", 70_000, freeze=True)
    KISFetcher(broker, clock.now).sync_portfolio()
    return simulator


def ask(text: str) -> BotReply:
    return replies.answer(text, chat=CHAT, now=clock.now())


def yes(answer: BotReply) -> str:
    return answer.buttons[0][0][1]


def press(data: str, chat: int = CHAT, later: float = 0) -> str:
    return replies.press(data, chat=chat, now=clock.now() + timedelta(seconds=later)).text


def buy(broker: Broker, **words: Any) -> TradeOrder:
    return OrderService(broker, clock.now).place(OrderIntent("005930", Side.BUY, 10, **words))


@pytest.mark.django_db
class TestReplies:
    @pytest.fixture(autouse=True)
    def _desk(self, desk: Simulator) -> None:
        return

    @pytest.mark.parametrize("word", [name for korean, english, _do in replies._TABLE for name in (korean, english)])
    def test_every_command_answers_in_its_language(self, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health.consumers, "queues", lambda: frozenset(health.QUEUES))
        text = ask(f"/{word}").text
        assert text
        has_korean = any("가" <= letter <= "힣" for letter in text)
        assert has_korean or word.isascii()

    def test_a_command_may_name_the_bot_and_leave_the_slash(self) -> None:
        assert ask("/잔고@rehearsal_bot").text == ask("잔고").text

    def test_what_is_no_command_is_told_the_help(self) -> None:
        assert "/도움말" in ask("/사줘").text

    def test_the_balance_is_what_the_tables_hold(self, broker: Broker) -> None:
        buy(broker, strategy="buy_urgent")
        KISFetcher(broker, clock.now).sync_portfolio()
        text = ask("/잔고").text
        snapshot = AccountSnapshot.objects.latest()
        assert f"{snapshot.total_asset:,}" in text
        assert "삼성전자 10주" in text

    def test_many_holdings_are_cut_and_summed(self) -> None:
        hold_many(30)
        assert "외 10종목" in ask("/잔고").text
        assert "종목29 " in ask("/잔고 전체").text

    def test_a_buy_waits_for_its_button_and_is_recorded(self) -> None:
        asked = ask("/매수 005930 10")
        assert "삼성전자" in asked.text
        assert not TradeOrder.objects.exists()
        assert "주문" in press(yes(asked))
        order = TradeOrder.objects.get()
        assert (order.qty, order.strategy, order.request_id) == (10, "buy_normal", yes(asked).split(":")[1])
        assert LogEntry.objects.get(object_id=str(order.pk)).user.username == f"telegram{CHAT}"

    def test_a_button_pressed_twice_is_one_order(self) -> None:
        button = yes(ask("/매수 005930 10 69900"))
        first, second = press(button), press(button)
        assert TradeOrder.objects.count() == 1
        assert first in second

    def test_a_stock_goes_by_its_name_or_the_beginning_of_it(self) -> None:
        reference_data.sync_stock(factory.broker(), "005930", now=clock.now())
        assert "삼성전자(005930)" in ask("/매수 삼성전자 10").text
        assert "삼성전자(005930)" in ask("/매수 삼성 10").text

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("/매수 ００５９３０ １０ ６９９００", "005930"),
            ("/매수 simpac 10", "009160"),
            ("/매수 E1 10 69,900원", "017940"),
            ("/매수 q500001 10", "Q500001"),
            ("/매수 500001 10주", "Q500001"),
            ("/매수 A005930 10", "005930"),
            ("/매수 TIGER 미국S&P500 10", "360750"),
            ("/매수 tiger 미국s&p500 10 69900", "360750"),
            ("/매수 KODEX 200 10", "069500"),
            ("/매수 KODEX 200 10 시장가", "069500"),
            ("/매수 TIGER 미국 10 69900", "360750"),
            (unicodedata.normalize("NFD", "/매수 삼성전자 10"), "005930"),
        ],
    )
    def test_a_stock_is_found_however_it_is_written(self, line: str, code: str) -> None:
        list_stocks()
        words = replies._order_words(said(line), Side.BUY)
        assert (words["code"], words["qty"]) == (code, 10)

    @pytest.mark.parametrize(
        ("line", "word"),
        [
            ("/매수 INVENI 10", "INVENI"),
            ("/매수 KODEX 10 100", "KODEX 200 069500"),
            ("/매수 미국S&P500 10", "미국S&P500"),
            ("/매수 없는 종목 10", "없는 종목"),
        ],
    )
    def test_a_name_that_is_no_stocks_is_named_as_it_was_written(self, line: str, word: str) -> None:
        list_stocks()
        asked = ask(line)
        assert word in asked.text
        assert not asked.buttons

    @pytest.mark.parametrize("line", ["／중지", unicodedata.normalize("NFD", "/중지"), " /중지 "])
    def test_a_halt_is_heard_however_it_is_written(self, line: str) -> None:
        assert replies.is_halt(line)
        ask(line)
        assert risk.trading_state() is TradingState.REDUCING

    def test_a_button_taken_by_a_bot_that_died_is_still_one_order(self) -> None:
        button = yes(ask("/매수 005930 10"))
        press(button)
        Confirmation.objects.update(state=Confirmation.State.TAKEN, answer="")
        press(button, later=3600)
        assert TradeOrder.objects.count() == 1

    def test_an_old_button_does_nothing(self) -> None:
        button = yes(ask("/매수 005930 10"))
        assert "시간이 지났" in press(button, later=61)
        assert "그만둔" in press(button)
        assert not TradeOrder.objects.exists()

    @pytest.mark.parametrize("later", [0, 61, 3600])
    def test_a_button_that_was_taken_is_never_called_undone(self, later: float) -> None:
        do, leave = (data for _text, data in ask("/매수 005930 10").buttons[0])
        Confirmation.objects.update(state=Confirmation.State.TAKEN)
        for button in (do, leave):
            assert "진행 중" in press(button, later=later)
        assert Confirmation.objects.get().state == Confirmation.State.TAKEN
        assert not TradeOrder.objects.exists(), "who took it may still be at it"

    @pytest.mark.parametrize("asked_of", ["quote", "place"])
    @pytest.mark.parametrize("later", [1, 61])
    def test_a_press_while_the_broker_is_asked_is_told_the_truth(
        self, broker: Broker, monkeypatch: pytest.MonkeyPatch, asked_of: str, later: float
    ) -> None:
        do, leave = (data for _text, data in ask("/매수 005930 10").buttons[0])
        told: list[str] = []
        real = getattr(type(broker), asked_of)

        def slow(self: Broker, *words: Any) -> Any:
            if not told:
                told.extend(["", ""])
                told[:] = [press(each, later=later) for each in (leave, do)]
            return real(self, *words)

        monkeypatch.setattr(type(broker), asked_of, slow)
        answer = press(do)
        order = TradeOrder.objects.get()
        assert "주문" in answer
        for text in told:
            assert "그대로 두" not in text
            assert "시간이 지났" not in text
            assert ("진행 중" if asked_of == "quote" else f"#{order.pk}") in text
        assert "이미" in press(leave, later=later)

    def test_what_broke_off_is_not_called_done_or_undone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*words: Any) -> str:
            raise ZeroDivisionError

        button = yes(ask("/매수 005930 10"))
        monkeypatch.setitem(replies.ACTIONS, "BUY", broken)
        with pytest.raises(ZeroDivisionError):
            press(button)
        assert "/주문" in press(button, later=120)

    def test_who_leaves_it_has_left_it(self) -> None:
        do, leave = (data for _text, data in ask("/매수 005930 10").buttons[0])
        press(leave)
        assert "그만둔" in press(do)
        assert not TradeOrder.objects.exists()

    def test_a_button_is_no_other_chats(self) -> None:
        press(yes(ask("/매수 005930 10")), chat=STRANGER)
        assert not TradeOrder.objects.exists()

    @pytest.mark.parametrize(
        ("line", "word"),
        [
            ("/매수", "/매수 005930 10"),
            ("/매수 005930 열", "열"),
            ("/매수 005930 -3", "-3"),
            ("/매수 005930 10 공짜", "공짜"),
            ("/매수 없는종목 10", "없는종목"),
            ("/취소", "/취소 12"),
            ("/취소 #999", "#999"),
            ("/매수 005930 10 70050", "호가"),
        ],
    )
    def test_what_is_wrong_is_named_with_what_would_be_right(self, line: str, word: str) -> None:
        asked = ask(line)
        assert word in asked.text
        assert not asked.buttons

    def test_a_sale_at_market_goes_at_market(self, broker: Broker) -> None:
        buy(broker, strategy="buy_urgent")
        KISFetcher(broker, clock.now).sync_portfolio()
        press(yes(ask("/sell 005930 4 market")))
        order = TradeOrder.objects.get(order_type="SELL")
        assert (order.order_kind, order.qty) == ("01", 4)

    def test_a_halt_lets_only_sales_pass_at_once_and_asks_whether_stops_are_to_stop(self) -> None:
        StopRule.objects.create(
            stock_code="005930", kind="STOP_LOSS", unit="PERCENT", value=5, state_at=clock.now(), armed_by="kim",
            armed_at=clock.now(),
        )  # fmt: skip
        asked = ask("/중지 이상한 날")
        assert risk.trading_state() is TradingState.REDUCING
        assert "1" in asked.text
        assert [len(row) for row in asked.buttons] == [2]
        (_milder, leave), (_harder, halt) = asked.buttons[0]
        press(halt)
        assert risk.trading_state() is TradingState.HALTED
        assert SwitchChange.objects.latest().reason == "이상한 날"
        press(leave)
        ask("/중지")
        assert risk.trading_state() is TradingState.HALTED, "the milder one does not undo it"

    def test_sales_only_is_at_once(self) -> None:
        ask("/매도만")
        assert risk.trading_state() is TradingState.REDUCING

    def test_resume_asks_with_a_button(self) -> None:
        kill_switch.set_state(TradingState.HALTED, by="kim", reason="", at=clock.now())
        refused = ask("/매수 005930 10")
        assert not refused.buttons
        asked = ask("/재개")
        assert risk.trading_state() is TradingState.HALTED
        press(yes(asked))
        assert risk.trading_state() is TradingState.ACTIVE

    def test_one_order_is_cancelled_or_all(self, broker: Broker) -> None:
        first, second = buy(broker, price=65_000), buy(broker, price=65_100)
        press(yes(ask(f"/취소 #{first.pk}")))
        assert [TradeOrder.objects.get(pk=each.pk).cancel_sent_at is not None for each in (first, second)] == [
            True,
            False,
        ]
        press(yes(ask("/취소 전체")))
        assert TradeOrder.objects.get(pk=second.pk).cancel_sent_at is not None

    @pytest.mark.parametrize(
        ("words", "price", "qty"),
        [("65500", 65_500, 10), ("65,500원 4", 65_500, 4), ("65500 4주", 65_500, 4), ("4주 65500", 65_500, 4)],
    )
    def test_an_order_is_amended_after_a_button(self, broker: Broker, words: str, price: int, qty: int) -> None:
        order = buy(broker, price=65_000)
        asked = ask(f"/정정 #{order.pk} {words}")
        assert "65,500" in asked.text
        assert not BrokerRequest.objects.filter(kind="AMEND").exists()
        told = press(yes(asked))
        row = TradeOrder.objects.get(replaces=order)
        assert (row.price, row.qty, row.status) == (price, qty, "PENDING")
        assert f"#{order.pk} → #{row.pk}" in told
        request = BrokerRequest.objects.get(kind="AMEND")
        assert (request.requested_by, request.who) == ("OPERATOR", f"telegram{CHAT}")
        assert press(yes(asked)).endswith(told)
        assert BrokerRequest.objects.filter(kind="AMEND").count() == 1

    def test_an_order_is_reduced_after_a_button(self, broker: Broker) -> None:
        order = buy(broker, price=65_000)
        press(yes(ask(f"/정정 #{order.pk} 4주")))
        reconcile(broker, clock.now)
        order.refresh_from_db()
        assert (order.open_qty, order.withdrawn_qty) == (4, 6)

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [("", "/정정 #12 70100"), ("65000", "65,000"), ("65010", "호가"), ("65500 11", "11"), ("비싸게", "비싸게"),
         ("65500 4주 5주", "/정정 #12 70100")],
    )  # fmt: skip
    def test_an_amend_that_cannot_be_gets_no_button(self, broker: Broker, words: str, complaint: str) -> None:
        order = buy(broker, price=65_000)
        asked = ask(f"/정정 #{order.pk} {words}")
        assert complaint in asked.text
        assert not asked.buttons

    def test_a_list_says_who_wanted_an_order(self, broker: Broker) -> None:
        buy(broker, price=65_000, strategy_id="turtle")
        for line in ("/주문", "/미체결"):
            assert "turtle" in ask(line).text

    def test_an_unknown_outcome_is_decided_by_a_button(self, broker: Broker) -> None:
        order = buy(broker, price=65_000)
        candidate = {
            "order_no": "0000000777", "branch": "06010", "market": "KRX", "placed_at": "10:00:01", "qty": 10,
            "price": 65_000, "filled_qty": 0, "open_qty": 10, "cancelled_qty": 0,
        }  # fmt: skip
        TradeOrder.objects.filter(pk=order.pk).update(status="UNKNOWN", order_no=None, candidates=[candidate])
        asked = ask("/미확인")
        assert "0000000777" in asked.text
        press(asked.buttons[0][0][1])
        order.refresh_from_db()
        assert (order.status, order.order_no) == ("PENDING", "0000000777")

    def test_the_status_names_what_is_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health.consumers, "queues", lambda: frozenset(("orders", "sync")))
        text = ask("/상태").text
        assert "notify, stream" in text
        assert "beat" in text


def said(line: str) -> replies.ChatRequest:
    return replies.ChatRequest(CHAT, clock.now(), plain(line).split()[1:])


def list_stocks() -> None:
    """Stocks whose names look like codes, begin alike, or have spaces and figures in them."""
    rows = [
        ("005930", "삼성전자", ""), ("009160", "SIMPAC", ""), ("017940", "E1", ""), ("069500", "KODEX 200", ""),
        ("069660", "KODEX 100", ""), ("360750", "TIGER 미국S&P500", ""), ("Q500001", "신한 인버스", "KRG500001114"),
    ]  # fmt: skip
    Stock.objects.bulk_create(
        [
            Stock(code=code, name=name, standard_code=standard, board="KOSPI", instrument="STOCK")
            for code, name, standard in rows
        ],
        ignore_conflicts=True,
    )


def hold_many(count: int) -> None:
    now = clock.now()
    Portfolio.objects.all().delete()
    Portfolio.objects.bulk_create(
        Portfolio(
            stock_code=f"{number:06}", stock_name=f"종목{number}", quantity=10, avg_price=1_000,
            current_price=2_000 - number, counted_on=now.date(), updated_at=now,
        )
        for number in range(count)
    )  # fmt: skip


@pytest.fixture
def telegram() -> Iterator[FakeTelegram]:
    with serve() as running:
        yield running


@pytest.fixture
def bot(telegram: FakeTelegram, transactional_db: None) -> Iterator[Bot]:
    """The bot, running in this process."""
    stop = threading.Event()
    with httpx.Client(timeout=10, trust_env=False) as http:
        running = Bot(BotAPI(telegram.url, TOKEN, http), clock.now, allowed=frozenset({CHAT}))
        thread = threading.Thread(target=lambda: (running.run(stop), connections.close_all()))
        thread.start()
        yield running
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def heard(telegram: FakeTelegram, text: str, count: int = 1) -> Sent:
    before = len(telegram.sent)
    telegram.write(CHAT, text)
    return telegram.wait_for_sent(before + count)[-1]


def test_a_buy_by_telephone_from_the_line_to_the_order(telegram: FakeTelegram, bot: Bot, desk: Simulator) -> None:
    asked = heard(telegram, "/매수 005930 10")
    do = asked.buttons[0][1]
    telegram.press(asked, do)
    telegram.press(asked, do)
    telegram.wait_for_sent(3)
    assert TradeOrder.objects.count() == 1
    wait_for(lambda: asked.buttons == [])
    wait_for(lambda: len(telegram.pressed) == 2)


def wait_for(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.01)


def test_a_stranger_hears_nothing_and_leaves_a_line(
    telegram: FakeTelegram, bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    telegram.write(STRANGER, "/잔고")
    assert heard(telegram, "/도움말").chat == CHAT
    wait_for(lambda: f"chat {STRANGER} is not allowed" in caplog.text)
    assert {sent.chat for sent in telegram.sent} == {CHAT}


def test_a_late_line_is_not_acted_on_but_a_halt_is(telegram: FakeTelegram, bot: Bot, desk: Simulator) -> None:
    telegram.write(CHAT, "/매수 005930 10", age_seconds=600)
    assert telegram.wait_for_sent(1)[0].buttons == []
    telegram.write(CHAT, "/중지", age_seconds=600)
    telegram.wait_for_sent(2)
    assert risk.trading_state() is TradingState.REDUCING


def test_a_halt_waits_behind_no_other_line(
    telegram: FakeTelegram, bot: Bot, desk: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker_answers, waiting = threading.Event(), threading.Semaphore(0)

    def wait_for_the_broker(asked: Any) -> BotReply:
        waiting.release()
        broker_answers.wait(60)
        return BotReply("late")

    monkeypatch.setitem(replies.COMMANDS, "매수", wait_for_the_broker)
    try:
        for _ in range(2 * THREADS):
            telegram.write(CHAT, "/매수 005930 10")
        for _ in range(THREADS):
            assert waiting.acquire(timeout=20)
        telegram.write(CHAT, "/중지")
        asked = telegram.wait_for_sent(1)[0]
        assert risk.trading_state() is TradingState.REDUCING
        telegram.press(asked, asked.buttons[1][1])
        wait_for(lambda: risk.trading_state() is TradingState.HALTED)
    finally:
        broker_answers.set()


def test_an_answer_that_telegram_asks_to_wait_with_comes_later(
    telegram: FakeTelegram, bot: Bot, desk: Simulator
) -> None:
    telegram.decline("sendMessage", 429, "Too Many Requests: retry after 1", times=2, retry_after=1)
    assert "/잔고" in heard(telegram, "/도움말").text
    asked = heard(telegram, "/매수 005930 10")
    telegram.decline("sendMessage", 429, "Too Many Requests: retry after 1", retry_after=1)
    telegram.press(asked, asked.buttons[0][1])
    assert "주문" in telegram.wait_for_sent(3)[2].text
    assert TradeOrder.objects.count() == 1


def test_a_button_whose_errand_raises_is_not_said_to_have_failed(
    telegram: FakeTelegram, bot: Bot, desk: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place_and_break(*words: Any) -> str:
        replies._place(*words)
        raise ZeroDivisionError

    monkeypatch.setitem(replies.ACTIONS, "BUY", place_and_break)
    asked = heard(telegram, "/매수 005930 10")
    telegram.press(asked, asked.buttons[0][1])
    assert "/주문" in telegram.wait_for_sent(2)[1].text
    assert TradeOrder.objects.count() == 1


def test_an_answer_that_waits_holds_up_no_halt(telegram: FakeTelegram, bot: Bot, desk: Simulator) -> None:
    telegram.decline("sendMessage", 429, "Too Many Requests: retry after 30", times=2 * HALT_THREADS, retry_after=30)
    for _ in range(HALT_THREADS):
        telegram.write(CHAT, "/중지")
    wait_for(lambda: risk.trading_state() is TradingState.REDUCING)
    wait_for(lambda: telegram.calls.count("sendMessage") == HALT_THREADS)
    kill_switch.set_state(TradingState.ACTIVE, by="kim", reason="", at=clock.now())
    telegram.write(CHAT, "/중지")
    wait_for(lambda: risk.trading_state() is TradingState.REDUCING, seconds=5)


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (Declined(429, "Too Many Requests", 7.0), 7.0),
        (Unreachable("no connection"), 2.0),
        (Unanswered("cut"), None),
        (Declined(400, "message is too long"), None),
    ],
)
def test_only_what_surely_was_not_heard_is_said_again(error: TelegramError, wait: float | None) -> None:
    assert _again_after(error, 2.0) == wait


def test_the_bot_outlives_an_outage(telegram: FakeTelegram, bot: Bot) -> None:
    telegram.decline("getUpdates", 502, "Bad Gateway", times=2)
    assert heard(telegram, "/도움말").text
