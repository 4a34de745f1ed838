import argparse
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils.translation import gettext as _

from ops import rehearsal_start
from ops.processes import all_programs, simulator
from ops.supervisor import Program

SIMULATOR = "simulator"
# process names in the systemd units of earlier versions
RENAMED = {"teller": "notifier"}


class Command(BaseCommand):
    help = _("Run as one process of AEGIS, for systemd and containers; without a name, list the processes.")
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help=_("the process's name"))

    def handle(self, *args: Any, **options: Any) -> None:
        programs_by_name = {program.name: program for program in all_programs()}
        name = RENAMED.get(options["name"], options["name"])
        if name is None:
            self.stdout.write("\n".join([*programs_by_name, SIMULATOR]))
        elif name == SIMULATOR:
            _become(simulator(rehearsal_start.start_rehearsal(is_fresh=False)))
        elif name in programs_by_name:
            _become(programs_by_name[name])
        else:
            template = _("there is no process {name}: use one of {known}")
            raise CommandError(template.format(name=repr(name), known=", ".join([*programs_by_name, SIMULATOR])))


def _become(program: Program) -> None:
    """Replace this process by the program, under the same process id, so that our parent process sees it end."""
    connection.close()
    os.execve(program.argv[0], program.argv, os.environ | program.environment)  # noqa: S606 no shell is wanted
