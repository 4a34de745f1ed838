from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('market', '0004_session_order'),
    ]

    operations = [
        # the few bars that wait for the broker's chart are found among millions, every few seconds
        migrations.RunSQL(
            "CREATE INDEX market_candles_with_holes ON market_candles (time) WHERE source = 'PARTIAL'",
            'DROP INDEX market_candles_with_holes',
        ),
    ]
