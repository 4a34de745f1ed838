"""Play the scripted day and judge it by the simulator's ledger: `python manage.py demo`."""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from config.env import HOME
from kis.environment import EnvironmentName
from ops.embedded import CannotStart
from ops.runtime import Runtime
from orders import risk
from orders.service import OrderDenied
from rehearsal.scripted_day import DemoFailed, play

# the demo's chases take a tenth of the time of a real chase, so its limit of requests per minute is ten times as high
BOUND, HURRIED_BOUND = "AEGIS_MAX_AUTO_REQUESTS_PER_MINUTE", "60"


class Command(BaseCommand):
    help = _("Start all processes, play a scripted day on the simulator, report, and stop all processes.")
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.KIS_ENVIRONMENT.name is not EnvironmentName.SIM:
            raise CommandError(_("the demo moves prices, so it plays on the simulator only: leave KIS_ENV unset"))
        log = HOME / "demo.log"
        HOME.mkdir(parents=True, exist_ok=True)
        try:
            verdict = self._play(log)
        except (CannotStart, DemoFailed) as error:
            raise CommandError(f"{error} ({log})") from error
        except OrderDenied as denied:
            raise CommandError(f"{risk.denial_texts(denied.reasons)} ({log})") from denied
        except KeyboardInterrupt:
            raise CommandError(_("ended before the day was over"), returncode=130) from None
        if verdict.differences:
            raise SystemExit(1)

    def _play(self, log: Path) -> Any:
        """Play the day and return its `Verdict`. The output of the processes goes to the log file."""
        os.environ[BOUND] = HURRIED_BOUND
        with (
            log.open("w", encoding="utf-8") as output,
            Runtime(output=output, say=self._say, fresh_day=True) as runtime,
        ):
            runtime.wait_until_ready()
            return play(settings.KIS_ENVIRONMENT.rest_url, self.stdout)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
