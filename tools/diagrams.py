"""Draws docs/diagrams/*.mmd (Mermaid) as SVG: `make diagrams`. `--check` only compares, without npm or a browser.

Pages show the pictures, so that they are readable offline and on any host. Each picture names the source it was drawn
from by a digest.
"""

import argparse
import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

from config.env import BASE_DIR

FOLDER = Path(BASE_DIR) / "docs" / "diagrams"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
DIGEST = re.compile(r"<!-- drawn from (\w+) -->")


def _digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def stale() -> list[str]:
    """Return the names of sources whose picture is missing, or was drawn from another text."""
    names = []
    for source in sorted(FOLDER.glob("*.mmd")):
        picture = source.with_suffix(".svg")
        drawn_from = DIGEST.search(picture.read_text(encoding="utf-8")) if picture.exists() else None
        if drawn_from is None or drawn_from.group(1) != _digest(source):
            names.append(source.name)
    return names


def draw(library: Path) -> None:
    """Draw every source with Mermaid's browser library, in the machine's Chromium."""
    from playwright.sync_api import sync_playwright  # installed by `make diagrams` only

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<body></body>")
        page.add_script_tag(path=library)
        # text as SVG text: an image shows no HTML labels
        page.evaluate("mermaid.initialize({startOnLoad: false, htmlLabels: false, flowchart: {htmlLabels: false}})")
        for source in sorted(FOLDER.glob("*.mmd")):
            svg = page.evaluate(
                "async ([id, text]) => (await mermaid.render(id, text)).svg",
                [source.stem, source.read_text(encoding="utf-8")],
            )
            mark = f"<!-- drawn from {_digest(source)} -->"
            source.with_suffix(".svg").write_text(f"{svg}\n{mark}\n", encoding="utf-8")
        browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw docs/diagrams/*.mmd as SVG.")
    parser.add_argument("--check", action="store_true", help="only say which pictures are stale")
    parser.add_argument("--library", type=Path, help="mermaid.min.js")
    arguments = parser.parse_args()
    if not arguments.check:
        draw(arguments.library)
    names = stale()
    if names:
        print(f"make diagrams has to draw: {', '.join(names)}", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
