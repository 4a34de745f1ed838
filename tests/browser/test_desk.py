"""A trader's hour at the desk, in a real browser before a whole house: nothing here is simulated but the broker."""

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import log_in
from tests.browser.house import BrowserHouse

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: `make browser-test` does")
expect = playwright.expect

SAMSUNG, NAVER, KAKAO = "005930", "035420", "035720"
PATIENCE_MS = 45_000


@pytest.fixture
def desk(page: "Page", house: BrowserHouse) -> "Page":
    """The dashboard, logged in, its stream running."""
    expect.set_options(timeout=PATIENCE_MS)
    log_in(page, house)
    expect(page.locator("#clock")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    # a page that is loaded again forgets this
    page.evaluate("document.body.dataset.neverLoadedAgain = 'yes'")
    return page


def not_loaded_again(page: "Page") -> bool:
    return page.evaluate("document.body.dataset.neverLoadedAgain") == "yes"


def test_a_stranger_sees_the_login_and_nothing_else(page: "Page", house: BrowserHouse) -> None:
    for address in ("/", "/admin/", "/admin/orders/tradeorder/"):
        page.goto(address)
        expect(page.locator("#login-form")).to_be_visible()
        assert "/admin/login/" in page.url


def test_a_wrong_password_opens_nothing(page: "Page", house: BrowserHouse) -> None:
    page.goto("/")
    page.fill("#id_username", "admin")
    page.fill("#id_password", "wrong")
    page.click("#login-form button[type=submit]")
    expect(page.locator("#login-form")).to_be_visible()


def test_a_fill_appears_without_a_reload(desk: "Page", house: BrowserHouse) -> None:
    fills = desk.locator("#executions tbody tr")
    before = fills.count()
    house.order("buy", SAMSUNG, "7", "--at-market")
    expect(fills).not_to_have_count(before)
    expect(fills.first).to_contain_text("삼성전자")
    expect(fills.first.locator(".up")).to_have_text("매수")
    expect(desk.locator("#holdings tbody tr", has_text="삼성전자")).to_have_count(1)
    assert not_loaded_again(desk)


def test_a_halt_offers_both_a_buy_is_refused_and_trading_resumes(desk: "Page", house: BrowserHouse) -> None:
    desk.click("#halt")
    desk.click("#ask-or")
    expect(desk.locator("#health .switch.warn")).to_be_visible()
    desk.click("#halt")
    expect(desk.locator("#ask-or")).to_be_hidden()
    desk.click("#ask-yes")
    expect(desk.locator("#health .switch.bad")).to_be_visible()
    refused = house.run("buy", SAMSUNG, "1", "--at-market")
    assert refused.returncode == 1
    assert "거래가 정지" in refused.stdout + refused.stderr

    desk.click("#health [data-post$=resume]")
    desk.fill("#ask-reason", "확인함")
    desk.click("#ask-yes")
    expect(desk.locator("#halt")).to_be_visible()
    house.order("buy", SAMSUNG, "1", "--at-market")
    assert not_loaded_again(desk)


def test_a_dialog_that_is_declined_does_nothing(desk: "Page", house: BrowserHouse) -> None:
    desk.click("#health [data-post$=reduce]")
    desk.click("#ask-no")
    expect(desk.locator("#ask")).to_be_hidden()
    expect(desk.locator("#halt")).to_be_visible()


def test_an_order_is_cancelled_on_the_dashboard(desk: "Page", house: BrowserHouse) -> None:
    house.freeze(NAVER, 234_000)
    house.order("buy", NAVER, "3", "--price", "230000")
    row = desk.locator("#open_orders tbody tr", has_text="230,000")
    expect(row).to_have_count(1)
    row.locator("[data-post$=cancel]").click()
    desk.click("#ask-yes")
    expect(desk.locator("#toast")).to_contain_text("취소를 보냈습니다")
    expect(row).to_have_count(0)
    assert not_loaded_again(desk)


def test_an_order_is_cancelled_in_the_admin_and_its_timeline_tells(desk: "Page", house: BrowserHouse) -> None:
    house.freeze(NAVER, 234_000)
    house.order("buy", NAVER, "4", "--price", "229500")
    expect(desk.locator("#open_orders tbody tr", has_text="229,500")).to_have_count(1)
    desk.locator("#open_orders tbody tr", has_text="229,500").locator("th a").click()
    expect(desk.locator(".timeline")).to_contain_text("증권사 접수")
    desk.get_by_role("link", name="주문 취소").click()
    desk.get_by_role("button", name="주문 취소").click()
    expect(desk.locator("body")).to_contain_text("취소를 보냈습니다")
    expect(desk.locator(".timeline")).to_contain_text("admin: 취소")


def test_a_stop_armed_in_the_admin_sells_when_the_price_falls(desk: "Page", house: BrowserHouse) -> None:
    house.freeze(KAKAO, 59_000)
    house.order("buy", KAKAO, "7", "--at-market")
    holding = desk.locator("#holdings tbody tr", has_text=KAKAO)
    expect(holding).to_have_count(1)
    admin = desk.context.new_page()
    admin.goto("/admin/orders/stoprule/add/")
    admin.fill("[name=stock_code]", KAKAO)
    admin.select_option("[name=kind]", "STOP_LOSS")
    admin.select_option("[name=unit]", "PERCENT")
    admin.fill("[name=value]", "2")
    admin.click("[name=_save]")
    expect(admin.locator("#result_list tbody tr", has_text=KAKAO)).to_have_count(1)
    expect(holding).to_contain_text("-2.0%")
    house.freeze(KAKAO, 57_500)
    expect(holding).to_have_count(0)
    expect(desk.locator("#executions tbody tr", has_text="매도").first).to_contain_text("57,")
    assert not_loaded_again(desk)
    admin.close()


def test_the_language_is_switched_and_stays(desk: "Page", house: BrowserHouse) -> None:
    expect(desk.locator("html")).to_have_attribute("lang", "ko")
    desk.get_by_role("button", name="English").click()
    expect(desk.locator("#holdings h2")).to_contain_text("Holdings")
    expect(desk.locator("html")).to_have_attribute("lang", "en")
    desk.goto("/admin/orders/tradeorder/")
    expect(desk.locator("body")).to_contain_text("Trading desk")
    desk.goto("/")
    # what comes by the stream is English too
    house.order("buy", SAMSUNG, "2", "--at-market")
    expect(desk.locator("#executions tbody tr").first).to_contain_text("buy")
    desk.get_by_role("button", name="한국어").click()
    expect(desk.locator("#holdings h2")).to_contain_text("보유 종목")


@pytest.mark.parametrize(("kind", "qty"), [("CSV", "11"), ("XLSX", "12")])
def test_orders_are_exported(desk: "Page", house: BrowserHouse, tmp_path: Path, kind: str, qty: str) -> None:
    house.order("buy", SAMSUNG, qty, "--at-market")
    desk.goto("/admin/orders/tradeorder/")
    desk.get_by_role("link", name="내보내기").click()
    desk.select_option("select[name=format]", label=kind.lower())
    with desk.expect_download() as download:
        desk.locator("form button[type=submit], form input[type=submit]").last.click()
    file = tmp_path / "orders"
    download.value.save_as(file)
    if kind == "CSV":
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
        assert "삼성전자" in {row["stock_name"] for row in rows}
    else:
        assert file.read_bytes().startswith(b"PK")


def test_the_charts_are_drawn(desk: "Page", house: BrowserHouse) -> None:
    expect(desk.locator("#candles canvas").first).to_be_visible()
    expect(desk.locator("#equity canvas").first).to_be_visible()


def test_a_phone_needs_no_scrolling_to_the_side(desk: "Page", house: BrowserHouse) -> None:
    house.freeze(NAVER, 234_000)
    house.order("buy", NAVER, "5", "--price", "229000")
    desk.set_viewport_size({"width": 375, "height": 800})
    expect(desk.locator("#open_orders tbody tr", has_text="229,000")).to_have_count(1)
    assert desk.evaluate("document.documentElement.scrollWidth") <= 375
    button = desk.locator("#open_orders [data-post$=cancel]").first.bounding_box()
    assert button
    assert button["x"] + button["width"] <= 375


def test_what_is_not_live_looks_stale(desk: "Page", house: BrowserHouse) -> None:
    with house.frozen("web"):
        expect(desk.locator("body.stale-page")).to_have_count(1)
        expect(desk.locator("#stale")).to_be_visible()
    expect(desk.locator("body.stale-page")).to_have_count(0)
    assert not_loaded_again(desk)


def test_a_stock_is_found_for_the_blacklist(desk: "Page", house: BrowserHouse) -> None:
    desk.goto("/admin/orders/blacklistedstock/add/")
    desk.locator("#id_stock_name").press_sequentially("삼성")
    expect(desk.locator("#stocks-found option[value='삼성전자']")).to_have_count(1)
    desk.fill("#id_stock_name", "삼성전자")
    expect(desk.locator("#id_stock_code")).to_have_value(SAMSUNG)
