"""What the database records about its installation."""

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class Installation(models.Model):
    """The broker environment and the account that this database belongs to since its first start. One row.

    A rehearsal's database also has a `ledger_id`: the id of the simulator's ledger that contains its orders.
    """

    only = models.BooleanField(primary_key=True, default=True, editable=False)
    environment = models.CharField(_("broker environment"), max_length=8)
    account = models.CharField(_("account"), max_length=11)
    ledger_id = models.UUIDField(_("simulated world"), null=True)
    ledger_since = models.DateField(_("simulated world since"), null=True)
    since_at = models.DateTimeField(_("since"), db_default=Now())

    class Meta:
        db_table = "aegis_belonging"
        verbose_name = _("belonging")
        constraints = [models.CheckConstraint(condition=models.Q(only=True), name="belonging_has_one_row")]

    def __str__(self) -> str:
        return f"{self.environment} {self.account}"
