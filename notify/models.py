"""Messages to operators, the reading position of each news source, active alarms, and requests to confirm."""

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class NotificationKind(models.TextChoices):
    """What a message is about."""

    FILL = "FILL", _("fill")
    REFUSED = "REFUSED", _("refusal")
    CHASE = "CHASE", _("chase ended")
    STOP = "STOP", _("stop")
    UNKNOWN = "UNKNOWN", _("unknown outcome")
    SWITCH = "SWITCH", _("trading switch")
    CORRECTION = "CORRECTION", _("correction")
    HOLDING = "HOLDING", _("change of a holding")
    ALARM = "ALARM", _("alarm")
    REPORT = "REPORT", _("report")


class Message(models.Model):
    """The outbox: one event for one channel. The row is written first and sent afterwards.

    Channels are `desk` (this table itself, read in the admin), `telegram:<chat>` and `apprise:<digest of the URL>`.
    Waiting messages of one `topic` are sent as one: only the text of the newest is sent.
    """

    class State(models.TextChoices):
        WAITING = "WAITING", _("waiting")
        SENDING = "SENDING", _("being sent")
        SENT = "TOLD", _("sent")
        FAILED = "FAILED", _("cannot be delivered")

    event = models.CharField(_("event"), max_length=100)
    channel = models.CharField(_("channel"), max_length=60)
    kind = models.CharField(_("kind"), max_length=10, choices=NotificationKind.choices)
    topic = models.CharField(_("topic"), max_length=60, blank=True)
    text = models.TextField(_("text"))
    picture = models.BinaryField(_("picture"), null=True, blank=True)
    at = models.DateTimeField(_("at"))
    state = models.CharField(_("state"), max_length=7, choices=State.choices, default=State.WAITING)
    claimed_at = models.DateTimeField(_("being sent since"), null=True, blank=True)
    tries = models.PositiveSmallIntegerField(_("tries"), default=0)
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    maybe_sent = models.BooleanField(
        _("perhaps sent already"), default=False, help_text=_("it was sent once, and no answer came")
    )
    error = models.CharField(_("error"), max_length=200, blank=True)

    class Meta:
        db_table = "messages"
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["event", "channel"], name="an_event_once_per_channel")]
        indexes = [
            models.Index(
                fields=["channel", "id"], condition=Q(state__in=["WAITING", "SENDING"]), name="messages_to_tell"
            ),
            models.Index(fields=["at"], condition=Q(state="FAILED"), name="messages_given_up"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.event} {self.channel}"


class OutboxCursor(models.Model):
    """How far one source of news was read: each row up to `done_id` has its messages, or needs none.

    A transaction may commit a row after a row with a higher id was read, so the rows of the last minutes, after
    `done_id`, are read again. A row that has a message already is recognised by its event.
    """

    source = models.CharField(_("source"), max_length=20, primary_key=True)
    done_id = models.BigIntegerField(_("done up to"), default=0)
    seen_id = models.BigIntegerField(_("seen up to"), default=0)
    seen_at = models.DateTimeField(_("seen at"))

    class Meta:
        db_table = "news_marks"
        verbose_name = _("news mark")
        verbose_name_plural = _("news marks")

    def __str__(self) -> str:
        return f"{self.source} {self.done_id}"


class Alarm(models.Model):
    """Something that is wrong now. It is reported once it has lasted, and once more when it is over."""

    name = models.CharField(_("name"), max_length=40, primary_key=True)
    since = models.DateTimeField(_("since"))
    text = models.CharField(_("text"), max_length=300)
    is_reported = models.BooleanField(_("reported"), default=False)

    class Meta:
        db_table = "alarms"
        verbose_name = _("alarm")
        verbose_name_plural = _("alarms")
        ordering = ["since"]

    def __str__(self) -> str:
        return f"{self.name} {self.since:%Y-%m-%d %H:%M:%S}"


class ConfirmationManager(models.Manager["Confirmation"]):
    def delete_lapsed(self, before: datetime, at_most: int) -> int:
        """Delete up to `at_most` confirmations created and expired before then, in any state; return their number."""
        lapsed = self.filter(created_at__lt=before, expires_at__lt=before).values_list("pk", flat=True)
        return self.filter(pk__in=list(lapsed[:at_most])).delete()[0]


class Confirmation(models.Model):
    """A request from a chat that has no effect until its button is pressed. Pressed twice, it is carried out once."""

    class State(models.TextChoices):
        OPEN = "OPEN", _("not confirmed yet")
        TAKEN = "TAKEN", _("being done")
        DONE = "DONE", _("done")
        DROPPED = "DROPPED", _("dropped")

    key = models.CharField(_("key"), max_length=32, primary_key=True)
    chat = models.BigIntegerField(_("chat"))
    action = models.CharField(_("act"), max_length=10)
    params = models.JSONField(_("words"), default=dict)
    created_at = models.DateTimeField(_("created at"))
    expires_at = models.DateTimeField(_("expires at"))
    state = models.CharField(_("state"), max_length=7, choices=State.choices, default=State.OPEN)
    answer = models.TextField(_("answer"), blank=True)
    objects = ConfirmationManager()

    class Meta:
        db_table = "confirmations"
        verbose_name = _("confirmation")
        verbose_name_plural = _("confirmations")
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.action} {self.key}"
