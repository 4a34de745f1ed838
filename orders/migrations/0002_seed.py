"""The switch in its first position, and the two stocks the user never wants to buy again (spec §12.1)."""

from django.db import migrations

from infra import clock

BLACKLIST = (
    ("015760", "한국전력", "공기업·유틸리티: 사지 않기로 함"),
    ("036460", "한국가스공사", "공기업·유틸리티: 사지 않기로 함"),
)


def seed(apps, schema_editor):
    apps.get_model("orders", "TradingSwitch").objects.get_or_create(pk=1, defaults={"changed_at": clock.now()})
    blacklist = apps.get_model("orders", "BlacklistedStock")
    for code, name, reason in BLACKLIST:
        blacklist.objects.get_or_create(stock_code=code, defaults={"stock_name": name, "reason": reason})


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop)]
