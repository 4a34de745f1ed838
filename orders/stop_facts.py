"""What a step of a stop's sale must know of our own tables, in two statements.

In a crash many stops sell at once: Django takes longer to put a dozen questions together than PostgreSQL to answer
them. `may_…` and `has_…` only say whether a closer look is due; most sales need none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from aegis.lifecycle import OPEN
from aegis.requests import EndCause
from aegis.sessions import KST
from aegis.terms import Side
from orders import pretrade_context, requests
from orders.models import StopRule
from orders.pretrade_context import PreTradeContext, PreTradeQuery
from orders.stop_rows import SELLING

# own buys that a sale could trade against are cancelled first: it sells after this, whether that is confirmed or not
OPPOSITE_PATIENCE = timedelta(seconds=2)

_FACTS = f"""
    SELECT EXISTS (SELECT FROM trade_orders AS sale
                   WHERE (request_id LIKE %(prefix)s OR root_id IN
                          (SELECT id FROM trade_orders WHERE request_id LIKE %(prefix)s))
                     AND (end_cause = ANY(%(changed)s) OR withdrawn_qty > 0 OR cancel_wanted_at IS NOT NULL)),
           EXISTS (SELECT FROM stop_rules
                   WHERE stock_code = %(code)s AND state = ANY(%(selling)s) AND id <> %(stop)s),
           EXISTS (SELECT FROM trade_orders
                   WHERE stock_code = %(code)s AND order_type = 'SELL' AND origin = 'AEGIS' AND order_date = %(today)s
                     AND status = ANY(%(open)s)),
           ARRAY(SELECT '#' || id FROM trade_orders
                 WHERE stock_code = %(code)s AND order_type = 'BUY'
                   AND status IN ('PARTIAL', 'PENDING', 'SUBMITTING', 'UNKNOWN')
                   AND (cancel_wanted_at <= %(asked_by)s
                        OR ((order_no IS NULL OR order_date < %(today)s)
                            AND created_at <= (SELECT max(at) FROM stop_events
                                               WHERE stop_id = %(stop)s AND kind = 'OPPOSITE'
                                                 AND at BETWEEN %(triggered_at)s AND %(asked_by)s)))),
           (SELECT coalesce(max(id), 0) FROM trade_orders WHERE origin = 'AEGIS'),
           ({requests.CHANGED_BY_OTHERS})
"""  # noqa: S608
_CHANGED = [EndCause.EXTERNAL_CANCEL.value, EndCause.EXTERNAL_AMEND.value, EndCause.OWN_CANCEL.value]


@dataclass(frozen=True, slots=True)
class SaleFacts:
    """What our tables said of a stop's sale when its step began.

    `may_be_changed`: an order of it ended, or lost shares, other than by fills; `has_others`: another stop sells the
    stock; `has_own_sales`: orders of ours to sell it are open; `may_cross`: own buys that hold the sale up no longer,
    because their cancel was requested `OPPOSITE_PATIENCE` ago, or could not be then; `newest_order`: the newest of our
    orders; `changed_by_others`: how many orders of it somebody else changed.
    """

    ground: PreTradeContext
    may_be_changed: bool
    has_others: bool
    has_own_sales: bool
    may_cross: Sequence[str]
    newest_order: int
    changed_by_others: int


def read(row: StopRule, strategy: str, now: datetime) -> SaleFacts:
    """Return what is known now. Raises DatabaseError."""
    question = PreTradeQuery(row.stock_code, Side.SELL, 0, 0, strategy, row.request_id)
    known = pretrade_context.load_context(question, now=now)
    figures: dict[str, Any] = {
        "prefix": f"{row.request_prefix}%",
        "changed": _CHANGED,
        "code": row.stock_code,
        "selling": [state.value for state in SELLING],
        "stop": row.pk,
        "today": now.astimezone(KST).date(),
        "open": [status.value for status in OPEN],
        "triggered_at": row.triggered_at,
        "asked_by": now - OPPOSITE_PATIENCE,
        **requests.sale_bounds(row.pk),
    }
    with connection.cursor() as cursor:
        cursor.execute(_FACTS, figures)
        return SaleFacts(known, *cursor.fetchone())
