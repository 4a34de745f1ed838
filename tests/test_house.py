"""What holds for the whole house: its walls, its migrations, its schedule, its words."""

import re
import subprocess
import sys
from collections.abc import Iterator
from string import Formatter

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from django.core.management import call_command, get_commands, load_command_class
from django.utils import translation

from config import schedule
from config.celery import app
from config.env import BASE_DIR
from tools import reference
from tools.mutants.__main__ import mutated
from tools.mutants.table import MUTATIONS, Mutation

TEXTS_IN = [("**.py", "python"), ("**/templates/**.html", "tools.extract_messages:from_template")]
FLOORS = (
    "aegis", "infra", "kis", "simulator", "market", "portfolio", "orders", "stream", "notify", "monitor", "desk", "ops",
    "rehearsal", "config",
)  # fmt: skip
# tasks that beat does not send, and who does
SENT_BY_OTHERS = {
    "orders.tasks.submit": "a strategy, for each order it wants",
    "orders.tasks.begin": "a worker of the orders queue, when it is ready",
    "orders.tasks.chase_check": "the task that placed the order, when its wait is over; and the sweep",
    "orders.tasks.chase_cancel": "the check before it",
    "orders.tasks.chase_amend": "the check before it",
    "orders.tasks.chase_confirm": "the cancel or the amend before it",
    "orders.tasks.chase_reorder": "the confirmation before it",
    "orders.tasks.drive_cancel": "sweep_cancels, for each cancel that the list has not confirmed",
    "orders.tasks.ask_for_stop": "the stream worker, for a price that the day cannot have",
    "orders.tasks.stop": "whoever triggers a stop, and the sweep",
}


def test_the_walls_between_the_floors_hold() -> None:
    words = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(words, cwd=BASE_DIR, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name, app in get_commands().items() if not app.startswith("django")])
def test_every_command_explains_itself(name: str) -> None:
    command = load_command_class(get_commands()[name], name)
    assert len(command.create_parser("manage.py", name).format_help().splitlines()) > 3


@pytest.mark.django_db
def test_migrations_are_in_step_with_the_models() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=1)


def test_every_task_is_scheduled_or_says_who_sends_it() -> None:
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    scheduled = {entry.task for entry in schedule.SCHEDULE}
    assert ours == scheduled | SENT_BY_OTHERS.keys()


def test_no_turn_of_the_schedule_outlives_the_next() -> None:
    names = [entry.name for entry in schedule.SCHEDULE]
    assert len(set(names)) == len(names)
    assert all(entry.every > 1 for entry in schedule.SCHEDULE)


@pytest.mark.django_db
def test_the_schedule_is_written_once_and_an_operators_edit_stays() -> None:
    from django_celery_beat.models import PeriodicTask

    assert schedule.write_schedule() == len(schedule.SCHEDULE)
    PeriodicTask.objects.filter(name="look").update(enabled=False)
    assert schedule.write_schedule() == 0
    assert not PeriodicTask.objects.get(name="look").enabled
    PeriodicTask.objects.filter(name="tidy").update(task="desk.tasks.tidy")
    PeriodicTask.objects.filter(name="look").update(description="an earlier version's text")
    PeriodicTask.objects.create(
        name="own", task="x", interval=PeriodicTask.objects.first().interval, description="mine"
    )
    schedule.write_schedule()
    assert PeriodicTask.objects.get(name="tidy").task == "monitor.tasks.tidy", "a task that was renamed goes on"
    row = PeriodicTask.objects.get(name="look")
    why = next(entry.why for entry in schedule.SCHEDULE if entry.name == "look")
    assert (row.description, row.enabled) == (why, False), "a description follows the code, an operator's pause stays"
    assert PeriodicTask.objects.get(name="own").description == "mine"
    PeriodicTask.objects.filter(name="own").delete()
    assert all(task.expire_seconds < task.interval.every for task in PeriodicTask.objects.all())


def test_every_text_an_operator_reads_has_its_korean() -> None:
    with (BASE_DIR / "locale/ko/LC_MESSAGES/django.po").open("rb") as file:
        korean = {message.id for message in read_po(file, locale="ko") if message.string}
    keywords = dict.fromkeys(("_", "gettext", "gettext_lazy", "gettext_noop"))
    used = {
        text
        for floor in FLOORS
        for _, _, text, _, _ in extract_from_dir(str(BASE_DIR / floor), TEXTS_IN, keywords=keywords, comment_tags=())
    }
    assert used - korean == set(), "`make messages` collects them"


def test_the_reference_pages_are_what_the_code_says() -> None:
    with translation.override("en"):
        assert reference.stale() == [], "`make reference` writes them"


def test_no_text_is_taken_for_a_percent_format() -> None:
    """As "5 % of" would be: Babel then reports incompatible placeholders."""
    catalogue = BASE_DIR / "locale" / "ko" / "LC_MESSAGES" / "django.po"
    assert "python-brace-format, python-format" not in catalogue.read_text(encoding="utf-8")


def test_a_korean_sentence_fills_the_same_gaps_as_the_english() -> None:
    with (BASE_DIR / "locale/ko/LC_MESSAGES/django.po").open("rb") as file:
        catalogue = read_po(file, locale="ko")
    for message in catalogue:
        if message.id and message.string:
            assert gaps(message.string) == gaps(message.id), message.id


def gaps(text: str) -> set[str]:
    if not re.search(r"\{\w", text):
        return set()
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_has_its_place_and_its_test(mutation: Mutation) -> None:
    assert mutated(mutation) != (BASE_DIR / mutation.path).read_text(encoding="utf-8")
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (BASE_DIR / path).read_text(encoding="utf-8")


PACKAGES = (
    "aegis|infra|kis|simulator|market|portfolio|orders|stream|notify|monitor|desk|ops|rehearsal|config|tools|bench"
)


def _is_there(dotted: str) -> bool:
    """Whether `package.module.name` exists: a module, or a word in the text of one, as a function or a field."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = BASE_DIR.joinpath(*parts[:length])
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if source.exists():
            text = source.read_text(encoding="utf-8")
            return all(re.search(rf"\b{name}\b", text) for name in parts[length:])
    return False


# written by a command, and not committed
GENERATED = {"bench/report.json"}


def _named_in_docs() -> Iterator[tuple[str, str]]:
    """Yield each page, and each path or dotted name of our code in it; the recipes name files to be written."""
    for page in sorted([*BASE_DIR.glob("*.md"), *BASE_DIR.glob("docs/**/*.md")]):
        if page.name != "CHANGELOG.md" and page.parent.name != "adding":
            text = page.read_text(encoding="utf-8")
            for name in re.findall(rf"`((?:{PACKAGES})(?:\.\w+)+)`", text):
                yield page.name, name
            for path in re.findall(rf"`((?:{PACKAGES}|tests|docs)/[\w/.-]+\.\w+)`", text):
                yield page.name, path


def test_the_docs_name_code_that_exists() -> None:
    missing = {
        (page, name)
        for page, name in _named_in_docs()
        if name not in GENERATED and not (BASE_DIR.joinpath(name).exists() if "/" in name else _is_there(name))
    }
    assert not missing


def test_the_glossary_says_where_each_term_lives() -> None:
    missing = set()
    for row in (BASE_DIR / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines():
        for path, names in re.findall(r"`([\w/]+\.py)`(?:: ((?:`[\w.]+`(?:, )?)+))?", row):
            text = BASE_DIR.joinpath(path).read_text(encoding="utf-8")
            missing |= {(path, name) for name in re.findall(r"\w+(?=`)", names) if not re.search(rf"\b{name}\b", text)}
    assert not missing
