"""The rules whose removal a test must detect: where each rule is, what replaces it, and which tests must then fail."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """Replaces `old`, which occurs once inside the definition `node` of the module at `path`, with `new`."""

    name: str
    path: str
    node: str
    old: str
    new: str
    tests: tuple[str, ...]


_LAST_CHECK = "tests/orders/test_last_check.py::"
_LOST = "tests/orders/test_lost_orders.py::"
_AT_ONCE = "tests/orders/test_two_at_once.py::"

MUTATIONS = (
    # --- an order is sent at most once, and only while the facts of its risk checks hold
    Mutation(
        "an order may leave twice",
        "orders/requests.py",
        "_CLAIM_NEW",
        " AND sent_at IS NOT DISTINCT FROM %(seen)s",
        "",
        (_LAST_CHECK + "test_an_order_leaves_once_whoever_else_has_its_row",),
    ),
    Mutation(
        "an order leaves while trading is halted",
        "orders/requests.py",
        "_CONDITIONS",
        "\"coalesce((SELECT state FROM trading_switch WHERE id = %(switch)s), 'ACTIVE') = ANY(%(passing)s)\"",
        '"true"',
        (_LAST_CHECK + "test_an_order_does_not_leave_once_trading_is_halted",),
    ),
    Mutation(
        "the quote's age is not checked",
        "orders/requests.py",
        "_CONDITIONS",
        '"%(quoted_at)s >= %(oldest_quote)s"',
        '"true"',
        (_LAST_CHECK + "test_an_order_does_not_leave_by_a_quote_that_is_too_old",),
    ),
    Mutation(
        "a re-order is committed after its chase was ended",
        "orders/pretrade_context.py",
        "COMPARE_AND_COUNT",
        "AND (%(follows)s::bigint IS NULL OR (SELECT chase_at FROM trade_orders WHERE id = %(follows)s) IS NOT NULL)",
        "",
        (_LAST_CHECK + "test_a_reorder_is_not_committed_once_its_chase_was_ended",),
    ),
    Mutation(
        "a state changes without compare-and-set",
        "orders/journal.py",
        "apply_event",
        'expected={"status": order.status}',
        "expected={}",
        (_AT_ONCE + "test_a_reply_that_comes_after_the_list_found_the_order_changes_nothing",),
    ),
    Mutation(
        "a notice that was applied may be applied again",
        "orders/fills.py",
        "apply_notice",
        "if not _waits(raw):",
        "if False:",
        (_AT_ONCE + "test_a_refused_cancel_that_two_workers_have_read_is_written_once",),
    ),
    # --- orders whose answer was lost
    Mutation(
        "a lost order is given up after three order lists in quick succession",
        "orders/unknown.py",
        "_count_absence",
        " and now - (order.sent_at or order.created_at) >= ABSENT_AFTER",
        "",
        (_LOST + "test_looks_in_a_row_do_not_give_up_an_order_that_may_be_on_its_way",),
    ),
    Mutation(
        "a line of another price is claimed for a lost order",
        "orders/unknown.py",
        "could_be",
        "and (record.price == order.price or not OrderKind(order.order_kind).is_priced)",
        "",
        (_LOST + "test_a_line_of_another_price_is_not_the_lost_order",),
    ),
    Mutation(
        "price is compared for unpriced kinds",
        "orders/unknown.py",
        "could_be",
        " or not OrderKind(order.order_kind).is_priced)",
        ")",
        (_LOST + "test_a_lost_order_without_a_price_is_found_at_whatever_price_the_list_prints",),
    ),
    Mutation(
        "an order that was never sent is matched with the line of an external order",
        "orders/unknown.py",
        "find_given_up",
        ".filter(was_given_up, ",
        ".filter(",
        (_LOST + "test_an_order_that_surely_never_left_is_no_line_of_the_list",),
    ),
    # --- cancels, chases, stops
    Mutation(
        "cancel all does not cancel our orders again after it has read the order list",
        "orders/cancel_all.py",
        "CancelAll.run",
        "answers()\n        self._cancel_ours()\n        self._read_orders()\n        self._cancel_ours()\n",
        "answers()\n        self._read_orders()\n",
        (_AT_ONCE + "test_an_order_that_is_accepted_while_the_brake_is_on_its_way_is_cancelled_too",),
    ),
    Mutation(
        "a line of an external amend counts as our cancel",
        "aegis/requests.py",
        "attribute",
        "[line for line in lines if line.is_cancel is (request.kind is RequestKind.CANCEL)]",
        "list(lines)",
        ("tests/aegis/test_requests.py::test_an_amend_of_somebody_else_is_no_cancel_of_ours",),
    ),
    Mutation(
        "a pause revives a chase that was ended",
        "orders/chase.py",
        "_Step._put_off",
        ", chase_at__isnull=False",
        "",
        (_AT_ONCE + "test_a_pause_leaves_a_chase_ended_that_was_ended_meanwhile",),
    ),
    Mutation(
        "a re-order is not bounded by the confirmed cancel",
        "orders/chase.py",
        "_Step._reorder",
        "min(released, remaining_qty(order, _family(order)))",
        "remaining_qty(order, _family(order))",
        (_AT_ONCE + "test_no_more_is_ordered_again_than_our_own_cancel_released",),
    ),
    Mutation(
        "a family does not end with its trade date",
        "aegis/chase.py",
        "next_step",
        "if order.trade_date < now.astimezone(KST).date():",
        "if False:",
        ("tests/aegis/test_chase.py::test_a_family_ends_with_its_trade_date",),
    ),
    Mutation(
        "a stop continues after an external cancel of its order",
        "orders/stop_sale.py",
        "was_changed_by_others",
        "if order.end_cause in _EXTERNAL:",
        "if False:",
        ("tests/orders/test_stop_sale.py::test_an_external_cancel_holds_the_stop_until_a_person_arms_it_again",),
    ),
    # --- the protections that stops depend on
    Mutation(
        "one trade on NXT triggers a stop",
        "aegis/stops.py",
        "TriggerRule._proven",
        "if trade.counts_alone or quoted or",
        "if True or quoted or",
        ("tests/aegis/test_trigger_rule.py::test_one_share_far_below_the_line_triggers_nothing",),
    ),
    Mutation(
        "a stop's calls wait like a chase's",
        "kis/throttle.py",
        "HANDICAP_MS",
        "CallPriority.STOP: -3 * STRICT_MS",
        "CallPriority.STOP: 0",
        ("tests/kis/test_throttle.py::test_stops_pass_cancels_pass_orders_pass_chases_pass_the_rest",),
    ),
    Mutation(
        "stops take turns from call to call",
        "kis/throttle.py",
        "_TAKE",
        "(began > 0 and began or now) + handicap",
        "now + handicap",
        ("tests/kis/test_throttle.py::test_the_step_of_a_stop_that_began_first_makes_all_its_calls_first",),
    ),
    Mutation(
        "an idle transaction is not ended",
        "config/settings.py",
        "DATABASE_LIMITS",
        '"idle_in_transaction_session_timeout": f"{DATABASE_LOCK_SECONDS - 1}s"',
        '"idle_in_transaction_session_timeout": "0"',
        ("tests/orders/test_limits.py::test_every_process_has_them_on_every_connection",),
    ),
    Mutation(
        "an automatic trip halts stops too",
        "orders/kill_switch.py",
        "trip",
        "TradingState.REDUCING,",
        "TradingState.HALTED,",
        ("tests/orders/test_switch.py::test_refusals_of_several_stocks_in_a_row_reduce_at_once",),
    ),
    Mutation(
        "a stop triggers before the base price of the morning is counted in",
        "orders/stops.py",
        "awaits_base_price",
        "row.based_on < day",
        "False",
        (
            "tests/orders/test_base_prices.py::test_while_the_base_price_cannot_be_asked_for_it_holds_fire_and_says_so_once",
        ),
    ),
    Mutation(
        "one trade on NXT sets the price of a sale",
        "aegis/stop_sale.py",
        "current_price",
        "if is_main_session or not believed:",
        "if True:",
        ("tests/orders/test_stop_sale.py::test_one_trade_on_nxt_sets_no_price",),
    ),
    Mutation(
        "a sale leaves its place in an auction",
        "orders/stop_sale.py",
        "StopSale._follow_open",
        "if is_auction and (",
        "if False and (",
        ("tests/orders/test_stop_sale.py::test_in_a_volatility_interruption_it_orders_once_at_market",),
    ),
    Mutation(
        "a fixed quantity is offered again before the list says what a cancel took",
        "orders/stop_sale.py",
        "_maybe_sold",
        "order.filled_qty + order.open_qty",
        "order.filled_qty",
        (
            "tests/orders/test_stop_sale.py::"
            "test_a_fixed_quantity_is_not_offered_again_before_the_list_says_what_a_cancel_took",
        ),
    ),
    Mutation(
        "an external partial cancel before our own cancel does not hold the stop",
        "orders/stop_sale.py",
        "was_changed_by_others",
        "return order.open_qty > requests.confirmed_qty(changes)",
        "return False",
        (
            "tests/orders/test_stop_sale.py::"
            "test_a_part_that_is_cancelled_externally_before_our_own_cancel_holds_the_stop",
        ),
    ),
    Mutation(
        "a stop's limit is rounded the other way",
        "aegis/stops.py",
        "trigger_limit",
        "ROUND_FLOOR if rule.kind.falls else ROUND_CEILING",
        "ROUND_CEILING if rule.kind.falls else ROUND_FLOOR",
        ("tests/aegis/test_stop_limits.py",),
    ),
    # --- the broker's gateway, the lease, the messages
    Mutation(
        "orders are spaced out in the throttle like other calls",
        "kis/throttle.py",
        "_TAKE",
        "ARGV[5] == '1' and 0 or math.max(0, pace - now)",
        "math.max(0, pace - now)",
        ("tests/kis/test_throttle_spacing.py::test_orders_take_every_free_slot_at_once",),
    ),
    Mutation(
        "EGW00301 and EGW00302 lose their own meaning",
        "kis/errors.py",
        "CODES",
        " EGW00301 EGW00302",
        "",
        ("tests/kis/test_gateway_failures.py",),
    ),
    Mutation(
        "the lease of another process is renewed",
        "infra/lease.py",
        "_RENEW",
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return",
        "if true then return",
        ("tests/kis/test_lease.py::test_nobody_renews_a_lease_that_another_holds",),
    ),
    Mutation(
        "a frame is handled after the lease is lost",
        "stream/worker.py",
        "Dispatch.handle",
        "if not self._may_write():",
        "if False:",
        ("tests/desk/test_plugs.py::test_who_lost_the_lease_hands_nothing_on",),
    ),
    Mutation(
        "a message's claim that lapsed is marked by its old holder",
        "notify/delivery.py",
        "_mark",
        ", claimed_at=each.claimed_at",
        "",
        ("tests/desk/test_lapsed.py::test_a_message_is_marked_by_who_holds_its_claim",),
    ),
)
