"""Start everything and stay: `python manage.py run`."""

import contextlib
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from infra import clock
from kis.environment import EnvironmentName
from ops.embedded import CannotStart
from ops.processes import ADMIN, flower_password_file
from ops.runtime import Runtime


class Command(BaseCommand):
    help = _("Start the servers and every process, stay until Ctrl-C, then end them all.")
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with Runtime(output=sys.stdout, say=self._say) as runtime:
                runtime.wait_until_ready()
                self._greet()
                runtime.stay()
                self._say(_("Ending; a second Ctrl-C does not wait ..."))
        except CannotStart as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError(_("ended while it was starting"), returncode=130) from None
        self._say(_("Everything has ended."))

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the terminal may be closed; AEGIS still stops in order
            self.stdout.write(line)
            self.stdout.flush()

    def _greet(self) -> None:
        environment = settings.KIS_ENVIRONMENT.name
        lines = [
            _("AEGIS runs ({environment}, account {account}). Ctrl-C ends it.").format(
                environment=environment, account=settings.KIS_CREDENTIALS.account
            ),
            _("  Desk    http://127.0.0.1:{port}/  (user {user}; administration under /admin/)").format(
                port=settings.WEB_PORT, user=ADMIN
            ),
            _("  Flower  http://127.0.0.1:{port}/  (user {user}, password in {path})").format(
                port=settings.FLOWER_PORT, user=ADMIN, path=flower_password_file()
            ),
        ]
        if environment is EnvironmentName.SIM:
            lines.append(_("  A rehearsal: the market's time is {now:%Y-%m-%d %H:%M:%S}.").format(now=clock.now()))
        self._say("\n".join(lines))
