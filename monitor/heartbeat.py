"""A heartbeat to an outside service, once a minute while all checks pass. If it stops, the service raises the alarm."""

import logging
import threading
import time

import httpx

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
# an older result of the checks says nothing about the present state
FRESH_SECONDS = 30.0
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0


class Heartbeat:
    """Sends GET requests to an address while recent checks pass. The address may hold a token, so it is not logged."""

    def __init__(self, url: str, stop: threading.Event, *, every_seconds: float = EVERY_SECONDS) -> None:
        self._url = url
        self._stop = stop
        self._every_seconds = every_seconds
        self._well_at = float("-inf")
        self._is_accepted = True
        self.thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        if self._url:
            self.thread.start()

    def note(self, well: bool) -> None:
        """Record whether all checks pass now."""
        self._well_at = time.monotonic() if well else float("-inf")

    def _run(self) -> None:
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        with httpx.Client(timeout=timeout) as http:
            while not self._stop.is_set():
                started_at = time.monotonic()
                if started_at - self._well_at <= FRESH_SECONDS:
                    self._beat(http)
                    self._stop.wait(max(0.0, self._every_seconds - (time.monotonic() - started_at)))
                else:
                    self._stop.wait(min(1.0, self._every_seconds))

    def _beat(self, http: httpx.Client) -> None:
        try:
            # only the status counts: the body is not read, however long it is
            with http.stream("GET", self._url) as response:
                why = "" if response.is_success else f"HTTP {response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            why = type(error).__name__
        if why and self._is_accepted:
            log.warning("the heartbeat service does not accept it: %s", why)
        elif not why and not self._is_accepted:
            log.info("the heartbeat service accepts it again")
        self._is_accepted = not why
