"""One token for everybody, against the simulator's own rules of issue."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from aegis.account import Account
from aegis.broker import NotSent, Refused
from aegis.sessions import KST
from infra import clock
from kis.auth import RENEW_AHEAD, AccessToken, Tokens, approval_key, store_key
from kis.environment import SIM, Credentials, Environment
from simulator.api.server import Simulator

SECRETS = Credentials("key-that-nobody-may-see", "secret-that-nobody-may-see", Account("50000000", "01"), "me")
ClockAt = Callable[[datetime], object]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture
def environment(simulator: Simulator) -> Environment:
    return SIM.at(simulator.url)


@pytest.fixture
def make(environment: Environment, http: httpx.Client, store: redis.Redis) -> Callable[[], Tokens]:
    """Make the tokens of one more process."""
    return lambda: Tokens(environment, SECRETS, http, store, sleep=lambda seconds: None)


def issues(simulator: Simulator) -> int:
    return sum(event["event"] == "token" for event in simulator.events())


def test_two_processes_share_one_token(make: Callable[[], Tokens], simulator: Simulator) -> None:
    assert make().get() == make().get()
    assert issues(simulator) == 1


def test_a_hundred_callers_at_once_make_one_issue(make: Callable[[], Tokens], simulator: Simulator) -> None:
    processes = [make() for _ in range(4)]
    got: list[str] = []
    threads = [threading.Thread(target=lambda n=n: got.append(processes[n % 4].get())) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 100
    assert len(set(got)) == 1
    assert issues(simulator) == 1


def test_a_lock_that_ends_during_a_slow_issue_loses_no_token(
    make: Callable[[], Tokens], store: redis.Redis, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = make()
    ask = tokens._ask

    def ask_slowly() -> AccessToken:
        token = ask()
        store.delete(f"{tokens._key}:lock")
        return token

    monkeypatch.setattr(tokens, "_ask", ask_slowly)
    assert tokens.get() == make().get()
    assert issues(simulator) == 1


def test_a_token_is_renewed_ahead_of_its_end(
    make: Callable[[], Tokens], clock_at: ClockAt, simulator: Simulator
) -> None:
    tokens = make()
    first = tokens.get()
    clock_at(clock.now() + timedelta(hours=24) - RENEW_AHEAD + timedelta(seconds=1))
    assert tokens.get() != first
    assert issues(simulator) == 2


def test_a_refused_token_is_replaced_once_however_many_say_so(
    make: Callable[[], Tokens], clock_at: ClockAt, simulator: Simulator
) -> None:
    processes = [make() for _ in range(4)]
    (old,) = {process.get() for process in processes}
    clock_at(clock.now() + timedelta(hours=7))  # the broker gives the same one for six hours
    threads = [threading.Thread(target=processes[n % 4].invalidate, args=(old,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({process.get() for process in processes} - {old}) == 1
    assert issues(simulator) == 2


def test_a_flushed_redis_costs_a_running_process_nothing(
    make: Callable[[], Tokens], store: redis.Redis, simulator: Simulator
) -> None:
    tokens = make()
    first = tokens.get()
    store.flushall()
    assert tokens.get() == first
    assert issues(simulator) == 1


def test_without_redis_no_token_is_issued(environment: Environment, http: httpx.Client, simulator: Simulator) -> None:
    nowhere = redis.Redis(unix_socket_path="/nowhere.sock", retry=Retry(NoBackoff(), 1))
    with pytest.raises(NotSent, match="Redis"):
        Tokens(environment, SECRETS, http, nowhere).get()
    assert issues(simulator) == 0


def test_the_minute_between_issues_is_waited_out(environment: Environment, store: redis.Redis) -> None:
    answers = [
        httpx.Response(403, json={"error_code": "EGW00133", "error_description": "1분당 1회"}),
        httpx.Response(
            200, json={"access_token": "t", "access_token_token_expired": f"{clock.now() + timedelta(1):%F %T}"}
        ),
    ]
    slept: list[float] = []
    http = httpx.Client(transport=httpx.MockTransport(lambda request: answers.pop(0)))
    assert Tokens(environment, SECRETS, http, store, sleep=slept.append).get() == "t"
    assert len(slept) == 1


def test_an_old_token_serves_while_the_broker_makes_us_wait(environment: Environment, store: redis.Redis) -> None:
    soon = clock.now() + RENEW_AHEAD / 2
    words = json.dumps({"value": "old", "ends_at": soon.isoformat()})
    store.set(store_key(environment, SECRETS, "token"), words)
    refusal = httpx.Response(403, json={"error_code": "EGW00133", "error_description": "1분당 1회"})
    http = httpx.Client(transport=httpx.MockTransport(lambda request: refusal))
    began = time.monotonic()
    assert Tokens(environment, SECRETS, http, store).get() == "old"
    assert time.monotonic() - began < 2


def test_a_wrong_key_says_which_variable_to_check(environment: Environment, store: redis.Redis) -> None:
    refusal = httpx.Response(403, json={"error_code": "EGW00103", "error_description": "유효하지 않은 AppKey"})
    http = httpx.Client(transport=httpx.MockTransport(lambda request: refusal))
    with pytest.raises(Refused, match="KIS_APP_KEY"):
        Tokens(environment, SECRETS, http, store).get()


def test_the_end_of_a_token_is_korean_time(make: Callable[[], Tokens], store: redis.Redis) -> None:
    make().get()
    stored = json.loads(store.get(store_key(SIM, SECRETS, "token")))  # type: ignore[arg-type]
    ends_at = datetime.fromisoformat(stored["ends_at"])
    assert ends_at.utcoffset() == KST.utcoffset(ends_at)
    assert abs(ends_at - clock.now() - timedelta(hours=24)) < timedelta(seconds=5)


def test_neither_key_nor_token_names_a_place_in_redis(make: Callable[[], Tokens], store: redis.Redis) -> None:
    make().get()
    assert not any(b"nobody-may-see" in key for key in store.scan_iter())


def test_an_approval_key_is_issued_for_the_socket(
    environment: Environment, http: httpx.Client, simulator: Simulator
) -> None:
    assert len(approval_key(environment, SECRETS, http)) >= 32


def test_a_token_that_died_early_is_revoked_before_a_new_one_is_asked_for(
    environment: Environment, http: httpx.Client, store: redis.Redis, clock_at: ClockAt
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock_at(clock.now() + timedelta(seconds=seconds))

    tokens = Tokens(environment, SECRETS, http, store, sleep=sleep)
    old = tokens.get()
    clock_at(clock.now() + timedelta(minutes=2))
    tokens.invalidate(old)
    assert tokens.get() != old, "within six hours the broker gives the same token until it is revoked"
    assert sum(slept) <= 60, "and then its minute between issues is waited out"


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadTimeout("slow"),
        httpx.Response(502, text="<html>Bad Gateway</html>"),
        httpx.Response(500, json={"error_code": "EGW00201", "error_description": "초당 거래건수 초과"}),
    ],
    ids=["silence", "html", "EGW00201"],
)
def test_a_living_token_serves_while_the_issuing_server_is_away(store: redis.Redis, failure: object) -> None:
    soon = clock.now() + RENEW_AHEAD / 2
    store.set(store_key(SIM, SECRETS, "token"), json.dumps({"value": "old", "ends_at": soon.isoformat()}))

    def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(failure, Exception):
            raise failure
        return failure  # type: ignore[return-value]

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        assert Tokens(SIM, SECRETS, http, store).get() == "old"
