from dataclasses import asdict
from typing import Any

from django.utils.translation import gettext as _

from infra import clock
from kis.factory import broker
from orders import reconcile
from orders.management.console import CommandOutput, DeskCommand


class Command(DeskCommand):
    help = _("Reconcile our orders with the broker's list now.")

    def tell(self, **options: Any) -> CommandOutput:
        report = reconcile.reconcile(broker(), clock.now)
        template = _("{seen} orders; {corrected} corrected, {adopted} external recorded, {resolved} outcomes resolved")
        lines = [template.format(**asdict(report))]
        if report.error:
            lines.append(_("lines that cannot be read: {why}").format(why=report.error))
        return CommandOutput(asdict(report), lines)
