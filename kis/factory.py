"""Settings to broker: one client per process, made at first use and kept."""

import hashlib
from functools import cache

import httpx
import redis
from django.conf import settings

from aegis.broker import Broker
from kis import status
from kis.auth import Tokens, approval_key, store_key
from kis.broker import KISBroker
from kis.client import Client
from kis.connection_limiter import ConnectionLimiter
from kis.environment import Credentials
from kis.status import StreamStatus
from kis.throttle import Throttle

CONNECT_SECONDS = 3.0


@cache
def store() -> redis.Redis:
    """Return this process's connection pool to the shared Redis."""
    return settings.REDIS_CLIENT()


@cache
def http() -> httpx.Client:
    """Return this process's HTTP client: making one costs more than a call."""
    timeout = httpx.Timeout(settings.KIS_ENVIRONMENT.timeout_seconds, connect=CONNECT_SECONDS)
    # proxies of the environment are none of the broker's business
    return httpx.Client(timeout=timeout, trust_env=False)


@cache
def client() -> Client:
    environment, credentials = settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS
    return Client(
        environment,
        credentials,
        settings.KIS_DIALECT,
        http(),
        Tokens(environment, credentials, http(), store()),
        call_throttle(),
        ledger_throttle(),
        armed=settings.KIS_ARMED,
    )


@cache
def broker() -> Broker:
    """Return the broker of the settings, for this process."""
    return KISBroker(client())


def stream_key(name: str, credentials: Credentials | None = None) -> str:
    """Return the key in Redis of what belongs to the socket of an app key: the first one unless another is named."""
    return store_key(settings.KIS_ENVIRONMENT, credentials or settings.KIS_CREDENTIALS, name)


def all_keys() -> tuple[Credentials, ...]:
    """Return every app key: the first, which orders use, and those for market data."""
    return (settings.KIS_CREDENTIALS, *settings.KIS_MARKET_DATA_CREDENTIALS)


def call_throttle() -> Throttle:
    """Return the allowance of the first app key: every REST call holds a slot of it."""
    key = store_key(settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS, "calls")
    return Throttle(store(), key, settings.KIS_CALLS_PER_SECOND)


def ledger_throttle() -> Throttle:
    """Return our account's allowance at the broker's ledger."""
    return Throttle(store(), ledger_key(), settings.KIS_LEDGER_CALLS_PER_SECOND)


def ledger_key() -> str:
    """Return the key in Redis of our account's allowance at the broker's ledger."""
    account = hashlib.sha256(str(settings.KIS_CREDENTIALS.account).encode()).hexdigest()[:12]
    return f"aegis:kis:{settings.KIS_ENVIRONMENT.name}:{account}:ledger"


def door(credentials: Credentials | None = None) -> ConnectionLimiter:
    """Return what lets the socket of an app key through to the broker, with its own approval key."""
    known = credentials or settings.KIS_CREDENTIALS
    shared = http()  # made here: the threads of several sockets would each make their own
    return ConnectionLimiter(
        store(),
        stream_key("door", known),
        lambda: approval_key(settings.KIS_ENVIRONMENT, known, shared),
    )


def stream_status() -> StreamStatus:
    """Return how the sockets are, whichever process holds it. Raises redis.RedisError."""
    return status.read(store(), stream_key("stream"))


def reset() -> None:
    """Drop what this process keeps, so that changed settings take effect; connections are closed."""
    for kept in (http, store):
        if kept.cache_info().currsize:
            kept().close()
    for made in (broker, client, http, store):
        made.cache_clear()
