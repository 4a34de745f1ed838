from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import OrderRequest, Quote
from aegis.risk import (
    COMMIT_CHECKS,
    RISK_CHECKS,
    ExposureFromOtherOrders,
    Limits,
    RiskInputs,
    check_order_kind_fields,
    denials,
)
from aegis.sessions import KST, phases_at, standard_phases
from aegis.terms import PRICED, Instrument, Market, OrderKind, Side
from aegis.trading_state import TradingState, TripInputs, TripLimits, may_clear, trip_for

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=KST)
BUY = OrderRequest("005930", Side.BUY, Market.KRX, OrderKind.LIMIT, 10, 70_000)
SELL = replace(BUY, side=Side.SELL)
QUOTE = Quote("005930", Market.KRX, 70_000, 70_000, 91_000, 49_000, is_halted=False)
GOOD = RiskInputs(
    request=BUY,
    now=NOW,
    state=TradingState.ACTIVE,
    open_phases=phases_at(standard_phases(NOW.date()), Market.KRX, NOW),
    instrument=Instrument.STOCK,
    trades_on_nxt=True,
    quote=QUOTE,
    orderable_cash=10_000_000,
    orderable_qty=140,
    sellable_qty=10,
    cost_won=700_000,
)


def inputs(**changes: object) -> RiskInputs:
    """The inputs of a good order with these changes, and the phases of its venue at its time."""
    facts = replace(GOOD, **changes)  # type: ignore[arg-type]
    phases = phases_at(standard_phases(facts.now.date()), facts.request.market, facts.now)
    return facts if "open_phases" in changes else replace(facts, open_phases=phases)


def codes(facts: RiskInputs) -> list[str]:
    return [reason.code for reason in denials(facts)]


def test_nothing_speaks_against_a_good_order() -> None:
    assert codes(GOOD) == []
    assert codes(inputs(request=SELL)) == []


def test_all_reasons_come_at_once() -> None:
    bad = replace(BUY, qty=0, price=70_050)
    facts = inputs(request=bad, state=TradingState.HALTED, blacklisted="a utility")
    assert codes(facts) == ["QUANTITY", "HALTED", "BLACKLISTED", "TICK"]


@pytest.mark.parametrize("qty", [0, -1])
def test_a_quantity_must_be_positive(qty: int) -> None:
    assert codes(inputs(request=replace(BUY, qty=qty))) == ["QUANTITY"]


def test_a_halt_stops_everything_and_reducing_lets_sales_pass() -> None:
    assert codes(inputs(state=TradingState.HALTED, request=SELL)) == ["HALTED"]
    assert codes(inputs(state=TradingState.REDUCING)) == ["REDUCING"]
    assert codes(inputs(state=TradingState.REDUCING, request=SELL)) == []


def test_a_blacklisted_stock_may_be_sold_but_not_bought() -> None:
    assert codes(inputs(blacklisted="a utility")) == ["BLACKLISTED"]
    assert codes(inputs(blacklisted="a utility", request=SELL)) == []


def test_a_closed_market_takes_nothing() -> None:
    assert codes(inputs(open_phases=())) == ["MARKET_CLOSED"]


def test_a_kind_that_the_phase_does_not_take_is_named() -> None:
    evening = NOW.replace(hour=17)
    assert codes(inputs(now=evening)) == ["ORDER_KIND"]
    assert codes(inputs(now=evening, request=replace(BUY, kind=OrderKind.AFTER_LIMIT))) == []
    market_order = replace(BUY, kind=OrderKind.MARKET, price=0)
    assert codes(inputs(request=market_order)) == []
    assert codes(inputs(request=replace(market_order, market=Market.NXT))) == ["ORDER_KIND"]


def test_a_stock_that_is_not_on_nxt_cannot_be_sent_there() -> None:
    on_nxt = replace(BUY, market=Market.NXT)
    assert codes(inputs(request=on_nxt, trades_on_nxt=False)) == ["NOT_ON_NXT"]


def test_a_price_off_the_grid_is_told_its_tick() -> None:
    (reason,) = denials(inputs(request=replace(BUY, price=70_050)))
    assert str(reason) == "price 70,050 is not on the grid: the tick there is 100 won"


def test_the_tick_that_the_quote_tells_wins_over_the_ladder() -> None:
    told = replace(QUOTE, tick=5)
    assert codes(inputs(request=replace(BUY, price=70_005), quote=told)) == []
    (reason,) = denials(inputs(request=replace(BUY, price=70_003), quote=told))
    assert str(reason) == "price 70,003 is not on the grid: the tick there is 5 won"


def test_a_funds_grid_is_its_own() -> None:
    fund = replace(BUY, price=70_005)
    assert codes(inputs(request=fund, instrument=Instrument.ETF)) == []


@pytest.mark.parametrize(("price", "against"), [(91_000, []), (91_100, ["DAILY_LIMIT"]), (48_950, ["DAILY_LIMIT"])])
def test_a_price_must_lie_within_the_days_limits(price: int, against: list[str]) -> None:
    assert codes(inputs(request=replace(BUY, price=price))) == against


def test_a_halted_stock_is_not_ordered() -> None:
    assert codes(inputs(quote=replace(QUOTE, is_halted=True))) == ["STOCK_HALTED"]


@pytest.mark.parametrize(
    ("cash", "qty", "against"),
    [(700_000, 10, []), (699_999, 10, ["CASH"]), (700_000, 9, ["CASH"]), (0, 0, ["CASH"])],
)
def test_cash_must_cover_the_order(cash: int, qty: int, against: list[str]) -> None:
    assert codes(inputs(orderable_cash=cash, orderable_qty=qty)) == against


@pytest.mark.parametrize(("sellable", "against"), [(10, []), (9, ["SHARES"]), (0, ["SHARES"])])
def test_no_more_is_sold_than_is_free(sellable: int, against: list[str]) -> None:
    assert codes(inputs(request=SELL, sellable_qty=sellable)) == against


def test_a_price_not_known_yet_is_not_judged() -> None:
    unpriced = inputs(request=replace(BUY, price=0), is_priced=False, limits=Limits(order_won=1, day_won=1))
    assert codes(unpriced) == []


def test_nothing_goes_before_the_list_was_read() -> None:
    assert codes(inputs(reconciled=False)) == ["NOT_RECONCILED"]
    assert codes(inputs(reconciled=False, request=SELL)) == ["NOT_RECONCILED"]


# --- bounds ---------------------------------------------------------------------------------------

TEN_AT_70 = 700_000


@pytest.mark.parametrize(("most", "against"), [(TEN_AT_70, []), (TEN_AT_70 - 1, ["ORDER_VALUE"]), (0, [])])
def test_a_buy_is_worth_no_more_than_the_bound(most: int, against: list[str]) -> None:
    assert codes(inputs(limits=Limits(order_won=most))) == against


def test_a_market_buy_is_worth_what_the_last_trade_says_not_the_upper_limit() -> None:
    at_market = inputs(request=replace(BUY, kind=OrderKind.MARKET, price=0), cost_won=910_000)
    assert codes(replace(at_market, limits=Limits(order_won=TEN_AT_70))) == []
    assert codes(replace(at_market, limits=Limits(order_won=TEN_AT_70 - 1))) == ["ORDER_VALUE"]


@pytest.mark.parametrize(("before", "against"), [(300_000, []), (300_001, ["DAY_VALUE"])])
def test_the_days_buys_stay_under_their_bound(before: int, against: list[str]) -> None:
    facts = inputs(limits=Limits(day_won=1_000_000), others=ExposureFromOtherOrders(bought_today_won=before))
    assert codes(facts) == against


@pytest.mark.parametrize(
    ("held", "coming", "total", "against"),
    [
        (20, 0, 7_000_000, []),
        (20, 0, 6_999_999, ["POSITION_WEIGHT"]),
        (10, 10, 7_000_000, []),
        (10, 11, 7_000_000, ["POSITION_WEIGHT"]),
        (20, 0, None, []),
    ],
)
def test_a_position_stays_within_its_part_of_the_account(
    held: int, coming: int, total: int | None, against: list[str]
) -> None:
    limits = Limits(position_percent=Decimal(30))
    facts = replace(
        GOOD, limits=limits, held_qty=held, total_asset=total, others=ExposureFromOtherOrders(open_buy_qty=coming)
    )
    assert codes(facts) == against


@pytest.mark.parametrize(
    ("side", "price", "against"),
    [
        (Side.BUY, 73_500, []),
        (Side.BUY, 73_600, ["COLLAR"]),
        (Side.BUY, 50_000, []),
        (Side.SELL, 66_500, []),
        (Side.SELL, 66_400, ["COLLAR"]),
        (Side.SELL, 90_000, []),
    ],
)
def test_a_price_may_rest_far_away_but_not_reach_far_over_the_last_trade(
    side: Side, price: int, against: list[str]
) -> None:
    request = replace(BUY, side=side, price=price)
    assert codes(inputs(request=request, limits=Limits(collar_percent=Decimal(5)))) == against


@pytest.mark.parametrize("sector", ["전기·가스", "전기,가스업", "전기가스업", " 전기 가스 "])
def test_an_excluded_sector_is_known_by_any_of_its_spellings(sector: str) -> None:
    limits = Limits(excluded_sectors=("유틸리티", "전기가스"))
    assert codes(inputs(sector=sector, limits=limits)) == ["SECTOR"]
    assert codes(inputs(sector=sector, limits=limits, request=SELL)) == []


@pytest.mark.parametrize("sector", ["전기,전자", "", "화학"])
def test_another_sector_is_not_excluded(sector: str) -> None:
    assert codes(inputs(sector=sector, limits=Limits(excluded_sectors=("전기가스", "", " ")))) == []


# --- other orders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "against"), [(59, []), (60, ["PACE"]), (61, ["PACE"])])
def test_so_many_orders_fit_in_a_minute(count: int, against: list[str]) -> None:
    facts = inputs(limits=Limits(orders_per_minute=60), others=ExposureFromOtherOrders(last_minute=count))
    assert codes(facts) == against
    assert codes(replace(facts, is_child_order=True)) == []


def test_the_same_again_within_seconds_is_refused_by_the_name_of_the_first() -> None:
    (reason,) = denials(inputs(others=ExposureFromOtherOrders(duplicate_of="#12")))
    assert reason.code == "DUPLICATE"
    assert "#12" in str(reason)
    assert codes(inputs(others=ExposureFromOtherOrders(duplicate_of="#12"), is_child_order=True)) == []


@pytest.mark.parametrize("request_", [BUY, SELL])
def test_an_order_of_unknown_fate_freezes_its_side_chases_too(request_: OrderRequest) -> None:
    frozen = replace(
        GOOD, request=request_, others=ExposureFromOtherOrders(blocked_by_unknown="#7"), is_child_order=True
    )
    (reason,) = denials(frozen)
    assert (reason.code, reason.is_transient) == ("FROZEN", True)
    assert "#7" in str(reason)


@pytest.mark.parametrize(("unknown", "against"), [(9_300_000, []), (9_300_001, ["CASH"]), (99_000_000, ["CASH"])])
def test_cash_that_an_order_of_unknown_fate_may_have_taken_is_spent(unknown: int, against: list[str]) -> None:
    assert codes(inputs(others=ExposureFromOtherOrders(unknown_cash_won=unknown))) == against


@pytest.mark.parametrize(("unknown", "against"), [(5, []), (6, ["SHARES"])])
def test_shares_that_an_order_of_unknown_fate_may_have_taken_are_sold(unknown: int, against: list[str]) -> None:
    assert codes(inputs(request=SELL, sellable_qty=15, others=ExposureFromOtherOrders(unknown_qty=unknown))) == against


@given(
    price=st.integers(min_value=1, max_value=2_000_000),
    qty=st.integers(min_value=1, max_value=1_000_000),
    held=st.integers(min_value=0, max_value=10_000_000),
    bought=st.integers(min_value=0, max_value=10**12),
    most=st.integers(min_value=1, max_value=10**9),
)
def test_what_is_held_is_always_sellable(price: int, qty: int, held: int, bought: int, most: int) -> None:
    limits = Limits(order_won=most, day_won=most, position_percent=Decimal(1), excluded_sectors=("화학",))
    facts = replace(
        GOOD,
        request=replace(SELL, qty=qty, price=price),
        limits=limits,
        sector="화학",
        blacklisted="never",
        held_qty=held,
        total_asset=most,
        sellable_qty=qty,
        others=ExposureFromOtherOrders(bought_today_won=bought, open_buy_qty=held),
    )
    assert not {"ORDER_VALUE", "DAY_VALUE", "POSITION_WEIGHT", "SECTOR", "BLACKLISTED", "CASH"} & set(codes(facts))


@given(
    qty=st.integers(min_value=1, max_value=100_000),
    price=st.integers(min_value=1, max_value=1_000_000),
    before=st.integers(min_value=0, max_value=10**11),
    held=st.integers(min_value=0, max_value=100_000),
    total=st.integers(min_value=0, max_value=10**11),
    limits=st.builds(
        Limits,
        order_won=st.integers(0, 10**9),
        day_won=st.integers(0, 10**10),
        position_percent=st.integers(0, 99).map(Decimal),
    ),
)
def test_a_buy_that_passes_keeps_every_bound(
    qty: int, price: int, before: int, held: int, total: int, limits: Limits
) -> None:
    facts = replace(
        GOOD,
        request=replace(BUY, qty=qty, price=price),
        limits=limits,
        held_qty=held,
        total_asset=total,
        others=ExposureFromOtherOrders(bought_today_won=before),
    )
    against = set(codes(facts))
    value = qty * price
    assert ("ORDER_VALUE" in against) is (0 < limits.order_won < value)
    assert ("DAY_VALUE" in against) is (0 < limits.day_won < before + value)
    weight = (held * QUOTE.price + value) * 100
    assert ("POSITION_WEIGHT" in against) is (limits.position_percent > 0 and weight > total * limits.position_percent)


# --- order kinds ----------------------------------------------------------------------------------

HOURS = {
    "08:25": "00 01",
    "08:35": "00 01 05",
    "10:00": "00 01 02 03 04 11 12 13 14 15 16 21 22 23 24",
    "15:25": "00 01",
    "15:45": "06",
    "17:00": "41 42 43 44 45 46 47",
    "20:00": "",
}


@pytest.mark.parametrize("kind", OrderKind)
@pytest.mark.parametrize(("hour", "legal"), HOURS.items())
def test_krx_takes_each_kind_where_its_phase_does(hour: str, legal: str, kind: OrderKind) -> None:
    at = NOW.replace(hour=int(hour[:2]), minute=int(hour[3:]))
    trigger = 70_000 if kind is OrderKind.STOP_LIMIT else 0
    request = replace(BUY, kind=kind, price=70_000 if kind in PRICED else 0, trigger=trigger)
    passes = denials(inputs(now=at, request=request)) == []
    assert passes is (kind.value in legal.split())


def test_the_evening_of_krx_changed_on_a_monday() -> None:
    for day, kind in ((date(2026, 9, 11), "07"), (date(2026, 9, 14), "41")):
        at = datetime(day.year, day.month, day.day, 17, 0, tzinfo=KST)
        facts = inputs(now=at)
        for each in ("07", "41"):
            request = replace(BUY, kind=OrderKind(each))
            assert (codes(replace(facts, request=request)) == []) is (each == kind)


@pytest.mark.parametrize("kind", ["27", "28", "29"])
def test_gtp_is_for_nxts_pre_market_alone(kind: str) -> None:
    request = replace(BUY, market=Market.NXT, kind=OrderKind(kind), price=70_000 if kind == "27" else 0)
    early = NOW.replace(hour=8, minute=10)
    assert codes(inputs(request=request, now=early)) == []
    assert codes(inputs(request=request)) == ["ORDER_KIND"]
    before = datetime(2026, 9, 11, 8, 10, tzinfo=KST)
    facts = inputs(request=request, now=before)
    assert codes(facts) == ["ORDER_KIND"]


def test_krxs_after_market_trades_no_fund() -> None:
    evening = inputs(now=NOW.replace(hour=17), request=replace(BUY, kind=OrderKind.AFTER_LIMIT))
    for each in (Instrument.ETF, Instrument.ETN):
        assert codes(replace(evening, instrument=each)) == ["FUND_AFTER_HOURS"]
    assert codes(inputs(instrument=Instrument.ETF)) == []


@pytest.mark.parametrize(
    ("kind", "trigger", "against"),
    [
        (OrderKind.STOP_LIMIT, 71_000, []),
        (OrderKind.STOP_LIMIT, 0, ["TRIGGER"]),
        (OrderKind.STOP_LIMIT, 71_050, ["TRIGGER"]),
        (OrderKind.STOP_LIMIT, 91_100, ["TRIGGER"]),
        (OrderKind.LIMIT, 71_000, ["TRIGGER"]),
        (OrderKind.LIMIT, 0, []),
    ],
)
def test_a_stop_limit_names_its_trigger_and_nothing_else_does(
    kind: OrderKind, trigger: int, against: list[str]
) -> None:
    assert codes(inputs(request=replace(BUY, kind=kind, trigger=trigger))) == against


@pytest.mark.parametrize("kind", OrderKind)
def test_a_kind_asked_for_by_name_has_a_price_where_it_names_one(kind: OrderKind) -> None:
    assert check_order_kind_fields(kind, names_price=kind in PRICED) is None
    wrong = check_order_kind_fields(kind, names_price=kind not in PRICED)
    assert wrong is not None
    assert wrong.code == ("NEEDS_PRICE" if kind in PRICED else "NAMES_NO_PRICE")


def test_what_others_may_change_is_asked_again_and_is_among_the_guards() -> None:
    assert set(COMMIT_CHECKS) < set(RISK_CHECKS)


# --- the switch that trips itself -----------------------------------------------------------------

BOUNDS = TripLimits(loss_won=0, loss_percent=Decimal(5), refusals=5, list_missing_minutes=5)
CALM = TripInputs(TradingState.ACTIVE, total_yesterday=10_000_000)


def test_without_evidence_the_switch_stays() -> None:
    assert trip_for(CALM, BOUNDS) is None


@pytest.mark.parametrize(("loss", "trips"), [(499_999, False), (500_000, True)])
def test_a_days_loss_trips(loss: int, trips: bool) -> None:
    assert (trip_for(replace(CALM, loss_won=loss), BOUNDS) is not None) is trips


@pytest.mark.parametrize(("won", "loss", "trips"), [(300_000, 300_000, True), (300_000, 299_999, False)])
def test_the_narrower_of_won_and_percent_counts(won: int, loss: int, trips: bool) -> None:
    assert (trip_for(replace(CALM, loss_won=loss), replace(BOUNDS, loss_won=won)) is not None) is trips


@pytest.mark.parametrize(
    ("seen", "loss", "trips"),
    [(500_000, 500_000, False), (500_000, 999_999, False), (500_000, 1_000_000, True), (400_000, 500_000, True)],
)
def test_a_loss_that_was_seen_when_resuming_does_not_trip_again(seen: int, loss: int, trips: bool) -> None:
    evidence = replace(CALM, loss_won=loss, loss_at_resume=seen)
    assert (trip_for(evidence, BOUNDS) is not None) is trips


@pytest.mark.parametrize(
    ("refused", "minutes", "code"),
    [
        ("AAABB", 0, "REFUSALS"),
        ("", 5, "LIST_MISSING"),
        ("AABB", 4.9, None),
        ("AAAAAAAAAA", 0, None),  # one stock only
        ("AAAAAAAAAB", 0, None),  # one stock's do not count for the others
        ("AAAAAAABC", 0, "REFUSALS"),
        ("ABCDE", 0, "REFUSALS"),
    ],
)
def test_refusals_of_several_stocks_and_minutes_without_a_list_trip(
    refused: str, minutes: float, code: str | None
) -> None:
    tripped = trip_for(replace(CALM, refused=tuple(refused), list_missing_for=timedelta(minutes=minutes)), BOUNDS)
    assert (tripped.why[0].code if tripped else None) == code


EVIDENCE = st.builds(
    TripInputs,
    state=st.sampled_from(TradingState),
    is_by_person=st.booleans(),
    causes=st.frozensets(st.sampled_from(["DAILY_LOSS", "REFUSALS", "LIST_MISSING", "INDEX_FALL"])),
    loss_won=st.integers(0, 10_000_000),
    total_yesterday=st.just(10_000_000),
    refused=st.lists(st.sampled_from("ABC"), max_size=12).map(tuple),
    list_missing_for=st.integers(0, 9).map(lambda minutes: timedelta(minutes=minutes)),
    complete_for=st.integers(0, 4).map(lambda minutes: timedelta(minutes=minutes)),
    cleared_today=st.integers(0, 4),
)


@given(evidence=EVIDENCE)
def test_no_choice_of_a_person_is_touched_and_no_cause_trips_twice(evidence: TripInputs) -> None:
    tripped = trip_for(evidence, BOUNDS)
    if tripped is not None:
        assert evidence.state is not TradingState.HALTED
        assert evidence.state is TradingState.ACTIVE or not evidence.is_by_person
        assert not tripped.causes & evidence.causes
    elif evidence.state is TradingState.ACTIVE and not evidence.causes:
        assert evidence.loss_won < 500_000
        assert evidence.list_missing_for < timedelta(minutes=5)
        assert sum(min(3, evidence.refused.count(code)) for code in "ABC") < 5 or len(set(evidence.refused)) < 2


@given(evidence=EVIDENCE)
def test_a_trip_ends_by_itself_only_if_missing_lists_were_all_of_it(evidence: TripInputs) -> None:
    if may_clear(evidence, BOUNDS):
        assert (evidence.state, evidence.is_by_person) == (TradingState.REDUCING, False)
        assert evidence.causes == {"LIST_MISSING"}
        assert (evidence.cleared_today < 3, evidence.complete_for >= timedelta(minutes=2)) == (True, True)
        assert evidence.loss_won < 500_000


def test_what_ends_by_itself_is_no_dead_letter() -> None:
    tripped = TripInputs(TradingState.REDUCING, causes=frozenset({"LIST_MISSING"}), complete_for=timedelta(minutes=2))
    assert may_clear(tripped, BOUNDS)


def test_a_bound_of_zero_trips_nothing() -> None:
    worst = TripInputs(
        TradingState.ACTIVE,
        loss_won=9_000_000,
        total_yesterday=10_000_000,
        refused=tuple("ABC" * 33),
        list_missing_for=timedelta(hours=9),
    )
    assert trip_for(worst, TripLimits()) is None


# --- a circuit breaker ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("is_child_order", [True, False])
@pytest.mark.parametrize("minutes", [0, 19, 20, 29])
def test_a_circuit_breaker_holds_every_order_that_it_is_asked_about(
    side: Side, is_child_order: bool, minutes: int
) -> None:
    since = NOW - timedelta(minutes=minutes)
    facts = inputs(request=replace(BUY, side=side), is_child_order=is_child_order, breaker_since=since)
    found = {reason.code: reason for reason in denials(facts)}
    assert found["CIRCUIT_BREAKER"].is_transient
    assert "CIRCUIT_BREAKER" not in {reason.code for reason in denials(replace(facts, breaker_since=None))}
