"""Frames of the broker's socket to typed values, and back. No socket here.

A data frame is `flag|TR|NNN|values` with NNN records one after another. How many columns a record has
is read from the frame (values ÷ NNN), never assumed: the broker adds columns at the end without a
word. Source: protocol notes §10 and §11.
"""

import base64
import json
import logging
from collections import Counter
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from aegis.broker import Notice, NoticeKind
from aegis.terms import Market, Side
from kis.fields import hhmmss, order_number

log = logging.getLogger(__name__)

NOTICE_IDS = frozenset({"H0STCNI0", "H0STCNI9"})
# a record may be wider, never narrower
NOTICE_WIDTHS = (23, 26)
AES_BLOCK_BITS = 128


# (TR, width) of records wider than any layout known here, and how often they came
drift: Counter[tuple[str, int]] = Counter()


class BadFrame(Exception):
    """A frame that cannot be read. Its payload is kept for the log."""

    def __init__(self, why: str, payload: str) -> None:
        super().__init__(f"{why}: {payload[:300]!r}")
        self.why = why
        self.payload = payload


@dataclass(frozen=True, slots=True)
class Control:
    """A JSON reply of the server: an acknowledgement, a refusal, or its PINGPONG."""

    tr_id: str
    tr_key: str
    code: str
    words: str
    is_ok: bool
    text: str

    @property
    def is_ping(self) -> bool:
        return self.tr_id == "PINGPONG"


@dataclass(slots=True)
class Data:
    """A data frame, decrypted: `body` holds `count` records of one TR. Not frozen: thousands are made each second."""

    tr_id: str
    count: int
    body: str

    def records(self, widths: tuple[int, ...]) -> list[list[str]]:
        """Return the records as lists of text; `widths` are those known, the least first.

        Raises BadFrame where the columns do not come out even, or are fewer than the least.
        """
        values = self.body.split("^")
        width, rest = divmod(len(values), self.count)
        if rest:
            raise BadFrame(f"{self.tr_id}: {len(values)} values are not {self.count} records", self.body)
        self.check(width, widths)
        return [values[start : start + width] for start in range(0, len(values), width)]

    def check(self, width: int, widths: tuple[int, ...]) -> None:
        """Raise BadFrame where a record is too narrow to read; note a width never seen before."""
        if width in widths:
            return
        if width < widths[0]:
            raise BadFrame(f"{self.tr_id}: a record of {width} columns, at least {widths[0]} are needed", self.body)
        drift[self.tr_id, width] += 1
        if drift[self.tr_id, width] == 1:
            log.error("wire drift: %s has %d columns, known are %s: what is known is read", self.tr_id, width, widths)


class Codec:
    """Reads the frames of one connection: keys belong to a connection and a TR."""

    def __init__(self) -> None:
        self._ciphers: dict[str, Cipher[modes.CBC]] = {}

    def read(self, text: str) -> Control | Data:
        """Return what a frame says. Raises BadFrame."""
        flag = text[:1]
        if flag not in ("0", "1"):
            return self._control(text)
        parts = text.split("|", 3)
        if len(parts) != 4:
            raise BadFrame("a data frame needs flag, TR, count and values", text)
        count = 1 if parts[2] == "001" else _count(parts[2], text)
        body = parts[3] if flag == "0" else self._decrypted(parts[1], parts[3], text)
        return Data(parts[1], count, body)

    def _decrypted(self, tr_id: str, body: str, frame: str) -> str:
        cipher = self._ciphers.get(tr_id)
        if cipher is None:
            raise BadFrame(f"{tr_id}: encrypted, and no key came with its registration", frame)
        try:
            decryptor = cipher.decryptor()
            padded = decryptor.update(base64.b64decode(body)) + decryptor.finalize()
            unpadder = PKCS7(AES_BLOCK_BITS).unpadder()
            return (unpadder.update(padded) + unpadder.finalize()).decode("utf-8", "replace")
        except ValueError as error:
            raise BadFrame(f"{tr_id}: cannot be decrypted ({error})", frame) from error

    def _control(self, text: str) -> Control:
        try:
            words = json.loads(text)
            # a refusal may come without a header, a PINGPONG comes without a body
            header, body = words.get("header") or {}, words.get("body") or {}
            if not header and not body:
                raise KeyError("header")
            control = Control(
                tr_id=str(header.get("tr_id") or ""),
                tr_key=str(header.get("tr_key") or ""),
                code=str(body.get("msg_cd") or ""),
                words=str(body.get("msg1") or "").strip(),
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
        """Keep the key of a registration; both are used as the characters they are printed in."""
        if len(key) in (16, 24, 32) and len(iv) == 16:
            self._ciphers[tr_id] = Cipher(algorithms.AES(key.encode("ascii")), modes.CBC(iv.encode("ascii")))


_VENUE_OF_DIGIT = {"1": Market.KRX, "2": Market.NXT, "3": Market.SOR, "4": Market.SOR}


def notices(data: Data) -> list[Notice]:
    """Return the notices of a decrypted H0STCNI0 or H0STCNI9 frame. Raises BadFrame.

    Records of 23 and of 26 columns agree in the first eighteen; in the narrow one venue and pop-up
    share column 18, as `1Y`.
    """
    try:
        return [_notice(values) for values in data.records(NOTICE_WIDTHS)]
    except (ValueError, KeyError) as error:
        raise BadFrame(f"{data.tr_id}: {error!r}", data.body) from error


def _notice(v: list[str]) -> Notice:
    venue = v[19] if len(v) >= 26 else v[18][:1]
    original = v[3].strip()
    return Notice(
        kind=_notice_kind(refused=v[12], filled=v[13], accepted=v[14], changed=v[5]),
        account=v[1].strip(),
        order_no=order_number(v[2]),
        original_no=order_number(original) if original.strip("0") else "",
        code=v[8].strip(),
        side={"01": Side.SELL, "02": Side.BUY}[v[4]],
        qty=int(v[9] or 0),
        price=int(v[10] or 0),
        at=hhmmss(v[11]),
        market=_VENUE_OF_DIGIT.get(venue, Market.KRX),
        branch=v[15].strip(),
        order_qty=int(v[16] or 0),
        text="^".join(v),
    )


def _notice_kind(*, refused: str, filled: str, accepted: str, changed: str) -> NoticeKind:
    """Tell the kinds apart: only CNTG_YN 2 is a fill. Source: protocol notes §10.5."""
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


def _count(digits: str, text: str) -> int:
    count = int(digits) if digits.isascii() and digits.isdigit() else 0
    if count < 1:
        raise BadFrame("a data frame needs a count of one or more", text)
    return count


def registration(approval_key: str, tr_id: str, tr_key: str, *, register: bool) -> str:
    """Return the frame that registers (or releases) one feed."""
    header = {
        "approval_key": approval_key,
        "custtype": "P",
        "tr_type": "1" if register else "2",
        "content-type": "utf-8",
    }
    return json.dumps({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}}})
