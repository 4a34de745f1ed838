"""Tables of the portfolio. `portfolio.ledger` is the only writer."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from aegis.positions import PositionChange, PositionCounts, UncountedFill
from aegis.terms import Side


class PriceSource(models.TextChoices):
    """The source of the current price."""

    BALANCE = "BALANCE", _("balance")
    FEED = "FEED", _("feed")
    POLL = "POLL", _("polled while the feed is silent")


class Portfolio(models.Model):
    """A holding (보유 종목). Prices are won, quantities shares.

    `aegis.positions` compares the `broker_*` and `our_*` counts.
    """

    stock_code = models.CharField(_("stock code"), max_length=12, unique=True)
    stock_name = models.CharField(_("stock name"), max_length=60)
    quantity = models.BigIntegerField(_("quantity"))
    avg_price = models.DecimalField(_("average price"), max_digits=16, decimal_places=4)
    last_avg_price = models.DecimalField(
        _("last average price"),
        max_digits=16,
        decimal_places=4,
        default=0,
        help_text=_("the newest one above zero: the cost of shares that are sold by now"),
    )
    current_price = models.PositiveBigIntegerField(_("current price"), default=0)
    price_source = models.CharField(
        _("price source"), max_length=7, choices=PriceSource.choices, default=PriceSource.BALANCE
    )
    priced_at = models.DateTimeField(_("priced at"), null=True, blank=True, help_text=_("when the price last moved"))
    profit_rate = models.DecimalField(_("profit rate (%)"), max_digits=12, decimal_places=2, default=0)
    counted_on = models.DateField(_("counted on"), help_text=_("the trade date of the counts below"))
    broker_bought = models.BigIntegerField(_("bought, by the broker"), default=0)
    broker_sold = models.BigIntegerField(_("sold, by the broker"), default=0)
    our_bought = models.BigIntegerField(_("bought, by our fills"), default=0)
    our_sold = models.BigIntegerField(_("sold, by our fills"), default=0)
    balance_won = models.BigIntegerField(
        _("in the account's total"), default=0, help_text=_("won of it that the newest account snapshot counts")
    )
    uncounted = models.JSONField(
        _("fills since"), default=list, blank=True, help_text=_("side, shares and won that the snapshot does not count")
    )
    lags_since = models.DateTimeField(_("balance lags since"), null=True, blank=True)
    synced_at = models.DateTimeField(_("synced at"), null=True, blank=True)
    updated_at = models.DateTimeField(_("updated at"))

    class Meta:
        db_table = "portfolio"
        verbose_name = _("holding")
        verbose_name_plural = _("portfolio")
        ordering = ["stock_code"]

    def __str__(self) -> str:
        return f"{self.stock_name} ({self.stock_code})"

    @property
    def line(self) -> PositionCounts:
        return PositionCounts(
            day=self.counted_on,
            qty=self.quantity,
            average_price=self.avg_price,
            broker_bought=self.broker_bought,
            broker_sold=self.broker_sold,
            our_bought=self.our_bought,
            our_sold=self.our_sold,
            uncounted=tuple(UncountedFill(Side(side), qty, won) for side, qty, won in self.uncounted),
        )

    @line.setter
    def line(self, line: PositionCounts) -> None:
        self.counted_on = line.day
        self.quantity = line.qty
        self.avg_price = line.average_price
        self.broker_bought = line.broker_bought
        self.broker_sold = line.broker_sold
        self.our_bought = line.our_bought
        self.our_sold = line.our_sold
        self.uncounted = [(fill.side.value, fill.qty, fill.won) for fill in line.uncounted]

    @property
    def change_since_snapshot_won(self) -> int:
        """The change of the account's total by prices and fills since the newest snapshot, in won."""
        return self.quantity * self.current_price - self.balance_won - self.line.paid_won


class PortfolioEvent(models.Model):
    """A change of a holding that no trade explains. It is recorded and reported, never "corrected" by a trade."""

    KINDS = [
        (PositionChange.SPLIT.value, _("share split")),
        (PositionChange.REVERSE_SPLIT.value, _("reverse split")),
        (PositionChange.BONUS_ISSUE.value, _("bonus issue")),
        (PositionChange.UNEXPLAINED.value, _("unexplained")),
    ]

    at = models.DateTimeField(_("at"))
    stock_code = models.CharField(_("stock code"), max_length=12)
    stock_name = models.CharField(_("stock name"), max_length=60)
    kind = models.CharField(_("kind"), max_length=13, choices=KINDS)
    qty_before = models.BigIntegerField(_("quantity before"))
    qty_after = models.BigIntegerField(_("quantity after"))
    avg_price_before = models.DecimalField(_("average price before"), max_digits=16, decimal_places=4)
    avg_price_after = models.DecimalField(_("average price after"), max_digits=16, decimal_places=4)

    class Meta:
        db_table = "portfolio_events"
        verbose_name = _("change of a holding")
        verbose_name_plural = _("changes of holdings")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.stock_code} {self.qty_before} > {self.qty_after}"

    @property
    def is_corporate_action(self) -> bool:
        """Whether a corporate action changed the number of shares, and with it the price."""
        return self.kind != PositionChange.UNEXPLAINED


class AccountSnapshot(models.Model):
    """The account at one moment, in won (계좌 스냅샷)."""

    timestamp = models.DateTimeField(_("time"), db_index=True)
    asked_at = models.DateTimeField(_("asked at"), null=True, blank=True)
    deposit = models.BigIntegerField(_("deposit"))
    deposit_d1 = models.BigIntegerField(_("deposit D+1"))
    deposit_d2 = models.BigIntegerField(_("deposit D+2"))
    valuation = models.BigIntegerField(_("valuation"))
    total_asset = models.BigIntegerField(_("total asset"))
    net_profit_today = models.BigIntegerField(_("net profit today"))
    left_out = models.JSONField(
        _("left out"),
        default=list,
        blank=True,
        help_text=_("holdings that the totals count and our table does not, because they could not be read"),
    )

    class Meta:
        db_table = "account_snapshots"
        verbose_name = _("account snapshot")
        verbose_name_plural = _("account snapshots")
        ordering = ["-timestamp"]
        get_latest_by = "timestamp"

    def __str__(self) -> str:
        return f"{self.timestamp:%Y-%m-%d %H:%M:%S}"
