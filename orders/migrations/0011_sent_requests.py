from django.db import migrations

# what earlier versions sent has no request's row yet. They wrote a number only once the broker had given it
NEW_ORDERS = """
INSERT INTO broker_requests (order_id, kind, state, state_at, requested_at, requested_by, qty, is_whole, price, sent_at,
                             branch, order_no, message)
SELECT id, 'NEW',
       CASE WHEN status = 'SUBMITTING' THEN CASE WHEN sent_at IS NULL THEN 'REQUESTED' ELSE 'SENT' END
            WHEN status = 'UNKNOWN' THEN 'UNKNOWN'
            WHEN never_arrived THEN 'NOT_SENT'
            WHEN order_no IS NULL THEN 'REJECTED'
            ELSE 'ACKNOWLEDGED' END,
       coalesce(accepted_at, status_at), created_at,
       CASE WHEN request_id LIKE 'chase:%' THEN 'CHASE' WHEN request_id LIKE 'stop:%' THEN 'STOP' ELSE 'CALLER' END,
       qty, true, price, sent_at, branch, coalesce(order_no, ''), refusal
FROM trade_orders
WHERE origin = 'AEGIS' AND NOT EXISTS (
    SELECT FROM broker_requests AS known
    WHERE known.order_id = trade_orders.id AND known.kind = 'NEW' OR known.makes_id = trade_orders.id
)
ORDER BY id
"""
# a line of the list with the number of such a cancel is ours, should the list still be asked for that day
CANCELS = """
INSERT INTO broker_requests (order_id, kind, state, state_at, requested_at, requested_by, qty, is_whole, price, sent_at,
                             branch, order_no)
SELECT trade_orders.id, 'CANCEL', 'LAPSED', status_at, taken.at,
       CASE WHEN EXISTS (SELECT FROM trade_orders AS next WHERE next.root_id = coalesce(trade_orders.root_id,
                         trade_orders.id) AND next.attempt > trade_orders.attempt) THEN 'CHASE' ELSE 'OPERATOR' END,
       qty - filled_qty, true, 0, taken.at, branch, left(taken.detail, 10)
FROM trade_orders JOIN order_events AS taken ON taken.order_id = trade_orders.id AND taken.kind = 'CANCEL_TAKEN'
WHERE status = 'CANCELLED' AND end_cause = '' AND NOT EXISTS (
    SELECT FROM broker_requests AS known WHERE known.order_id = trade_orders.id AND known.kind = 'CANCEL'
)
ORDER BY taken.id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0010_cancel_mark"),
    ]

    operations = [
        migrations.RunSQL(NEW_ORDERS, migrations.RunSQL.noop),
        migrations.RunSQL(CANCELS, migrations.RunSQL.noop),
    ]
