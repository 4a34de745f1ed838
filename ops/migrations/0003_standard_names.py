"""The model's name and the fields of the simulator's ledger follow the field's terms. No stored value changes."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("config", "0002_world")]

    operations = [
        migrations.RenameModel("Belonging", "Installation"),
        migrations.RenameField("Installation", "world", "ledger_id"),
        migrations.RenameField("Installation", "world_since", "ledger_since"),
    ]
