"""Converts the frames of the broker's WebSocket to typed values, and back. No socket here.

A data frame is `flag|TR|NNN|values` with NNN records one after another. The number of columns of a record is
calculated from the frame (values ÷ NNN), never assumed: the broker adds columns at the end without notice.
Source: protocol notes §10 and §11.
"""

import base64
import json
import logging
from collections import Counter
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aegis.broker import Notice, NoticeKind
from aegis.terms import Market, Side
from kis.rest_values import hhmmss, order_number
from kis.schema import LAYOUTS

log = logging.getLogger(__name__)

NOTICE_IDS = frozenset({"H0STCNI0", "H0STCNI9"})
# notices of orders for futures and overseas shares name the account, too
PRIVATE_IDS = NOTICE_IDS | {"H0IFCNI0", "H0IFCNI9", "H0GSCNI0", "H0GSCNI9"}
# a record may be wider, never narrower
NOTICE_WIDTHS = (23, 26)
AES_BLOCK = 16


# how often records of an unknown width were received, by (TR, width)
drift: Counter[tuple[str, int]] = Counter()


class BadFrame(Exception):
    """A frame that cannot be read. Its payload is kept; the message shows it unless it names an account."""

    def __init__(self, why: str, payload: str, tr_id: str = "") -> None:
        super().__init__(why if tr_id in PRIVATE_IDS else f"{why}: {payload[:300]!r}")
        self.tr_id = tr_id
        self.why = why
        self.payload = payload


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """A JSON reply of the server: an acknowledgement, a refusal, or its PINGPONG."""

    tr_id: str
    tr_key: str
    code: str
    message: str
    is_ok: bool
    text: str

    @property
    def is_ping(self) -> bool:
        return self.tr_id == "PINGPONG"


@dataclass(slots=True)
class Data:
    """A data frame, decrypted: `body` holds `count` records of one TR.

    Not frozen: thousands are created each second, and a frozen dataclass is slower to create.
    """

    tr_id: str
    count: int
    body: str

    def records(self, widths: tuple[int, ...]) -> list[list[str]]:
        """Return the records as lists of text. `widths` are the known widths, smallest first.

        Raises BadFrame if the values cannot be divided evenly, or a record is narrower than the smallest width.
        """
        values = self.body.split("^")
        width, remainder = divmod(len(values), self.count)
        if remainder:
            raise self.error(f"{len(values)} values are not {self.count} records")
        self.check_width(width, widths)
        return [values[start : start + width] for start in range(0, len(values), width)]

    def split(self, widths: tuple[int, ...]) -> list["Data"]:
        """Return each record as a frame of its own. Raises BadFrame."""
        return [Data(self.tr_id, 1, "^".join(record)) for record in self.records(widths)]

    def check_width(self, width: int, widths: tuple[int, ...]) -> None:
        """Count an unknown width in `drift`. Raises BadFrame if a record is too narrow, or as wide as two."""
        if width in widths:
            return
        if width < widths[0]:
            raise self.error(f"a record of {width} columns, at least {widths[0]} are needed")
        if width >= 2 * widths[0]:
            raise self.error(f"{width} columns are no record of {widths[-1]}: {self.count} is not how many there are")
        self._check_places(width)
        drift[self.tr_id, width] += 1
        if drift[self.tr_id, width] == 1:
            log.error("wire drift: %s has %d columns, known are %s: known columns are read", self.tr_id, width, widths)

    def _check_places(self, width: int) -> None:
        """Check that a record of unknown width grew at its end: each known column holds a value that fits it.

        Raises BadFrame otherwise: a column inserted in the middle would shift the values after it.
        """
        layout = max((layout for layout in LAYOUTS[self.tr_id] if len(layout) <= width), key=len)
        values = self.body.split("^")
        for start in range(0, len(values), width):
            if values[start] != values[0]:
                raise self.error(f"records of {values[0]!r} and of {values[start]!r} in one frame")
            for column, value in zip(layout, values[start : start + width], strict=False):
                if not column.fits(value):
                    raise self.error(f"{column.wire} is {value!r}: the columns are not where they were")

    def error(self, why: str) -> BadFrame:
        """Return the error that says what is wrong with this frame."""
        return BadFrame(f"{self.tr_id}: {why}", self.body, self.tr_id)


class Codec:
    """Reads the frames of one connection. An AES key is valid for one connection and one TR."""

    def __init__(self) -> None:
        self._ciphers: dict[str, Cipher[modes.CBC]] = {}

    def read(self, text: str) -> ControlMessage | Data:
        """Return a frame as a typed value. Raises BadFrame."""
        try:
            flag, tr_id, digits, body = text.split("|", 3)
        except ValueError:
            flag = text[:1]
            if flag in ("0", "1"):
                raise BadFrame("a data frame needs flag, TR, count and values", text) from None
            return self._control(text)
        if flag == "1":
            body = self._decrypted(tr_id, body, text)
        elif flag != "0":
            return self._control(text)
        return Data(tr_id, 1 if digits == "001" else _count(digits, text), body)

    def _decrypted(self, tr_id: str, body: str, frame: str) -> str:
        cipher = self._ciphers.get(tr_id)
        if cipher is None:
            raise BadFrame(f"{tr_id}: encrypted, and no key came with its registration", frame, tr_id)
        try:
            decryptor = cipher.decryptor()
            padded = decryptor.update(base64.b64decode(body)) + decryptor.finalize()
            return _unpadded(padded).decode("utf-8", "replace")
        except ValueError as error:
            raise BadFrame(f"{tr_id}: cannot be decrypted ({error})", frame, tr_id) from error

    def _control(self, text: str) -> ControlMessage:
        try:
            message = json.loads(text)
            # a refusal may have no header, a PINGPONG has no body
            header, body = message.get("header") or {}, message.get("body") or {}
            if not header and not body:
                raise KeyError("header")
            control = ControlMessage(
                tr_id=str(header.get("tr_id") or ""),
                tr_key=str(header.get("tr_key") or ""),
                code=str(body.get("msg_cd") or ""),
                message=str(body.get("msg1") or "").strip(),
                is_ok=str(body.get("rt_cd", "")) == "0",
                text=text,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadFrame(f"neither a data frame nor a reply ({error!r})", text) from error
        output = body.get("output") or {}
        if control.is_ok and output.get("key") and output.get("iv"):
            self._learn(control.tr_id, output["key"], output["iv"])
        return control

    def _learn(self, tr_id: str, key: str, iv: str) -> None:
        """Keep the AES key and IV of a registration. Both are used as ASCII text, not decoded from hex or base64."""
        if len(key) in (16, 24, 32) and len(iv) == 16:
            self._ciphers[tr_id] = Cipher(algorithms.AES(key.encode("ascii")), modes.CBC(iv.encode("ascii")))


_VENUES = {"1": Market.KRX, "2": Market.NXT, "3": Market.SOR, "4": Market.SOR}
_SIDES = {"01": Side.SELL, "02": Side.BUY}


def notices(data: Data) -> list[Notice]:
    """Return the notices of a decrypted H0STCNI0 or H0STCNI9 frame. Raises BadFrame.

    Records of 23 and of 26 columns agree in the first eighteen. In the narrow record, venue and pop-up flag share
    column 18, as `1Y`.
    """
    try:
        return [_notice(values) for values in data.records(NOTICE_WIDTHS)]
    except (ValueError, KeyError) as error:
        raise data.error(repr(error)) from error


def _notice(v: list[str]) -> Notice:
    venue = v[19] if len(v) >= NOTICE_WIDTHS[-1] else v[18][:1]
    return Notice(
        _notice_kind(v[12], v[13], v[14], v[5]),
        v[1].strip(),
        order_number(v[2]),
        order_number(v[3]) if v[3].strip(" 0") else "",
        v[8].strip(),
        _SIDES[v[4]],
        int(v[9] or 0),
        int(v[10] or 0),
        hhmmss(v[11]),
        _VENUES.get(venue, Market.KRX),
        v[15].strip(),
        int(v[16] or 0),
        "^".join(v),
    )


def _notice_kind(refused: str, filled: str, accepted: str, changed: str) -> NoticeKind:
    """Return the kind of a notice. Only CNTG_YN 2 is a fill. Source: protocol notes §10.5."""
    if refused == "1":
        return NoticeKind.REFUSED
    if filled == "2":
        return NoticeKind.FILLED
    if filled != "1":
        raise ValueError(f"CNTG_YN {filled!r} is neither 1 nor 2")
    if accepted == "3":
        return NoticeKind.REMAINDER_CANCELLED
    if accepted == "2":
        return NoticeKind.CANCELLED if changed == "2" else NoticeKind.AMENDED
    return NoticeKind.ACCEPTED


def _unpadded(padded: bytes) -> bytes:
    """Remove the PKCS#7 padding. Raises ValueError if it is invalid, most likely because of a wrong key."""
    size = padded[-1] if padded else 0
    if not 1 <= size <= AES_BLOCK or padded[-size:] != bytes([size]) * size:
        raise ValueError("the padding is not PKCS#7")
    return padded[:-size]


def _count(digits: str, text: str) -> int:
    count = int(digits) if digits.isascii() and digits.isdigit() else 0
    if count < 1:
        raise BadFrame("a data frame needs a count of one or more", text)
    return count


def registration(approval_key: str, tr_id: str, tr_key: str, *, register: bool) -> str:
    """Return the frame that registers one feed, or releases it."""
    header = {
        "approval_key": approval_key,
        "custtype": "P",
        "tr_type": "1" if register else "2",
        "content-type": "utf-8",
    }
    return json.dumps({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}}})
