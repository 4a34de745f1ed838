"""News becomes rows, rows are told once, and no channel waits for another."""

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from django.db import connection, connections
from django.utils import translation

from aegis.broker import Broker
from aegis.sessions import KST
from aegis.terms import Side
from desk import dashboard
from infra import clock
from market import reference_data
from monitor import daily_report, health
from notify import alerts, delivery
from notify.alerts import DESK, ActiveAlert, Notification
from notify.delivery import AppriseChannel, TelegramChannel, Undelivered, claim, deliver, fold
from notify.models import Alarm, Message, NotificationKind, OutboxCursor
from notify.telegram import BotAPI
from orders import journal
from orders.models import OrderEvent, Reconciliation, TradeExecution, TradeOrder
from orders.reconcile import reconcile
from orders.service import OrderIntent, OrderService
from portfolio.models import AccountSnapshot, PortfolioEvent
from simulator.api.server import Simulator
from tests.desk.botapi import TOKEN, FakeTelegram, serve

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=KST)
CHAT = 77
TELEGRAM = f"telegram:{CHAT}"
State = Message.State

pytestmark = pytest.mark.django_db


@pytest.fixture
def telegram() -> Iterator[FakeTelegram]:
    with serve() as running:
        yield running


@pytest.fixture
def channel(telegram: FakeTelegram) -> Iterator[TelegramChannel]:
    with httpx.Client(timeout=5, trust_env=False) as http:
        yield TelegramChannel(BotAPI(telegram.url, TOKEN, http), CHAT)


def tell(channel: TelegramChannel, now: datetime = NOW) -> float:
    return deliver(channel, lambda: now, lambda seconds: None)


def an_order(**words: object) -> TradeOrder:
    usual = {
        "request_id": f"r{TradeOrder.objects.count()}",
        "stock_code": "005930",
        "stock_name": "삼성전자",
        "order_type": "BUY",
        "market": "KRX",
        "order_kind": "00",
        "qty": 10,
        "price": 70_000,
        "status": "PENDING",
        "status_at": NOW,
        "created_at": NOW,
        "order_date": NOW.date(),
    }
    return TradeOrder.objects.create(**{**usual, **words})


def a_fill(order: TradeOrder, total: int = 10, qty: int = 10, **words: object) -> TradeExecution:
    usual = {
        "exec_qty": qty,
        "exec_price": 70_000,
        "exec_amount": 70_000 * qty,
        "cumulative_qty": total,
        "executed_at": NOW,
        "recorded_at": NOW,
        "source": "NOTICE",
        "stock_code": order.stock_code,
    }
    return TradeExecution.objects.create(order=order, **{**usual, **words})


def some_news(count: int, topic: str = "") -> list[Notification]:
    return [
        Notification(f"event:{number}", NotificationKind.REFUSED, f"news {number}", NOW, topic)
        for number in range(count)
    ]


def test_a_fill_is_told_once_however_often_it_is_read(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    a_fill(an_order())
    assert alerts.gather(NOW, [TELEGRAM]) == 1
    assert alerts.gather(NOW, [TELEGRAM]) == 0
    tell(channel)
    tell(channel)
    (sent,) = telegram.sent
    assert "삼성전자" in sent.text
    assert "70,000" in sent.text
    assert Message.objects.get(channel=TELEGRAM).state == State.SENT


def test_without_a_channel_the_desk_still_has_the_message() -> None:
    a_fill(an_order())
    alerts.gather(NOW, [])
    message = Message.objects.get()
    assert (message.channel, message.state) == (DESK, State.SENT)


@pytest.mark.parametrize(
    ("kind", "detail", "told", "words"),
    [
        ("REFUSED", "APBK0919 장운영일자가 아닙니다", NotificationKind.REFUSED, "APBK0919"),
        ("NO_ANSWER", "timeout", NotificationKind.UNKNOWN, "다시 주문하지"),
        ("UNDECIDED", "0000000012, 0000000013", NotificationKind.UNKNOWN, "0000000013"),
        ("ABSENT", "absent from 3 complete lists", NotificationKind.REFUSED, "absent"),
        ("CHASE_ENDED", "재주문 3회", NotificationKind.CHASE, "재주문 3회"),
        ("UNFILLED", "void 10 @ 70000: not on the broker's list", NotificationKind.CORRECTION, "void 10"),
        ("ACCEPTED", "0000000012 list: ordered 10", NotificationKind.UNKNOWN, "0000000012"),
    ],
)
def test_what_happens_to_an_order_is_told(kind: str, detail: str, told: NotificationKind, words: str) -> None:
    journal.append_event(an_order(), kind, detail, at=NOW)
    alerts.gather(NOW, [])
    message = Message.objects.get()
    assert message.kind == told
    assert words in message.text


@pytest.mark.parametrize(
    ("columns", "kind", "told", "words"),
    [
        ({"origin": "EXTERNAL"}, "ACCEPTED", NotificationKind.CORRECTION, "외부 주문"),
        ({"end_cause": "EXTERNAL_CANCEL"}, "CANCELLED", NotificationKind.CORRECTION, "외부에서 취소"),
        ({"end_cause": "EXTERNAL_AMEND"}, "END_EXPLAINED", NotificationKind.CORRECTION, "외부에서 정정"),
        ({"filled_qty": 4}, "EXPIRED", NotificationKind.CHASE, "6주"),
    ],
)
def test_what_others_did_to_an_order_is_told(
    columns: dict[str, Any], kind: str, told: NotificationKind, words: str
) -> None:
    order = an_order()
    journal.update_fields(order, **columns)
    journal.append_event(order, kind, at=NOW)
    alerts.gather(NOW, [])
    message = Message.objects.get()
    assert message.kind == told
    assert words in message.text


@pytest.mark.parametrize(
    ("kind", "detail"), [("CREATED", "BUY 10"), ("ACCEPTED", "0000000012 reply"), ("CANCEL_SENT", "")]
)
def test_the_ordinary_course_of_an_order_is_no_news(kind: str, detail: str) -> None:
    journal.append_event(an_order(), kind, detail, at=NOW)
    assert alerts.gather(NOW, []) == 0


def test_a_stop_is_told_when_it_sells() -> None:
    journal.append_event(an_order(order_type="SELL", strategy="sell_stop"), "CREATED", "SELL 10 @ 0", at=NOW)
    alerts.gather(NOW, [])
    assert Message.objects.get().kind == NotificationKind.STOP


def test_a_holding_that_changed_and_a_corrected_ledger_are_told() -> None:
    PortfolioEvent.objects.create(
        at=NOW, stock_code="005930", stock_name="삼성전자", kind="UNEXPLAINED", qty_before=10, qty_after=7,
        avg_price_before=1, avg_price_after=1,
    )  # fmt: skip
    Reconciliation.objects.create(at=NOW, outcome="WHOLE", corrected=2)
    Reconciliation.objects.create(at=NOW, outcome="WHOLE", corrected=0)
    assert alerts.gather(NOW, []) == 2
    assert set(Message.objects.values_list("kind", flat=True)) == {
        NotificationKind.HOLDING,
        NotificationKind.CORRECTION,
    }


def a_snapshot(at: datetime, *left_out: str) -> None:
    names = ("deposit", "deposit_d1", "deposit_d2", "valuation", "total_asset", "net_profit_today")
    AccountSnapshot.objects.create(timestamp=at, left_out=list(left_out), **dict.fromkeys(names, 1))


def test_holdings_that_are_left_out_are_told_once_a_day_and_when_they_are_others() -> None:
    half, other = "삼성전자 (005930): 2.5 shares", "SK하이닉스 (000660): 0.1 shares"
    a_snapshot(NOW)
    for minute in range(3):
        a_snapshot(NOW + timedelta(minutes=minute), half)
    assert alerts.gather(NOW, []) == 1
    assert alerts.gather(NOW, []) == 0
    message = Message.objects.get()
    assert message.kind == NotificationKind.HOLDING
    assert half in message.text
    a_snapshot(NOW + timedelta(minutes=4), half, other)
    a_snapshot(NOW + timedelta(days=1), half)
    assert alerts.gather(NOW, []) == 2


def test_a_real_day_is_told_from_its_rows(
    broker: Broker, simulator: Simulator, telegram: FakeTelegram, channel: TelegramChannel
) -> None:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price("005930", 70_000, freeze=True)
    service = OrderService(broker, clock.now)
    service.place(OrderIntent("005930", Side.BUY, 10, strategy="buy_urgent"))
    reconcile(broker, clock.now)
    alerts.gather(clock.now(), [TELEGRAM])
    tell(channel, clock.now())
    text = "\n".join(sent.text for sent in telegram.sent)
    assert "10 of 10" in text or "10주 중 10주" in text or "10/10" in text


@pytest.mark.django_db(transaction=True)
def test_a_row_committed_after_a_younger_one_is_told_all_the_same() -> None:
    """Ids are given before the commit: a mark that jumps to the highest id would pass over the slower transaction."""
    order = an_order()
    begun, may_commit = threading.Event(), threading.Event()

    def slow() -> None:
        from django.db import transaction

        with transaction.atomic():
            journal.append_event(order, "CHASE_ENDED", "slow", at=NOW)
            begun.set()
            assert may_commit.wait(20)
        connections.close_all()

    thread = threading.Thread(target=slow)
    thread.start()
    assert begun.wait(20)
    journal.append_event(order, "CHASE_ENDED", "quick", at=NOW)
    later = NOW
    for _turn in range(3):
        alerts.gather(later, [])
        later += timedelta(seconds=1)
    assert [message.text.split()[-1] for message in Message.objects.all()] == ["quick"]
    may_commit.set()
    thread.join()
    alerts.gather(later, [])
    assert {message.text.split()[-1] for message in Message.objects.all()} == {"quick", "slow"}


def test_what_was_told_long_ago_is_not_read_again() -> None:
    journal.append_event(an_order(), "CHASE_ENDED", "old", at=NOW)
    for minutes in (0, 6, 12):
        alerts.gather(NOW + timedelta(minutes=minutes), [])
    assert OutboxCursor.objects.get(pk="event").done_id == OrderEvent.objects.get().pk
    Message.objects.all().delete()
    assert alerts.gather(NOW + timedelta(minutes=13), []) == 0


def test_nothing_is_lost_while_telegram_is_down(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    alerts.write_messages(some_news(3), [TELEGRAM], now=NOW)
    telegram.decline("sendMessage", 502, "Bad Gateway")
    assert tell(channel) > 0
    assert telegram.sent == []
    assert Message.objects.filter(channel=TELEGRAM, state=State.WAITING).count() == 3
    assert tell(channel) == 0
    (sent,) = telegram.sent
    assert all(f"news {number}" in sent.text for number in range(3))
    assert "이미" not in sent.text


def test_telegram_is_left_alone_for_as_long_as_it_asks(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    alerts.write_messages(some_news(1), [TELEGRAM], now=NOW)
    telegram.decline("sendMessage", 429, "Too Many Requests", retry_after=17)
    assert tell(channel) == 17


def test_a_message_that_is_wrong_in_itself_does_not_hold_up_the_next(
    telegram: FakeTelegram, channel: TelegramChannel
) -> None:
    alerts.write_messages([Notification("a", NotificationKind.REPORT, "bad", NOW, picture=b"png")], [TELEGRAM], now=NOW)
    alerts.write_messages([Notification("b", NotificationKind.FILL, "good", NOW)], [TELEGRAM], now=NOW)
    telegram.decline("sendPhoto", 400, "PHOTO_INVALID_DIMENSIONS")
    assert tell(channel) == 0
    assert [sent.text for sent in telegram.sent] == ["✅ good"]
    assert Message.objects.get(event="a", channel=TELEGRAM).state == State.FAILED


@pytest.mark.parametrize(
    "words",
    [
        "Bad Request: chat not found",
        "Bad Request: group chat was upgraded to a supergroup chat",
        "Bad Request: not enough rights to send photos to the chat",
        "Bad Request: something never heard before",
    ],
)
def test_a_chat_that_takes_nothing_loses_nothing_and_is_shown(
    telegram: FakeTelegram, channel: TelegramChannel, words: str
) -> None:
    alerts.write_messages(some_news(3), [TELEGRAM], now=NOW)
    telegram.decline("sendMessage", 400, words)
    assert tell(channel) > 0
    assert Message.objects.filter(channel=TELEGRAM, state=State.WAITING).count() == 3
    seen = health.check_undelivered(NOW + 2 * health.UNDELIVERED_PERIOD)
    assert TELEGRAM in seen
    assert words in seen
    assert tell(channel) == 0
    assert "news 2" in telegram.sent[0].text


def test_where_a_group_moved_to_is_said(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    alerts.write_messages(some_news(1), [TELEGRAM], now=NOW)
    telegram.decline("sendMessage", 400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-100123)
    tell(channel)
    assert "-100123" in Message.objects.get(channel=TELEGRAM).error


def test_what_was_given_up_is_shown_for_a_day(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    alerts.write_messages([Notification("a", NotificationKind.ALARM, "x", NOW)], [TELEGRAM], now=NOW)
    telegram.decline("sendMessage", 400, "Bad Request: can't parse entities: byte 7")
    tell(channel)
    assert Message.objects.get(channel=TELEGRAM).state == State.FAILED
    assert "byte 7" in health.check_undelivered(NOW + timedelta(seconds=1))
    with translation.override("en"):
        assert "byte 7" in dashboard.render_parts("en", NOW)["health"]
    assert health.check_undelivered(NOW + health.GIVEN_UP_PERIOD + timedelta(minutes=1)) == ""


def test_nothing_waits_for_a_channel_that_is_no_more() -> None:
    alerts.write_messages(some_news(2), ["telegram:1", TELEGRAM], now=NOW)
    assert delivery.give_up_removed_channels([TELEGRAM]) == 2
    assert set(Message.objects.filter(state=State.FAILED).values_list("channel", flat=True)) == {"telegram:1"}
    assert Message.objects.filter(channel=TELEGRAM, state=State.WAITING).count() == 2
    assert Message.objects.filter(channel=DESK, state=State.SENT).count() == 2


def test_a_lost_answer_is_sent_again_and_says_so(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    alerts.write_messages(some_news(1), [TELEGRAM], now=NOW)
    telegram.swallow("sendMessage")
    tell(channel)
    tell(channel)
    first, second = telegram.sent
    with translation.override("ko"):
        assert "이미" in second.text
    assert first.text in second.text


def test_a_claim_is_nobody_elses_until_it_lapses(channel: TelegramChannel) -> None:
    alerts.write_messages(some_news(2), [TELEGRAM], now=NOW)
    assert len(claim(TELEGRAM, now=NOW)) == 2
    assert claim(TELEGRAM, now=NOW + timedelta(seconds=30)) == []
    again = claim(TELEGRAM, now=NOW + delivery.CLAIM_DURATION + timedelta(seconds=1))
    assert [message.maybe_sent for message in again] == [True, True]


@pytest.mark.django_db(transaction=True)
def test_two_tellers_never_send_the_same(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    alerts.write_messages(some_news(150), [TELEGRAM], now=NOW)

    def work() -> None:
        tell(channel)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for sent in telegram.sent for line in sent.text.splitlines() if line]
    assert len(lines) == len(set(lines)) == 150


def test_a_burst_of_one_topic_is_one_line_that_says_the_last() -> None:
    alerts.write_messages(
        [Notification(f"fill:{n}", NotificationKind.FILL, f"filled {n} of 30", NOW, "fill:1") for n in range(1, 31)],
        [TELEGRAM],
        now=NOW,
    )
    (sending,) = fold(claim(TELEGRAM, now=NOW))
    assert "filled 30 of 30" in sending.text
    assert "filled 29" not in sending.text
    assert "30" in sending.text.split("filled 30 of 30")[1]
    assert len(sending.messages) == 30


def test_many_topics_share_a_few_sendings_that_fit() -> None:
    alerts.write_messages(
        [Notification(f"e{n}", NotificationKind.CHASE, "가" * 100, NOW) for n in range(150)], [TELEGRAM], now=NOW
    )
    sendings = fold(claim(TELEGRAM, now=NOW))
    assert 4 <= len(sendings) <= 6
    assert all(len(sending.text) <= delivery.MAX_TEXT_LENGTH for sending in sendings)


class Deaf:
    name = "deaf"

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.end = threading.Event()

    def send(self, text: str, picture: bytes | None) -> None:
        self.waiting.set()
        self.end.wait(30)
        raise Undelivered("no answer")


@pytest.mark.django_db(transaction=True)
def test_a_dead_channel_blocks_no_other(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    deaf, stop = Deaf(), threading.Event()
    alerts.write_messages(some_news(1), [deaf.name, TELEGRAM], now=NOW)
    workers = [delivery.ChannelWorker(each, lambda: NOW, stop, every_seconds=0.05) for each in (deaf, channel)]
    workers[0].start()
    assert deaf.waiting.wait(20)
    workers[1].start()
    telegram.wait_for_sent(1)
    deaf.end.set()
    stop.set()
    for worker in workers:
        worker.thread.join(20)
    assert Message.objects.get(channel=deaf.name).state == State.WAITING


def test_the_token_is_in_no_row_and_no_log(
    telegram: FakeTelegram, channel: TelegramChannel, caplog: pytest.LogCaptureFixture
) -> None:
    with httpx.Client() as http:
        nowhere = TelegramChannel(BotAPI("http://127.0.0.1:1", TOKEN, http), CHAT)
        alerts.write_messages(some_news(1), [TELEGRAM], now=NOW)
        tell(nowhere)
    telegram.swallow("sendMessage")
    tell(channel)
    errors = " ".join(Message.objects.values_list("error", flat=True))
    assert errors.strip()
    assert TOKEN not in errors + caplog.text


# Apprise asks for a module of the standard library that newer Pythons do not have
@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
def test_any_other_service_is_told_by_its_address(telegram: FakeTelegram) -> None:
    host = telegram.url.removeprefix("http://")
    channel = AppriseChannel(f"json://{host}/bot{TOKEN}/getMe")
    channel.send("hello", None)
    assert telegram.calls == ["getMe"]
    assert TOKEN not in channel.name
    with pytest.raises(Undelivered) as refused:
        AppriseChannel(f"json://{host}/elsewhere").send("hello", None)
    assert refused.value.may_have_arrived


def trouble(seconds: int = 60) -> Sequence[ActiveAlert]:
    return [ActiveAlert("socket", "the socket is LOST", timedelta(seconds=seconds))]


def test_an_alarm_is_told_after_its_time_once_and_when_it_is_over() -> None:
    for second in (0, 30, 59):
        alerts.raise_alarms(trouble(), [], now=NOW + timedelta(seconds=second))
    assert not Message.objects.exists()
    for second in (60, 70, 80):
        alerts.raise_alarms(trouble(), [], now=NOW + timedelta(seconds=second))
    alerts.raise_alarms([], [], now=NOW + timedelta(seconds=90))
    alerts.raise_alarms([], [], now=NOW + timedelta(seconds=91))
    over, alarm = Message.objects.all()
    assert "LOST" in alarm.text
    assert "90" in over.text
    assert not Alarm.objects.exists()


def test_a_short_trouble_is_nobodys_business() -> None:
    alerts.raise_alarms(trouble(), [], now=NOW)
    alerts.raise_alarms([], [], now=NOW + timedelta(seconds=59))
    assert not Message.objects.exists()


def test_a_trouble_that_comes_back_is_told_anew() -> None:
    for start in (0, 600):
        for second in (0, 61):
            alerts.raise_alarms(trouble(), [], now=NOW + timedelta(seconds=start + second))
        alerts.raise_alarms([], [], now=NOW + timedelta(seconds=start + 62))
    assert Message.objects.count() == 4


@pytest.fixture
def a_day() -> None:
    for minute, total in enumerate((10_000_000, 10_050_000, 9_990_000, 10_120_000)):
        AccountSnapshot.objects.create(
            timestamp=NOW + timedelta(minutes=minute), deposit=1, deposit_d1=1, deposit_d2=1, valuation=1,
            total_asset=total, net_profit_today=total - 10_000_000,
        )  # fmt: skip
    a_fill(an_order(order_type="SELL"), realized_profit=4_321, fee=100, tax=50)


@pytest.mark.usefixtures("a_day")
def test_the_day_is_reported_once_when_it_is_over_with_its_picture(
    telegram: FakeTelegram, channel: TelegramChannel
) -> None:
    assert not daily_report.write_report([TELEGRAM], now=NOW.replace(hour=15))
    evening = NOW.replace(hour=20, minute=30)
    assert daily_report.write_report([TELEGRAM], now=evening)
    assert not daily_report.write_report([TELEGRAM], now=evening + timedelta(minutes=1))
    tell(channel, evening)
    (sent,) = telegram.sent
    assert sent.picture.startswith(b"\x89PNG")
    for figure in ("2026-11-23", "+4,321", "150", "10,120,000", "+120,000"):
        assert figure in sent.text


def test_a_long_day_is_drawn_with_a_limited_number_of_points() -> None:
    midnight = NOW.replace(hour=0, minute=0)
    figures = dict.fromkeys(("deposit", "deposit_d1", "deposit_d2", "valuation", "net_profit_today"), 1)
    AccountSnapshot.objects.bulk_create(
        AccountSnapshot(timestamp=midnight + timedelta(minutes=minute), total_asset=minute, **figures)
        for minute in range(1440)
    )
    points = daily_report.equity_by_minute(NOW.date())
    assert len(points) == 720, "every second minute"
    assert points[1] == (midnight + timedelta(minutes=2), 2)


def test_a_holiday_has_no_report() -> None:
    assert not daily_report.write_report([], now=datetime(2026, 11, 22, 21, 0, tzinfo=KST))


@pytest.mark.parametrize("text", ["가나다 " * 2000, "😀" * 3000])
def test_a_text_is_cut_to_what_a_message_holds(text: str) -> None:
    from notify.telegram import MAX_TEXT_UNITS, truncate

    short = truncate(text, MAX_TEXT_UNITS)
    assert len(short.encode("utf-16-le")) // 2 <= MAX_TEXT_UNITS
    assert short.endswith("…")
