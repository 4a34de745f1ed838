"""Figures of this tree or another: names, lengths, types, docstrings, comments, and the call path of an order.

usage: python -m tools.figures [ROOT] [--call-path]

Prints one JSON object. Files are the product's: no tests, migrations, benchmarks or tools. Functions include methods;
lines are lines of the file. `--call-path` also places one limit order on the simulator, by the tree's own fixtures, and
counts the calls between functions of the product, each pair of caller and called function once. Calls to and from the
broker's adapter are left out.

visits
    calls into another file than the call before
returns
    visits to a file that was visited before
files
    files visited
"""

import argparse
import ast
import io
import json
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from config.env import BASE_DIR

PACKAGES = (
    "aegis", "infra", "kis", "simulator", "market", "portfolio", "orders", "stream", "notify", "monitor", "desk", "ops",
    "rehearsal", "config",
)  # fmt: skip
LONG_FUNCTION_LINES = 30
PROBE = "test_zz_call_path.py"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path) -> Iterator[Path]:
    """Yield the product's files of a tree."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def _lines(node: ast.AST) -> int:
    return int(node.end_lineno or 0) - int(node.lineno) + 1  # type: ignore[attr-defined]


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _is_typed(function: Function) -> bool:
    return function.returns is not None


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def _spread(lengths: list[int]) -> dict[str, int]:
    return {"median": int(median(lengths)), "p90": int(quantiles(lengths, n=10)[8]), "longest": max(lengths)}


def _comments(text: str) -> int:
    return sum(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(text).readline))


def _names(tree: ast.Module) -> tuple[list[str], list[str]]:
    """Return the names of a module's classes and of its public functions; methods and commands are not counted."""
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = [node.name for node in tree.body if isinstance(node, Function) and _is_public(node.name)]
    return classes, functions


def figures(root: Path) -> dict[str, Any]:
    """Return the figures of a tree, by name."""
    module_lines: dict[str, int] = {}
    classes: list[ast.ClassDef] = []
    functions: list[Function] = []
    class_names: Counter[str] = Counter()
    function_names: Counter[str] = Counter()
    comments = docstrings = 0
    for path in modules(root):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        module_lines[str(path.relative_to(root))] = len(text.splitlines())
        comments += _comments(text)
        docstrings += ast.get_docstring(tree) is not None
        nodes = list(ast.walk(tree))
        classes += [node for node in nodes if isinstance(node, ast.ClassDef)]
        functions += [node for node in nodes if isinstance(node, Function)]
        named_classes, named_functions = _names(tree)
        # each management command has a class of this name: Django asks for it
        class_names.update(name for name in named_classes if _is_public(name) and name != "Command")
        function_names.update(named_functions)
    public = [function for function in functions if _is_public(function.name)]
    lines = sum(module_lines.values())
    typed = sum(_lines(function) for function in functions if _is_typed(function))
    return {
        "files": len(module_lines),
        "lines": lines,
        "module_lines": _spread(list(module_lines.values())),
        "longest_module": max(module_lines, key=lambda name: module_lines[name]),
        "class_lines_longest": max(_lines(each) for each in classes),
        "longest_class": max(classes, key=_lines).name,
        "function_lines": _spread([_lines(each) for each in functions]),
        "functions": len(functions),
        "functions_over_30_lines_percent": _percent(
            sum(_lines(f) > LONG_FUNCTION_LINES for f in functions), len(functions)
        ),
        "typed_returns_percent": _percent(sum(map(_is_typed, functions)), len(functions)),
        "typed_function_lines_percent": _percent(typed, sum(map(_lines, functions))),
        "docstrings_percent": {
            "modules": _percent(docstrings, len(module_lines)),
            "classes": _percent(sum(ast.get_docstring(each) is not None for each in classes), len(classes)),
            "public_functions": _percent(sum(ast.get_docstring(each) is not None for each in public), len(public)),
        },
        "comments_per_100_lines": round(100 * comments / lines, 1),
        "class_names_defined_twice": sorted(name for name, count in class_names.items() if count > 1),
        "function_names_defined_twice": sorted(name for name, count in function_names.items() if count > 1),
    }


# runs inside the tree that is measured, by its own fixtures: it uses only what every version has
_PROBE = """
import json, os, sys

ROOT, PACKAGES = {root!r}, {packages!r}


def is_counted(path):
    package = path.split(os.sep)[0]
    return package in PACKAGES and "migrations" not in path and (package != "kis" or path.endswith("clock.py"))


def test_call_path(buy):
    pairs, files = set(), []

    def note(frame, event, _):
        if event != "call" or frame.f_code.co_name.startswith("<"):
            return
        caller = frame.f_back.f_code
        path = os.path.relpath(frame.f_code.co_filename, ROOT)
        if not is_counted(path) or os.path.relpath(caller.co_filename, ROOT).startswith("kis" + os.sep):
            return
        pair = caller.co_filename, caller.co_name, path, frame.f_code.co_name
        if pair not in pairs:
            pairs.add(pair)
            files.append(path)

    buy(price=69_000)  # imports and connections are made before it is measured
    sys.setprofile(note)
    try:
        buy(price=68_000)
    finally:
        sys.setprofile(None)
    with open({report!r}, "w") as file:
        json.dump(files, file)
"""


def call_path(root: Path) -> dict[str, int]:
    """Return how many visits, returns and files placing one order takes. Raises CalledProcessError."""
    probe, report = root / "tests" / "orders" / PROBE, root / ".call_path.json"
    packages = tuple(name for name in PACKAGES if name != "simulator")
    probe.write_text(_PROBE.format(root=str(root), packages=packages, report=str(report)), encoding="utf-8")
    try:
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(probe)]
        subprocess.run(argv, cwd=root, check=True, capture_output=True, text=True)
        calls = json.loads(report.read_text(encoding="utf-8"))
    finally:
        probe.unlink()
        report.unlink(missing_ok=True)
    visits = calls[:1] + [path for previous, path in pairwise(calls) if path != previous]
    return {"visits": len(visits), "returns": len(visits) - len(set(visits)), "files": len(set(visits))}


def main() -> None:
    parser = argparse.ArgumentParser(description="Print figures of a tree as JSON.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(BASE_DIR))
    parser.add_argument("--call-path", action="store_true", help="also place an order and count its calls")
    arguments = parser.parse_args()
    result = figures(arguments.root)
    if arguments.call_path:
        result["place"] = call_path(arguments.root.resolve())
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
