"""One realtime session: its registrations with their AES keys, and its queue of frames to send."""

import asyncio
import secrets
import string
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

QUEUE = 20_000

Topic = tuple[str, str]  # tr_id, tr_key


@dataclass(frozen=True, slots=True)
class NoticeCipher:
    """AES key and IV of one registration, used as ASCII bytes."""

    key: str
    iv: str

    @classmethod
    def fresh(cls) -> "NoticeCipher":
        letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(32))
        return cls(letters, secrets.token_hex(8))

    def encrypt(self, text: str) -> str:
        """Return `text` as AES-256-CBC, PKCS#7, base64."""
        padder = padding.PKCS7(128).padder()
        data = padder.update(text.encode()) + padder.finalize()
        encryptor = Cipher(algorithms.AES(self.key.encode()), modes.CBC(self.iv.encode())).encryptor()
        return b64encode(encryptor.update(data) + encryptor.finalize()).decode()


@dataclass(slots=True, eq=False)
class FeedSession:
    """One WebSocket. `key` is the hash of its app key, empty until the first frame with an approval key."""

    number: int
    queue: asyncio.Queue[str | bytes | None] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    key: str = ""
    topics: dict[Topic, NoticeCipher] = field(default_factory=dict)
    unanswered: int = 0
    is_closing: bool = False
    cut: Callable[[], None] | None = None  # ends the connection without a closing handshake

    def send(self, text: str | bytes) -> None:
        """Queue a frame. A client that reads too slowly is disconnected."""
        if self.is_closing:
            return
        try:
            self.queue.put_nowait(text)
        except asyncio.QueueFull:
            self.hang_up()

    def hang_up(self) -> None:
        self.is_closing = True
        if not self.queue.full():
            self.queue.put_nowait(None)
