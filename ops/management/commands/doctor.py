import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from ops.doctor import CheckResult, Severity, examine

SIGNS = {Severity.OK: "✔", Severity.NOTE: "·", Severity.WARN: "!", Severity.ERROR: "✘"}


def _json_object(finding: CheckResult) -> dict[str, str]:
    return {"topic": finding.topic, "grade": finding.severity, "text": finding.text, "mend": finding.fix}


class Command(BaseCommand):
    help = _("Check everything that can be configured wrongly and say how to fix it. Exit code 1 if there is an error.")
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--offline", action="store_true", help=_("ask neither the broker nor Telegram"))
        parser.add_argument("--json", action="store_true", help=_("print one JSON object, errors too"))

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in examine(offline=options["offline"]):
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(f"{SIGNS[finding.severity]} {finding.topic:<12} {finding.text}")
                if finding.fix:
                    self.stdout.write(f"{'':<15}→ {finding.fix}")
        error_count = sum(finding.severity is Severity.ERROR for finding in findings)
        if options["json"]:
            self.stdout.write(
                json.dumps(
                    {"ok": not error_count, "findings": [_json_object(finding) for finding in findings]},
                    ensure_ascii=False,
                )
            )
        elif error_count:
            self.stdout.write(_("{count} errors must be fixed").format(count=error_count))
        else:
            self.stdout.write(_("no errors found"))
        if error_count:
            raise SystemExit(1)
