"""Refusals of the broker: HTTP status, rt_cd, msg_cd and msg1, live and in paper trading (모의투자).

Sources: protocol notes §6 and the recorded replies. If no reply was recorded, the code is the nearest known one and
the text describes the error; those rows are marked UNVERIFIED.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class RefusalFields:
    """The error fields of a reply and its HTTP status."""

    rt_cd: str
    msg_cd: str
    msg1: str
    status: int = 200


class RequestRefused(Exception):
    """A request that the broker refuses. `name` is the simulator's name of the error, a key of `REFUSALS`."""

    def __init__(self, name: str, detail: str = "") -> None:
        super().__init__(f"{name} {detail}".strip())
        self.name = name
        self.detail = detail

    def fields(self, *, is_paper: bool) -> RefusalFields:
        live, paper = REFUSALS[self.name]
        refusal = paper if is_paper and paper else live
        return RefusalFields(refusal.rt_cd, refusal.msg_cd, refusal.msg1.format(detail=self.detail), refusal.status)


def _live(code: str, text: str) -> RefusalFields:
    return RefusalFields("7", code, text)


def _paper(code: str, text: str) -> RefusalFields:
    return RefusalFields("1", code, f"모의투자 {text}")


def _gateway(code: str, text: str) -> RefusalFields:
    return RefusalFields("1", code, text, 500)


def _query(code: str, text: str, rt_cd: str = "2") -> RefusalFields:
    return RefusalFields(rt_cd, code, text)


_NOT_DONE = "주문처리가 안되었습니다"

# name: (live, paper); without a paper row both are the same
REFUSALS: Mapping[str, tuple[RefusalFields, RefusalFields | None]] = MappingProxyType(
    {
        # the gateway
        "app key missing": (_gateway("EGW00102", "AppKey는 필수입니다."), None),
        "app secret missing": (_gateway("EGW00104", "AppSecret은 필수입니다."), None),
        "secret of another key": (_gateway("EGW00304", "고객식별키와 AppSecret이 일치하지 않습니다."), None),
        "not a bearer": (_gateway("EGW00205", "credentials_type이 유효하지 않습니다.(Bearer)"), None),
        "token invalid": (_gateway("EGW00121", "유효하지 않은 token 입니다."), None),
        "token expired": (_gateway("EGW00123", "기간이 만료된 token 입니다."), None),
        "too fast": (_gateway("EGW00201", "초당 거래건수를 초과하였습니다."), None),
        "ledger too fast": (_gateway("EGW00215", "원장에서 허용 가능한 초당 거래건수를 초과하였습니다."), None),
        "connection timed out": (
            _gateway("EGW00301", "연결 시간이 초과되었습니다. 직전 거래를 반드시 확인하세요."),
            None,
        ),
        "transaction timed out": (
            _gateway("EGW00302", "거래시간이 초과되었습니다. 직전 거래를 반드시 확인하세요."),
            None,
        ),
        "not a live TR": (_gateway("EGW02004", "실전투자 TR 이 아닙니다."), None),
        "not a paper TR": (_gateway("EGW02006", "모의투자 TR 이 아닙니다."), None),
        "body not built": (_gateway("IGW00007", "MCA 전문바디 구성 중 오류가 발생하였습니다."), None),
        # the query server
        "no such service": (_query("OPSQ0002", "없는 서비스 코드 입니다.", "1"), None),
        "tr_id missing": (_query("OPSQ9999", "JSON PARSING ERROR : tr_id not found", "1"), None),
        "bad json": (_query("OPSQ9997", "JSON PARSING ERROR : invalid json format", "1"), None),
        "account not ours": (_query("OPSQ2000", "ERROR : INPUT INVALID_CHECK_ACNO"), None),
        "field missing": (_query("OPSQ2001", "ERROR : INPUT_FIELD_NAME {detail}"), None),
        "field invalid": (_query("OPSQ2001", "ERROR : INPUT INVALID_CHECK_{detail}"), None),
        "quotation of unknown stock": (_query("MCA05918", "종목코드 오류입니다.", "1"), None),
        "product not found": (_live("KIOK0560", "조회할 내용이 없습니다"), None),
        # the order system
        "not a business day": (
            _live("APBK0919", "장운영일자가 주문일과 상이합니다"),
            _paper("40100000", "영업일이 아닙니다."),
        ),
        "before the open": (
            _live("APBK0918", "장운영시간이 아닙니다.(주문불가)"),
            _paper("40570000", "장시작전 입니다."),
        ),
        "after the close": (
            _live("APBK0918", "장운영시간이 아닙니다.(주문불가)"),
            _paper("40580000", "장종료 입니다."),
        ),
        "kind not taken now": (
            # UNVERIFIED: code and text for an order kind that the phase does not take on KRX, live and paper
            _live("APBK0918", "장운영시간이 아닙니다.({detail} 주문불가)"),
            _paper("40680000", f"{_NOT_DONE}(주문구분 오류)"),
        ),
        "kind not taken on NXT": (
            _live("APBK3013", "[{detail}]지정가 및 최유리/최우선지정가 주문만 가능합니다."),
            None,
        ),
        "no market orders": (
            _live("APBK1943", "시장가호가불가로 주문이 불가합니다."),
            # UNVERIFIED: paper's code; the nearest known one is that of a stock which paper does not trade
            _paper("40070000", f"{_NOT_DONE}(시장가 매매불가 종목)"),
        ),
        "unknown stock": (
            _live("APBK0656", "해당종목정보가 없습니다."),
            _paper("40070000", f"{_NOT_DONE}(매매불가 종목)"),
        ),
        "halted": (
            # UNVERIFIED: the live code for a halted stock
            _live("APBK0066", "거래정지 종목으로 주문이 불가합니다."),
            _paper("40070000", f"{_NOT_DONE}(매매불가 종목)"),
        ),
        "not on this venue": (
            # UNVERIFIED: code and text for a stock that NXT does not trade
            _live("APBK3014", "NXT 거래가능 종목이 아닙니다."),
            None,
        ),
        "venue not on paper": (_query("90000000", "모의투자에서는 해당업무가 제공되지 않습니다.", "1"), None),
        "not offered on paper": (_query("90000000", "모의투자에서는 해당업무가 제공되지 않습니다.", "1"), None),
        "bad tick": (
            # UNVERIFIED: the live code; the text is quoted by users
            _live("APBK0506", "주식주문호가단위 오류입니다."),
            _paper("40030000", f"{_NOT_DONE}(호가단위 오류)"),
        ),
        "outside daily limits": (
            # UNVERIFIED: the live code
            _live("APBK0507", "주문단가가 상한가 또는 하한가를 벗어났습니다."),
            _paper("40270000", "상/하한가를 초과하였습니다."),
        ),
        "bad quantity": (
            # UNVERIFIED: the live code; the text is quoted by users
            _live("APBK0501", "주문 수량을 확인해주세요."),
            _paper("40010000", f"{_NOT_DONE}(주문수량 오류)"),
        ),
        "cash short": (
            _live("APBK0952", "주문가능금액을 초과 했습니다"),
            _paper("40250000", "주문가능금액이 부족합니다."),
        ),
        "shares short": (
            _live("APBK0400", "주문 가능한 수량을 초과했습니다."),
            _paper("40240000", "잔고내역이 없습니다."),
        ),
        "no such order": (
            # UNVERIFIED: the live code
            _live("APBK0344", "원주문번호가 존재하지 않습니다."),
            _paper("40320000", "원주문번호가 존재하지 않습니다."),
        ),
        "nothing left": (
            # UNVERIFIED: the live code
            _live("APBK0927", "정정/취소할 수량이 없습니다."),
            _paper("40330000", "정정/취소할 수량이 없습니다."),
        ),
    }
)
