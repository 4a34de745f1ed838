"""Tables of market data. Each table has one module that writes it.

Readers go through `market.queries`.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Greatest, Least
from django.utils.translation import gettext_lazy as _

from aegis.basis import Regime
from aegis.sessions import DayKind, Matching, Phase, PhaseName
from aegis.terms import Board, Instrument, Market, OrderKind

MARKETS = [(market.value, market.value) for market in Market]
# the low of a bar is its lowest price, the high its highest
LOW_TO_HIGH = Q(low__lte=Least("open", "close"), high__gte=Greatest("open", "close"))


class Stock(models.Model):
    """A row of the stock master (종목 마스터)."""

    code = models.CharField(_("stock code"), max_length=12, primary_key=True)
    standard_code = models.CharField(
        _("standard code"), max_length=12, blank=True, db_index=True, help_text=_("표준코드, of the master's file")
    )
    name = models.CharField(_("stock name"), max_length=60)
    board = models.CharField(_("board"), max_length=8, choices=[(b.value, b.value) for b in Board])
    instrument = models.CharField(_("instrument"), max_length=8, choices=[(i.value, i.value) for i in Instrument])
    sector = models.CharField(_("sector"), max_length=60, blank=True)
    trades_on_nxt = models.BooleanField(_("trades on NXT"), default=False)
    is_halted = models.BooleanField(_("halted"), default=False)
    listed_on = models.DateField(
        _("listed on"), null=True, blank=True, help_text=_("the newest list of every stock that has it")
    )
    synced_at = models.DateTimeField(
        _("synced at"), null=True, blank=True, help_text=_("when the broker was asked for it by its code, as for NXT")
    )

    class Meta:
        db_table = "stocks"
        verbose_name = _("stock")
        verbose_name_plural = _("stocks")
        ordering = ["code"]

    def __str__(self) -> str:
        return f"{self.name} ({self.code})"


class WatchedStock(models.Model):
    """A stock whose trades are received and whose daily prices are stored, whether or not it is held (관심 종목)."""

    stock_code = models.CharField(_("stock code"), max_length=12, primary_key=True)
    note = models.CharField(_("note"), max_length=200, blank=True)
    rank = models.PositiveSmallIntegerField(
        _("rank"), default=100, help_text=_("where registrations run out, the highest figures are left out first")
    )

    class Meta:
        db_table = "watched_stocks"
        verbose_name = _("watched stock")
        verbose_name_plural = _("watch list")
        ordering = ["rank", "stock_code"]

    def __str__(self) -> str:
        return self.stock_code


class TradingDay(models.Model):
    """Whether the exchanges open on a day, and its timetable. A sync never changes a day that an operator corrected."""

    class Source(models.TextChoices):
        BROKER = "BROKER", _("broker")
        LIBRARY = "LIBRARY", _("calendar library")
        OPERATOR = "OPERATOR", _("operator")

    KINDS = [
        (DayKind.ORDINARY.value, _("ordinary")),
        (DayKind.EXAM.value, _("college entrance exam")),
        (DayKind.FIRST.value, _("first trading day of the year")),
    ]

    date = models.DateField(_("date"), primary_key=True)
    is_open = models.BooleanField(_("exchange open"))
    kind = models.CharField(_("kind of day"), max_length=8, choices=KINDS, default=DayKind.ORDINARY.value)
    source = models.CharField(_("source"), max_length=8, choices=Source.choices, default=Source.BROKER)
    note = models.CharField(_("note"), max_length=200, blank=True)
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
        ordering = ["day", "market", "starts_at", "phase"]
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
    """One day of one stock (일봉) on KRX, final, in prices adjusted for splits and issues since (수정주가)."""

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


class PriceBackfill(models.Model):
    """The progress of the backfill of one stock's daily prices, from which it continues."""

    stock_code = models.CharField(_("stock code"), max_length=12, primary_key=True)
    since = models.DateField(_("wanted since"))
    reached = models.DateField(_("reached"), null=True, blank=True, help_text=_("fetched from here on"))
    through = models.DateField(_("through"), null=True, blank=True, help_text=_("fetched up to here"))
    is_done = models.BooleanField(_("done"), default=False)
    failure = models.CharField(_("failure"), max_length=200, blank=True)
    updated_at = models.DateTimeField(_("updated at"))

    class Meta:
        db_table = "price_backfills"
        verbose_name = _("price backfill")
        verbose_name_plural = _("price backfills")
        ordering = ["stock_code"]

    def __str__(self) -> str:
        return f"{self.stock_code} {self.since}"


class MarketCandle(models.Model):
    """One minute of trading of one stock on one venue (분봉). The table is partitioned by month, in Korean time.

    The primary key in the database has the columns of `one_candle_per_interval`; `id` is for the admin only and has no
    index.
    """

    class Interval(models.TextChoices):
        MINUTE = "1m", _("1 minute")

    class Source(models.TextChoices):
        FEED = "FEED", _("feed")
        PARTIAL = "PARTIAL", _("feed, with trades missed")
        CHART = "CHART", _("broker's chart")
        UNSURE = "UNSURE", _("missed trades are in no chart")

    time = models.DateTimeField(_("time"), help_text=_("the first moment of the interval"))
    symbol = models.CharField(_("stock code"), max_length=12)
    interval = models.CharField(_("interval"), max_length=4, choices=Interval.choices)
    venue = models.CharField(_("venue"), max_length=3, choices=MARKETS)
    open = models.PositiveBigIntegerField(_("open"))
    high = models.PositiveBigIntegerField(_("high"))
    low = models.PositiveBigIntegerField(_("low"))
    close = models.PositiveBigIntegerField(_("close"))
    volume = models.PositiveBigIntegerField(_("volume"))
    value = models.PositiveBigIntegerField(_("value"), help_text=_("won"))
    trade_count = models.PositiveIntegerField(
        _("trades"), null=True, help_text=_("not known for minutes from the broker's chart")
    )
    day_volume = models.PositiveBigIntegerField(
        _("volume of the day"), default=0, help_text=_("up to the end of the interval")
    )
    day_value = models.PositiveBigIntegerField(
        _("value of the day"), default=0, help_text=_("up to the end of the interval, won")
    )
    source = models.CharField(_("source"), max_length=7, choices=Source.choices, default=Source.FEED)

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


class KeptBook(models.Model):
    """A request to receive and store an order book until a given time (호가 저장)."""

    stock_code = models.CharField(_("stock code"), max_length=12)
    venue = models.CharField(_("venue"), max_length=3, choices=MARKETS, default=Market.KRX.value)
    until = models.DateTimeField(_("until"))

    class Meta:
        db_table = "kept_books"
        verbose_name = _("kept order book")
        verbose_name_plural = _("kept order books")
        ordering = ["stock_code", "venue"]
        constraints = [models.UniqueConstraint(fields=["stock_code", "venue"], name="one_wish_per_book")]

    def __str__(self) -> str:
        return f"{self.stock_code} {self.venue}"


class BookSnapshot(models.Model):
    """A snapshot of an order book (호가), best level first, in won and shares; at most one a second, if it changed."""

    time = models.DateTimeField(_("time"))
    stock_code = models.CharField(_("stock code"), max_length=12)
    venue = models.CharField(_("venue"), max_length=3, choices=MARKETS)
    ask_prices = ArrayField(models.PositiveBigIntegerField(), verbose_name=_("ask prices"))
    ask_qtys = ArrayField(models.PositiveBigIntegerField(), verbose_name=_("ask quantities"))
    bid_prices = ArrayField(models.PositiveBigIntegerField(), verbose_name=_("bid prices"))
    bid_qtys = ArrayField(models.PositiveBigIntegerField(), verbose_name=_("bid quantities"))
    total_ask_qty = models.PositiveBigIntegerField(_("all asked"))
    total_bid_qty = models.PositiveBigIntegerField(_("all bid"))
    expected_price = models.PositiveBigIntegerField(_("expected price"))
    expected_qty = models.PositiveBigIntegerField(_("expected quantity"))

    class Meta:
        db_table = "book_snapshots"
        verbose_name = _("order book")
        verbose_name_plural = _("order books")
        ordering = ["-time"]
        constraints = [models.UniqueConstraint(fields=["stock_code", "venue", "time"], name="one_book_per_moment")]
        # retention deletes by time, and readers take the newest first
        indexes = [models.Index(fields=["time"], name="books_by_time")]

    def __str__(self) -> str:
        return f"{self.stock_code} {self.venue} {self.time:%Y-%m-%d %H:%M:%S}"


class MarketMacro(models.Model):
    """The whole market, one row per minute: indexes, the future and its basis (베이시스), futures by investor group.

    Indexes and futures in points, rates in percent, positions in contracts bought minus sold since the open.
    Figures that were not known in a minute are empty.
    """

    REGIMES = [
        (Regime.BACKWARDATION.value, _("backwardation")),
        (Regime.NEUTRAL.value, _("neutral")),
        (Regime.CONTANGO.value, _("contango")),
    ]

    time = models.DateTimeField(_("time"), unique=True)
    kospi = models.DecimalField(_("KOSPI"), max_digits=10, decimal_places=2, null=True)
    kosdaq = models.DecimalField(_("KOSDAQ"), max_digits=10, decimal_places=2, null=True)
    kospi200 = models.DecimalField(_("KOSPI200"), max_digits=10, decimal_places=2, null=True)
    futures_code = models.CharField(_("futures contract"), max_length=12, blank=True)
    kospi200_futures = models.DecimalField(_("KOSPI200 futures"), max_digits=10, decimal_places=2, null=True)
    basis = models.DecimalField(_("basis"), max_digits=8, decimal_places=2, null=True)
    basis_rate = models.DecimalField(_("basis rate (%)"), max_digits=8, decimal_places=4, null=True)
    regime = models.CharField(_("regime"), max_length=14, choices=REGIMES, blank=True)
    foreign_net = models.BigIntegerField(_("foreigners' futures"), null=True)
    institution_net = models.BigIntegerField(_("institutions' futures"), null=True)
    individual_net = models.BigIntegerField(_("individuals' futures"), null=True)

    class Meta:
        db_table = "market_macro"
        verbose_name = _("market macro")
        verbose_name_plural = _("market macro")
        ordering = ["-time"]

    def __str__(self) -> str:
        return f"{self.time:%Y-%m-%d %H:%M}"


class ProgramTrade(models.Model):
    """Program trading of one watched stock (프로그램매매), one row per minute; shares and won since the open."""

    time = models.DateTimeField(_("time"))
    stock_code = models.CharField(_("stock code"), max_length=12)
    sold_qty = models.BigIntegerField(_("sold"))
    bought_qty = models.BigIntegerField(_("bought"))
    net_qty = models.BigIntegerField(_("net"))
    net_won = models.BigIntegerField(_("net, won"))

    class Meta:
        db_table = "program_trades"
        verbose_name = _("program trading")
        verbose_name_plural = _("program trading")
        ordering = ["-time", "stock_code"]
        constraints = [
            models.UniqueConstraint(fields=["stock_code", "time"], name="one_program_figure_per_minute"),
        ]

    def __str__(self) -> str:
        return f"{self.stock_code} {self.time:%Y-%m-%d %H:%M}"
