"""Run the KIS simulator: `python manage.py kis_simulator`."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from simulator.api.list_printing import CHOICES, Printing
from simulator.api.server import PortTaken, run
from simulator.broker import LIVE_RATE, PAPER_RATE, WIRES, Settings
from simulator.exchange.event_log import LedgerDamaged, LedgerInUse


class Command(BaseCommand):
    help = "Serve a simulated KIS: REST and realtime socket on one port, a small exchange behind them."
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
        parser.add_argument("--port", type=int, default=9443, help="the port (9443)")
        parser.add_argument("--seed", type=int, default=1, help="seeds the crowd: the same seed gives the same day (1)")
        parser.add_argument("--wire", choices=WIRES, default="2026-09", help="the layout of replies and frames")
        parser.add_argument("--paper", action="store_true", help="answer as paper trading (모의투자) does")
        parser.add_argument(
            "--specification", action="store_true", help="accept the TR ids of the AEGIS specification too"
        )
        parser.add_argument(
            "--rate",
            type=int,
            default=None,
            help=f"calls per second and app key ({LIVE_RATE}, with --paper {PAPER_RATE}); 0 disables the limit",
        )
        parser.add_argument("--ledger", type=Path, default=None, help="file of all events; a later start continues it")
        parser.add_argument("--notice-columns", type=int, choices=(23, 26), default=None, help="width of fill notices")

        for mode, values in CHOICES.items():
            help_text = f"how the order lists print {mode} orders ({values[0]})"
            parser.add_argument(f"--print-{mode}", choices=values, default=values[0], help=help_text)

    def handle(self, *args: Any, **options: Any) -> None:
        settings = Settings(
            seed=options["seed"],
            wire=options["wire"],
            is_paper=options["paper"],
            specification=options["specification"],
            rate=options["rate"],
            notice_columns=options["notice_columns"],
            ledger_path=options["ledger"],
            printing=Printing(**{mode: options[f"print_{mode}"] for mode in CHOICES}),
        )
        host = options["host"]
        try:
            run(settings, host=host, port=options["port"], ready=lambda port: self._announce(host, port, settings))
        except (PortTaken, LedgerDamaged, LedgerInUse) as error:
            raise CommandError(str(error)) from error

    def _announce(self, host: str, port: int, settings: Settings) -> None:
        world = "paper" if settings.is_paper else "live"
        self.stdout.write(f"KIS simulator ({world}, wire {settings.wire}) on http://{host}:{port}; help at /simulator/")
        self.stdout.flush()
