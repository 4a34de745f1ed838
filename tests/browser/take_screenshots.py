"""Writes the pictures in docs/screens: `make screenshots`. Not a test: it looks at nothing."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from config.env import BASE_DIR
from tests.browser.conftest import log_in
from tests.browser.house import BrowserHouse, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser

PICTURES = Path(BASE_DIR) / "docs" / "screens"
SAMSUNG, HYNIX, NAVER = "005930", "000660", "035420"
SETTLE_MS = 2_500


def shoot(page: "Page", name: str, *, whole: bool = False) -> None:
    page.wait_for_timeout(SETTLE_MS)  # fonts, charts and the first second of news
    page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


def trade(house: BrowserHouse) -> None:
    """A morning's orders: filled ones, one that rests, a chased one, a refused one, a cancelled one."""
    house.order("buy", SAMSUNG, "40", "--at-market")
    house.order("buy", HYNIX, "12", "--at-market")
    house.order("buy", "035720", "55", "--at-market")
    house.order("buy", "005380", "9", "--at-market")
    house.order("sell", SAMSUNG, "10", "--at-market")
    house.freeze(NAVER, 234_000)
    house.order("buy", NAVER, "8", "--strategy", "buy_normal", "--wait", "4", "--retries", "2", "--no-market")
    wait_for(lambda: NAVER in house.run("balance").stdout, "the chase")
    house.freeze(HYNIX, 266_000)
    house.order("sell", HYNIX, "4", "--price", "272000")
    house.order("buy", NAVER, "15", "--strategy", "buy_normal")
    wait_for(lambda: "000660" in house.run("balance").stdout, "the first fills")
    house.run("shell", script=(Path(__file__).parent / "scenery.py").read_text(encoding="utf-8"))


def context(browser: "Browser", house: BrowserHouse, width: int, height: int, **more: object) -> "BrowserContext":
    made = browser.new_context(
        base_url=house.url,
        viewport={"width": width, "height": height},
        locale="ko-KR",
        timezone_id="Asia/Seoul",
        device_scale_factor=2 if width < 600 else 1,
        **more,
    )
    made.set_default_timeout(30_000)
    return made


def test_pictures(browser: "Browser", house: BrowserHouse) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    trade(house)
    for theme in ("dark", "light"):
        wide = context(browser, house, 1600, 1000, color_scheme=theme)
        page = wide.new_page()
        page.goto("/")
        if theme == "dark":
            shoot(page, "login")
        log_in(page, house)
        shoot(page, f"dashboard-{theme}", whole=True)
        wide.close()
    phone = context(browser, house, 390, 844, color_scheme="dark")
    page = phone.new_page()
    log_in(page, house)
    shoot(page, "dashboard-phone", whole=True)
    phone.close()

    desk = context(browser, house, 1600, 1000, color_scheme="light")
    page = desk.new_page()
    log_in(page, house)
    for name, path in (
        ("admin", "/admin/"),
        ("admin-orders", "/admin/orders/tradeorder/"),
        ("admin-executions", "/admin/orders/tradeexecution/"),
        ("admin-stops", "/admin/orders/stoprule/"),
        ("quality", "/desk/quality"),
        ("admin-switch", "/admin/orders/tradingswitch/"),
        ("admin-schedule", "/admin/django_celery_beat/periodictask/"),
        ("two-factor", "/desk/two-factor"),
    ):
        page.goto(path)
        shoot(page, name)
    page.goto("/admin/orders/tradeorder/?q=035420&o=1")  # the oldest first
    page.click("#result_list tbody th a, #result_list tbody td a")
    shoot(page, "admin-family", whole=True)
    desk.close()

    password = base64.b64encode(f"admin:{house.flower_password()}".encode()).decode("ascii")
    flower = browser.new_context(
        viewport={"width": 1600, "height": 700}, extra_http_headers={"Authorization": f"Basic {password}"}
    )
    page = flower.new_page()
    page.goto(f"{house.flower_url}/workers?refresh=1")
    page.wait_for_timeout(5_000)
    page.goto(house.flower_url)
    shoot(page, "flower")
    flower.close()
