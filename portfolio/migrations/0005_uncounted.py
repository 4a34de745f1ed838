from django.db import migrations, models
from django.db.models import F


def count_what_is_held(apps, schema_editor):
    """Take what is held for counted in the newest snapshot: the next balance sets it."""
    apps.get_model("portfolio", "Portfolio").objects.update(balance_won=F("quantity") * F("current_price"))


class Migration(migrations.Migration):

    dependencies = [
        ('portfolio', '0004_asked_at'),
    ]

    operations = [
        migrations.AddField(
            model_name='portfolio',
            name='balance_won',
            field=models.BigIntegerField(default=0, help_text='won of it that the newest account snapshot counts', verbose_name="in the account's total"),
        ),
        migrations.AddField(
            model_name='portfolio',
            name='uncounted',
            field=models.JSONField(blank=True, default=list, help_text='side, shares and won that the snapshot does not count', verbose_name='fills since'),
        ),
        migrations.RunPython(count_what_is_held, migrations.RunPython.noop),
    ]
