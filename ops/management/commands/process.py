import argparse
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils.translation import gettext as _

from ops import rehearsal_start
from ops.processes import programs, simulator
from ops.supervisor import Program

SIMULATOR = "simulator"
# what units of an earlier version call a process
RENAMED = {"teller": "notifier"}


class Command(BaseCommand):
    help = _("Become one process of the house, for systemd and containers; without a name, list them.")
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help=_("the process's name"))

    def handle(self, *args: Any, **options: Any) -> None:
        known = {program.name: program for program in programs()}
        name = RENAMED.get(options["name"], options["name"])
        if name is None:
            self.stdout.write("\n".join([*known, SIMULATOR]))
        elif name == SIMULATOR:
            _become(simulator(rehearsal_start.begin(is_fresh=False)))
        elif name in known:
            _become(known[name])
        else:
            words = _("there is no process {name}: use one of {known}")
            raise CommandError(words.format(name=repr(name), known=", ".join([*known, SIMULATOR])))


def _become(program: Program) -> None:
    """Go on as the program, under our own process id: whoever started us sees it end."""
    connection.close()
    os.execve(program.argv[0], program.argv, os.environ | program.environment)  # noqa: S606 no shell is meant
