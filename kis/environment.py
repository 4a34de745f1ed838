"""The environments, which are the simulator, paper trading (모의투자) and live trading (실전투자), and the credentials.

Source of hosts and limits: the broker's workbook and its notice of 2026-04-20 (18 calls per second live, 1 on paper).
The limits here are not above these, as protocol notes §7 advise.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from aegis.account import Account


class EnvironmentName(StrEnum):
    SIM = "sim"
    PAPER = "paper"
    LIVE = "live"


class Dialect(StrEnum):
    """Which TR ids are sent: the broker's current ones, or those of the AEGIS specification."""

    OFFICIAL = "official"
    AEGIS_V3 = "aegis-v3"


@dataclass(frozen=True, slots=True)
class Environment:
    """One of the broker's environments. The limit is in calls per second and app key."""

    name: EnvironmentName
    rest_url: str
    socket_url: str
    calls_per_second: int
    is_paper: bool
    timeout_seconds: float = 10.0
    # the base URL of the stock master files, the same for paper and live
    files_url: str = "https://new.real.download.dws.co.kr/common/master"

    def at(self, base_url: str) -> "Environment":
        """Return this environment served at `base_url` (http://host:port): REST, WebSocket and files."""
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
    timeout_seconds=20.0,  # the paper host answers slowly, especially at the open
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
    """An app key and the account. No secret is in the repr, so none appears in a log or a traceback."""

    app_key: str = field(repr=False)
    app_secret: str = field(repr=False)
    account: Account = field(repr=False)
    hts_id: str = field(repr=False)
