from django.db import migrations


class Migration(migrations.Migration):
    """The mark is read by 0009, which writes its requests; a column goes in a transaction of its own."""

    dependencies = [
        ("orders", "0009_requests"),
    ]

    operations = [
        migrations.RemoveField(
            model_name="tradeorder",
            name="cancel_sent_at",
        ),
    ]
