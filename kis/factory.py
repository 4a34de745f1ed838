"""Builds the broker and its parts from the settings. Each exists once per process, and is created at first use."""

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
    """Return this process's HTTP client. It is shared because creating one costs more than a call."""
    timeout = httpx.Timeout(settings.KIS_ENVIRONMENT.timeout_seconds, connect=CONNECT_SECONDS)
    # calls to the broker never go through a proxy that environment variables name
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
    """Return the Redis key `name` of an app key's socket. Without `credentials` it is that of the first app key."""
    return store_key(settings.KIS_ENVIRONMENT, credentials or settings.KIS_CREDENTIALS, name)


def all_keys() -> tuple[Credentials, ...]:
    """Return every app key: first the one that orders use, then those for market data."""
    return (settings.KIS_CREDENTIALS, *settings.KIS_MARKET_DATA_CREDENTIALS)


def call_throttle() -> Throttle:
    """Return the rate limiter of the first app key: every REST call holds a slot of it."""
    key = store_key(settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS, "calls")
    return Throttle(store(), key, settings.KIS_CALLS_PER_SECOND)


def ledger_throttle() -> Throttle:
    """Return the rate limiter of our account's calls to the broker's ledger."""
    return Throttle(store(), ledger_key(), settings.KIS_LEDGER_CALLS_PER_SECOND)


def ledger_key() -> str:
    """Return the Redis key of the rate limiter of our account's calls to the broker's ledger."""
    account = hashlib.sha256(str(settings.KIS_CREDENTIALS.account).encode()).hexdigest()[:12]
    return f"aegis:kis:{settings.KIS_ENVIRONMENT.name}:{account}:ledger"


def connection_limiter(credentials: Credentials | None = None) -> ConnectionLimiter:
    """Return the connection limiter of an app key, with its own approval key. The default is the first app key."""
    app_key = credentials or settings.KIS_CREDENTIALS
    shared_http = http()  # created here: the threads of several sockets would each create a client
    return ConnectionLimiter(
        store(),
        stream_key("door", app_key),
        lambda: approval_key(settings.KIS_ENVIRONMENT, app_key, shared_http),
    )


def stream_status() -> StreamStatus:
    """Return the state of the sockets, whichever process holds them. Raises redis.RedisError."""
    return status.read_status(store(), stream_key("stream"))


def reset() -> None:
    """Close the connections of this process and drop its cached objects, so that changed settings take effect."""
    for connection in (http, store):
        if connection.cache_info().currsize:
            connection().close()
    for factory in (broker, client, http, store):
        factory.cache_clear()
