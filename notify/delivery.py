"""Messages that wait are told, channel by channel: claimed, folded, sent, marked.

A claim is a compare-and-set on the row, so two notifiers never send the same message. What cannot be ruled out is a
notifier that dies, or an answer that is lost, between the sending and the mark: such a message is sent once more and
says so. Nothing waits for another channel: each has a thread of its own.
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

# longer than a sending can take: whoever claimed a message before that is dead
CLAIM = timedelta(seconds=90)
AT_ONCE = 200
# leaves room for what a repetition says of itself
LONGEST = 3500
# a chat takes one message a second, https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
PACE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 300.0


class Undelivered(Exception):
    """Not told. `perhaps`: it may have been, nobody knows. `is_final`: it never will be."""

    def __init__(self, why: str, *, perhaps: bool = False, is_final: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.perhaps = perhaps
        self.is_final = is_final
        self.retry_after = retry_after


class Channel(Protocol):
    """A way to people."""

    name: str

    def tell(self, text: str, picture: bytes | None) -> None:
        """Tell a text. Raises Undelivered."""


class TelegramChannel:
    """One chat of the bot."""

    def __init__(self, bot: BotAPI, chat: int) -> None:
        self.name = f"telegram:{chat}"
        self._bot = bot
        self._chat = chat

    def tell(self, text: str, picture: bytes | None) -> None:
        try:
            if picture:
                self._bot.send_picture(self._chat, picture, text)
            else:
                self._bot.send(self._chat, text)
        except Unanswered as error:
            raise Undelivered(str(error), perhaps=True) from error
        except Declined as error:
            raise Undelivered(str(error), is_final=error.is_final, retry_after=error.retry_after) from error
        except TelegramError as error:
            raise Undelivered(str(error)) from error


def _apprise() -> Any:
    """Return Apprise, which loads all its services at once: only for whoever names one."""
    return import_module("apprise")


class AppriseChannel:
    """Any other service, by its Apprise URL. Apprise says yes or no and nothing else, and a no may have been heard."""

    def __init__(self, url: str) -> None:
        # the URL holds the keys: rows and logs know it by its digest
        self.name = f"apprise:{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self._service = _apprise().Apprise()
        if not self._service.add(url):
            raise ValueError("AEGIS_NOTIFY_URLS: an address in it is none that Apprise knows")

    def tell(self, text: str, picture: bytes | None) -> None:
        attached = None
        if picture:
            memory = import_module("apprise.attachment.memory")
            attached = memory.AttachMemory(content=picture, name="report.png", mimetype="image/png")
        if not self._service.notify(body=text, title="AEGIS", attach=attached):
            raise Undelivered("the service did not take it, or did not answer", perhaps=True)


def channels() -> list[Channel]:
    """Return the channels of the settings: none without a token or an address."""
    made: list[Channel] = []
    if settings.TELEGRAM_TOKEN:
        made += [TelegramChannel(telegram.api(), chat) for chat in settings.TELEGRAM_CHATS]
    return made + [AppriseChannel(url) for url in settings.NOTIFY_URLS]


def give_up_strangers(names: Sequence[str]) -> int:
    """Give up what waits for channels that are not in the settings any more; return how many messages.

    `names` are the channels there are. What is given up is kept, and shown as not told.
    """
    unsent = Message.objects.filter(state__in=[State.WAITING, State.SENDING]).exclude(channel__in=names)
    count = unsent.update(state=State.FAILED, error="the channel is not in the settings any more")
    if count:
        log.error("%d messages are given up: their channels are not in the settings any more", count)
    return count


def delete_before(before: datetime, at_most: int) -> int:
    """Delete messages of before then, told or not: what an order did stays in its own history; return how many."""
    old = Message.objects.filter(at__lt=before).order_by("id").values_list("pk", flat=True)[:at_most]
    return Message.objects.filter(pk__in=list(old)).delete()[0]


def claim(channel: str, *, now: datetime) -> list[Message]:
    """Take the channel's waiting messages, oldest first, for this process alone."""
    lapsed = Q(claimed_at__lt=now - CLAIM) | Q(claimed_at__gt=now)  # the future: a rehearsal's clock was set back
    due = Q(state=State.WAITING) | (Q(state=State.SENDING) & lapsed)
    with transaction.atomic():
        waiting = Message.objects.select_for_update(skip_locked=True).filter(due, channel=channel).order_by("id")
        messages = list(waiting[:AT_ONCE])
        taken = Message.objects.filter(pk__in=[each.pk for each in messages])
        # whose claim lapsed was perhaps told by a process that died
        taken.filter(state=State.SENDING).update(perhaps_told=True)
        taken.update(state=State.SENDING, claimed_at=now, tries=F("tries") + 1)
    for each in messages:
        each.perhaps_told = each.perhaps_told or each.state == State.SENDING
        each.claimed_at = now
    return messages


@dataclass(frozen=True, slots=True)
class Digest:
    """One sending: what it says, and the messages it stands for."""

    text: str
    messages: Sequence[Message]
    picture: bytes | None = None


def fold(messages: Sequence[Message]) -> list[Digest]:
    """Return the fewest sendings that say it all: of one topic the newest speaks, and short ones share a sending."""
    newest: dict[str, list[Message]] = {}
    for each in messages:
        # popped and put back, so that a topic stands where its newest message does
        newest[each.topic or each.event] = [*newest.pop(each.topic or each.event, []), each]
    sendings: list[Digest] = []
    for group in newest.values():
        line, picture = _line(group), group[-1].picture
        last = sendings[-1] if sendings else None
        if picture or last is None or last.picture or len(last.text) + len(line) + 2 > LONGEST:
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
    return _("(perhaps told already) {text}").format(text=text) if any(each.perhaps_told for each in group) else text


def deliver(channel: Channel, now: Callable[[], datetime], pace: Callable[[float], object]) -> float:
    """Tell all that waits on a channel; return how long to leave it alone, 0 where all went well.

    `pace` waits so many seconds between two sendings.
    """
    messages = claim(channel.name, now=now())
    with translation.override(settings.LANGUAGE_CODE):
        sendings = fold(messages)
    for number, sending in enumerate(sendings):
        if number:
            pace(PACE_SECONDS)
        try:
            channel.tell(sending.text, sending.picture)
        except Undelivered as error:
            if not error.is_final:
                _put_back([each for later in sendings[number:] for each in later.messages], sending, error)
                return max(error.retry_after, FIRST_PAUSE_SECONDS)
            log.error("%s: a message cannot be told: %s", channel.name, error)
            _mark(sending.messages, State.FAILED, error=str(error)[:200])
        else:
            _mark(sending.messages, State.TOLD, told_at=now(), error="")
    return 0.0


def _mark(messages: Sequence[Message], state: str, **fields: object) -> None:
    """Note the outcome of a sending on the rows that are still ours."""
    for each in messages:
        claimed = Message.objects.filter(pk=each.pk, state=State.SENDING, claimed_at=each.claimed_at)
        claimed.update(state=state, **fields)


def _put_back(messages: Sequence[Message], tried: Digest, error: Undelivered) -> None:
    log.warning("%d messages wait: %s", len(messages), error)
    _mark(messages, State.WAITING, error=str(error)[:200])
    if error.perhaps:
        Message.objects.filter(pk__in=[each.pk for each in tried.messages]).update(perhaps_told=True)


class ChannelWorker:
    """Tells one channel in a thread of its own until `stop`; it looks every `every_seconds`."""

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
        """Deliver once; return the pause, twice the last where it failed again."""
        try:
            least = deliver(self._channel, self._now, self._stop.wait)
        except Exception:  # one channel's fault, or a database that is away, must not end its thread
            log.exception("%s: telling failed; it is tried again", self._channel.name)
            connection.close()
            least = FIRST_PAUSE_SECONDS
        return max(least, min(before * 2, LONGEST_PAUSE_SECONDS)) if least else 0.0
