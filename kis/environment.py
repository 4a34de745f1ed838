"""Which broker we talk to, and as whom: the simulator, paper trading (모의투자) or the live one (실전투자).

Hosts and limits: the broker's workbook and its notice of 2026-04-20 (18 calls a second live, 1 on
paper); the calls allowed here stay below them, as protocol notes §7 advise.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from aegis.account import Account


class EnvironmentName(StrEnum):
    SIM = "sim"
    PAPER = "paper"
    LIVE = "live"


class Dialect(StrEnum):
    """Whose TR ids go on the wire: the broker's of today, or those of the user's own specification."""

    OFFICIAL = "official"
    AEGIS_V3 = "aegis-v3"


@dataclass(frozen=True, slots=True)
class Environment:
    """One of the broker's worlds. Limits are calls per second and app key."""

    name: EnvironmentName
    rest_url: str
    socket_url: str
    calls_per_second: int
    is_paper: bool
    timeout_seconds: float = 10.0
    # where the list of every stock is downloaded from, the same for paper and live
    files_url: str = "https://new.real.download.dws.co.kr/common/master"

    def at(self, base_url: str) -> "Environment":
        """Return this environment served at `base_url` (http://host:port), socket and all."""
        base_url = base_url.rstrip("/")
        socket_url = base_url.replace("http", "ws", 1) + "/tryitout"
        return replace(self, rest_url=base_url, socket_url=socket_url, files_url=f"{base_url}/common/master")


SIM = Environment(EnvironmentName.SIM, "", "", 15, False).at("http://127.0.0.1:9443")
PAPER = Environment(
    EnvironmentName.PAPER,
    "https://openapivts.koreainvestment.com:29443",
    "ws://ops.koreainvestment.com:31000/tryitout",
    1,
    True,
    timeout_seconds=20.0,  # the paper host answers late, above all at the open
)
LIVE = Environment(
    EnvironmentName.LIVE,
    "https://openapi.koreainvestment.com:9443",
    "ws://ops.koreainvestment.com:21000/tryitout",
    15,
    False,
)
ENVIRONMENTS = {environment.name: environment for environment in (SIM, PAPER, LIVE)}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to the broker. The secrets never show in a repr, and so in no log or traceback."""

    app_key: str = field(repr=False)
    app_secret: str = field(repr=False)
    account: Account = field(repr=False)
    hts_id: str = field(repr=False)
