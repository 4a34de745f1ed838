from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0006_stops"),
    ]

    operations = [
        migrations.AlterField(
            model_name="reconciliation",
            name="outcome",
            field=models.CharField(
                choices=[
                    ("BEGUN", "workers started: not looked yet"),
                    ("WHOLE", "whole"),
                    ("PARTLY", "read but for some lines"),
                    ("FAILED", "failed"),
                ],
                max_length=6,
                verbose_name="outcome",
            ),
        ),
    ]
