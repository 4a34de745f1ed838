"""One form for each stock code, however it was typed; what can be no code is named."""

import unicodedata

import pytest

from aegis.codes import NotACode, normalise, plain


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("005930", "005930"),
        ("005930 ", "005930"),
        ("  005930\n", "005930"),
        ("003490   ", "003490"),
        ("\ufeff005930\u200b", "005930"),
        ("\u3000005930\xa0", "005930"),
        ("００５９３０", "005930"),
        ("０００９ｋ０", "0009K0"),
        ("0009k0", "0009K0"),
        ("00088K", "00088K"),
        ("0126z0", "0126Z0"),
        ("q500001", "Q500001"),
        ("A027360", "A027360"),
        ("F70100026", "F70100026"),
        ("KR7005930003", "KR7005930003"),
    ],
)
def test_a_code_has_one_form_however_it_is_typed(typed: str, code: str) -> None:
    assert normalise(typed) == code
    assert normalise(code) == code


@pytest.mark.parametrize(
    "typed",
    ["", " ", "5930", "005 930", "005930;", "005930-KS", "SIMPAC", "INVENI", "삼성전자",
     "0059３０٣", "00593²", "ı05930",
     "0059300059300", "005930\x00005930", "005.930", None, 5930],
)  # fmt: skip
def test_what_can_be_no_code_is_named_with_what_would_be_right(typed: object) -> None:
    with pytest.raises(NotACode) as caught:
        normalise(typed)  # type: ignore[arg-type]
    assert repr(typed) in str(caught.value)
    assert "005930 or 0009K0" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_text_is_composed_and_half_wide_and_keeps_its_inner_spaces() -> None:
    assert plain(unicodedata.normalize("NFD", " 미국Ｓ＆Ｐ５００ ETF ")) == "미국S&P500 ETF"
