from django.db import migrations, models

# the count goes on in a row of its own: nobody who commits an order holds the trading state
COUNT = """
INSERT INTO order_sequence (id, commits) SELECT id, version FROM trading_switch ON CONFLICT (id) DO NOTHING
"""
COUNT_BACK = """
UPDATE trading_switch SET version = greatest(version, commits) FROM order_sequence
WHERE order_sequence.id = trading_switch.id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0013_stop_sources"),
    ]

    operations = [
        migrations.CreateModel(
            name="OrderSequence",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("commits", models.PositiveBigIntegerField(default=0, verbose_name="orders committed")),
            ],
            options={
                "verbose_name": "order sequence",
                "verbose_name_plural": "order sequence",
                "db_table": "order_sequence",
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("pk", 1)), name="one_order_sequence"),
                ],
            },
        ),
        migrations.CreateModel(
            name="BasePrice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("stock_code", models.CharField(max_length=12, verbose_name="stock code")),
                ("date", models.DateField(verbose_name="date")),
                ("price", models.PositiveBigIntegerField(verbose_name="base price")),
            ],
            options={
                "verbose_name": "base price",
                "verbose_name_plural": "base prices",
                "db_table": "base_prices",
                "ordering": ["-date", "stock_code"],
                "constraints": [
                    models.UniqueConstraint(fields=("date", "stock_code"), name="one_base_price_a_day"),
                ],
            },
        ),
        migrations.RenameField(model_name="tradingswitch", old_name="intents", new_name="version"),
        migrations.AlterField(
            model_name="tradingswitch",
            name="version",
            field=models.PositiveBigIntegerField(
                default=0, help_text="one more with each change", verbose_name="version"
            ),
        ),
        migrations.RunSQL(COUNT, COUNT_BACK),
        migrations.AddField(
            model_name="switchchange",
            name="causes",
            field=models.CharField(blank=True, max_length=100, verbose_name="causes"),
        ),
        migrations.AddField(
            model_name="switchchange",
            name="cancels_buys",
            field=models.BooleanField(default=False, verbose_name="resting buys are cancelled"),
        ),
        migrations.AddField(
            model_name="switchchange",
            name="day_loss_won",
            field=models.BigIntegerField(
                blank=True, help_text="in won, when a person resumed", null=True, verbose_name="the day's loss"
            ),
        ),
    ]
