"""How each answer is judged: one table of answers, the real client, a transport that gives them."""

import time
from contextlib import nullcontext
from typing import Any

import httpx
import pytest

from aegis.account import Account
from aegis.broker import NotSent, OutcomeUnknown, Refused
from kis import catalogue, client
from kis.client import DEADLINE_SECONDS, BrokerReply, Client
from kis.environment import LIVE, SIM, Credentials, Dialect

SECRETS = Credentials("key-that-nobody-may-see", "secret-that-nobody-may-see", Account("50000000", "01"), "me")
ACCEPTED = {"rt_cd": "0", "msg_cd": "APBK0013", "msg1": "ok", "output": {"ODNO": "1", "ORD_TMD": "090000"}}


class StillTokens:
    """A token that never changes, and a count of how often it was refused."""

    def __init__(self) -> None:
        self.refusals = 0

    def get(self) -> str:
        return "token"

    def invalidate(self, value: str) -> None:
        self.refusals += 1


class FreeThrottle:
    def __init__(self) -> None:
        self.slowed = 0

    def slot(self, *args: object, deadline_seconds: float, **more: object) -> Any:
        self.deadline_seconds = deadline_seconds
        self.priority = args[0]
        return nullcontext(self)

    def mark_sent(self) -> None:
        self.left = True

    def slow_down(self) -> None:
        self.slowed += 1


class Wire:
    """Gives its answers one after another, the last for ever, and remembers what was sent."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.tokens = StillTokens()
        self.throttle = FreeThrottle()
        self.ledger_throttle = FreeThrottle()
        self.client = Client(
            SIM,
            SECRETS,
            Dialect.OFFICIAL,
            httpx.Client(transport=httpx.MockTransport(self._answer)),
            self.tokens,  # type: ignore[arg-type]
            self.throttle,  # type: ignore[arg-type]
            self.ledger_throttle,  # type: ignore[arg-type]
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def refusal(code: str, words: str = "no", rt_cd: str = "1") -> dict[str, str]:
    return {"rt_cd": rt_cd, "msg_cd": code, "msg1": words}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.0)


def order(wire: Wire) -> BrokerReply:
    return wire.client.call(catalogue.BUY, {"PDNO": "005930"})


def read(wire: Wire) -> BrokerReply:
    return wire.client.call(catalogue.PRICE, {"FID_INPUT_ISCD": "005930"})


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.Response(500),
        httpx.Response(502, html="<html>bad gateway</html>"),
        httpx.Response(200, text='{"rt_cd": "0", "msg'),
        httpx.Response(200, json={"output": {"ODNO": "1"}}),
        httpx.Response(200, json=["rt_cd"]),
        httpx.Response(500, json=refusal("EGW00301")),
        httpx.Response(500, json=refusal("EGW00302")),
        httpx.Response(500, json=refusal("EGW99999")),
        httpx.Response(500, json=refusal("OPSQ0009")),
        httpx.Response(200, json=refusal("")),
    ],
    ids=lambda answer: getattr(answer, "text", repr(answer))[:40],
)
def test_an_order_without_a_readable_answer_is_unknown_and_never_sent_again(answer: Any) -> None:
    wire = Wire(answer)
    with pytest.raises(OutcomeUnknown):
        order(wire)
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "code", ["APBK0952", "APBK0918", "40250000", "40100000", "KIER3672", "OPSQ2000", "IGW00007", "EGW02006"]
)
def test_a_business_refusal_is_final_with_its_code_and_words(code: str) -> None:
    wire = Wire(refusal(code, "주문가능금액을 초과 했습니다", rt_cd="7"))
    with pytest.raises(Refused) as caught:
        order(wire)
    assert (caught.value.code, caught.value.message) == (code, "주문가능금액을 초과 했습니다")
    assert len(wire.requests) == 1


AGAIN = refusal("KIOK0999", "조회이후에 자료가 변경되었습니다.(다시 조회하세요)")


def test_a_read_is_repeated_if_the_broker_asks_for_it_and_a_command_is_not() -> None:
    good = {"rt_cd": "0", "msg_cd": "", "msg1": "", "output": {}}
    wire = Wire(AGAIN, good)
    read(wire)
    assert len(wire.requests) == 2
    wire = Wire(AGAIN, ACCEPTED)
    with pytest.raises(Refused):
        order(wire)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("code", ["EGW00123", "EGW00121", "EGW00201"])
def test_an_order_turned_away_unread_is_sent_again(code: str) -> None:
    wire = Wire(httpx.Response(500, json=refusal(code)), ACCEPTED)
    assert order(wire).row().text("ODNO") == "1"
    assert len(wire.requests) == 2
    assert wire.tokens.refusals == (1 if code in ("EGW00123", "EGW00121") else 0)
    assert wire.throttle.slowed == (1 if code == "EGW00201" else 0)
    assert wire.ledger_throttle.slowed == 0


@pytest.mark.parametrize("tr", [catalogue.BUY, catalogue.SELL, catalogue.REVISE_OR_CANCEL], ids=lambda tr: tr.name)
def test_a_command_that_meets_the_ledgers_limit_is_unknown_and_never_sent_again(tr: catalogue.TR) -> None:
    wire = Wire(httpx.Response(500, json=refusal("EGW00215")), ACCEPTED)
    with pytest.raises(OutcomeUnknown) as caught:
        wire.client.call(tr, {"PDNO": "005930"})
    assert caught.value.code == "EGW00215"
    assert len(wire.requests) == 1
    assert (wire.throttle.slowed, wire.ledger_throttle.slowed) == (0, 1), "only the ledger's calls slow down"


def test_a_read_that_meets_the_ledgers_limit_is_repeated() -> None:
    good = {"rt_cd": "0", "output": {"nrcvb_buy_amt": "1"}}
    wire = Wire(httpx.Response(500, json=refusal("EGW00215")), good)
    assert wire.client.call(catalogue.BUYABLE, {"PDNO": "005930"}).row().integer("nrcvb_buy_amt") == 1
    assert len(wire.requests) == 2
    assert (wire.throttle.slowed, wire.ledger_throttle.slowed) == (0, 1)


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("no route")])
def test_an_order_that_surely_never_left_is_sent_again(error: Exception) -> None:
    wire = Wire(error, ACCEPTED)
    assert order(wire).row().text("ODNO") == "1"
    assert len(wire.requests) == 2


def test_being_turned_away_for_ever_ends_as_not_sent() -> None:
    wire = Wire(httpx.Response(500, json=refusal("EGW00201")))
    with pytest.raises(NotSent) as caught:
        order(wire)
    assert caught.value.code == "EGW00201"
    assert len(wire.requests) == client.TRIES


@pytest.mark.parametrize("answer", [httpx.ReadTimeout("slow"), httpx.Response(502), httpx.ConnectError("refused")])
def test_a_read_is_repeated_and_ends(answer: Any) -> None:
    good = {"rt_cd": "0", "output": {"stck_prpr": "1"}}
    assert read(Wire(answer, answer, good)).row().integer("stck_prpr") == 1
    wire = Wire(answer)
    with pytest.raises((OutcomeUnknown, NotSent)):
        read(wire)
    assert len(wire.requests) == client.TRIES


def test_a_500_with_a_readable_body_is_an_answer() -> None:
    wire = Wire(httpx.Response(500, json=refusal("IGW00007")))
    with pytest.raises(Refused):
        order(wire)


def test_read_only_live_sends_no_order_but_reads() -> None:
    wire = Wire({"rt_cd": "0", "output": {}})
    unarmed = Client(
        LIVE,
        SECRETS,
        Dialect.OFFICIAL,
        wire.client._http,
        wire.tokens,  # type: ignore[arg-type]
        wire.throttle,  # type: ignore[arg-type]
        wire.ledger_throttle,  # type: ignore[arg-type]
        armed=False,
    )
    with pytest.raises(NotSent, match="AEGIS_LIVE_ORDERS"):
        unarmed.call(catalogue.BUY, {})
    assert wire.requests == []
    unarmed.call(catalogue.PRICE, {})
    assert len(wire.requests) == 1


def test_the_headers_are_those_the_broker_documents() -> None:
    wire = Wire(ACCEPTED)
    order(wire)
    headers = wire.requests[0].headers
    assert headers["authorization"] == "Bearer token"
    assert (headers["tr_id"], headers["custtype"], headers["tr_cont"]) == ("TTTC0012U", "P", "")
    assert headers["content-type"] == "application/json; charset=utf-8"


def test_no_secret_shows_in_an_error_or_a_repr() -> None:
    wire = Wire(httpx.Response(502, text="sorry"))
    with pytest.raises(OutcomeUnknown) as caught:
        order(wire)
    shown = f"{caught.value!r} {caught.value} {SECRETS!r} {caught.value.__cause__!r}"
    assert "nobody-may-see" not in shown


def page(rows: list[str], cursor: str, more: str) -> httpx.Response:
    body = {
        "rt_cd": "0",
        "ctx_area_fk100": "question".ljust(100),
        "ctx_area_nk100": cursor.ljust(100),
        "output1": [{"odno": row} for row in rows],
    }
    return httpx.Response(200, json=body, headers={"tr_cont": more})


def test_all_pages_are_read_with_the_cursor_sent_back() -> None:
    wire = Wire(page(["1", "2"], "2", "F"), page(["3"], "3", "M"), page(["4"], "", "D"))
    replies = wire.client.pages(catalogue.ORDERS, {"CANO": "1"})
    assert [row.text("odno") for reply in replies for row in reply.rows("output1")] == ["1", "2", "3", "4"]
    assert [request.headers["tr_cont"] for request in wire.requests] == ["", "N", "N"]
    assert wire.requests[1].url.params["CTX_AREA_NK100"].strip() == "2"


@pytest.mark.parametrize(
    "answers",
    [
        [page(["1"], "7", "M"), page(["2"], "7", "M")],
        [page(["1"], "", "M")],
        [page(["1"], "1", "M"), httpx.Response(502)],
        [page(["1"], "1", "F"), page(["2", "1"], "", "D")],
        [page(["1", "1"], "", "D")],
        [httpx.Response(200, json={"rt_cd": "0", "output1": {"odno": "1"}})],
        [httpx.Response(200, json={"rt_cd": "0", "output1": ["1"]})],
        [httpx.Response(200, json={"rt_cd": "0"})],
        [page([str(number)], str(number), "M") for number in range(client.MAX_PAGES + 1)],
    ],
    ids=[
        "the cursor stands still",
        "no cursor",
        "the second page fails",
        "a row of the first page comes again",
        "a row comes twice in one page",
        "an object for a list",
        "a list of no objects",
        "no list",
        "no end",
    ],
)
def test_half_a_list_is_no_list(answers: list[Any]) -> None:
    with pytest.raises(OutcomeUnknown):
        Wire(*answers).client.pages(catalogue.ORDERS, {})


def test_what_names_a_row_is_all_of_its_key_and_an_empty_object_is_no_row() -> None:
    same = {"pdno": "005930", "trad_dvsn_name": "자기융자"}
    rows = [{**same, "loan_dt": "20261102"}, {**same, "loan_dt": "20261103"}, {}, {}]
    wire = Wire({"rt_cd": "0", "output1": rows})
    (reply,) = wire.client.pages(catalogue.BALANCE, {})
    assert [row.text("loan_dt") for row in reply.list_rows()] == ["20261102", "20261103"]


def test_an_unknown_field_is_ignored_and_a_missing_one_names_the_operation() -> None:
    wire = Wire({"rt_cd": "0", "output": {"brand_new": "1"}})
    row = read(wire).row()
    with pytest.raises(OutcomeUnknown, match="inquire-price the reply has no field stck_prpr"):
        row.integer("stck_prpr")


def test_a_missing_output_names_the_operation() -> None:
    with pytest.raises(OutcomeUnknown, match="inquire-price the reply has no field output"):
        read(Wire({"rt_cd": "0"})).row()


def test_nobody_waits_for_ever() -> None:
    wire = Wire({"rt_cd": "0"})
    wire.client.call(catalogue.PRICE, {})
    assert wire.throttle.deadline_seconds == DEADLINE_SECONDS[catalogue.PRICE.priority]


def test_a_command_that_waited_too_long_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(
        refusal("EGW00123", "기간이 만료된 token 입니다."), {"rt_cd": "0", "msg_cd": "", "msg1": "", "output": {}}
    )
    monkeypatch.setattr(client, "COMMAND_SECONDS", 0.05)
    # the new token takes its time, as one a minute is all the broker issues
    monkeypatch.setattr(wire.tokens, "invalidate", lambda value: time.sleep(0.2))
    with pytest.raises(NotSent, match="to leave"):
        wire.client.call(catalogue.BUY, {})
    assert len(wire.requests) == 1
