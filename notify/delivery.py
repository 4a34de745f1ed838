"""Sends waiting messages, channel by channel: claim, fold, send, mark.

A claim is a compare-and-set on the row, so two notifiers never send the same message. A notifier may still die, or an
answer may be lost, between the sending and the mark: such a message is sent once more, and its text says so. No channel
waits for another: each has its own thread.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, Protocol

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import translation
from django.utils.translation import gettext as _

from notify import telegram
from notify.models import Message, NotificationKind
from notify.telegram import BotAPI, Declined, TelegramError, Unanswered

log = logging.getLogger(__name__)

State = Message.State

# longer than a sending can take: a process whose claim is older is dead
CLAIM_DURATION = timedelta(seconds=90)
BATCH_SIZE = 200
# leaves room for the note on a repeated message
MAX_TEXT_LENGTH = 3500
# a chat takes one message a second, https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
PACE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0


class Undelivered(Exception):
    """A sending failed; the text `may_have_arrived`. `is_final`: no retry can succeed. `retry_after` is in seconds."""

    def __init__(
        self, why: str, *, may_have_arrived: bool = False, is_final: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(why)
        self.may_have_arrived = may_have_arrived
        self.is_final = is_final
        self.retry_after = retry_after


class Channel(Protocol):
    """A way to reach operators."""

    name: str

    def send(self, text: str, picture: bytes | None) -> None:
        """Send a text, with a PNG picture if there is one. Raises Undelivered."""


class TelegramChannel:
    """One chat of the bot."""

    def __init__(self, bot: BotAPI, chat: int) -> None:
        self.name = f"telegram:{chat}"
        self._bot = bot
        self._chat = chat

    def send(self, text: str, picture: bytes | None) -> None:
        try:
            if picture:
                self._bot.send_picture(self._chat, picture, text)
            else:
                self._bot.send(self._chat, text)
        except Unanswered as error:
            raise Undelivered(str(error), may_have_arrived=True) from error
        except Declined as error:
            raise Undelivered(str(error), is_final=error.is_final, retry_after=error.retry_after) from error
        except TelegramError as error:
            raise Undelivered(str(error)) from error


def _apprise() -> Any:
    """Return the Apprise module. It loads all its services at once, so import it only if an address is set."""
    return import_module("apprise")


class AppriseChannel:
    """Any other service, by its Apprise URL. Apprise reports success or failure; a failed text may have arrived."""

    def __init__(self, url: str) -> None:
        # the URL holds secrets: rows and logs show its digest instead
        self.name = f"apprise:{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self._service = _apprise().Apprise()
        if not self._service.add(url):
            raise ValueError("AEGIS_NOTIFY_URLS: an address in it is none that Apprise knows")

    def send(self, text: str, picture: bytes | None) -> None:
        attachment = None
        if picture:
            memory = import_module("apprise.attachment.memory")
            attachment = memory.AttachMemory(content=picture, name="report.png", mimetype="image/png")
        if not self._service.notify(body=text, title="AEGIS", attach=attachment):
            raise Undelivered("the service did not take it, or did not answer", may_have_arrived=True)


def channels() -> list[Channel]:
    """Return the channels of the settings: none without a token or an address."""
    chats: list[Channel] = []
    if settings.TELEGRAM_TOKEN:
        chats += [TelegramChannel(telegram.api(), chat) for chat in settings.TELEGRAM_CHATS]
    return chats + [AppriseChannel(url) for url in settings.NOTIFY_URLS]


def give_up_removed_channels(names: Sequence[str]) -> int:
    """Give up the unsent messages of channels that were removed from the settings; return their number.

    `names` are the present channels. The rows are kept, with the state FAILED.
    """
    unsent = Message.objects.filter(state__in=[State.WAITING, State.SENDING]).exclude(channel__in=names)
    count = unsent.update(state=State.FAILED, error="the channel is not in the settings any more")
    if count:
        log.error("%d messages are given up: their channels were removed from the settings", count)
    return count


def delete_before(before: datetime, at_most: int) -> int:
    """Delete up to `at_most` messages older than `before`, sent or not; return their number.

    The history of an order has its own tables.
    """
    expired = Message.objects.filter(at__lt=before).order_by("id").values_list("pk", flat=True)[:at_most]
    return Message.objects.filter(pk__in=list(expired)).delete()[0]


def claim(channel: str, *, now: datetime) -> list[Message]:
    """Claim the channel's waiting messages for this process; return them, oldest first."""
    lapsed = Q(claimed_at__lt=now - CLAIM_DURATION) | Q(
        claimed_at__gt=now
    )  # in the future: a rehearsal's clock was set back
    due = Q(state=State.WAITING) | (Q(state=State.SENDING) & lapsed)
    with transaction.atomic():
        waiting = Message.objects.select_for_update(skip_locked=True).filter(due, channel=channel).order_by("id")
        messages = list(waiting[:BATCH_SIZE])
        rows = Message.objects.filter(pk__in=[message.pk for message in messages])
        # a process that died may have sent a message whose claim lapsed
        rows.filter(state=State.SENDING).update(maybe_sent=True)
        rows.update(state=State.SENDING, claimed_at=now, tries=F("tries") + 1)
    for message in messages:
        message.maybe_sent = message.maybe_sent or message.state == State.SENDING
        message.claimed_at = now
    return messages


@dataclass(frozen=True, slots=True)
class Digest:
    """One sending: its text, the messages that it stands for, and a PNG picture if there is one."""

    text: str
    messages: Sequence[Message]
    picture: bytes | None = None


def fold(messages: Sequence[Message]) -> list[Digest]:
    """Return as few sendings as possible: one text for each topic, its newest; short texts share a sending."""
    by_topic: dict[str, list[Message]] = {}
    for message in messages:
        # popped and inserted again, so that a topic has the place of its newest message
        by_topic[message.topic or message.event] = [*by_topic.pop(message.topic or message.event, []), message]
    sendings: list[Digest] = []
    for group in by_topic.values():
        line, picture = _line(group), group[-1].picture
        last = sendings[-1] if sendings else None
        if picture or last is None or last.picture or len(last.text) + len(line) + 2 > MAX_TEXT_LENGTH:
            sendings.append(Digest(line, group, bytes(picture) if picture else None))
        else:
            sendings[-1] = Digest(f"{last.text}\n\n{line}", [*last.messages, *group])
    return sendings


SIGNS = {
    NotificationKind.FILL: "✅",
    NotificationKind.REFUSED: "⛔",
    NotificationKind.UNKNOWN: "❓",
    NotificationKind.ALARM: "🚨",
    NotificationKind.SWITCH: "⏻",
    NotificationKind.REPORT: "📈",
}


def _line(group: Sequence[Message]) -> str:
    last = group[-1]
    text = f"{SIGNS.get(NotificationKind(last.kind), '•')} {last.text}"
    if len(group) > 1:
        text += " " + _("(the last of {count})").format(count=len(group))
    return _("(perhaps sent already) {text}").format(text=text) if any(row.maybe_sent for row in group) else text


def deliver(channel: Channel, now: Callable[[], datetime], pace: Callable[[float], object]) -> float:
    """Send all waiting messages of a channel; return the seconds to pause before the next try, 0 if nothing failed.

    `pace` waits the given number of seconds between two sendings.
    """
    messages = claim(channel.name, now=now())
    with translation.override(settings.LANGUAGE_CODE):
        sendings = fold(messages)
    for number, sending in enumerate(sendings):
        if number:
            pace(PACE_SECONDS)
        try:
            channel.send(sending.text, sending.picture)
        except Undelivered as error:
            if not error.is_final:
                _put_back([message for later in sendings[number:] for message in later.messages], sending, error)
                return max(error.retry_after, FIRST_PAUSE_SECONDS)
            log.error("%s: a message cannot be sent: %s", channel.name, error)
            _mark(sending.messages, State.FAILED, error=str(error)[:200])
        else:
            _mark(sending.messages, State.SENT, sent_at=now(), error="")
    return 0.0


def _mark(messages: Sequence[Message], state: str, **fields: object) -> None:
    """Record the outcome of a sending on the rows that this process still has claimed."""
    for each in messages:
        row = Message.objects.filter(pk=each.pk, state=State.SENDING, claimed_at=each.claimed_at)
        row.update(state=state, **fields)


def _put_back(messages: Sequence[Message], failed: Digest, error: Undelivered) -> None:
    log.warning("%d messages wait: %s", len(messages), error)
    _mark(messages, State.WAITING, error=str(error)[:200])
    if error.may_have_arrived:
        Message.objects.filter(pk__in=[message.pk for message in failed.messages]).update(maybe_sent=True)


class ChannelWorker:
    """Sends the messages of one channel on its own thread until `stop`, and polls for them every `every_seconds`."""

    def __init__(
        self, channel: Channel, now: Callable[[], datetime], stop: threading.Event, *, every_seconds: float = 1.0
    ) -> None:
        self._channel = channel
        self._now = now
        self._stop = stop
        self._every_seconds = every_seconds
        self.thread = threading.Thread(target=self._run, name=f"tell-{channel.name}", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def _run(self) -> None:
        pause = 0.0
        try:
            while not self._stop.wait(max(pause, self._every_seconds)):
                pause = self._turn(pause)
        finally:
            connection.close()

    def _turn(self, before: float) -> float:
        """Deliver once; return the pause in seconds, at least twice `before` if it failed again."""
        try:
            pause = deliver(self._channel, self._now, self._stop.wait)
        except Exception:  # an error of one channel, or of the database, must not end the thread
            log.exception("%s: sending failed; it is tried again", self._channel.name)
            connection.close()
            pause = FIRST_PAUSE_SECONDS
        return max(pause, min(before * 2, LONGEST_PAUSE_SECONDS)) if pause else 0.0
