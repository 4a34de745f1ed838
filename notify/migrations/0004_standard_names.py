"""The names of fields and one table follow the field's terms. No stored value changes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("desk", "0003_given_up")]

    operations = [
        migrations.RenameModel("NewsMark", "OutboxCursor"),
        migrations.RenameField("Message", "told_at", "sent_at"),
        migrations.RenameField("Message", "perhaps_told", "maybe_sent"),
        migrations.RenameField("Alarm", "is_told", "is_reported"),
        migrations.RenameField("Confirmation", "act", "action"),
        migrations.RenameField("Confirmation", "words", "params"),
    ]
