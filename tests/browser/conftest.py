"""A real browser before a real house. Skipped, with a word why, where there is no Chromium or no Playwright."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.house import BrowserHouse

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 30_000


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium on this machine: install one (Debian: apt install chromium), or name it in CHROMIUM")
    return found


@pytest.fixture(scope="session")
def house(chromium: str) -> Iterator[BrowserHouse]:
    with BrowserHouse() as running:
        yield running


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator["Browser"]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: `make browser-test` does")
    with api.sync_playwright() as playwright:
        # root may run the tests, in a container for one, and Chromium's sandbox does not like that
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield running
        running.close()


@pytest.fixture
def page(browser: "Browser", house: BrowserHouse) -> Iterator["Page"]:
    """A page of 1440 × 900 that nobody is logged in on; what breaks on it is an error of the test."""
    context = browser.new_context(
        base_url=house.url, viewport={"width": 1440, "height": 900}, locale="ko-KR", timezone_id="Asia/Seoul"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda line: broken.append(line.text) if line.type == "error" else None)
    yield page
    context.close()
    ours = [line for line in broken if "409" not in line and "403" not in line]
    assert not ours, ours


def log_in(page: "Page", house: BrowserHouse, *, user: str = "admin", password: str = "") -> None:
    page.goto("/")
    page.fill("#id_username", user)
    page.fill("#id_password", password or house.password)
    page.click("#login-form button[type=submit]")
    page.wait_for_url(f"{house.url}/")
