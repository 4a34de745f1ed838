import argparse
import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from ops.doctor import Severity, examine

SIGNS = {Severity.OK: "✔", Severity.NOTE: "·", Severity.WARN: "!", Severity.ERROR: "✘"}


class Command(BaseCommand):
    help = _("Look at everything that can be set wrongly and say how to mend it. Exit code 1 where something must be.")
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--offline", action="store_true", help=_("ask neither the broker nor Telegram"))
        parser.add_argument("--json", action="store_true", help=_("print one JSON object, errors too"))

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in examine(offline=options["offline"]):
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(f"{SIGNS[finding.grade]} {finding.topic:<12} {finding.text}")
                if finding.mend:
                    self.stdout.write(f"{'':<15}→ {finding.mend}")
        wrong = sum(finding.grade is Severity.ERROR for finding in findings)
        if options["json"]:
            self.stdout.write(
                json.dumps({"ok": not wrong, "findings": [asdict(each) for each in findings]}, ensure_ascii=False)
            )
        elif wrong:
            self.stdout.write(_("{count} things must be mended").format(count=wrong))
        else:
            self.stdout.write(_("nothing must be mended"))
        if wrong:
            raise SystemExit(1)
