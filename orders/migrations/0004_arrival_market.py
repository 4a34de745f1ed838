from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0003_reconciliations")]

    operations = [
        migrations.AddField(
            model_name="tradeorder",
            name="arrival_market",
            field=models.DecimalField(
                blank=True,
                decimal_places=4,
                help_text="average of a market order by the book then; empty where the book was not asked",
                max_digits=16,
                null=True,
                verbose_name="market price at arrival",
            ),
        ),
    ]
