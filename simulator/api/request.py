"""The arguments and replies of REST handlers, and the paging (연속조회) of lists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from simulator.api.error_codes import RequestRefused
from simulator.api.formatting import PAGE_KEY, padded
from simulator.broker import Firm

Body = dict[str, Any]
Row = TypeVar("Row")

QUOTATION_SUCCESS = ("0", "MCA00000", "정상처리 되었습니다.")
_FOUND = ("KIOK0510", "조회가 완료되었습니다")
_MORE = ("KIOK0500", "조회가 계속됩니다..다음버튼을 Click 하십시오.")
_NOTHING = ("KIOK0560", "조회할 내용이 없습니다")
_PAPER_FOUND = ("20310000", "모의투자 조회가 완료되었습니다.")
_PAPER_MORE = ("20310000", "모의투자 조회가 계속됩니다.")
_PAPER_NOTHING = ("70070000", "모의투자 조회할 내역(자료)이 없습니다.")


@dataclass(frozen=True, slots=True)
class ApiReply:
    """A handler's reply, without the HTTP headers."""

    body: Body
    tr_cont: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the catalogue. `live` and `paper` are the accepted TR ids; `paper` is empty if paper lacks the call.

    `specification` has TR ids of the user's specification, which the real broker does not accept.
    """

    name: str
    method: str
    path: str
    live: tuple[str, ...]
    paper: tuple[str, ...]
    handler: Callable[["Call"], ApiReply]
    required: tuple[str, ...] = ()
    is_account: bool = False  # the account ledger (원장) answers it, which has its own call limit
    specification: tuple[str, ...] = ()

    def ids(self, *, is_paper: bool, specification: bool) -> tuple[str, ...]:
        """Return the TR ids that an environment accepts for this operation."""
        tr_ids = self.paper if is_paper else self.live
        return tr_ids + self.specification if specification and not is_paper else tr_ids


@dataclass(frozen=True, slots=True)
class Call:
    """One request with its header parsed and its token checked. Parameter names are upper-case."""

    firm: Firm
    operation: Operation
    tr_id: str
    params: Mapping[str, str]
    key: str
    now: datetime
    tr_cont: str = ""
    tag: str = ""
    as_of: datetime | None = None  # the order lists show this moment instead of the present
    is_ignored: bool = False  # a cancel or amend is answered but not executed

    @property
    def is_paper(self) -> bool:
        return self.firm.settings.is_paper

    @property
    def account(self) -> str:
        """The account of a call, opened if it is new. Raises RequestRefused."""
        cano, product = self.params.get("CANO", ""), self.params.get("ACNT_PRDT_CD", "")
        if len(cano) != 8 or not cano.isascii() or not cano.isdigit() or product != "01":
            raise RequestRefused("account not ours")
        number = f"{cano}-{product}"
        self.firm.exchange.link_account(number, self.key)
        return number

    def text(self, name: str) -> str:
        return self.params.get(name, "").strip()

    def integer(self, name: str) -> int:
        """Return a whole number. Raises RequestRefused: the broker cannot put other text into the ledger's message."""
        text = self.text(name)
        if not text.isascii() or not text.isdigit():
            raise RequestRefused("body not built", name)
        return int(text)


def quotation_reply(**outputs: Any) -> ApiReply:
    """Return the successful reply of a quotation."""
    rt_cd, msg_cd, msg1 = QUOTATION_SUCCESS
    return ApiReply({**outputs, "rt_cd": rt_cd, "msg_cd": msg_cd, "msg1": msg1})


def account_reply(call: Call, *, has_more: bool = False, is_empty: bool = False, **outputs: Any) -> ApiReply:
    """Return the successful reply of an account query. Its text is padded to 80 bytes."""
    rows = (_PAPER_MORE, _PAPER_NOTHING, _PAPER_FOUND) if call.is_paper else (_MORE, _NOTHING, _FOUND)
    msg_cd, msg1 = rows[0] if has_more else rows[1] if is_empty else rows[2]
    return ApiReply({**outputs, "rt_cd": "0", "msg_cd": msg_cd, "msg1": padded(msg1, 80)})


@dataclass(frozen=True, slots=True)
class ReplyPage(Generic[Row]):
    """One page of a list, and the cursor and `tr_cont` for the next call."""

    rows: Sequence[Row]
    cursor: str
    tr_cont: str

    @property
    def has_more(self) -> bool:
        return bool(self.cursor)


def page(
    call: Call, rows: Sequence[Row], key: Callable[[Row], str], size: int, *, name: str = "NK100"
) -> ReplyPage[Row]:
    """Return the requested page. The cursor is the key of the last row sent, so new rows do not shift pages."""
    cursor = call.text(f"CTX_AREA_{name}") if call.tr_cont == "N" else ""
    start = 0
    if cursor:
        start = next((index + 1 for index, row in enumerate(rows) if key(row) == cursor), len(rows))
    page_rows = rows[start : start + size]
    has_more = start + size < len(rows)
    if has_more:
        return ReplyPage(page_rows, key(page_rows[-1]), "M" if cursor else "F")
    return ReplyPage(page_rows, "", "D")


def continuation_fields(query_key: str, cursor: str) -> Body:
    """Return the two continuation fields, in lower case and padded as the broker sends them."""
    return {"ctx_area_fk100": padded(query_key, PAGE_KEY), "ctx_area_nk100": padded(cursor, PAGE_KEY)}
