import pytest

from aegis.broker import OutcomeUnknown
from kis import catalogue
from kis.catalogue import TR
from kis.errors import advice, failure


@pytest.mark.parametrize("tr", [catalogue.BUY, catalogue.ORDERS], ids=lambda tr: tr.name)
@pytest.mark.parametrize("code", ["EGW00300", "EGW00301", "EGW00302"])
def test_a_gateway_that_failed_leaves_every_call_unknown_and_says_to_look(tr: TR, code: str) -> None:
    assert isinstance(failure(tr, code, "게이트웨이 오류"), OutcomeUnknown)
    assert "looked up" in advice(code, "게이트웨이 오류")
