"""Standard names of columns; data and indexes stay."""

from django.db import migrations

ORDER = {
    "looked_at": "confirmed_at",
    "look_wanted": "needs_reconciliation",
    "absent_looks": "not_found_count",
    "cancel_wanted_at": "cancel_requested_at",
    "cancel_wanted_by": "cancel_requested_by",
    "arrival_market": "arrival_sweep_price",
}
STOP = {"heard_at": "feed_at", "heard_price": "feed_price", "heard_totals": "feed_totals", "looks": "poll_state"}


class Migration(migrations.Migration):
    dependencies = [("orders", "0015_origin_label")]

    operations = [
        *[migrations.RenameField("tradeorder", old, new) for old, new in ORDER.items()],
        *[migrations.RenameField("stoprule", old, new) for old, new in STOP.items()],
    ]
