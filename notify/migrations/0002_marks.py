"""What happened before messages were kept is no news: reading begins behind it."""

from django.db import migrations, models
from django.utils import timezone

SOURCES = {
    "fill": ("orders", "TradeExecution"),
    "event": ("orders", "OrderEvent"),
    "switch": ("orders", "SwitchChange"),
    "holding": ("portfolio", "PortfolioEvent"),
    "look": ("orders", "Reconciliation"),
}


def begin_now(apps, schema_editor):
    mark = apps.get_model("desk", "NewsMark")
    for source, names in SOURCES.items():
        newest = apps.get_model(*names).objects.aggregate(newest=models.Max("pk"))["newest"] or 0
        mark.objects.get_or_create(
            source=source, defaults={"done_id": newest, "seen_id": newest, "seen_at": timezone.now()}
        )


class Migration(migrations.Migration):
    dependencies = [
        ("desk", "0001_messages"),
        ("orders", "0005_switch_changes"),
        ("portfolio", "0002_changes"),
    ]

    operations = [migrations.RunPython(begin_now, migrations.RunPython.noop)]
