"""One holder at a time, on a real Redis."""

import time
from collections.abc import Callable

import redis

from infra.lease import Lease

KEY = "test:socket"


def wait_for(happened: Callable[[], object], seconds: float = 10.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.01)


def test_nobody_renews_a_lease_that_another_holds(store: redis.Redis) -> None:
    first, second = Lease(store, KEY, 0.1), Lease(store, KEY, 30.0)
    assert first.take() == 1
    wait_for(second.take)
    assert not first.renew()
    assert not first.is_ours
    assert second.renew()
    assert store.pttl(KEY) > 20_000, "it still has the term of its holder"


def test_nobody_gives_up_a_lease_that_another_holds(store: redis.Redis) -> None:
    first, second = Lease(store, KEY, 0.1), Lease(store, KEY, 30.0)
    assert first.take() == 1
    wait_for(second.take)
    first.release()
    assert (second.fence, second.renew()) == (2, True)
