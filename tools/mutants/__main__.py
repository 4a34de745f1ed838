"""Apply each mutation of the table to a copy of the tree and run its tests: `make mutants`.

Prints one line per mutation and a line of JSON. Exits with 1 if a mutation survived, or if its place was not found.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.mutants.table import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_COPIED = shutil.ignore_patterns(".git", ".env", ".aegis", ".venv*", "site", ".*_cache", ".hypothesis")
# these tests do not need the disabled plugins, which take longer to load than the tests take to run
PYTEST = (
    *("-m", "pytest", "-q", "-x", "--tb=line", "--reuse-db"),
    *("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio"),
)
TIMEOUT_SECONDS = 300
# a test that failed by its assertion, not by an error that any broken statement would cause
BY_ASSERTION = re.compile(r"assert |AssertionError|Failed: ")


class PlaceNotFound(Exception):
    """A mutation's module, name or fragment does not exist, or the fragment exists more than once."""


class Unusable(Exception):
    """The tests do not pass on the unchanged tree, so they cannot detect a mutation."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one mutation: `detected_by` is the test that failed, empty if none did; `note` says why then."""

    mutation: Mutation
    detected_by: str = ""
    note: str = ""


# --- changing the source ---------------------------------------------------------------------------------------------


def mutated(mutation: Mutation) -> str:
    """Return the source of the mutation's module with its fragment replaced. Raises PlaceNotFound."""
    path = ROOT / mutation.path
    if not path.is_file():
        raise PlaceNotFound(f"{mutation.path} does not exist")
    source = path.read_text(encoding="utf-8")
    node = _find_node(ast.parse(source), mutation)
    lines = source.split("\n")
    before, body, after = lines[: node.lineno - 1], lines[node.lineno - 1 : node.end_lineno], lines[node.end_lineno :]
    text = "\n".join(body)
    if (count := text.count(mutation.old)) != 1:
        raise PlaceNotFound(f"{count} times in {mutation.path}::{mutation.node}: {mutation.old!r}")
    changed = "\n".join([*before, text.replace(mutation.old, mutation.new), *after])
    compile(changed, mutation.path, "exec")
    return changed


def _find_node(tree: ast.Module, mutation: Mutation) -> ast.stmt:
    """Return the definition or assignment that the mutation names. Raises PlaceNotFound."""
    body, result = tree.body, None
    for name in mutation.node.split("."):
        result = next((node for node in body if name in _names(node)), None)
        if result is None:
            raise PlaceNotFound(f"{mutation.path} has no {mutation.node}")
        body = getattr(result, "body", [])
    assert result is not None
    return result


def _names(node: ast.stmt) -> list[str]:
    """Return the names that a definition or an assignment defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


# --- running the tests -----------------------------------------------------------------------------------------------


def play(mutations: Sequence[Mutation], copy: Path) -> list[Outcome]:
    """Run the tests of these mutations in one copy of the tree, after a run on the unchanged copy. Raises Unusable."""
    if not mutations:
        return []
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED, symlinks=True)
    tests = dict.fromkeys(test for mutation in mutations for test in mutation.tests)
    status, output = _pytest(copy, list(tests))
    if status != 0:
        raise Unusable(output)
    return [_try(mutation, copy) for mutation in mutations]


def _try(mutation: Mutation, copy: Path) -> Outcome:
    started_at, path = time.monotonic(), copy / mutation.path
    path.write_text(mutated(mutation), encoding="utf-8")
    try:
        outcome = _judge(mutation, *_pytest(copy, mutation.tests, PYTHONDONTWRITEBYTECODE="1"))
    finally:
        shutil.copy2(ROOT / mutation.path, path)
    verdict = "detected" if outcome.detected_by else "SURVIVED"
    print(f"{verdict} {mutation.name}: {outcome.detected_by or outcome.note} ({time.monotonic() - started_at:.0f} s)")
    return outcome


def _judge(mutation: Mutation, status: int, output: str) -> Outcome:
    """Return the outcome of a pytest run: the first test that failed by its own assertion, or why there is none."""
    if status == 0:
        return Outcome(mutation, note="every test passed")
    failures = re.findall(r"^FAILED (.+?) - (.*)$", output, re.MULTILINE) if status == 1 else []
    for test, why in failures:
        if BY_ASSERTION.match(why):
            return Outcome(mutation, detected_by=test)
    return Outcome(mutation, note=f"no assertion failed: {failures or output[-300:]}")


def _pytest(copy: Path, tests: Sequence[str], **variables: str) -> tuple[int, str]:
    """Run tests in a copy of the tree; return the exit code of pytest and what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE"))}
    process = subprocess.Popen(
        [sys.executable, *PYTEST, *tests],
        cwd=copy,
        env=environment | {"COLUMNS": "1000"} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then stops its database and its Redis
        output, _ = process.communicate()
    return process.returncode, output


def main() -> int:
    mutations = []
    for mutation in MUTATIONS:
        try:
            mutated(mutation)
        except PlaceNotFound as error:
            print(f"NOT FOUND {mutation.name}: {error}")
        else:
            mutations.append(mutation)
    # all runs share a database that the environment names, so only one job can use it
    jobs = 1 if {"DATABASE_URL", "REDIS_URL"} & os.environ.keys() else 2
    with tempfile.TemporaryDirectory(prefix="aegis-mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(play, mutations[job::jobs], Path(folder) / str(job)) for job in range(jobs)]
        try:
            outcomes = [outcome for future in futures for outcome in future.result()]
        except Unusable as error:
            print(f"the tests do not pass on the unchanged tree:\n{error}")
            return 1
    detected = sum(bool(outcome.detected_by) for outcome in outcomes)
    print(json.dumps({"applied": len(mutations), "detected": detected, "survived": len(mutations) - detected}))
    return 0 if detected == len(MUTATIONS) else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
