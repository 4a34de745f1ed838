"""Whose right has lapsed does nothing more: neither to a message that another tells, nor with a frame."""

import time
from datetime import datetime, timedelta

import pytest

from aegis.sessions import KST
from kis.codec import Data
from notify import alerts
from notify.alerts import Notification
from notify.delivery import CLAIM_DURATION, claim, deliver
from notify.models import Message, NotificationKind
from orders.models import RawNotice
from stream.worker import Dispatch, LeaseLost
from tests.orders.test_fills import notice

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=KST)


class Slow:
    """A channel that takes so long that another process claims its messages meanwhile."""

    name = "slow"

    def __init__(self) -> None:
        self.claimed: list[Message] = []

    def send(self, text: str, picture: bytes | None) -> None:
        self.claimed = claim(self.name, now=NOW + CLAIM_DURATION + timedelta(seconds=1))


def test_a_message_is_marked_by_who_holds_its_claim() -> None:
    channel = Slow()
    alerts.write_messages([Notification("event:1", NotificationKind.FILL, "filled", NOW)], [channel.name], now=NOW)
    assert deliver(channel, lambda: NOW, lambda seconds: None) == 0
    (message,) = channel.claimed
    message.refresh_from_db()
    assert (message.state, message.sent_at) == (Message.State.SENDING, None), "the new holder tells it, and says so"


def test_a_notice_is_not_written_once_the_lease_was_lost() -> None:
    asked = Dispatch([], lambda: False)
    with pytest.raises(LeaseLost):  # as after a long wait for the database
        asked.on_notice(Data("H0STCNI0", 1, notice("0000000001")), time.perf_counter())
    assert not RawNotice.objects.exists()
