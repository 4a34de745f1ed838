from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from aegis.broker import Broker, NotSent, OrderRequest
from aegis.chase import Plan
from aegis.lifecycle import Status
from aegis.requests import RequestedBy
from aegis.terms import Market, OrderKind, Side
from infra import clock
from kis import catalogue, factory
from kis.client import BrokerReply, Client
from orders import chase, journal, risk
from orders.cancel import Canceller
from orders.models import BlacklistedStock, TradeOrder, TradingSwitch
from orders.requests import MAX_QUOTE_AGE, Grounds
from orders.service import OrderDenied, OrderIntent, OrderService
from orders.submit import Submitter
from simulator.api.server import Simulator

SAMSUNG = "005930"
ACCOUNT = "50000000-01"
TRADING = "/uapi/domestic-stock/v1/trading/"
ORDER, CANCEL, LIST, OPEN = (
    TRADING + path for path in ("order-cash", "order-rvsecncl", "inquire-daily-ccld", "inquire-psbl-rvsecncl")
)
Buy = Callable[..., TradeOrder]


def reasons_against(place: Callable[[], object]) -> list[str]:
    with pytest.raises(OrderDenied) as caught:
        place()
    assert not TradeOrder.objects.exists(), "a denied order leaves no row"
    return [reason.code for reason in caught.value.reasons]


def test_an_order_rests_two_ticks_under_the_price_with_the_brokers_number(buy: Buy, simulator: Simulator) -> None:
    order = buy()
    assert (order.state, order.price, order.order_kind) == (Status.PENDING, 69_800, OrderKind.LIMIT)
    assert (order.order_date, order.order_no) == (clock.now().date(), "0000000001")
    assert order.arrival_price == 70_000
    (theirs,) = simulator.ledger("50000000-01")["orders"]
    assert (theirs["quantity"], theirs["price"], theirs["status"]) == (10, 69_800, "open")


def test_an_order_is_due_for_the_chase_after_the_wait(buy: Buy) -> None:
    order = buy()
    assert order.chase_at is not None
    assert order.accepted_at is not None
    assert (order.chase_at - order.accepted_at).total_seconds() == 30


def test_an_order_with_a_price_of_its_own_is_not_chased_unless_asked(buy: Buy) -> None:
    assert buy(price=69_000).chase_at is None
    assert buy(price=69_000, plan=Plan(5, 1, 1, market_after=False)).chase_at is not None


def test_the_row_and_its_history_tell_how_it_came_about(buy: Buy) -> None:
    order = buy()
    assert [event.kind for event in order.events.all()] == ["CREATED", "ACCEPTED"]


def test_the_same_request_again_is_the_same_order(buy: Buy, simulator: Simulator) -> None:
    first, second = buy(request_id="once"), buy(request_id="once", qty=99)
    assert first.pk == second.pk
    assert len(simulator.ledger("50000000-01")["orders"]) == 1


def test_a_market_order_goes_at_market_on_krx(buy: Buy) -> None:
    order = buy(strategy="")
    assert (order.order_kind, order.price) == (OrderKind.MARKET, 0)


def test_a_market_order_on_nxt_becomes_a_limit_at_the_best_opposite_quote(
    service: OrderService, broker: Broker
) -> None:
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 1, market=Market.NXT))
    best = broker.book(SAMSUNG, Market.NXT).asks[0].price
    assert order.order_kind == OrderKind.LIMIT
    assert order.price <= best


def test_an_unknown_stock_is_named(service: OrderService) -> None:
    assert reasons_against(lambda: service.place(OrderIntent("999999", Side.BUY, 1))) == ["UNKNOWN_STOCK"]


@pytest.mark.parametrize("qty", [0, -3])
def test_a_quantity_must_be_positive(buy: Buy, qty: int) -> None:
    assert reasons_against(lambda: buy(qty=qty)) == ["QUANTITY"]


def test_a_price_off_the_grid_is_refused_before_anything_is_asked(buy: Buy) -> None:
    assert reasons_against(lambda: buy(price=69_950)) == ["TICK"]


@pytest.mark.parametrize("price", [200_000, 10_000])
def test_a_price_beyond_thirty_percent_is_refused(buy: Buy, price: int) -> None:
    assert "DAILY_LIMIT" in reasons_against(lambda: buy(price=price))


def test_nothing_is_ordered_while_the_market_is_closed(buy: Buy, clock_at: Callable[[str], object]) -> None:
    clock_at("2026-11-23 21:00:00")
    assert reasons_against(buy) == ["MARKET_CLOSED"]
    clock_at("2026-11-28 10:00:00")
    assert reasons_against(buy) == ["MARKET_CLOSED"]


def test_more_than_the_cash_buys_is_refused_with_both_figures(buy: Buy) -> None:
    with pytest.raises(OrderDenied) as caught:
        buy(qty=2_000)
    (reason,) = (each for each in caught.value.reasons if each.code == "CASH")
    assert (reason.figures["needed"], reason.figures["cash"] < 100_000_000) == (139_600_000, True)


def test_no_more_is_sold_than_is_held(service: OrderService) -> None:
    selling = OrderIntent(SAMSUNG, Side.SELL, 1, strategy="sell_profit")
    assert reasons_against(lambda: service.place(selling)) == ["SHARES"]


def test_a_blacklisted_stock_is_not_bought_and_the_reason_is_told(service: OrderService) -> None:
    with pytest.raises(OrderDenied) as caught:
        service.place(OrderIntent("015760", Side.BUY, 1, strategy="buy_normal"))
    assert "공기업" in risk.denial_texts(caught.value.reasons)


def test_a_blacklist_entry_ends_with_its_date(buy: Buy) -> None:
    BlacklistedStock.objects.create(stock_code=SAMSUNG, reason="for a while", until="2026-11-22")
    assert buy().state is Status.PENDING


def test_a_halt_stops_orders(buy: Buy) -> None:
    TradingSwitch.objects.update(state=risk.TradingState.HALTED)
    assert reasons_against(buy) == ["HALTED"]


def test_a_strategy_of_the_other_side_is_refused(buy: Buy) -> None:
    assert reasons_against(lambda: buy(strategy="sell_stop")) == ["STRATEGY"]


def test_what_the_broker_refuses_stays_as_a_rejected_row_with_its_words(
    service: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # our own guard looks away, the broker does not
    monkeypatch.setattr("orders.pretrade.denials", lambda *_: [])
    order = service.place(OrderIntent(SAMSUNG, Side.SELL, 1, strategy="sell_profit"))
    assert order.state is Status.REJECTED
    assert order.refusal


def test_live_trading_needs_a_second_word(service: OrderService, settings, simulator: Simulator) -> None:
    settings.KIS_ARMED = False
    factory.reset()
    unarmed = OrderService(factory.broker(), clock.now)
    order = unarmed.place(OrderIntent(SAMSUNG, Side.BUY, 1, strategy="buy_normal"))
    assert order.state is Status.REJECTED
    assert "AEGIS_LIVE_ORDERS" in order.refusal
    assert simulator.ledger("50000000-01")["orders"] == []


def test_without_redis_no_order_leaves(service: OrderService, settings, simulator: Simulator) -> None:
    settings.REDIS_CLIENT = lambda: __import__("redis").Redis(unix_socket_path="/nowhere.sock")
    factory.reset()
    cut_off = OrderService(factory.broker(), clock.now)
    with pytest.raises(NotSent, match="Redis"):
        cut_off.place(OrderIntent(SAMSUNG, Side.BUY, 1, strategy="buy_normal"))
    assert simulator.ledger("50000000-01")["orders"] == []


def test_a_dry_run_judges_and_prices_but_leaves_nothing(service: OrderService, simulator: Simulator) -> None:
    draft = service.draft(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_urgent"))
    assert draft.request.price >= 70_000
    assert draft.cost_won == draft.request.price * 10
    assert not TradeOrder.objects.exists()
    assert simulator.ledger("50000000-01")["orders"] == []


def test_a_cancel_is_written_down_before_it_is_sent(buy: Buy, service: OrderService, simulator: Simulator) -> None:
    order = service.cancel(buy())
    assert order.cancel_sent_at is not None
    assert [event.kind for event in order.events.all()][-2:] == ["CANCEL_SENT", "CANCEL_TAKEN"]
    (theirs, _cancel) = simulator.ledger("50000000-01")["orders"]
    assert theirs["cancelled"] == 10


def test_an_order_names_the_venue_it_went_to_when_it_is_cancelled(service: OrderService, simulator: Simulator) -> None:
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 1, price=60_000, market=Market.NXT))
    service.cancel(order)
    assert simulator.ledger("50000000-01")["orders"][0]["cancelled"] == 1


def test_plans_may_be_set_order_by_order(buy: Buy) -> None:
    plan = Plan(wait_seconds=7, max_retries=1, step_ticks=2, market_after=False)
    assert buy(plan=plan).plan == plan
    assert buy(plan=replace(plan, wait_seconds=0)).chase_at is None


def test_nothing_is_sent_before_the_brokers_list_was_read(
    service: OrderService, buy: Buy, simulator: Simulator
) -> None:
    simulator.fault("error_500", path=LIST)
    assert reasons_against(buy) == ["NOT_RECONCILED"]
    simulator.clear_faults()
    assert buy().order_no
    asked = [each["path"] for each in simulator.events() if each["event"] == "request"]
    assert asked.index(LIST) < asked.index(ORDER)


def test_cancel_all_leaves_nothing_of_ours_open(service: OrderService, buy: Buy, broker: Broker) -> None:
    ours = [buy(), buy(price=69_000), buy(price=68_000)]
    by_hand = broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 7, 69_100))
    swept = service.cancel_all()
    assert swept.cancelled == [order.order_no for order in reversed(ours)]
    assert (swept.left, swept.failed) == ([by_hand.order_no], {})
    assert [each.placed.order_no for each in broker.open_orders()] == [by_hand.order_no]
    assert TradeOrder.objects.exclude(chase_at=None).count() == 0, "nothing is ordered anew"
    assert service.cancel_all(external=True).cancelled == [by_hand.order_no]


def test_cancel_all_ends_a_chase_between_its_cancel_and_its_reorder(
    service: OrderService, buy: Buy, broker: Broker, clock_at: Callable[[str], object]
) -> None:
    order = buy()
    Canceller(broker, clock.now).cancel(order, by=RequestedBy.CHASE)
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.CANCELLED, confirmed_at=clock.now())
    assert chase.due_orders(clock.now() + timedelta(minutes=1)) == [order.pk]
    service.cancel_all()
    assert chase.due_orders(clock.now() + timedelta(minutes=1)) == []
    assert order.events.filter(kind="CHASE_ENDED").count() == 1


def test_cancel_all_waits_for_the_answer_of_an_order_on_its_way(
    service: OrderService, buy: Buy, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy()
    journal.update_fields(order, status=Status.SUBMITTING, order_no=None)
    number = "0000000001"

    def answered(seconds: float) -> None:
        journal.update_fields(order, status=Status.PENDING, order_no=number)

    monkeypatch.setattr("orders.cancel_all.sleep", answered)
    swept = service.cancel_all()
    assert (swept.cancelled, swept.failed) == ([number], {})
    journal.update_fields(order, status=Status.SUBMITTING, order_no=None)
    monkeypatch.setattr("orders.cancel_all.ANSWER_PATIENCE_SECONDS", 0)
    swept = service.cancel_all()
    assert list(swept.failed) == [str(order)]


def test_no_order_is_placed_inside_a_transaction(
    transactional_db: None, service: OrderService, simulator: Simulator
) -> None:
    intent = OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal", request_id="one")
    with transaction.atomic(), pytest.raises(RuntimeError, match="place it after the commit"):
        service.place(intent)
    assert (TradeOrder.objects.count(), simulator.ledger("50000000-01")["orders"]) == (0, [])
    assert service.place(intent).order_no


def test_cancel_all_goes_on_where_one_fails(service: OrderService, buy: Buy, simulator: Simulator) -> None:
    first, second = buy(), buy(price=69_000)
    simulator.fault("refusal", path=CANCEL, count=1)
    swept = service.cancel_all()
    assert list(swept.failed) == [second.order_no]
    assert swept.cancelled == [first.order_no]


def test_cancel_all_cancels_what_our_rows_know_where_the_broker_does_not_tell_the_rest(
    service: OrderService, buy: Buy, simulator: Simulator
) -> None:
    order = buy()
    simulator.fault("error_500", path=OPEN)
    swept = service.cancel_all()
    assert swept.cancelled == [order.order_no]
    assert "500" in swept.unseen
    assert {each["status"] for each in simulator.ledger(ACCOUNT)["orders"]} == {"cancelled", "done"}


def test_cancel_all_goes_past_a_line_that_nobody_can_read(
    service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = [
        broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, qty, 69_100)).order_no
        for qty in (7, 8)
    ]
    pages = Client.pages

    def misprinted(self: Client, tr: catalogue.TR, parameters: Mapping[str, str], **more: Any) -> list[BrokerReply]:
        replies = pages(self, tr, parameters, **more)
        lines = [line for reply in replies for name in ("output", "output1") for line in reply.body.get(name, [])]
        for line in (line for line in lines if line["odno"] == by_hand[0]):
            line["ord_dvsn_cd"] = "51"
        return replies

    monkeypatch.setattr(Client, "pages", misprinted)
    swept = service.cancel_all(external=True)
    assert swept.cancelled == [by_hand[1]]
    assert by_hand[0] in swept.unseen
    assert "51" in swept.unseen


def test_cancel_all_tells_two_orders_of_one_number_apart(
    service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 7, 69_100))
    (one,) = broker.open_orders()
    other = replace(one, placed=replace(one.placed, branch="91252"))
    monkeypatch.setattr(broker, "open_orders", lambda: [one, other])
    assert service.cancel_all().left == [one.placed.order_no, f"91252-{one.placed.order_no}"]


@pytest.mark.parametrize("meanwhile", ["it slept", "it was given up"])
def test_a_sender_that_comes_too_late_does_not_send(
    service: OrderService, buy: Buy, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    send = Submitter.send

    def late(self: Submitter, order: TradeOrder, grounds: Grounds | None = None) -> TradeOrder:
        if meanwhile == "it slept":
            clock.set_now(clock.now() + 2 * MAX_QUOTE_AGE)
        else:
            TradeOrder.objects.filter(pk=order.pk).update(status=Status.UNKNOWN)
        return send(self, order, grounds)

    monkeypatch.setattr(Submitter, "send", late)
    order = buy()
    assert order.state is (Status.REJECTED if meanwhile == "it slept" else Status.UNKNOWN)
    assert simulator.ledger(ACCOUNT)["orders"] == []
