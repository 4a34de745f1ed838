"""The real client in every dialect, on every wire, live and on paper, before a simulated broker."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import httpx
import pytest
import redis

from aegis.account import Account
from kis.auth import Tokens
from kis.broker import KISBroker
from kis.client import Client
from kis.environment import PAPER, SIM, Credentials, Dialect
from kis.throttle import Throttle
from simulator.api.server import Simulator, serve
from tests.conftest import ORDINARY_MORNING

ACCOUNT = Account("50000000", "01")
SAMSUNG = "005930"
# dialect, wire, on paper or live
Way = tuple[Dialect, str, bool]
WAYS: list[Way] = list(product(Dialect, ("2026-07", "2026-09"), (False, True)))


@dataclass(frozen=True)
class Desk:
    """A broker, the simulator behind it, and how they were made."""

    broker: KISBroker
    client: Client
    simulator: Simulator
    dialect: Dialect
    is_paper: bool

    def ledger(self) -> dict:  # type: ignore[type-arg]
        return dict(self.simulator.ledger(str(ACCOUNT)))

    def sent(self) -> list[str]:
        """Return the ids of all calls that reached the simulator."""
        return [event["tr_id"] for event in self.simulator.events() if event["event"] == "request"]


def _named(way: Way) -> str:
    return f"{way[0]}-{way[1]}{'-paper' if way[2] else ''}"


@pytest.fixture
def opened(store: redis.Redis, clock_at: Callable[[object], object]) -> Iterator[Callable[[Way], Desk]]:
    """Open a desk in one way."""
    clock_at(ORDINARY_MORNING)
    with ExitStack() as stack:

        def open_in(way: Way) -> Desk:
            dialect, wire, is_paper = way
            specification = dialect is Dialect.AEGIS_V3
            simulator = stack.enter_context(
                serve(seed=1, wire=wire, paper=is_paper, rate=0, ticking=False, specification=specification)
            )
            environment = (PAPER if is_paper else SIM).at(simulator.url)
            secrets = Credentials("key", "secret", ACCOUNT, "me")
            http = stack.enter_context(httpx.Client(trust_env=False, timeout=10))
            tokens = Tokens(environment, secrets, http, store)
            throttle = Throttle(store, "test", 1_000)
            client = Client(environment, secrets, dialect, http, tokens, throttle, throttle)
            simulator.set_price(SAMSUNG, 70_000)
            return Desk(KISBroker(client), client, simulator, dialect, is_paper)

        yield open_in


@pytest.fixture(params=WAYS, ids=_named)
def desk(request: pytest.FixtureRequest, opened: Callable[[Way], Desk]) -> Desk:
    return opened(request.param)


@pytest.fixture(params=[way for way in WAYS if not way[2]], ids=_named)
def live_desk(request: pytest.FixtureRequest, opened: Callable[[Way], Desk]) -> Desk:
    return opened(request.param)


@pytest.fixture(params=[way for way in WAYS if way[2]], ids=_named)
def paper_desk(request: pytest.FixtureRequest, opened: Callable[[Way], Desk]) -> Desk:
    return opened(request.param)
