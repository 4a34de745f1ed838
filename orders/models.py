"""Orders, requests, fills and stops as tables. `orders.journal` is the only writer of an order's state."""

from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from aegis import market_halts, stops, trading_state
from aegis.broker import BrokerOrderRef, NoticeKind
from aegis.chase import ChaseBy, ChaseStep, Plan
from aegis.lifecycle import DONE, OPEN, UNSETTLED, Status
from aegis.requests import LIVE, REPLY_DEADLINE, EndCause, RequestedBy, RequestKind, RequestState, SentRequest
from aegis.terms import Market, OrderKind, Side

MARKETS = [(market.value, market.value) for market in Market]
SIDES = [(Side.BUY.value, _("buy")), (Side.SELL.value, _("sell"))]


STOP_ID = "stop:"
REQUEST_ID_LENGTH = 64


class TradeOrder(models.Model):
    """One order at the broker (주문). A chase creates a family: a root, and re-orders that point to it.

    The row is committed before the request is sent, so `order_no` is empty until the broker answers.
    Prices are in won (0: without a price), quantities in shares.
    """

    class Origin(models.TextChoices):
        AEGIS = "AEGIS", _("AEGIS")
        EXTERNAL = "EXTERNAL", _("external")

    STATUSES = [
        (Status.SUBMITTING.value, _("submitting")),
        (Status.PENDING.value, _("pending")),
        (Status.PARTIAL.value, _("partly filled")),
        (Status.FILLED.value, _("filled")),
        (Status.CANCELLED.value, _("cancelled")),
        (Status.EXPIRED.value, _("expired")),
        (Status.REJECTED.value, _("rejected")),
        (Status.UNKNOWN.value, _("unknown")),
    ]

    # prefixes of the request ids that AEGIS creates itself: a caller's request id must not start with one of them
    OWN_IDS = ("chase:", STOP_ID, "external:", "amend:")

    END_CAUSES = [
        (EndCause.OWN_CANCEL.value, _("cancelled by AEGIS")),
        (EndCause.OWN_AMEND.value, _("amended by AEGIS")),
        (EndCause.EXTERNAL_CANCEL.value, _("cancelled elsewhere")),
        (EndCause.EXTERNAL_AMEND.value, _("amended elsewhere")),
        (EndCause.SESSION_END.value, _("the session ended")),
        (EndCause.IMMEDIATE_REMAINDER.value, _("an immediate order: its rest was cancelled")),
        (EndCause.REMAINDER_REJECTED.value, _("the exchange rejected the rest")),
        (EndCause.UNEXPLAINED.value, _("the list does not say by what")),
    ]
    REQUESTERS = [
        (RequestedBy.CALLER.value, _("caller")),
        (RequestedBy.CHASE.value, _("chase")),
        (RequestedBy.STOP.value, _("stop")),
        (RequestedBy.OPERATOR.value, _("operator")),
        (RequestedBy.CANCEL_ALL.value, _("cancel all")),
    ]
    CHASE_STEPS = [(step.value, step.value.lower()) for step in ChaseStep]

    request_id = models.CharField(_("request id"), max_length=REQUEST_ID_LENGTH, unique=True)
    root = models.ForeignKey(
        "self", models.PROTECT, related_name="retries", null=True, blank=True, verbose_name=_("root order")
    )
    attempt = models.PositiveSmallIntegerField(_("retry"), default=0)
    replaces = models.ForeignKey(
        "self",
        models.PROTECT,
        related_name="replaced_by",
        null=True,
        blank=True,
        verbose_name=_("amended order"),
        help_text=_("the order that an amend moved to this one, wholly or in part"),
    )
    origin = models.CharField(_("origin"), max_length=8, choices=Origin.choices, default=Origin.AEGIS)

    stock_code = models.CharField(_("stock code"), max_length=12)
    stock_name = models.CharField(_("stock name"), max_length=60, blank=True)
    order_type = models.CharField(_("side"), max_length=4, choices=SIDES)
    market = models.CharField(_("market"), max_length=3, choices=MARKETS)
    order_kind = models.CharField(_("order kind"), max_length=2, choices=[(k.value, k.value) for k in OrderKind])
    strategy = models.CharField(_("pricing style"), max_length=20, blank=True)
    strategy_id = models.CharField(
        _("strategy"), max_length=64, blank=True, db_index=True, help_text=_("who wants it: the caller's own text")
    )
    tick_offset = models.SmallIntegerField(
        _("tick offset"), null=True, blank=True, help_text=_("ticks from what the pricing style counts from")
    )
    band_percent = models.DecimalField(
        _("price band (%)"),
        max_digits=5,
        decimal_places=2,
        default=0,
        help_text=_("how far from the current price it may be priced"),
    )
    arrival_percent = models.DecimalField(
        _("band from arrival (%)"),
        max_digits=5,
        decimal_places=2,
        default=0,
        help_text=_("how far from the price at arrival a chase may go; 0: no bound"),
    )
    qty = models.PositiveBigIntegerField(_("quantity"))
    price = models.PositiveBigIntegerField(_("price"))
    trigger_price = models.PositiveBigIntegerField(_("trigger price"), default=0, help_text=_("of a stop-limit order"))
    arrival_price = models.PositiveBigIntegerField(_("price at arrival"), default=0)
    arrival_sweep_price = models.DecimalField(
        _("market price at arrival"),
        max_digits=16,
        decimal_places=4,
        null=True,
        blank=True,
        help_text=_("average of a market order by the book then; empty where the book was not asked"),
    )

    status = models.CharField(_("status"), max_length=10, choices=STATUSES, default=Status.SUBMITTING.value)
    status_at = models.DateTimeField(_("status since"))
    order_date = models.DateField(_("order date"))
    branch = models.CharField(_("branch"), max_length=5, blank=True, default="", db_default="")
    order_no = models.CharField(_("order number"), max_length=10, null=True, blank=True)
    filled_qty = models.PositiveBigIntegerField(_("filled quantity"), default=0, db_default=0)
    filled_amount = models.PositiveBigIntegerField(_("filled amount"), default=0, db_default=0)
    withdrawn_qty = models.PositiveBigIntegerField(
        _("withdrawn quantity"),
        default=0,
        help_text=_("what a partial cancel or amend took from an open order"),
        db_default=0,
    )
    end_cause = models.CharField(
        _("ended by"), max_length=20, choices=END_CAUSES, blank=True, default="", db_default=""
    )
    refusal = models.CharField(_("refusal"), max_length=200, blank=True, default="", db_default="")
    decided_by = models.CharField(
        _("decided by"),
        max_length=150,
        blank=True,
        default="",
        db_default="",
        help_text=_("who settled its unknown outcome: that is final"),
    )
    never_arrived = models.BooleanField(_("never reached the broker"), default=False, db_default=False)
    candidates = models.JSONField(
        _("orders at the broker that could be it"),
        default=list,
        blank=True,
        help_text=_("while the outcome is unknown"),
    )

    entry_stops = models.JSONField(_("stops that its fills arm"), default=list, blank=True, db_default=[])
    created_at = models.DateTimeField(_("created at"))
    quoted_at = models.DateTimeField(
        _("quoted at"), null=True, blank=True, help_text=_("when the price that it was judged by was asked for")
    )
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    accepted_at = models.DateTimeField(_("accepted at"), null=True, blank=True)
    confirmed_at = models.DateTimeField(_("confirmed by the broker at"), null=True, blank=True)
    needs_reconciliation = models.BooleanField(_("to be confirmed"), default=False, db_default=False)
    not_found_count = models.PositiveSmallIntegerField(_("times not found"), default=0, db_default=0)
    lookup_at = models.DateTimeField(_("next look-up at"), null=True, blank=True)
    missing_since = models.DateTimeField(
        _("missing from the list since"), null=True, blank=True, help_text=_("open here, and in no complete list")
    )
    unlisted_since = models.DateTimeField(
        _("fills not in the list since"),
        null=True,
        blank=True,
        help_text=_("a notice reported them, the list does not"),
    )

    cancel_requested_at = models.DateTimeField(_("cancel requested at"), null=True, blank=True)
    cancel_requested_by = models.CharField(
        _("cancel requested by"), max_length=10, choices=REQUESTERS, blank=True, default="", db_default=""
    )
    cancel_due_at = models.DateTimeField(_("cancel to be sent again at"), null=True, blank=True)

    chase_step = models.CharField(
        _("chase step"),
        max_length=7,
        choices=CHASE_STEPS,
        default=ChaseStep.CHECK.value,
        db_default=ChaseStep.CHECK.value,
    )
    chase_by = models.CharField(
        _("chased by"), max_length=6, choices=[(by.value, by.value) for by in ChaseBy], default=ChaseBy.CANCEL.value
    )
    chase_at = models.DateTimeField(_("chase due at"), null=True, blank=True)
    chase_claimed_until = models.DateTimeField(_("chase claimed until"), null=True, blank=True)
    chase_note = models.CharField(_("chase ended because"), max_length=200, blank=True, default="", db_default="")
    wait_seconds = models.FloatField(_("wait (s)"), default=0)
    max_retries = models.PositiveSmallIntegerField(_("most retries"), default=0)
    step_ticks = models.SmallIntegerField(_("ticks nearer"), default=1)
    market_after = models.BooleanField(_("market at last"), default=False)

    class Meta:
        db_table = "trade_orders"
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        ordering = ["-created_at", "-id"]
        constraints = [
            # each branch numbers its own orders; a notice does not name the branch: only stock and side tell them apart
            models.UniqueConstraint(
                fields=["order_date", "branch", "order_no", "stock_code", "order_type"],
                name="one_order_per_number_and_day",
            ),
            models.UniqueConstraint(fields=["root", "attempt"], condition=Q(attempt__gt=0), name="one_order_per_retry"),
            models.CheckConstraint(condition=Q(qty__gt=0), name="order_qty_positive"),
            models.CheckConstraint(condition=Q(filled_qty__lte=F("qty")), name="never_filled_over_asked"),
            models.CheckConstraint(
                condition=Q(root__isnull=True, attempt=0)
                | Q(root__isnull=False, attempt__gt=0)
                # an external amend: it belongs to the family, but is not a retry
                | Q(root__isnull=False, attempt=0, origin="EXTERNAL"),
                name="a_retry_has_a_root",
            ),
            models.CheckConstraint(
                condition=~Q(status=Status.FILLED.value) | Q(filled_qty=F("qty")), name="filled_means_all_of_it"
            ),
        ]
        indexes = [
            models.Index(fields=["status"], condition=Q(status__in=sorted(UNSETTLED)), name="orders_unsettled"),
            models.Index(fields=["chase_at"], condition=Q(chase_at__isnull=False), name="orders_chase_due"),
            models.Index(fields=["cancel_due_at"], condition=Q(cancel_due_at__isnull=False), name="orders_cancel_due"),
            models.Index(fields=["stock_code", "-created_at"], name="orders_of_stock"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk} {self.order_type} {self.stock_code} {self.qty}"

    @property
    def side(self) -> Side:
        return Side(self.order_type)

    @property
    def state(self) -> Status:
        return Status(self.status)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_done(self) -> bool:
        return self.state in DONE

    @property
    def open_qty(self) -> int:
        return max(0, self.qty - self.filled_qty - self.withdrawn_qty)

    @property
    def average_fill(self) -> Decimal | None:
        """The average price of the filled shares, in won; None without a fill."""
        return Decimal(self.filled_amount) / self.filled_qty if self.filled_qty else None

    @property
    def root_pk(self) -> int:
        return self.root_id or self.pk

    @property
    def family(self) -> "models.QuerySet[TradeOrder]":
        """The orders of one intent: the root, its re-orders, and the orders that amends of them led to."""
        return TradeOrder.objects.filter(Q(pk=self.root_pk) | Q(root_id=self.root_pk))

    @property
    def is_cancel_requested(self) -> bool:
        """Whether a cancel was requested by anything but its own chase, by this instance's fields."""
        return self.cancel_requested_at is not None and self.cancel_requested_by != RequestedBy.CHASE

    @property
    def plan(self) -> Plan:
        return Plan(self.wait_seconds, self.max_retries, self.step_ticks, self.market_after)

    @property
    def cancel_sent_at(self) -> datetime | None:
        """When the newest cancel of this order was sent, None if none was. It does not prove that it arrived."""
        cancels = self.requests.filter(kind=RequestKind.CANCEL, sent_at__isnull=False).order_by("-id")
        return cancels.values_list("sent_at", flat=True).first()

    @property
    def placed(self) -> BrokerOrderRef:
        """The broker's reference of this order. Raises ValueError if it has no order number yet."""
        if self.order_no is None:
            raise ValueError(f"order {self.pk} has no number yet")
        return BrokerOrderRef(
            self.order_date, self.branch, self.order_no, Market(self.market), OrderKind(self.order_kind)
        )


class BrokerRequest(models.Model):
    """One request to place, amend or cancel an order. `orders.requests` is the only writer.

    `qty` is the requested number of shares; with `is_whole` the request is for all open shares, even if some fill
    meanwhile. `confirmed_qty` is the number that it took by a line of the broker's list. `order_no` and `branch` are
    those of the reply, or of that line.
    """

    KINDS = [
        (RequestKind.NEW.value, _("new order")),
        (RequestKind.AMEND.value, _("amend")),
        (RequestKind.CANCEL.value, _("cancel")),
    ]
    STATES = [
        (RequestState.REQUESTED.value, _("requested")),
        (RequestState.SENT.value, _("sent")),
        (RequestState.ACKNOWLEDGED.value, _("acknowledged")),
        (RequestState.CONFIRMED.value, _("confirmed by the list")),
        (RequestState.REJECTED.value, _("rejected")),
        (RequestState.UNKNOWN.value, _("outcome unknown")),
        (RequestState.NOT_SENT.value, _("not sent")),
        (RequestState.LAPSED.value, _("lapsed")),
    ]

    order = models.ForeignKey(
        TradeOrder,
        models.PROTECT,
        related_name="requests",
        null=True,
        blank=True,
        verbose_name=_("order"),
        help_text=_("empty: an open order of the broker's that no row of ours is"),
    )
    makes = models.OneToOneField(
        TradeOrder,
        models.PROTECT,
        related_name="made_by",
        null=True,
        blank=True,
        verbose_name=_("new order"),
        help_text=_("the order that an amend leads to"),
    )
    kind = models.CharField(_("kind"), max_length=6, choices=KINDS)
    state = models.CharField(_("state"), max_length=12, choices=STATES, default=RequestState.REQUESTED.value)
    state_at = models.DateTimeField(_("state since"))
    requested_at = models.DateTimeField(_("requested at"))
    requested_by = models.CharField(_("requested by"), max_length=10, choices=TradeOrder.REQUESTERS)
    who = models.CharField(_("by whom"), max_length=150, blank=True, default="", db_default="")
    qty = models.PositiveBigIntegerField(_("quantity"))
    is_whole = models.BooleanField(_("all that is open"), default=True)
    price = models.PositiveBigIntegerField(_("price"), default=0)
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True)
    branch = models.CharField(_("branch"), max_length=5, blank=True, default="", db_default="")
    order_no = models.CharField(_("order number"), max_length=10, blank=True, default="", db_default="")
    confirmed_at = models.DateTimeField(_("confirmed at"), null=True, blank=True)
    confirmed_qty = models.PositiveBigIntegerField(_("confirmed quantity"), default=0, db_default=0)
    code = models.CharField(_("code"), max_length=12, blank=True, default="", db_default="")
    message = models.CharField(_("message"), max_length=200, blank=True, default="", db_default="")

    class Meta:
        db_table = "broker_requests"
        verbose_name = _("request to the broker")
        verbose_name_plural = _("requests to the broker")
        ordering = ["id"]
        indexes = [
            models.Index(fields=["requested_at"], name="requests_by_time"),
            models.Index(
                fields=["order"],
                condition=Q(state__in=sorted(state.value for state in LIVE)) & ~Q(kind="NEW"),
                name="requests_live",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.state} #{self.order_id}"

    def as_sent(self) -> SentRequest:
        """Return the fields that the attribution rule (`aegis.requests.attribute`) needs."""
        sent_at = self.sent_at or self.requested_at
        # a lapsed request keeps the time at which it was given up as unanswered
        is_given_up = self.state in (RequestState.UNKNOWN, RequestState.LAPSED) and self.state_at > sent_at
        return SentRequest(
            pk=self.pk,
            kind=RequestKind(self.kind),
            state=RequestState(self.state),
            sent_at=sent_at,
            deadline=self.state_at if is_given_up else sent_at + REPLY_DEADLINE,
            order_no=self.order_no,
            qty=self.qty,
            is_whole=self.is_whole,
            price=self.price,
        )


class RawNotice(models.Model):
    """A fill notice as received (체결통보), stored before it is applied: the inbox."""

    class State(models.TextChoices):
        WAITING = "WAITING", _("waiting for its order")
        APPLIED = "APPLIED", _("applied")
        DOUBTFUL = "DOUBTFUL", _("doubtful: the broker is asked")
        DUPLICATE = "DUPLICATE", _("already counted")
        FOREIGN = "FOREIGN", _("another account")

    received_at = models.DateTimeField(_("received at"))
    kind = models.CharField(_("kind"), max_length=20, choices=[(k.value, k.value) for k in NoticeKind])
    order_date = models.DateField(_("order date"))
    order_no = models.CharField(_("order number"), max_length=10)
    original_no = models.CharField(_("original number"), max_length=10, blank=True)
    text = models.TextField(_("text"), blank=True)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.WAITING)
    order = models.ForeignKey(
        TradeOrder, models.PROTECT, related_name="notices", null=True, blank=True, verbose_name=_("order")
    )
    committed_ms = models.FloatField(_("received to committed (ms)"), null=True, blank=True)

    class Meta:
        db_table = "raw_notices"
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["order_date", "order_no"], name="notices_of_order"),
            models.Index(fields=["state"], condition=Q(state__in=["WAITING", "DOUBTFUL"]), name="notices_unsettled"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.order_date} {self.order_no}"


class TradeExecution(models.Model):
    """A fill of one of our orders (체결), identified by the order's cumulative quantity after it.

    A fill from a NOTICE is provisional until the broker's list confirms it. A fill from the LIST stands for shares that
    no notice reported. Rows never change, except that they may be voided.
    """

    class Source(models.TextChoices):
        NOTICE = "NOTICE", _("notice")
        LIST = "LIST", _("broker's list")

    order = models.ForeignKey(TradeOrder, models.PROTECT, related_name="executions", verbose_name=_("order"))
    order_no = models.CharField(_("order number"), max_length=10)
    stock_code = models.CharField(_("stock code"), max_length=12)
    exec_qty = models.PositiveBigIntegerField(_("quantity"))
    exec_price = models.DecimalField(_("price"), max_digits=16, decimal_places=4)
    exec_amount = models.PositiveBigIntegerField(_("amount"))
    cumulative_qty = models.PositiveBigIntegerField(_("cumulative quantity"))
    executed_at = models.DateTimeField(_("executed at"))
    recorded_at = models.DateTimeField(_("recorded at"))
    source = models.CharField(_("source"), max_length=6, choices=Source.choices)
    notice = models.OneToOneField(
        RawNotice, models.PROTECT, related_name="execution", null=True, blank=True, verbose_name=_("notice")
    )
    fee = models.PositiveBigIntegerField(_("commission"), default=0)
    tax = models.PositiveBigIntegerField(_("tax"), default=0)
    realized_profit = models.BigIntegerField(
        _("realised profit"), null=True, blank=True, help_text=_("of a sale, in won, after commission and tax")
    )
    voided_at = models.DateTimeField(_("voided at"), null=True, blank=True)

    class Meta:
        db_table = "trade_executions"
        verbose_name = _("execution")
        verbose_name_plural = _("executions")
        ordering = ["-executed_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["order", "cumulative_qty"], condition=Q(voided_at__isnull=True), name="one_fill_per_total"
            ),
            models.CheckConstraint(condition=Q(exec_qty__gt=0), name="exec_qty_positive"),
            models.CheckConstraint(condition=Q(cumulative_qty__gte=F("exec_qty")), name="exec_within_its_total"),
        ]

    def __str__(self) -> str:
        return f"{self.order_no} {self.exec_qty} @ {self.exec_price:f}"


class OrderEvent(models.Model):
    """An event in the history of an order. Events are added, never edited."""

    order = models.ForeignKey(TradeOrder, models.PROTECT, related_name="events", verbose_name=_("order"))
    at = models.DateTimeField(_("at"))
    kind = models.CharField(_("kind"), max_length=20)
    detail = models.CharField(_("detail"), max_length=300, blank=True)

    class Meta:
        db_table = "order_events"
        verbose_name = _("order event")
        verbose_name_plural = _("order events")
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".strip()


class Reconciliation(models.Model):
    """One reconciliation with the broker's order list.

    An order is sent only if the newest row is recent and has a list. WHOLE: every line was read. PARTLY: some lines of
    external orders cannot be parsed; `error` names them, and an order that such a list lacks does not count as missing.
    FAILED: also if a line of one of our own orders cannot be parsed.
    """

    class Outcome(models.TextChoices):
        BEGUN = "BEGUN", _("workers started: not looked yet")
        WHOLE = "WHOLE", _("whole")
        PARTLY = "PARTLY", _("read but for some lines")
        FAILED = "FAILED", _("failed")

    at = models.DateTimeField(_("at"))
    outcome = models.CharField(_("outcome"), max_length=6, choices=Outcome.choices)
    seen = models.PositiveIntegerField(_("orders seen"), default=0)
    corrected = models.PositiveIntegerField(_("orders corrected"), default=0)
    adopted = models.PositiveIntegerField(_("external orders recorded"), default=0)
    resolved = models.PositiveIntegerField(_("outcomes resolved"), default=0)
    error = models.CharField(_("error"), max_length=300, blank=True)

    class Meta:
        db_table = "reconciliations"
        verbose_name = _("reconciliation")
        verbose_name_plural = _("reconciliations")
        # an older reconciliation may be written after a newer one
        ordering = ["-at", "-id"]
        get_latest_by = ["at", "id"]
        indexes = [models.Index(fields=["-at", "-id"], name="newest_look")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.outcome}"


class BlacklistedStock(models.Model):
    """A stock that must not be bought (블랙리스트). Held shares of it may always be sold."""

    # when an entry is in force, as SQL
    IN_FORCE = "(until IS NULL OR until >= %(today)s)"

    stock_code = models.CharField(_("stock code"), max_length=12, unique=True)
    stock_name = models.CharField(_("stock name"), max_length=60, blank=True)
    reason = models.CharField(_("reason"), max_length=200)
    until = models.DateField(_("until"), null=True, blank=True, help_text=_("empty: for good"))

    class Meta:
        db_table = "blacklist"
        verbose_name = _("blacklisted stock")
        verbose_name_plural = _("blacklist")
        ordering = ["stock_code"]

    def __str__(self) -> str:
        return f"{self.stock_name} ({self.stock_code})"


class TradingSwitch(models.Model):
    """The trading state (kill switch): one row. Orders only read it; `orders.kill_switch` is its only writer.

    Each change is one statement, so that no process keeps this row locked during other work. `version` counts the
    changes.
    """

    ONLY_PK = 1
    STATES = [
        (trading_state.TradingState.ACTIVE.value, _("trading")),
        (trading_state.TradingState.REDUCING.value, _("sales only")),
        (trading_state.TradingState.HALTED.value, _("halted")),
    ]

    state = models.CharField(_("state"), max_length=8, choices=STATES, default=trading_state.TradingState.ACTIVE.value)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    changed_by = models.CharField(_("changed by"), max_length=150, blank=True)
    changed_at = models.DateTimeField(_("changed at"))
    version = models.PositiveBigIntegerField(_("version"), default=0, help_text=_("one more with each change"))

    class Meta:
        db_table = "trading_switch"
        verbose_name = _("trading switch")
        verbose_name_plural = _("trading switch")
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="one_switch")]

    def __str__(self) -> str:
        return self.get_state_display()


class OrderSequence(models.Model):
    """The number of orders committed so far, in one row. Each new order locks it, so it sees all orders before it.

    It is separate from the trading state: a process that locks this row delays orders, but never a change of the state.
    """

    ONLY_PK = 1

    commits = models.PositiveBigIntegerField(_("orders committed"), default=0)

    class Meta:
        db_table = "order_sequence"
        verbose_name = _("order sequence")
        verbose_name_plural = _("order sequence")
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="one_order_sequence")]

    def __str__(self) -> str:
        return str(self.commits)


class SwitchChange(models.Model):
    """One change of the trading state: who, when, from which state to which, and why.

    `is_trip`: AEGIS changed it by its own rules; `causes` are the codes of the reasons. `cancels_buys`: our resting
    buys are cancelled while the new state lasts.
    """

    at = models.DateTimeField(_("at"))
    by = models.CharField(_("changed by"), max_length=150)
    from_state = models.CharField(_("state before"), max_length=8, choices=TradingSwitch.STATES)
    to_state = models.CharField(_("state after"), max_length=8, choices=TradingSwitch.STATES)
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    is_trip = models.BooleanField(_("tripped by itself"), default=False)
    causes = models.CharField(_("causes"), max_length=100, blank=True)
    cancels_buys = models.BooleanField(_("resting buys are cancelled"), default=False)
    day_loss_won = models.BigIntegerField(
        _("the day's loss"), null=True, blank=True, help_text=_("in won, when a person resumed")
    )

    class Meta:
        db_table = "switch_changes"
        verbose_name = _("turn of the switch")
        verbose_name_plural = _("turns of the switch")
        ordering = ["-id"]
        get_latest_by = "id"

    def __str__(self) -> str:
        return f"{self.from_state} > {self.to_state} {self.by}"


class BasePrice(models.Model):
    """The base price of a stock on one day (기준가), in won, as the broker's quote reports it."""

    stock_code = models.CharField(_("stock code"), max_length=12)
    date = models.DateField(_("date"))
    price = models.PositiveBigIntegerField(_("base price"))

    class Meta:
        db_table = "base_prices"
        verbose_name = _("base price")
        verbose_name_plural = _("base prices")
        ordering = ["-date", "stock_code"]
        constraints = [models.UniqueConstraint(fields=["date", "stock_code"], name="one_base_price_a_day")]

    def __str__(self) -> str:
        return f"{self.stock_code} {self.date} {self.price}"


class StopRule(models.Model):
    """A stop on a holding: armed, triggered once, then it places orders until no guarded share is held.

    Its states are ARMED → TRIGGERED → ORDERED → DONE. An order that did not sell all shares leads back to TRIGGERED
    with the next `generation`. If its order is cancelled or amended, and not by the stop itself, the stop becomes
    HELD_EXTERNALLY until a person arms it again. FAILED rows are from earlier versions. `value` is in the unit that
    `unit` names, prices are in won.
    """

    class State(models.TextChoices):
        ARMED = "ARMED", _("armed")
        TRIGGERED = "TRIGGERED", _("triggered")
        ORDERED = "ORDERED", _("ordered")
        DONE = "DONE", _("done")
        HELD_EXTERNALLY = "HELD_EXTERNALLY", _("held externally")
        FAILED = "FAILED", _("failed")
        DISARMED = "DISARMED", _("disarmed")

    KINDS = [
        (stops.StopKind.STOP_LOSS.value, _("stop loss")),
        (stops.StopKind.TAKE_PROFIT.value, _("take profit")),
        (stops.StopKind.TRAILING.value, _("trailing stop")),
    ]
    UNITS = [
        (stops.StopUnit.PRICE.value, _("won")),
        (stops.StopUnit.PERCENT.value, _("percent")),
        (stops.StopUnit.ATR.value, _("times the average true range")),
    ]
    SOURCES = [
        ("", _("as set for all stops")),
        ("KRX", _("KRX alone")),
        ("NXT", _("NXT alone")),
        ("KRX,NXT", _("both")),
    ]

    stock_code = models.CharField(_("stock code"), max_length=12)
    stock_name = models.CharField(_("stock name"), max_length=60, blank=True)
    kind = models.CharField(_("kind"), max_length=11, choices=KINDS)
    unit = models.CharField(_("unit"), max_length=7, choices=UNITS)
    value = models.DecimalField(_("threshold"), max_digits=16, decimal_places=4)
    atr = models.DecimalField(
        _("average true range"), max_digits=16, decimal_places=4, default=0, help_text=_("when it was armed")
    )
    high = models.PositiveBigIntegerField(_("highest price"), default=0, help_text=_("since it was armed"))
    quantity = models.PositiveIntegerField(
        _("guarded shares"),
        null=True,
        blank=True,
        help_text=_("empty: the whole holding, shares bought later included"),
    )
    entry = models.ForeignKey(
        TradeOrder, models.PROTECT, related_name="+", null=True, blank=True, verbose_name=_("entry order")
    )
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.ARMED)
    state_at = models.DateTimeField(_("state since"))
    armed_by = models.CharField(_("armed by"), max_length=150)
    armed_at = models.DateTimeField(_("armed at"))
    trigger_price = models.PositiveBigIntegerField(_("price that triggered it"), default=0)
    triggered_at = models.DateTimeField(_("triggered at"), null=True, blank=True)
    generation = models.PositiveSmallIntegerField(
        _("generation"), default=1, help_text=_("counts the orders it was tried with")
    )
    order = models.ForeignKey(
        TradeOrder, models.PROTECT, related_name="stops", null=True, blank=True, verbose_name=_("order")
    )
    step = models.PositiveSmallIntegerField(_("step of the sale"), default=0)
    refusals = models.PositiveSmallIntegerField(_("refusals in a row"), default=0)
    auction_since = models.DateTimeField(_("in an auction or VI since"), null=True, blank=True)
    locked_since = models.DateTimeField(_("lower limit locked since"), null=True, blank=True)
    try_at = models.DateTimeField(_("next try at"), null=True, blank=True)
    claimed_until = models.DateTimeField(_("claimed until"), null=True, blank=True)
    note = models.CharField(_("note"), max_length=300, blank=True)
    feed_at = models.DateTimeField(_("last trade heard at"), null=True, blank=True)
    feed_price = models.PositiveBigIntegerField(_("last trade heard"), default=0)
    is_silent = models.BooleanField(_("polled while the feed is silent"), default=False)
    adjusted_through = models.BigIntegerField(_("newest change of the holding that is counted in"), default=0)
    sources = models.CharField(
        _("venues that may trigger it"),
        max_length=7,
        blank=True,
        default="",
        choices=SOURCES,
        help_text=_("empty: as AEGIS_STOP_SOURCES says"),
    )
    counts_from = models.DateTimeField(
        _("trades count from"), null=True, blank=True, help_text=_("when it was armed or last changed")
    )
    based_on = models.DateField(_("newest trading day whose base price is counted in"), null=True, blank=True)
    base_price = models.PositiveBigIntegerField(_("base price of that day"), default=0)
    basis = models.DecimalField(
        _("today's prices by those of the average price"),
        max_digits=24,
        decimal_places=12,
        default=1,
        help_text=_("other than 1 from an ex-rights day until the holding shows the new shares"),
    )
    moved_by = models.DecimalField(
        _("ratio by which a change of the holding moved it since then"), max_digits=24, decimal_places=12, default=1
    )
    feed_totals = models.JSONField(
        _("running totals of shares by its feeds"), default=dict, blank=True, help_text=_("by venue, of one day")
    )
    poll_state = models.JSONField(_("what polled prices showed"), default=dict, blank=True)

    class Meta:
        db_table = "stop_rules"
        verbose_name = _("stop rule")
        verbose_name_plural = _("stop rules")
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(value__gt=0), name="stop_value_positive"),
            models.CheckConstraint(
                condition=Q(quantity__isnull=True) | Q(quantity__gt=0), name="stop_quantity_positive"
            ),
            models.CheckConstraint(condition=~Q(state="ORDERED") | Q(order__isnull=False), name="ordered_has_an_order"),
        ]
        indexes = [
            models.Index(fields=["state"], condition=Q(state__in=["ARMED", "TRIGGERED", "ORDERED"]), name="stops_live")
        ]

    def __str__(self) -> str:
        return f"{self.stock_name or self.stock_code} {self.get_kind_display()} #{self.pk}"

    @property
    def request_prefix(self) -> str:
        """The prefix of the request ids of all orders of this stop's sale."""
        return f"{STOP_ID}{self.pk}:"

    @property
    def request_id(self) -> str:
        return f"{self.request_prefix}{self.generation}"

    @property
    def sales(self) -> "models.QuerySet[TradeOrder]":
        """The orders of this stop's sale; in earlier versions they were families of a chase."""
        own, root = Q(request_id__startswith=self.request_prefix), Q(root__request_id__startswith=self.request_prefix)
        return TradeOrder.objects.filter(own | root)

    def rule(self, average_price: Decimal) -> stops.Rule:
        """Return this stop as the pure rules of `aegis.stops` need it; `average_price` is the holding's, in won."""
        start = stops.adjust_for_ratio(average_price, self.basis) if self.basis != 1 else average_price
        return stops.Rule(stops.StopKind(self.kind), stops.StopUnit(self.unit), self.value, start, self.high, self.atr)

    @property
    def venues(self) -> frozenset[Market]:
        """The venues whose trades may trigger it."""
        names = self.sources.split(",") if self.sources else settings.STOP_SOURCES
        return frozenset(Market(name) for name in names)

    @property
    def counts_since(self) -> datetime:
        """The time from which trades count: when the stop was armed, or last changed."""
        return self.counts_from or self.armed_at


class StopEvent(models.Model):
    """An event in the history of a stop; `detail` is text for the operator. Events are added, never edited."""

    stop = models.ForeignKey(StopRule, models.PROTECT, related_name="events", verbose_name=_("stop rule"))
    at = models.DateTimeField(_("at"))
    kind = models.CharField(_("kind"), max_length=20)
    detail = models.CharField(_("detail"), max_length=300, blank=True)

    class Meta:
        db_table = "stop_events"
        verbose_name = _("stop event")
        verbose_name_plural = _("stop events")
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".strip()


class MarketHalt(models.Model):
    """A halt of the market (서킷브레이커) or of program trading (사이드카). Only earlier versions set `change`."""

    KINDS = [
        (market_halts.HaltKind.CIRCUIT_BREAKER.value, _("circuit breaker")),
        (market_halts.HaltKind.SELL_SIDECAR.value, _("sidecar against sales")),
        (market_halts.HaltKind.BUY_SIDECAR.value, _("sidecar against buys")),
    ]

    kind = models.CharField(_("kind"), max_length=15, choices=KINDS)
    began_at = models.DateTimeField(_("began at"))
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)
    end_heard = models.BooleanField(_("its end was heard"), default=False)
    change = models.ForeignKey(
        SwitchChange, models.PROTECT, related_name="halts", null=True, blank=True, verbose_name=_("turn of the switch")
    )

    class Meta:
        db_table = "market_halts"
        verbose_name = _("market halt")
        verbose_name_plural = _("market halts")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["kind"], condition=Q(ended_at__isnull=True), name="one_halt_of_a_kind")
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.began_at:%Y-%m-%d %H:%M:%S}"
