"""Which stock a typed text means, by the stock master: names before codes, the broker's own codes brought to ours."""

import unicodedata

import pytest

from aegis.codes import NotACode
from market.codes import ManyStocks, canonical, explain, resolve
from market.models import Stock

pytestmark = pytest.mark.django_db


def listed(code: str, name: str, standard_code: str = "") -> None:
    Stock.objects.create(code=code, name=name, board="KOSPI", instrument="STOCK", standard_code=standard_code)


@pytest.fixture(autouse=True)
def master() -> None:
    listed("005930", "삼성전자")
    listed("027360", "아주IB투자")
    listed("009160", "SIMPAC")
    listed("017940", "E1")
    listed("360750", "TIGER 미국S&P500")
    listed("Q500001", "신한 S&P500 ETN", "KRG500001114")


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("SIMPAC", "009160"),
        ("simpac ", "009160"),
        ("ＳＩＭＰＡＣ", "009160"),
        ("E1", "017940"),
        ("TIGER 미국S&P500", "360750"),
        ("TIGER  미국Ｓ＆Ｐ５００", "360750"),
        (unicodedata.normalize("NFD", "삼성전자"), "005930"),
        ("A027360", "027360"),
        ("500001", "Q500001"),
        ("q500001 ", "Q500001"),
        ("0009k0", "0009K0"),
    ],
)
def test_a_stock_is_known_by_its_name_or_its_code(typed: str, code: str) -> None:
    assert resolve(typed) == code


def test_only_the_master_says_that_two_codes_are_one_stock() -> None:
    assert canonical("A999990") == "A999990"
    assert canonical("600001") == "600001"
    assert canonical("005930") == "005930"


@pytest.mark.parametrize("typed", ["INVENI", "삼성", "", "TIGER"])
def test_what_is_neither_is_refused(typed: str) -> None:
    with pytest.raises(NotACode):
        resolve(typed)


def test_a_name_that_two_stocks_have_is_no_answer() -> None:
    listed("009161", "SIMPAC")
    with pytest.raises(ManyStocks) as caught:
        resolve("simpac")
    assert "009160, 009161" in explain(caught.value)
