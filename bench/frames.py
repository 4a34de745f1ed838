"""Frames to typed values: our parser, a bare split of the same frames, and the peers' parsers."""

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from mojito.koreainvestment import KoreaInvestmentWS
from pykis.api.websocket.price import KisDomesticRealtimePrice
from pykis.responses.websocket import KisWebsocketResponse

from bench.report import Row, rates
from kis import realtime
from kis.codec import NOTICE_WIDTHS, Codec

SAMPLES = Path(__file__).parent.parent / "tests" / "samples" / "kis"
TRADE = (SAMPLES / "ws_h0stcnt0_20250722_005930_46f.txt").read_text(encoding="utf-8").strip()
NOTICE = (SAMPLES / "ws_h0stcni9_plain_20250722_accept_027360.txt").read_text(encoding="utf-8").strip()
KEY, IV = "abcdefghijklmnopqrstuvwxyzabcdef", "0123456789abcdef"


class Sink:
    """Replaces mojito2's queue between processes, so that only its parser is measured."""

    def put(self, item: Any) -> None:
        self.last = item


def rows() -> list[Row]:
    return [*trade_rows(), *notice_rows()]


def trade_rows() -> list[Row]:
    """H0STCNT0, one record per frame. python-kis reads only 46 columns, so all parsers read those."""
    body = TRADE.split("|", 3)[3]
    codec, mojito = Codec(), _mojito()
    rate = rates(
        {
            "split": lambda: body.split("^"),
            "ours": lambda: realtime.read_records(codec.read(TRADE)),
            "mojito2": lambda: mojito.parse_execution("1", body),
            "python-kis": lambda: list(
                KisWebsocketResponse.parse(body, count=1, response_type=KisDomesticRealtimePrice)
            ),
        },
        calls=5_000,
    )
    print("H0STCNT0 records a second: " + ", ".join(f"{name} {value:,.0f}" for name, value in rate.items()))
    return [
        Row("frame_decode_vs_split", rate["ours"] / rate["split"], 0.45, "bare str.split('^')"),
        Row("frame_decode_vs_python_kis", rate["ours"] / rate["python-kis"], 15, "python-kis 2.1.6, parse only"),
        Row("frame_decode_vs_mojito2", rate["ours"] / rate["mojito2"], 2, "mojito2 0.1.6, parse only"),
    ]


def notice_rows() -> list[Row]:
    """H0STCNI0, encrypted: our parser returns a typed notice, the peer's a dict of strings."""
    cipher = encrypted(NOTICE)
    frame = f"1|H0STCNI0|001|{cipher}"
    codec, mojito = Codec(), _mojito()
    output = {"key": KEY, "iv": IV}
    codec.read(
        json.dumps(
            {
                "header": {"tr_id": "H0STCNI0", "tr_key": "me", "encrypt": "Y"},
                "body": {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS", "output": output},
            }
        )
    )
    rate = rates(
        {
            "decrypted": lambda: codec.read(frame).records(NOTICE_WIDTHS),
            "typed": lambda: realtime.read_records(codec.read(frame)),
            "mojito2": lambda: mojito.parse_notice(cipher),
        },
        calls=2_000,
    )
    print("H0STCNI0 notices a second: " + ", ".join(f"{name} {value:,.0f}" for name, value in rate.items()))
    return [
        Row("notice_decrypt_vs_mojito2", rate["decrypted"] / rate["mojito2"], 2, "mojito2 0.1.6, decrypt and dict"),
        Row("notice_typed_vs_mojito2", rate["typed"] / rate["mojito2"], 1.2, "the same; ours typed and checked"),
    ]


def _mojito() -> Any:
    parser = KoreaInvestmentWS("key", "secret", [], [])
    parser.queue = Sink()
    parser.aes_key, parser.aes_iv = KEY, IV
    return parser


def encrypted(text: str) -> str:
    padder = PKCS7(128).padder()
    padded = padder.update(text.encode()) + padder.finalize()
    encryptor = Cipher(algorithms.AES(KEY.encode()), modes.CBC(IV.encode())).encryptor()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode("ascii")
