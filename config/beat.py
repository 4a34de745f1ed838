"""Beat: any number of them may run, and exactly one sends tasks, the holder of a lease in Redis.

The beat of a second machine is on standby, and takes over within `LEASE_SECONDS` of the first one's death. A task that
both send in that moment does no harm: every task may run twice.
"""

import logging
import time
from typing import Any

import redis
from django.conf import settings
from django_celery_beat.schedulers import DatabaseScheduler

from infra import heartbeat
from infra.lease import Lease
from kis.factory import store, stream_key

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
POLL_SECONDS = 1.0


class ElectedScheduler(DatabaseScheduler):
    """django-celery-beat's scheduler, active while it holds the lease; it writes a heartbeat each second."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._lease = Lease(store(), f"aegis:{settings.KIS_ENVIRONMENT.name}:beat", LEASE_SECONDS)
        self._tried_at = float("-inf")
        super().__init__(*args, **options)

    def tick(self, *args: Any, **options: Any) -> float:
        """Run one turn if this beat is the leader; return the seconds to the next turn."""
        if not self._is_elected():
            return POLL_SECONDS
        return min(float(super().tick(*args, **options)), LEASE_SECONDS / 3)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        # the database may have delayed this turn for longer than the lease
        if self._lease.is_ours:
            super().apply_entry(entry, producer=producer)

    def close(self) -> None:
        """Release the lease, so that another beat takes over at once."""
        super().close()
        try:
            self._lease.release()
        except redis.RedisError as error:
            log.warning("the next beat must wait for our lease to end: %s", error)

    def _is_elected(self) -> bool:
        if time.monotonic() - self._tried_at < POLL_SECONDS:
            return self._lease.is_ours
        self._tried_at = time.monotonic()
        try:
            if not (self._lease.is_ours and self._lease.renew()):
                if not self._lease.take():
                    return False
                log.info("beat is ours, fencing number %d", self._lease.fence)
                # read the schedule again: another process may have changed it meanwhile
                self._initial_read = True
            heartbeat.beat(store(), stream_key("pulse:beat"))
        except redis.RedisError as error:
            log.warning("Redis is not reachable, and without it nothing is sent: %s", error)
            return False
        return True
