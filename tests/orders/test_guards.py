"""The guards where they stand: facts from the tables, every reason at once, and twins that come together."""

import re
import threading
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from unittest import mock

import pytest
from django.db import connection
from django.utils import translation
from psycopg import _queries

from aegis.broker import Acceptance, Broker, BrokerError, NotSent, OrderRequest, OutcomeUnknown
from aegis.chase import Plan
from aegis.denials import DenialCode
from aegis.fees import calc_fee
from aegis.lifecycle import UNSETTLED, Status
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, OrderKind, Side
from infra import clock
from market import reference_data
from orders import chase, journal, kill_switch, pretrade_context, reconcile, risk, stops, unknown
from orders.models import BlacklistedStock, OrderSequence, Reconciliation, TradeOrder, TradingSwitch
from orders.pretrade import PreTrade
from orders.reorders import Reorders
from orders.service import NO_CHASE, OrderDenied, OrderIntent, OrderService
from portfolio import ledger
from portfolio.fetcher import KISFetcher
from portfolio.models import AccountSnapshot
from simulator.api.server import Simulator

SAMSUNG, HEATING = "005930", "071320"
ACCOUNT = "50000000-01"
ORDER = "order-cash"
Buy = Callable[..., TradeOrder]


def denied(place: Callable[[], object]) -> OrderDenied:
    with pytest.raises(OrderDenied) as caught:
        place()
    return caught.value


def codes(place: Callable[[], object]) -> list[str]:
    return [reason.code for reason in denied(place).reasons]


def shares(simulator: Simulator, qty: int, code: str = SAMSUNG) -> None:
    simulator.command("POST", "/simulator/shares", {"account": ACCOUNT, "code": code, "quantity": qty, "cost": qty})


def losing(service: OrderService, broker: Broker, *, arrives: bool = False) -> OrderService:
    """Return a service whose orders get no answer."""

    def place(request: OrderRequest) -> Acceptance:
        if arrives:
            broker.place(request)
        raise OutcomeUnknown("no answer")

    return OrderService(mock.MagicMock(wraps=broker, place=place), clock.now)


def later(seconds: float) -> None:
    clock.set_now(clock.now() + timedelta(seconds=seconds))


# --- all at once ----------------------------------------------------------------------------------


def test_reasons_of_our_own_and_of_the_broker_come_together(buy: Buy, settings) -> None:
    TradingSwitch.objects.update(state=risk.TradingState.HALTED)
    BlacklistedStock.objects.create(stock_code=SAMSUNG, reason="not this one")
    settings.MAX_ORDER_WON = 1_000_000
    against = codes(lambda: buy(qty=2_000, price=95_000))
    assert against == [
        "HALTED",
        "BLACKLISTED",
        "ORDER_VALUE",
        "POSITION_WEIGHT",
        "DAILY_LIMIT",
        "COLLAR",
        "CASH",
    ]


def test_what_is_known_is_reported_where_the_broker_cannot_be_asked(buy: Buy, broker: Broker) -> None:
    buy(price=60_000)  # the list was read, and the stock is known
    TradingSwitch.objects.update(state=risk.TradingState.HALTED)
    for question in ("quote", "orderable"):
        with mock.patch.object(type(broker), question, side_effect=NotSent("out of reach")):
            assert codes(lambda: buy(price=69_050)) == ["HALTED", "TICK"]
    TradingSwitch.objects.update(state=risk.TradingState.ACTIVE)
    with mock.patch.object(type(broker), "quote", side_effect=NotSent("out of reach")), pytest.raises(BrokerError):
        buy(price=69_000)


def test_a_strategy_nobody_knows_is_told_beside_the_rest(buy: Buy) -> None:
    TradingSwitch.objects.update(state=risk.TradingState.HALTED)
    assert codes(lambda: buy(strategy="sell_stop")) == ["HALTED", "STRATEGY"]


def test_every_reason_is_said_in_korean(buy: Buy, settings) -> None:
    TradingSwitch.objects.update(state=risk.TradingState.REDUCING)
    settings.MAX_ORDER_WON = 1_000_000
    with translation.override("ko"):
        said = risk.denial_texts(denied(lambda: buy(price=69_050, qty=20)).reasons)
    assert "매도만" in said
    assert "주문 금액이 1,381,000원입니다. 1회 한도는 1,000,000원(AEGIS_MAX_ORDER_WON)입니다" in said
    assert "호가" in said


# --- bounds ---------------------------------------------------------------------------------------


def test_a_sector_is_excluded_by_the_stock_master(service: OrderService, simulator: Simulator) -> None:
    buying = OrderIntent(HEATING, Side.BUY, 1, strategy="buy_normal")
    assert codes(lambda: service.place(buying)) == ["SECTOR"]
    shares(simulator, 1, HEATING)
    assert service.place(OrderIntent(HEATING, Side.SELL, 1, strategy="sell_profit")).state is Status.PENDING


@pytest.mark.parametrize("code", ["015760", "036460"])
def test_the_two_stocks_the_user_never_wants_are_there_from_the_start(service: OrderService, code: str) -> None:
    assert "BLACKLISTED" in codes(lambda: service.place(OrderIntent(code, Side.BUY, 1, strategy="buy_normal")))


def test_a_blacklist_entry_holds_to_the_end_of_its_last_day(
    buy: Buy, service: OrderService, simulator: Simulator, clock_at
) -> None:
    BlacklistedStock.objects.create(stock_code=SAMSUNG, reason="for a while", until="2026-11-23")
    shares(simulator, 1)
    clock_at("2026-11-23 19:59:00")
    assert codes(buy) == ["BLACKLISTED"]
    assert service.place(OrderIntent(SAMSUNG, Side.SELL, 1, strategy="sell_profit")).order_no
    clock_at("2026-11-24 09:10:00")
    assert buy().order_no


def test_the_days_buys_are_added_up_a_family_once(buy: Buy, settings, broker: Broker) -> None:
    settings.MAX_DAY_WON = 1_500_000
    order = buy()
    order = _chased(order, broker)
    assert order.retries.count() == 1
    assert codes(lambda: buy(qty=12)) == ["DAY_VALUE"]
    assert buy(qty=11).state is Status.PENDING


def test_a_refused_buy_takes_nothing_of_the_day(buy: Buy, settings, simulator: Simulator) -> None:
    settings.MAX_DAY_WON = 1_000_000
    simulator.fault("refusal", path=ORDER, count=1)
    assert buy().state is Status.REJECTED
    assert buy(qty=11).state is Status.PENDING


def test_a_position_is_weighed_with_what_open_buys_may_bring(
    buy: Buy, settings, simulator: Simulator, broker: Broker
) -> None:
    shares(simulator, 100)
    KISFetcher(broker, clock.now).sync_portfolio()
    total = AccountSnapshot.objects.latest().total_asset
    settings.MAX_POSITION_PERCENT = Decimal(15)
    room = total * 15 // 100 // 70_000 - 100
    assert buy(qty=10).state is Status.PENDING
    assert codes(lambda: buy(qty=room - 8)) == ["POSITION_WEIGHT"]
    assert buy(qty=room - 10).state is Status.PENDING


def test_an_account_never_seen_is_looked_at_before_it_is_weighed(buy: Buy, settings) -> None:
    settings.MAX_POSITION_PERCENT = Decimal(1)
    assert not AccountSnapshot.objects.exists()
    assert codes(lambda: buy(qty=100)) == ["POSITION_WEIGHT"]
    assert AccountSnapshot.objects.exists()


def test_haste_in_buying_does_not_hold_up_a_sale(
    buy: Buy, settings, simulator: Simulator, service: OrderService
) -> None:
    settings.MAX_ORDERS_PER_MINUTE = 2
    shares(simulator, 5)
    buy()
    buy(price=69_000)
    assert codes(lambda: buy(price=68_000)) == ["PACE"]
    assert service.place(OrderIntent(SAMSUNG, Side.SELL, 1, strategy="sell_profit")).state is Status.PENDING
    later(61)
    assert buy(price=68_000).state is Status.PENDING


# --- the same twice -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{}, {"price": 69_000}, {"strategy": ""}])
def test_the_same_by_another_request_id_is_refused_for_some_seconds(buy: Buy, settings, words) -> None:
    settings.DUPLICATE_SECONDS = 10
    first = buy(**words)
    reasons = denied(lambda: buy(**words)).reasons
    assert [(reason.code, reason.figures["order"]) for reason in reasons] == [("DUPLICATE", f"#{first.pk}")]
    later(10.5)
    assert buy(**words).order_no


def test_a_strategys_twin_is_known_though_its_price_has_moved(buy: Buy, settings, simulator: Simulator) -> None:
    settings.DUPLICATE_SECONDS = 10
    buy()
    simulator.set_price(SAMSUNG, 70_300, freeze=True)
    assert codes(buy) == ["DUPLICATE"]


@pytest.mark.parametrize("words", [{"qty": 11}, {"price": 69_100}, {"strategy": "buy_urgent"}])
def test_what_differs_is_no_twin(buy: Buy, settings, words) -> None:
    settings.DUPLICATE_SECONDS = 10
    buy()
    assert buy(**words).order_no


def test_a_chase_is_no_twin_of_its_own_and_makes_none(buy: Buy, settings, broker: Broker) -> None:
    settings.DUPLICATE_SECONDS = 600
    settings.MAX_ORDERS_PER_MINUTE = 1
    order = _chased(buy(plan=Plan(30, 3, 0, market_after=False)), broker)
    (again,) = order.retries.all()
    assert (again.price, again.qty, again.state) == (order.price, order.qty, Status.PENDING)


def test_a_refused_order_may_be_asked_for_again_at_once(buy: Buy, settings, simulator: Simulator) -> None:
    settings.DUPLICATE_SECONDS = 10
    simulator.fault("refusal", path=ORDER, count=1)
    assert buy().state is Status.REJECTED
    assert buy().state is Status.PENDING


def _chased(order: TradeOrder, broker: Broker) -> TradeOrder:
    for _ in range(3):
        later(31)
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
        if order.retries.exists():
            break
    order.refresh_from_db()
    return order


# --- several at once ------------------------------------------------------------------------------


@pytest.fixture
def rivals(transactional_db: None, broker: Broker, simulator: Simulator) -> Callable[..., list[object]]:
    """Place intents from threads that are all judged before any is committed: `rivals(first, second)`."""
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    OrderService(broker, clock.now).draft(OrderIntent(SAMSUNG, Side.BUY, 1, price=60_000))
    kill_switch.ensure_exists(clock.now())

    def place(*intents: OrderIntent) -> list[object]:
        gate = threading.Barrier(len(intents))
        outcomes: list[object] = [None] * len(intents)

        def judged(self: PreTrade, *words: object, **more: object) -> object:
            found = judge(self, *words, **more)  # type: ignore[arg-type]
            gate.wait(30)
            return found

        def run(which: int) -> None:
            try:
                outcomes[which] = OrderService(broker, clock.now).place(intents[which])
            except OrderDenied as error:
                outcomes[which] = error
            finally:
                connection.close()

        judge = PreTrade.run_checks
        with mock.patch.object(PreTrade, "run_checks", judged):
            threads = [threading.Thread(target=run, args=(which,)) for which in range(len(intents))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        return outcomes

    return place


def test_of_two_twins_judged_together_one_goes(rivals, settings, simulator: Simulator) -> None:
    settings.DUPLICATE_SECONDS = 10
    outcomes = rivals(*(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal") for _ in range(3)))
    refused = [each for each in outcomes if isinstance(each, OrderDenied)]
    assert [reason.code for each in refused for reason in each.reasons] == ["DUPLICATE", "DUPLICATE"]
    assert len(simulator.ledger(ACCOUNT)["orders"]) == 1


def test_two_of_one_request_are_one_order_and_no_twins(rivals, settings, simulator: Simulator) -> None:
    settings.DUPLICATE_SECONDS = 10
    settings.MAX_ORDERS_PER_MINUTE = 1
    outcomes = rivals(*(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal", request_id="one") for _ in range(3)))
    assert {each.pk for each in outcomes if isinstance(each, TradeOrder)} == {TradeOrder.objects.get().pk}
    assert len(outcomes) == 3
    assert len(simulator.ledger(ACCOUNT)["orders"]) == 1


def test_two_that_fit_the_day_alone_do_not_fit_together(rivals, settings, simulator: Simulator) -> None:
    settings.MAX_DAY_WON = 1_000_000
    outcomes = rivals(*(OrderIntent(SAMSUNG, Side.BUY, qty, strategy="buy_normal") for qty in (10, 11)))
    (refused,) = (each for each in outcomes if isinstance(each, OrderDenied))
    assert [reason.code for reason in refused.reasons] == ["DAY_VALUE"]
    assert len(simulator.ledger(ACCOUNT)["orders"]) == 1


@pytest.fixture
def meanwhile(buy: Buy) -> Callable[..., TradeOrder]:
    """Buy, with something that happens after the order is judged and before it is committed."""

    def place(happens: Callable[[], object], **words: object) -> TradeOrder:
        judge = PreTrade.run_checks

        def judged(self: PreTrade, *facts: object, **more: object) -> object:
            found = judge(self, *facts, **more)  # type: ignore[arg-type]
            happens()
            return found

        with mock.patch.object(PreTrade, "run_checks", judged):
            return buy(**words)

    return place


def test_a_halt_between_judging_and_committing_is_seen(meanwhile: Buy) -> None:
    halt = partial(TradingSwitch.objects.update, state=risk.TradingState.HALTED)
    assert codes(lambda: meanwhile(halt)) == ["HALTED"]
    assert not TradeOrder.objects.exists()


def test_an_answer_that_is_lost_between_judging_and_committing_freezes(buy: Buy, meanwhile: Buy) -> None:
    order = buy()
    lose = partial(TradeOrder.objects.update, status=Status.UNKNOWN, order_no=None)
    assert codes(lambda: meanwhile(lose, qty=1)) == ["FROZEN"]
    assert TradeOrder.objects.get() == order


def test_a_list_that_is_lost_between_judging_and_committing_holds_up(meanwhile: Buy) -> None:
    def lose() -> None:
        Reconciliation.objects.create(at=clock.now(), outcome=Reconciliation.Outcome.FAILED)

    assert codes(lambda: meanwhile(lose)) == ["NOT_RECONCILED"]
    assert not TradeOrder.objects.exists()


def test_an_order_that_is_filled_between_judging_and_committing_holds_up_nothing(buy: Buy, meanwhile: Buy) -> None:
    buy(qty=10)
    judged, asked = (
        mock.Mock(wraps=pretrade_context.load_competing_orders),
        partial(TradeOrder.objects.update, status="FILLED", filled_qty=10),
    )
    with mock.patch.object(pretrade_context, "load_competing_orders", judged):
        assert meanwhile(asked, qty=1).order_no
    assert judged.call_count == 1


def test_shares_that_are_filled_between_judging_and_committing_weigh(
    buy: Buy, meanwhile: Buy, broker: Broker, settings
) -> None:
    settings.MAX_ORDER_WON = settings.MAX_DAY_WON = 0
    settings.MAX_POSITION_PERCENT = Decimal(15)
    total = KISFetcher(broker, clock.now).sync_portfolio().total_asset
    most = total * 15 // 100 // 70_000
    first = buy(qty=100)

    def filled() -> None:
        if first.is_open:
            journal.update_fields(first, status="FILLED", filled_qty=100)
            ledger.count_fill(SAMSUNG, "", Side.BUY, 100, Decimal(69_800), executed_at=clock.now())
            buy(qty=90, price=69_000)

    assert codes(lambda: meanwhile(filled, qty=most - 105)) == ["POSITION_WEIGHT"]


def test_haste_in_selling_holds_up_no_stop(
    service: OrderService, broker: Broker, simulator: Simulator, settings
) -> None:
    settings.MAX_ORDERS_PER_MINUTE = 1
    shares(simulator, 10)
    KISFetcher(broker, clock.now).sync_portfolio()
    service.place(OrderIntent(SAMSUNG, Side.SELL, 1, price=80_000))
    assert codes(lambda: service.place(OrderIntent(SAMSUNG, Side.SELL, 2, price=80_000))) == ["PACE"]
    profit = stops.arm(SAMSUNG, StopKind.TAKE_PROFIT, StopUnit.PRICE, Decimal(75_000), by="kim", at=clock.now())
    assert stops.trigger(profit.pk, 75_000, clock.now(), seen="feed")
    stops.run_sale_step(profit.pk, broker, clock.now)
    assert profit.sales.get().order_no


def test_without_a_switch_there_is_one_from_the_first_order_on(buy: Buy) -> None:
    TradingSwitch.objects.all().delete()
    assert buy().order_no
    assert OrderSequence.objects.get().commits == 1


def test_an_order_that_others_overtake_again_and_again_is_given_up(buy: Buy, simulator: Simulator) -> None:
    with mock.patch.object(journal, "insert_if_unchanged", return_value=False):
        assert codes(buy) == ["RIVALS"]
    assert simulator.ledger(ACCOUNT)["orders"] == []


def test_a_market_order_that_goes_as_a_limit_has_twins_too(
    service: OrderService, settings, clock_at: Callable[[str], object]
) -> None:
    settings.DUPLICATE_SECONDS = 10
    clock_at("2026-11-23 08:10:00")
    first = service.place(OrderIntent(SAMSUNG, Side.BUY, 1, market=Market.NXT))
    assert (first.order_kind, first.strategy, first.price > 0) == (OrderKind.LIMIT, "", True)
    assert codes(lambda: service.place(OrderIntent(SAMSUNG, Side.BUY, 1, market=Market.NXT))) == ["DUPLICATE"]


def test_the_words_of_a_commit_are_few_enough_to_be_remembered() -> None:
    """Psycopg takes longer statements, and more figures, apart each time."""
    words = journal._commit()
    names = set(re.findall(r"%\((\w+)\)s", words))
    assert len(words) <= _queries.MAX_CACHED_STATEMENT_LENGTH
    assert len(names) <= _queries.MAX_CACHED_STATEMENT_PARAMS


def test_the_question_to_the_table_knows_every_state_that_is_not_settled() -> None:
    for status in Status:
        assert (f"'{status}'" in pretrade_context.COMPETING) is (status in UNSETTLED | {Status.REJECTED})


# --- the freeze -----------------------------------------------------------------------------------


def test_an_order_of_unknown_fate_holds_up_its_side_of_its_stock(
    service: OrderService, buy: Buy, broker: Broker, simulator: Simulator
) -> None:
    lost = losing(service, broker).place(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal"))
    assert lost.state is Status.UNKNOWN
    reasons = denied(lambda: buy(qty=1)).reasons
    assert [(reason.code, reason.figures["order"]) for reason in reasons] == [("FROZEN", f"#{lost.pk}")]
    assert buy(code="000660", qty=1).order_no
    shares(simulator, 3)
    assert service.place(OrderIntent(SAMSUNG, Side.SELL, 1, strategy="sell_profit")).order_no


def test_the_freeze_ends_when_the_fate_is_known(service: OrderService, buy: Buy, broker: Broker) -> None:
    losing(service, broker, arrives=True).place(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal"))
    assert codes(lambda: buy(qty=1)) == ["FROZEN"]
    reconcile.reconcile(broker, clock.now)
    assert buy(qty=1).order_no


def test_an_order_whose_sender_went_silent_freezes_too_but_not_one_on_its_way(buy: Buy) -> None:
    order = buy()
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.SUBMITTING, order_no=None)
    assert buy(qty=1).order_no
    later(11)
    assert codes(lambda: buy(qty=2)) == ["FROZEN"]


def test_a_chase_waits_where_it_rests_for_the_fate_of_another_order(
    service: OrderService, buy: Buy, broker: Broker
) -> None:
    order = buy()
    losing(service, broker, arrives=True).place(OrderIntent(SAMSUNG, Side.BUY, 3, price=69_000))
    with mock.patch.object(unknown, "resolve_unanswered", return_value=0):
        order = _chased(order, broker)
    assert (order.state, order.cancel_sent_at) == (Status.PENDING, None)
    assert order.chase_at is not None
    assert order.events.filter(kind="CHASE_PAUSED").count() == 1
    reconcile.reconcile(broker, clock.now)
    assert _chased(order, broker).retries.count() == 1


def test_a_chase_that_has_cancelled_waits_too_and_goes_on(service: OrderService, buy: Buy, broker: Broker) -> None:
    order = buy()
    frozen = risk.Denial(DenialCode.FROZEN, "another order")
    with mock.patch.object(Reorders, "reorder", side_effect=OrderDenied([frozen])):
        order = _chased(order, broker)
    assert order.state is Status.CANCELLED
    assert order.chase_at is not None
    assert _chased(order, broker).retries.get().state is Status.PENDING


def test_a_chase_ends_where_something_lasting_stands_beside_the_freeze(buy: Buy, broker: Broker) -> None:
    order = buy()
    reasons = [risk.Denial(DenialCode.FROZEN, "another order"), risk.Denial(DenialCode.BLACKLISTED, "not this one")]
    with mock.patch.object(Reorders, "reorder", side_effect=OrderDenied(reasons)):
        order = _chased(order, broker)
    assert (order.chase_at, "not this one" in order.chase_note) == (None, True)


def test_cash_of_unknown_fate_is_not_spent_on_another_stock(
    service: OrderService, buy: Buy, broker: Broker, settings
) -> None:
    settings.MAX_ORDER_WON = settings.MAX_DAY_WON = 0
    settings.MAX_POSITION_PERCENT = Decimal(0)
    losing(service, broker).place(OrderIntent(SAMSUNG, Side.BUY, 1_000, strategy="buy_normal"))
    (reason,) = denied(lambda: buy(code="000660", qty=300)).reasons
    assert reason.code == "CASH"
    assert reason.figures["cash"] < 100_000_000 - 69_800_000


# --- kinds ----------------------------------------------------------------------------------------


def test_a_market_order_in_krxs_evening_becomes_a_limit_and_its_history_says_so(
    service: OrderService, clock_at: Callable[[str], object]
) -> None:
    clock_at("2026-11-23 17:00:00")
    intent = OrderIntent(SAMSUNG, Side.BUY, 1, market=Market.KRX)
    draft = service.draft(intent)
    assert draft.changed is not None
    order = service.place(intent)
    assert order.order_kind == OrderKind.AFTER_LIMIT
    events = dict(order.events.values_list("kind", "detail"))
    assert f"{order.price:,}" in events["KIND_CHANGED"]
    assert order.wait_seconds, "what became a limit is chased like one"


def test_a_market_order_goes_as_it_is_where_it_may_and_is_not_chased(buy: Buy) -> None:
    order = buy(strategy="")
    assert (order.order_kind, order.plan) == (OrderKind.MARKET, NO_CHASE)
    assert not order.events.filter(kind="KIND_CHANGED").exists()


def test_a_stock_that_refuses_market_orders_gets_a_limit_in_the_same_row(
    service: OrderService, buy: Buy, broker: Broker, simulator: Simulator
) -> None:
    best = broker.book(SAMSUNG, Market.KRX).asks[0].price
    simulator.fault("refusal", path=ORDER, count=1, msg_cd="APBK1943", msg1="시장가호가불가로 주문이 불가합니다.")
    order = buy(strategy="")
    assert (order.order_kind, order.price) == (OrderKind.LIMIT, best)
    assert order.order_no
    assert order.events.filter(kind="KIND_CHANGED", detail__contains=SAMSUNG).exists()
    assert TradeOrder.objects.count() == 1
    (theirs,) = simulator.ledger(ACCOUNT)["orders"]
    assert theirs["price"] == best


def test_a_refused_market_order_stays_refused_where_no_limit_can_be_priced(
    buy: Buy, broker: Broker, simulator: Simulator
) -> None:
    buy(price=60_000)
    simulator.fault("refusal", path=ORDER, count=1, msg_cd="APBK1943", msg1="시장가호가불가로 주문이 불가합니다.")
    with mock.patch.object(type(broker), "book", side_effect=NotSent("out of reach")):
        order = buy(strategy="")
    assert order.state is Status.REJECTED
    assert "APBK1943" in order.refusal


@pytest.mark.parametrize(
    ("words", "kind", "price"),
    [
        ({"kind": OrderKind.LIMIT_IOC, "strategy": "buy_urgent"}, OrderKind.LIMIT_IOC, 70_000),
        ({"kind": OrderKind.BEST, "strategy": ""}, OrderKind.BEST, 0),
        ({"kind": OrderKind.MARKET, "strategy": ""}, OrderKind.MARKET, 0),
        ({"kind": OrderKind.LIMIT_FOK, "price": 70_100}, OrderKind.LIMIT_FOK, 70_100),
    ],
)
def test_a_kind_may_be_asked_for_by_name(buy: Buy, words, kind: OrderKind, price: int) -> None:
    order = buy(**words)
    assert order.order_no
    assert (order.order_kind, order.price, order.plan) == (kind, price, NO_CHASE)


def test_a_kind_that_makes_no_sense_is_told_before_the_broker_is_asked(buy: Buy, broker: Broker) -> None:
    with mock.patch.object(type(broker), "quote", side_effect=AssertionError("asked")):
        assert codes(lambda: buy(kind=OrderKind.LIMIT_IOC, strategy="")) == ["NEEDS_PRICE"]
        assert codes(lambda: buy(kind=OrderKind.BEST)) == ["NAMES_NO_PRICE"]
        assert codes(lambda: buy(kind=OrderKind.AFTER_BEST)) == ["NAMES_NO_PRICE", "ORDER_KIND"]


def test_a_stop_limit_waits_for_its_trigger_at_the_broker(buy: Buy, simulator: Simulator) -> None:
    order = buy(kind=OrderKind.STOP_LIMIT, price=71_500, trigger=71_000)
    assert (order.trigger_price, order.state) == (71_000, Status.PENDING)
    assert codes(lambda: buy(kind=OrderKind.STOP_LIMIT, price=71_500)) == ["TRIGGER"]
    simulator.set_price(SAMSUNG, 71_200, freeze=True)
    (theirs,) = simulator.ledger(ACCOUNT)["orders"]
    assert theirs["filled"] == 10


def test_a_crash_between_two_kinds_leaves_one_row_to_look_for(
    buy: Buy, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.fault("refusal", path=ORDER, count=1, msg_cd="APBK1943", msg1="시장가호가불가로 주문이 불가합니다.")
    write = journal.append_event

    def dying(order: TradeOrder, kind: str, *words: str, **more: object) -> None:
        write(order, kind, *words, **more)  # type: ignore[arg-type]
        if kind == "KIND_CHANGED":
            raise KeyboardInterrupt

    monkeypatch.setattr(journal, "append_event", dying)
    with pytest.raises(KeyboardInterrupt):
        buy(strategy="")
    monkeypatch.undo()
    assert simulator.ledger(ACCOUNT)["orders"] == []
    for _ in range(5):
        later(61)
        reconcile.reconcile(broker, clock.now)
    order = TradeOrder.objects.get()
    assert (order.state, order.never_arrived) == (Status.REJECTED, True)


# --- rates ----------------------------------------------------------------------------------------


def test_the_customers_rates_win_on_every_venue_and_sor_is_reckoned_as_krx(settings) -> None:
    settings.KIS_FEE_RATE, settings.KIS_TAX_TOTAL = Decimal("0.01"), Decimal("0.15")
    settings.KIS_NXT_FEE_RATE, settings.KIS_NXT_TAX_TOTAL = None, None
    on = date(2026, 11, 23)
    for venue, cost in ((Market.KRX, (100, 1_500)), (Market.SOR, (100, 1_500)), (Market.NXT, (139, 2_000))):
        found = calc_fee(1_000_000, venue, Side.SELL, on=on, rates=risk.rates())
        assert (found.fee, found.tax) == cost
