"""Reads all that a step of a stop's sale needs from our own tables, in two statements.

In a market crash many stops sell at once: Django takes longer to build a dozen queries than PostgreSQL to answer them.
`may_…` and `has_…` only say whether a detailed query is needed; most sales need none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aegis.lifecycle import OPEN, UNSETTLED
from aegis.requests import EndCause
from aegis.sessions import KST
from aegis.terms import Side
from infra import sql
from orders import pretrade_context, requests, risk
from orders.models import StopRule
from orders.pretrade_context import PreTradeContext, PreTradeQuery
from orders.stop_rows import SELLING

# own buys that a sale could trade against are cancelled first: after this the sale is sent, confirmed or not
OPPOSITE_PATIENCE = timedelta(seconds=2)

_CHANGED = f"""
    (end_cause IN ({sql.literals([EndCause.EXTERNAL_CANCEL, EndCause.EXTERNAL_AMEND, EndCause.OWN_CANCEL])})
     OR withdrawn_qty > 0 OR cancel_requested_at IS NOT NULL)
"""
_FACTS = f"""
    WITH sale AS (
        SELECT id, end_cause, withdrawn_qty, cancel_requested_at FROM trade_orders
        WHERE request_id ~>=~ %(sale_from)s AND request_id ~<~ %(sale_to)s
    )
    SELECT EXISTS (SELECT FROM sale WHERE {_CHANGED})
               OR EXISTS (SELECT FROM trade_orders WHERE root_id IN (SELECT id FROM sale) AND {_CHANGED}),
           EXISTS (SELECT FROM stop_rules
                   WHERE stock_code = %(code)s AND state IN ({sql.literals(SELLING)}) AND id <> %(stop)s),
           EXISTS (SELECT FROM trade_orders
                   WHERE stock_code = %(code)s AND order_type = 'SELL' AND origin = 'AEGIS' AND order_date = %(today)s
                     AND status IN ({sql.literals(OPEN)})),
           ARRAY(SELECT '#' || id FROM trade_orders
                 WHERE stock_code = %(code)s AND order_type = 'BUY' AND status IN ({sql.literals(UNSETTLED)})
                   AND (cancel_requested_at <= %(asked_by)s
                        OR ((order_no IS NULL OR order_date < %(today)s)
                            AND created_at <= (SELECT max(at) FROM stop_events
                                               WHERE stop_id = %(stop)s AND kind = 'OPPOSITE'
                                                 AND at BETWEEN %(triggered_at)s AND %(asked_by)s)))),
           (SELECT coalesce(max(id), 0) FROM trade_orders WHERE origin = 'AEGIS'),
           ({requests.CHANGED_BY_OTHERS})
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class SaleFacts:
    """The state of a stop's sale in our tables when its step began.

    `may_be_changed`: an order of the sale ended, or lost shares, other than by fills. `has_others`: another stop sells
    the stock. `has_own_sales`: sell orders of AEGIS for the stock are open. `may_cross`: own buys that no longer delay
    the sale, because their cancel was requested at least `OPPOSITE_PATIENCE` ago, or could not be requested then.
    `newest_order`: the id of AEGIS's newest order. `changed_by_others`: the number of orders of the sale that ended
    externally, or whose cancel neither a stop nor a chase requested.
    """

    context: PreTradeContext
    may_be_changed: bool
    has_others: bool
    has_own_sales: bool
    may_cross: Sequence[str]
    newest_order: int
    changed_by_others: int


def load_facts(row: StopRule, strategy: str, now: datetime) -> SaleFacts:
    """Return the facts as of `now`. Raises DatabaseError."""
    query = PreTradeQuery(row.stock_code, Side.SELL, 0, 0, strategy, row.request_id)
    context = pretrade_context.load_context(query, limits=risk.limits(), now=now)
    params: dict[str, Any] = {
        "code": row.stock_code,
        "stop": row.pk,
        "today": now.astimezone(KST).date(),
        "triggered_at": row.triggered_at,
        "asked_by": now - OPPOSITE_PATIENCE,
        **requests.sale_bounds(row.pk),
    }
    (facts,) = sql.query(_FACTS, params)
    return SaleFacts(context, *facts)
