import json
import re
from pathlib import Path

import pytest
from django.utils import translation
from django.utils.translation import gettext

from aegis.broker import OutcomeUnknown, Refused
from kis import catalogue
from kis.catalogue import Effect
from kis.errors import BY_MESSAGE, CODES, Meaning, advice, failure, meaning_of
from orders.risk import error_text

# every failure code that the broker's documents and its users' reports name
KNOWN = json.loads((Path(__file__).parent.parent / "samples" / "kis" / "message_codes.json").read_text())


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("장운영시간이 아닙니다", "orders are not taken at this hour"),
        ("주문가능금액을 초과했습니다", "not enough orderable cash"),
        ("매도가능잔고가 부족합니다", "not enough shares"),
    ],
)
def test_one_code_with_many_meanings_is_told_apart_by_its_words(words: str, meaning: str) -> None:
    assert advice("APBK0918", words).startswith(meaning)
    assert advice("APBK0918", "전혀 다른 말") == ""


def test_an_unknown_code_shows_itself_whole() -> None:
    error = failure(catalogue.BUY, "KIER3672", "예약주문 시간입니다")
    assert isinstance(error, Refused)
    assert str(error) == error_text(error) == "order-cash buy KIER3672 예약주문 시간입니다"
    assert advice("KIER3672", "") == ""


@pytest.mark.parametrize("code", ["EGW00301", "EGW00302", "EGW77777", "IGW99999", ""])
def test_a_gateway_code_that_says_nothing_leaves_a_command_unknown(code: str) -> None:
    assert isinstance(failure(catalogue.BUY, code, ""), OutcomeUnknown)


def test_the_same_code_on_a_read_is_a_plain_refusal() -> None:
    assert meaning_of("EGW77777", Effect.READ) is Meaning.REFUSED


@pytest.mark.parametrize("code", KNOWN)
def test_every_known_code_says_in_korean_what_to_do(code: str) -> None:
    assert code in CODES or code in BY_MESSAGE
    for sentence in [CODES[code].advice] if code in CODES else [meaning for _, meaning in BY_MESSAGE[code]]:
        with translation.override("ko"):
            assert re.search("[가-힣]", gettext(sentence)), sentence


def test_what_the_broker_says_comes_first_and_what_to_do_after_it() -> None:
    error = failure(catalogue.BUY, "APBK0952", "주문가능금액을 초과 했습니다")
    with translation.override("en"):
        assert error_text(error) == (
            "order-cash buy APBK0952 주문가능금액을 초과 했습니다 "
            "(not enough orderable cash: order less, or sell or cancel something first)"
        )


def test_every_code_of_the_table_is_one_that_somebody_has_seen() -> None:
    assert not (CODES.keys() | BY_MESSAGE.keys()) - set(KNOWN)
