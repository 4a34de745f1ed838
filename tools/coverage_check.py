"""Branch coverage by package, from the data of a test run: `make test COVERAGE=1` prints it and fails below a minimum.

usage: python -m tools.coverage_check DATA_FILE

Covered are lines and branches together, as coverage.py counts its total, in percent.
"""

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from coverage import Coverage

# what trades must be covered closely; percent
MINIMA = {"aegis": 95.0, "kis": 95.0, "orders": 95.0}
MINIMUM = 85.0


def by_package(data_file: str) -> dict[str, float]:
    """Return the percent covered of each package."""
    coverage = Coverage(data_file=data_file)
    coverage.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        coverage.json_report(outfile=report.name)
        files = json.loads(Path(report.name).read_text(encoding="utf-8"))["files"]
    covered: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for path, figures in files.items():
        package, summary = Path(path).parts[0], figures["summary"]
        covered[package] += summary["covered_lines"] + summary["covered_branches"]
        total[package] += summary["num_statements"] + summary["num_branches"]
    return {package: 100 * covered[package] / total[package] for package in sorted(total)}


def main() -> int:
    """Print a line for each package; return 1 if one is below its minimum."""
    below = []
    for package, percent in by_package(sys.argv[1]).items():
        minimum = MINIMA.get(package, MINIMUM)
        print(f"{package:12} {percent:6.1f} %   (minimum {minimum:g} %)")
        if percent < minimum:
            below.append(package)
    if below:
        print(f"Coverage is below the minimum in: {', '.join(below)}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
