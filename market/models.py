"""The market's own facts. `market.collector` is the only writer."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Greatest, Least
from django.utils.translation import gettext_lazy as _

from aegis.sessions import Matching, Phase, PhaseName
from aegis.terms import Board, Instrument, Market, OrderKind

MARKETS = [(market.value, market.value) for market in Market]
VENUES = [(market.value, market.value) for market in (Market.KRX, Market.NXT)]
# a bar's low is its least price, its high its greatest
LOW_TO_HIGH = Q(low__lte=Least("open", "close"), high__gte=Greatest("open", "close"))


class Stock(models.Model):
    """A row of the stock master (종목 마스터)."""

    code = models.CharField(_("stock code"), max_length=12, primary_key=True)
    name = models.CharField(_("stock name"), max_length=60)
    board = models.CharField(_("board"), max_length=8, choices=[(b.value, b.value) for b in Board])
    instrument = models.CharField(_("instrument"), max_length=8, choices=[(i.value, i.value) for i in Instrument])
    sector = models.CharField(_("sector"), max_length=60, blank=True)
    trades_on_nxt = models.BooleanField(_("trades on NXT"), default=False)
    is_halted = models.BooleanField(_("halted"), default=False)
    synced_at = models.DateTimeField(_("synced at"))

    class Meta:
        db_table = "stocks"
        verbose_name = _("stock")
        verbose_name_plural = _("stocks")
        ordering = ["code"]

    def __str__(self) -> str:
        return f"{self.name} ({self.code})"


class TradingDay(models.Model):
    """Whether the exchanges open on a day."""

    date = models.DateField(_("date"), primary_key=True)
    is_open = models.BooleanField(_("exchange open"))
    synced_at = models.DateTimeField(_("synced at"))

    class Meta:
        db_table = "trading_days"
        verbose_name = _("trading day")
        verbose_name_plural = _("trading days")
        ordering = ["-date"]

    def __str__(self) -> str:
        return f"{self.date}"


class TradingSession(models.Model):
    """One phase of one venue's day (장운영), Korean time."""

    day = models.ForeignKey(TradingDay, models.CASCADE, related_name="sessions", verbose_name=_("trading day"))
    market = models.CharField(_("market"), max_length=3, choices=MARKETS)
    phase = models.CharField(_("phase"), max_length=20, choices=[(p.value, p.value) for p in PhaseName])
    starts_at = models.TimeField(_("starts at"))
    ends_at = models.TimeField(_("ends at"))
    matching = models.CharField(_("matching"), max_length=10, choices=[(m.value, m.value) for m in Matching])
    order_kinds = models.CharField(_("order kinds"), max_length=120, help_text=_("codes, separated by spaces"))

    class Meta:
        db_table = "trading_sessions"
        verbose_name = _("trading session")
        verbose_name_plural = _("trading sessions")
        ordering = ["day", "market", "starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["day", "market", "phase"], name="one_session_per_phase"),
            models.CheckConstraint(condition=models.Q(starts_at__lt=models.F("ends_at")), name="session_ends_later"),
        ]

    def __str__(self) -> str:
        return f"{self.day_id} {self.market} {self.phase}"

    def as_phase(self) -> Phase:
        return Phase(
            market=Market(self.market),
            name=PhaseName(self.phase),
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            matching=Matching(self.matching),
            kinds=frozenset(OrderKind(code) for code in self.order_kinds.split()),
        )


class DailyPrice(models.Model):
    """One day of one stock (일봉), KRX, as traded."""

    stock_code = models.CharField(_("stock code"), max_length=12)
    date = models.DateField(_("date"))
    open = models.PositiveBigIntegerField(_("open"))
    high = models.PositiveBigIntegerField(_("high"))
    low = models.PositiveBigIntegerField(_("low"))
    close = models.PositiveBigIntegerField(_("close"))
    volume = models.PositiveBigIntegerField(_("volume"))

    class Meta:
        db_table = "daily_prices"
        verbose_name = _("daily price")
        verbose_name_plural = _("daily prices")
        ordering = ["-date", "stock_code"]
        constraints = [
            models.UniqueConstraint(fields=["stock_code", "date"], name="one_price_per_day"),
            models.CheckConstraint(
                condition=LOW_TO_HIGH,
                name="daily_price_low_to_high",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.stock_code} {self.date}"


class MarketCandle(models.Model):
    """One interval of trading of one stock (분봉)."""

    class Interval(models.TextChoices):
        MINUTE = "1m", _("1 minute")

    time = models.DateTimeField(_("time"), help_text=_("the first moment of the interval"))
    symbol = models.CharField(_("stock code"), max_length=12)
    interval = models.CharField(_("interval"), max_length=4, choices=Interval.choices)
    venue = models.CharField(_("venue"), max_length=3, choices=VENUES)
    open = models.PositiveBigIntegerField(_("open"))
    high = models.PositiveBigIntegerField(_("high"))
    low = models.PositiveBigIntegerField(_("low"))
    close = models.PositiveBigIntegerField(_("close"))
    volume = models.PositiveBigIntegerField(_("volume"))
    value = models.PositiveBigIntegerField(_("value"), help_text=_("won"))
    trade_count = models.PositiveIntegerField(_("trades"))

    class Meta:
        db_table = "market_candles"
        verbose_name = _("candle")
        verbose_name_plural = _("candles")
        ordering = ["-time", "symbol"]
        constraints = [
            models.UniqueConstraint(fields=["symbol", "interval", "venue", "time"], name="one_candle_per_interval"),
            models.CheckConstraint(
                condition=LOW_TO_HIGH,
                name="candle_low_to_high",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.time:%Y-%m-%d %H:%M}"


class MarketMacro(models.Model):
    """The index and its future: the basis (베이시스) and what it signals. Points and percent."""

    class Regime(models.TextChoices):
        BACKWARDATION = "BACKWARDATION", _("backwardation")
        NEUTRAL = "NEUTRAL", _("neutral")
        CONTANGO = "CONTANGO", _("contango")

    time = models.DateTimeField(_("time"), unique=True)
    kospi200 = models.DecimalField(_("KOSPI200"), max_digits=10, decimal_places=2)
    kospi200_futures = models.DecimalField(_("KOSPI200 futures"), max_digits=10, decimal_places=2)
    basis = models.DecimalField(_("basis"), max_digits=8, decimal_places=2)
    basis_rate = models.DecimalField(_("basis rate (%)"), max_digits=8, decimal_places=4)
    regime = models.CharField(_("regime"), max_length=14, choices=Regime.choices)

    class Meta:
        db_table = "market_macro"
        verbose_name = _("market macro")
        verbose_name_plural = _("market macro")
        ordering = ["-time"]

    def __str__(self) -> str:
        return f"{self.time:%Y-%m-%d %H:%M}"
