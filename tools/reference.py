"""Write the reference pages from the code: `make reference`. With --check, write nothing; exit 1 if a page is stale."""

import ast
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
HEAD = "<!-- Made by `make reference` from {source}. Do not edit. -->\n\n"


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [names, tuple("---" for _ in names), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def denials() -> str:
    from aegis.denials import DenialCode

    rows = ((f"`{code.value}`", code.meaning, "yes" if code.is_transient else "no") for code in sorted(DenialCode))
    return (
        HEAD.format(source="`aegis/denials.py`")
        + "# Denial codes\n\nEach reason against an order has a stable code, and a sentence for the operator.\n"
        "A transient one ends by itself: a queued re-order waits for that, a new order is denied.\n\n"
        + _table(("Code", "Meaning", "Transient"), rows)
    )


def order_events() -> str:
    from aegis.lifecycle import MOVES, Event
    from aegis.order_events import OrderEventKind, StopEventKind

    def moves(event: Event) -> str:
        return ", ".join(f"{before.value} → {after.value}" for (before, key), after in MOVES.items() if key is event)

    return (
        HEAD.format(source="`aegis/lifecycle.py` and `aegis/order_events.py`")
        + "# Events in the history of an order and of a stop\n\n## Events that change an order's state\n\n"
        + _table(("Event", "Moves"), ((f"`{event.value}`", moves(event)) for event in Event))
        + "\n## Other events of an order\n\n"
        + _table(("Event", "Meaning"), ((f"`{kind.value}`", kind.meaning) for kind in sorted(OrderEventKind)))
        + "\n## Events of a stop\n\n"
        + _table(("Event", "Meaning"), ((f"`{kind.value}`", kind.meaning) for kind in sorted(StopEventKind)))
    )


def metrics() -> str:
    tree = ast.parse((ROOT / "monitor" / "metrics.py").read_text(encoding="utf-8"))
    rows = set()
    for node in ast.walk(tree):
        texts = (
            [argument.value for argument in getattr(node, "args", []) if isinstance(argument, ast.Constant)]
            if isinstance(node, ast.Call)
            else []
        )
        if len(texts) >= 2 and str(texts[0]).startswith("aegis_"):
            rows.add((f"`{texts[0]}`", str(texts[1])))
    return (
        HEAD.format(source="`monitor/metrics.py`")
        + "# Metrics\n\nWhat `/metrics` shows to Prometheus. Counters start again from zero each day.\n\n"
        + _table(("Metric", "Meaning"), sorted(rows))
    )


def beat_tasks() -> str:
    from config.schedule import SCHEDULE

    rows = ((f"`{entry.name}`", f"`{entry.task}`", str(entry.every), str(entry.why)) for entry in SCHEDULE)
    return (
        HEAD.format(source="`config/schedule.py`")
        + "# Periodic tasks\n\nCelery beat sends these. The admin shows them, and an operator can pause one there.\n\n"
        + _table(("Name", "Task", "Every (s)", "Why"), sorted(rows))
    )


def settings() -> str:
    """Return the page of the environment variables, from the comments in `.env.example`."""
    rows, section, comment = [], "", list[str]()
    text = (
        HEAD.format(source="`.env.example`")
        + "# Settings\n\nVariables of the environment or of `.env`; what the shell sets wins.\n"
    )
    for line in [*(ROOT / ".env.example").read_text(encoding="utf-8").splitlines(), "# --- "]:
        if line.startswith("# --- "):
            if rows:
                text += f"\n## {section}\n\n" + _table(("Variable", "Example or default", "Meaning"), rows)
            rows, section, comment = [], line.strip("# -"), []
        elif (name := line.lstrip("#").partition("=")[0]).isupper() and "=" in line and " " not in name:
            rows.append((f"`{name}`", f"`{line.partition('=')[2]}`", " ".join(comment)))
        elif line.startswith("# "):
            comment = [*comment, line[2:]] if comment and not rows_since(rows, comment) else [line[2:]]
        else:
            comment = []
    return text


def rows_since(rows: list[tuple[str, str, str]], comment: list[str]) -> bool:
    """Whether the last row has this comment already: the next line of comment starts a new one."""
    return bool(rows) and rows[-1][2] == " ".join(comment)


WRITERS: dict[str, Callable[[], str]] = {
    "denials": denials,
    "order-events": order_events,
    "metrics": metrics,
    "beat-tasks": beat_tasks,
    "settings": settings,
}


def stale() -> list[str]:
    """Return the names of the pages that differ from what the code generates."""

    def page(name: str) -> str:
        path = PAGES / f"{name}.md"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    return [name for name, write in WRITERS.items() if page(name) != write()]


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.path.insert(0, str(ROOT))
    import django
    from django.utils import translation

    django.setup()
    with translation.override("en"):
        if "--check" in sys.argv:
            names = stale()
            for name in names:
                print(f"docs/reference/{name}.md is stale: run `make reference`")
            return 1 if names else 0
        PAGES.mkdir(exist_ok=True)
        for name, write in WRITERS.items():
            (PAGES / f"{name}.md").write_text(write(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
