"""After a feed was registered, for the first time or again, the stops of its stock are evaluated once.

Trades before the registration were not received, and a stock that fell meanwhile may not trade again for a while. If no
trade arrives within PATIENCE, the price is requested from the broker. A periodic job does this, so no order waits.
"""

import logging
import queue
from dataclasses import dataclass
from datetime import datetime, timedelta

from aegis.broker import BrokerError
from infra import clock
from kis.factory import broker
from kis.subscriptions import Topic
from orders import stop_polling
from orders.models import StopRule
from orders.tasks import stop
from stream.candles import TRADE_FEEDS
from stream.consumers import Consumer, PeriodicJob

log = logging.getLogger(__name__)

EVALUATE_SECONDS = 1.0
# a stock that trades has a new price by then; received prices are written every two seconds
PATIENCE = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Registration:
    code: str
    at: datetime


class Gaps:
    """The registrations of one session of the leader whose stops are not evaluated yet."""

    def __init__(self) -> None:
        self._new: queue.SimpleQueue[Registration] = queue.SimpleQueue()
        self._waiting: dict[str, datetime] = {}

    def on_registered(self, topic: Topic) -> None:
        if topic.tr_id in TRADE_FEEDS:
            self._new.put(Registration(topic.key, clock.now()))

    def evaluate(self) -> None:
        """Request the price for each stop whose feed was registered PATIENCE ago and had no trade since."""
        while not self._new.empty():
            registration = self._new.get()
            self._waiting[registration.code] = registration.at
        now = clock.now()
        due = {code: at for code, at in self._waiting.items() if not at <= now < at + PATIENCE}
        if not due:
            return
        rows = StopRule.objects.filter(state=StopRule.State.ARMED, stock_code__in=due).order_by("pk")
        for row in list(rows):
            # a trade with a time in the future, from before the clock was set back, is not after the registration
            if row.feed_at is None or not due[row.stock_code] <= row.feed_at <= now + PATIENCE:
                self._evaluate_by_request(row)
        for code in due:
            del self._waiting[code]

    def _evaluate_by_request(self, row: StopRule) -> None:
        try:
            if stop_polling.ask(row.pk, broker(), clock.now):
                stop.delay(row.pk)
        except BrokerError as error:
            # the periodic polling of silent stops requests it again
            log.warning("stop %s: its price cannot be requested after a gap: %s", row.pk, error)


def consumer() -> Consumer:
    """Evaluate stops after a gap in the trades received."""
    gaps = Gaps()
    return Consumer(jobs=(PeriodicJob("gaps", EVALUATE_SECONDS, gaps.evaluate),), on_registered=gaps.on_registered)
