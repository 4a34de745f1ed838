"""The broker's message codes: what each means for AEGIS, and what an operator should do about it.

Source: the broker's error list (2026-06-25) and what users published; see the venue notes. The broker adds codes over
time. A code that is not listed here is shown as it is; for an order, its prefix decides what it means.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from aegis.broker import BrokerError, NoMarketOrders, NoSuchStock, OutcomeUnknown, Refused
from aegis.denials import gettext_noop as _
from kis.catalogue import TR, Effect


class Meaning(Enum):
    TOKEN = "TOKEN"  # the gateway refused it unread: replace the access token and send again
    BUSY = "BUSY"  # the gateway refused it unread: wait and send again
    UNKNOWN = "UNKNOWN"  # the request may have been executed
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Code:
    meaning: Meaning
    advice: str


# The limit of the ledger (원장), which is behind the gateway. UNVERIFIED: that it refuses before it executes; order
# lists without any of the orders refused with this code would settle it. Until then it proves nothing about a command.
LEDGER_BUSY = "EGW00215"

# The broker refuses a list with this text if orders changed while it was read: "조회이후에 자료가 변경되었습니다.(다시
# 조회하세요)". UNVERIFIED: its code; users published only the text. A command is never repeated because of it
READ_AGAIN_TEXT = "다시조회"


class ReadAgain(Refused):
    """The broker asks to repeat a read. A list must be read again from its first page: it changed meanwhile."""


# the refusals that have a class of their own in the port (`aegis.broker`)
KINDS: Mapping[str, type[Refused]] = {
    "APBK1943": NoMarketOrders,
    "MCA05918": NoSuchStock,
    "APBK0656": NoSuchStock,
}
_T, _B, _U, _R = Meaning.TOKEN, Meaning.BUSY, Meaning.UNKNOWN, Meaning.REFUSED

_LOOK = _("the broker's gateway failed: the outcome of the request is looked up, do not send it again yourself")
_OUR_FAULT = _("the broker did not understand AEGIS: report it with this line")
_KEYS = _("check KIS_APP_KEY, KIS_APP_SECRET and KIS_ENV: the broker does not know them as a pair on this host")
_TOKEN = _("the access token is not valid any more; AEGIS asks for a new one by itself")
_ACCOUNT = _("the account is not tied to this key: check KIS_ACCOUNT_NUMBER")
_CASH = _("not enough orderable cash: order less, or sell or cancel something first")
_SHARES = _("not enough shares to sell: some may be held by other orders")
_NO_STOCK = _("there is no such stock: check the code")
_HOURS = _("orders are not taken at this hour: see the day's phases")
_RIGHTS = _("this key has no right to this service: apply for it at the broker's portal")
_NOT_ON_PAPER = _("paper trading does not offer this: it needs KIS_ENV=live")
_LEFT = _("nothing is left to cancel or amend: it is already filled or cancelled, and the order list will show it")


def _rows(codes: str, meaning: Meaning, advice: str) -> dict[str, Code]:
    return dict.fromkeys(codes.split(), Code(meaning, advice))


CODES: dict[str, Code] = {
    **_rows("EGW00121 EGW00122 EGW00123", _T, _TOKEN),
    **_rows("EGW00201", _B, _("too many calls in one second; AEGIS slows down by itself")),
    **_rows(
        LEDGER_BUSY,
        _B,
        _("the broker's ledger is overloaded by all customers; AEGIS slows down and looks up the outcome of an order"),
    ),
    **_rows("EGW00133", _B, _("an access token is issued once a minute; AEGIS waits for it")),
    **_rows("EGW00001 EGW00002 EGW00202 EGW00203 EGW00300 EGW00301 EGW00302", _U, _LOOK),
    **_rows("EGW00003 EGW00004 EGW00206", _R, _RIGHTS),
    **_rows("EGW00102 EGW00103 EGW00104 EGW00105 EGW00304", _R, _KEYS),
    **_rows("EGW00101 EGW00112 EGW00115 EGW00116 EGW00117 EGW00131 EGW00132 EGW00205", _R, _OUR_FAULT),
    **_rows("EGW00124 EGW00125 EGW00126 EGW00208 EGW00209 IGW00007", _R, _OUR_FAULT),
    **_rows("EGW00207", _R, _("the broker does not accept this machine's address: see the portal's list of addresses")),
    **_rows("EGW00210", _R, _("corporations may not use paper trading: use KIS_ENV=live")),
    **_rows("EGW00213 EGW02006", _R, _NOT_ON_PAPER),
    **_rows("EGW02004", _R, _("a paper key or id was used on the live host: check KIS_ENV")),
    **_rows("IGW00002 OPSQ2000", _R, _ACCOUNT),
    **_rows(
        "OPSQ0002", _R, _("the broker does not know this service at this path: it may have changed it, see its notices")
    ),
    **_rows("OPSQ2001 OPSQ2002", _R, _OUR_FAULT),
    **_rows("OPSQ9995 OPSQ9996 OPSQ9997 OPSQ9998 OPSQ9999", _R, _OUR_FAULT),
    **_rows(
        " ".join(f"OPSQ{number:04}" for number in (*range(1, 2), *range(3, 12), 1002, 2003, *range(3001, 3005))),
        _U,
        _LOOK,
    ),
    **_rows("MCA05918 APBK0656", _R, _NO_STOCK),
    **_rows("APBK0400", _R, _("more than can be ordered now: other orders hold the rest")),
    **_rows("APBK0919", _R, _("the market is not open, or cash is short: the broker's message says which")),
    **_rows("APBK0952 40250000 40900000", _R, _CASH),
    **_rows("APBK1234", _R, _SHARES),
    **_rows("APBK1664", _R, _("the foreign market is closed; AEGIS does not trade there")),
    **_rows("APBK1943", _R, _("this stock takes no market orders: name a price")),
    **_rows("APBK3013", _R, _("this phase of NXT does not take the order: wait for its regular hours, or use KRX")),
    **_rows("40030000", _R, _("the price is not on the tick grid: move it to a whole tick")),
    **_rows("40070000", _R, _("paper trading does not trade this stock: choose another")),
    **_rows("40100000", _R, _("today is not a business day")),
    **_rows("40240000", _R, _("there is no holding of it to sell")),
    **_rows("40270000", _R, _("the price is outside the day's limits")),
    **_rows("40320000", _R, _("there is no such order to cancel: order numbers restart each day")),
    **_rows("40330000", _R, _LEFT),
    **_rows("40570000", _R, _("the market has not opened yet")),
    **_rows("40580000", _R, _("the market has closed")),
    **_rows("40910000", _R, _("this account may not order: has the paper account expired?")),
    # codes of the WebSocket: the replies to a registration
    **_rows("OPSP0002 OPSP0003", _R, _("harmless: the feed was registered, or released, already")),
    **_rows("OPSP0007 OPSP0009 OPSP8999", _R, _("the broker could not register the feed; AEGIS tries again")),
    **_rows("OPSP0008", _R, _("more than 41 feeds: the least important are left out")),
    **_rows("OPSP0010", _R, _KEYS),
    **_rows("OPSP0011", _R, _("the approval key is not valid any more; AEGIS asks for a new one by itself")),
    **_rows(
        "OPSP0017", _R, _("the HTS id is wrong: check KIS_HTS_ID; without it fills are known from the order list only")
    ),
    **_rows("OPSP8991 OPSP8992 OPSP8993 OPSP8994 OPSP8995 OPSP8997 OPSP8998", _R, _OUR_FAULT),
    **_rows(" ".join(f"OPSP{number}" for number in range(9990, 10_000)), _R, _OUR_FAULT),
    **_rows("OPSP8996", _R, _("another program holds this key's socket: end it; AEGIS waits and tries again")),
}

# prefixes of codes that the gateway issues, in front of the order system
_GATEWAY_FAMILIES = ("EGW", "IGW", "OPSQ")


def meaning_of(code: str, effect: Effect) -> Meaning:
    """Return what a failure code means for a call.

    An unknown gateway code on a command is an unknown outcome, and so is the ledger's limit.
    """
    if code == LEDGER_BUSY and effect is Effect.COMMAND:
        return Meaning.UNKNOWN
    entry = CODES.get(code)
    if entry is not None:
        return entry.meaning
    if not code or (effect is Effect.COMMAND and code.startswith(_GATEWAY_FAMILIES)):
        return Meaning.UNKNOWN
    return Meaning.REFUSED


# codes with several meanings: a part of the broker's message says which
BY_MESSAGE: dict[str, tuple[tuple[str, str], ...]] = {
    "APBK0918": (("시간", _HOURS), ("장종료", _HOURS), ("금액", _CASH), ("잔고", _SHARES), ("수량", _SHARES)),
    "APBK0919": (("시간", _HOURS), ("장", _HOURS), ("금액", _CASH)),
}


def advice(code: str, message: str) -> str:
    """Return what an operator should do about a code, as a text to translate; empty if the code is not known."""
    for part, text in BY_MESSAGE.get(code, ()):
        if part in message:
            return text
    entry = CODES.get(code)
    return entry.advice if entry else ""


def failure(tr: TR, code: str, message: str) -> BrokerError:
    """Return the exception for a readable failure of a call that must not be sent again."""
    if tr.effect is Effect.READ and READ_AGAIN_TEXT in message.replace(" ", ""):
        return ReadAgain(message, code=code, call=tr.name)
    if meaning_of(code, tr.effect) is Meaning.UNKNOWN:
        return OutcomeUnknown(message, code=code, call=tr.name)
    return KINDS.get(code, Refused)(message, code=code, call=tr.name)
