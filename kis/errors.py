"""The broker's message codes: what each means for us, and what an operator should do about it.

Source: the broker's error list (2026-06-25) and what users published; see the venue notes. Codes are
many and grow: one that is not here shows itself whole, and on an order it is judged by its family.
"""

from dataclasses import dataclass
from enum import Enum

from aegis.broker import BrokerError, NoMarketOrders, OutcomeUnknown, Refused
from kis.catalogue import TR, Effect


class Meaning(Enum):
    TOKEN = "TOKEN"  # turned away unread: replace the access token and send again
    BUSY = "BUSY"  # turned away unread: wait and send again
    UNKNOWN = "UNKNOWN"  # it may have been executed
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Code:
    meaning: Meaning
    advice: str


NO_MARKET_ORDERS = "APBK1943"
_T, _B, _U, _R = Meaning.TOKEN, Meaning.BUSY, Meaning.UNKNOWN, Meaning.REFUSED

CODES: dict[str, Code] = {
    "EGW00121": Code(_T, "the access token is not valid; a new one is asked for"),
    "EGW00122": Code(_T, "the access token is not known to the broker; a new one is asked for"),
    "EGW00123": Code(_T, "the access token has expired; a new one is asked for"),
    "EGW00201": Code(_B, "too many calls in one second; AEGIS slows down by itself"),
    "EGW00215": Code(_B, "the broker's ledger is busy; AEGIS slows down by itself"),
    "EGW00001": Code(_U, "a temporary fault at the broker; look what became of the request"),
    "EGW00002": Code(_U, "a fault at the broker's server; look what became of the request"),
    "EGW00202": Code(_U, "the broker could not route the request; look what became of it"),
    "EGW00203": Code(_U, "the broker could not route the request; look what became of it"),
    "EGW00300": Code(_U, "the broker could not route the request; look what became of it"),
    "EGW00301": Code(_U, "the broker's gateway timed out; look what became of the request"),
    "EGW00302": Code(_U, "the transaction timed out; look what became of the request"),
    "EGW00103": Code(_R, "KIS_APP_KEY is not valid on this host: check key and KIS_ENV"),
    "EGW00105": Code(_R, "KIS_APP_SECRET is not valid: check it"),
    "EGW00133": Code(_B, "an access token is issued once a minute; AEGIS waits"),
    "EGW00206": Code(_R, "this key has no right to this API: apply for it at the broker's portal"),
    "EGW00304": Code(_R, "KIS_APP_SECRET does not belong to KIS_APP_KEY: check both"),
    "EGW02004": Code(_R, "a paper key or id was used on the live host: check KIS_ENV"),
    "EGW02006": Code(_R, "paper trading does not offer this operation"),
    "IGW00002": Code(_R, "the account does not belong to this key: check KIS_ACCOUNT_NUMBER"),
    "IGW00007": Code(_R, "the broker could not read the order's fields"),
    "OPSQ0002": Code(_R, "the TR id does not fit the path: the broker may have changed it"),
    "OPSQ2000": Code(_R, "the account is not tied to this key: check KIS_ACCOUNT_NUMBER"),
    "OPSQ2001": Code(_R, "a field is missing or not understood"),
    "OPSQ2002": Code(_R, "a field is too long"),
    "MCA05918": Code(_R, "there is no such stock code"),
    "APBK0400": Code(_R, "more than can be ordered now: other orders hold the rest"),
    "APBK0656": Code(_R, "there is no such stock"),
    "APBK0919": Code(_R, "the market is not open, or cash is short: read the broker's words"),
    "APBK0952": Code(_R, "not enough orderable cash"),
    "APBK1234": Code(_R, "not enough shares"),
    NO_MARKET_ORDERS: Code(_R, "this stock takes no market orders"),
    "APBK3013": Code(_R, "this phase of NXT does not take the order"),
    "40030000": Code(_R, "the price is not on the tick grid"),
    "40070000": Code(_R, "paper trading does not trade this stock"),
    "40100000": Code(_R, "today is not a business day"),
    "40240000": Code(_R, "there is no holding to sell"),
    "40250000": Code(_R, "not enough orderable cash"),
    "40270000": Code(_R, "the price is outside the daily limits"),
    "40320000": Code(_R, "there is no such order to cancel"),
    "40330000": Code(_R, "nothing is left to cancel: it is filled or cancelled already"),
    "40570000": Code(_R, "the market has not opened yet"),
    "40580000": Code(_R, "the market has closed"),
    "40910000": Code(_R, "this account may not order: has the paper account expired?"),
}

# families whose unknown members still tell whether a request was read by the gateway only
_GATEWAY_FAMILIES = ("EGW", "IGW", "OPSQ")


def meaning_of(code: str, effect: Effect) -> Meaning:
    """Return what a failure code means for a call. An unknown gateway code on a command is an unknown outcome."""
    known = CODES.get(code)
    if known is not None:
        return known.meaning
    if not code or (effect is Effect.COMMAND and code.startswith(_GATEWAY_FAMILIES)):
        return Meaning.UNKNOWN
    return Meaning.REFUSED


# one code, several meanings: the broker's words tell which
BY_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "APBK0918": (
        ("시간", "orders are not taken at this hour"),
        ("장종료", "orders are not taken at this hour"),
        ("금액", "not enough orderable cash"),
        ("잔고", "not enough shares"),
        ("수량", "not enough shares"),
    ),
}


def advice(code: str, words: str) -> str:
    """Return what an operator should make of a code, empty where nothing is known of it."""
    for part, meaning in BY_WORDS.get(code, ()):
        if part in words:
            return meaning
    known = CODES.get(code)
    return known.advice if known else ""


def failure(tr: TR, code: str, words: str) -> BrokerError:
    """Return the exception for a readable failure that is not to be sent again."""
    if meaning_of(code, tr.effect) is Meaning.UNKNOWN:
        return OutcomeUnknown(words, code=code, call=tr.name)
    kind = NoMarketOrders if code == NO_MARKET_ORDERS else Refused
    return kind(words, code=code, call=tr.name)
