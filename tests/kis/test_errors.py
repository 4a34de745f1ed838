import pytest

from aegis.broker import OutcomeUnknown, Refused
from kis import catalogue
from kis.catalogue import Effect
from kis.errors import CODES, Meaning, advice, failure, meaning_of


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("장운영시간이 아닙니다", "orders are not taken at this hour"),
        ("주문가능금액을 초과했습니다", "not enough orderable cash"),
        ("매도가능잔고가 부족합니다", "not enough shares"),
    ],
)
def test_one_code_with_many_meanings_is_told_apart_by_its_words(words: str, meaning: str) -> None:
    assert advice("APBK0918", words) == meaning


def test_an_unknown_code_shows_itself_whole() -> None:
    error = failure(catalogue.BUY, "KIER3672", "예약주문 시간입니다")
    assert isinstance(error, Refused)
    assert str(error) == "order-cash buy KIER3672 예약주문 시간입니다"
    assert advice("KIER3672", "") == ""


@pytest.mark.parametrize("code", ["EGW00301", "EGW00302", "EGW77777", "IGW99999", ""])
def test_a_gateway_code_that_says_nothing_leaves_a_command_unknown(code: str) -> None:
    assert isinstance(failure(catalogue.BUY, code, ""), OutcomeUnknown)


def test_the_same_code_on_a_read_is_a_plain_refusal() -> None:
    assert meaning_of("EGW77777", Effect.READ) is Meaning.REFUSED


def test_every_known_code_says_what_to_make_of_it() -> None:
    assert all(code.advice for code in CODES.values())
