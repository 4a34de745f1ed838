#!/usr/bin/env python
"""Django's command line; `python manage.py help` lists what AEGIS adds."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        execute_from_command_line(sys.argv)
        sys.stdout.flush()
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except BrokenPipeError:
        # the reader has closed the pipe (`| head`); Python flushes once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OperationalError as error:
        # a server that refuses a statement sends a code; without a code, no server answered
        if getattr(error.__cause__, "sqlstate", None):
            raise
        from ops.preflight import database_error_text

        sys.exit(database_error_text(error))


if __name__ == "__main__":
    main()
