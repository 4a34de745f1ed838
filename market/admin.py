"""What an operator sees of the market, and corrects of it: the calendar, and the watch list."""

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from kis import clock
from market import collector
from market.models import (
    DailyPrice,
    MarketCandle,
    MarketMacro,
    PriceBackfill,
    ProgramTrade,
    Stock,
    TradingDay,
    TradingSession,
    WatchedStock,
)


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that have one writer, and it is not a person."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Stock)
class StockAdmin(ReadOnlyAdmin):
    list_display = ["code", "name", "board", "instrument", "sector", "trades_on_nxt", "is_halted", "synced_at"]
    list_filter = ["board", "instrument", "trades_on_nxt", "is_halted", "sector"]
    search_fields = ["code", "name"]


@admin.register(WatchedStock)
class WatchedStockAdmin(admin.ModelAdmin):
    list_display = ["stock_code", "rank", "note"]
    list_editable = ["rank", "note"]
    search_fields = ["stock_code", "note"]


class TradingSessionInline(admin.TabularInline):
    model = TradingSession
    extra = 0


@admin.register(TradingDay)
class TradingDayAdmin(admin.ModelAdmin):
    list_display = ["date", "is_open", "kind", "source", "note", "synced_at"]
    list_filter = ["is_open", "kind", "source"]
    date_hierarchy = "date"
    readonly_fields = ["source", "synced_at"]
    inlines = [TradingSessionInline]
    actions = ["give_back"]

    def save_model(self, request: HttpRequest, obj: TradingDay, form: Any, change: bool) -> None:
        obj.synced_at = clock.now()
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Keep the correction; where the day or its kind is another now, its phases follow the rules."""
        super().save_related(request, form, formsets, change)
        is_new_kind = not change or bool({"is_open", "kind"} & set(form.changed_data))
        if is_new_kind or form.changed_data or any(formset.has_changed() for formset in formsets):
            collector.correct_day(form.instance, by_the_rules=is_new_kind, now=clock.now())

    @admin.action(description=_("Let the broker's calendar decide again"))
    def give_back(self, request: HttpRequest, days: QuerySet[TradingDay]) -> None:
        days.update(source=TradingDay.Source.LIBRARY)


@admin.register(DailyPrice)
class DailyPriceAdmin(ReadOnlyAdmin):
    list_display = ["date", "stock_code", "open", "high", "low", "close", "volume"]
    search_fields = ["stock_code"]
    list_filter = ["date"]
    date_hierarchy = "date"


@admin.register(PriceBackfill)
class PriceBackfillAdmin(ReadOnlyAdmin):
    list_display = ["stock_code", "since", "reached", "is_done", "failure", "updated_at"]
    list_filter = ["is_done"]
    search_fields = ["stock_code"]


class UncountedPaginator(Paginator):
    """Pages of a table too long to count: as many as anybody turns."""

    @cached_property
    def count(self) -> int:
        return MarketCandleAdmin.list_per_page * 100


@admin.register(MarketCandle)
class MarketCandleAdmin(ReadOnlyAdmin):
    list_display = ["time", "symbol", "venue", "open", "high", "low", "close", "volume", "value", "source"]
    list_display_links = None
    list_filter = ["source", "venue"]
    search_fields = ["symbol"]
    paginator = UncountedPaginator
    show_full_result_count = False


@admin.register(MarketMacro)
class MarketMacroAdmin(ReadOnlyAdmin):
    list_display = [
        "time",
        "kospi",
        "kosdaq",
        "kospi200",
        "kospi200_futures",
        "basis",
        "basis_rate",
        "regime",
        "foreign_net",
        "institution_net",
        "individual_net",
    ]
    list_filter = ["regime"]
    date_hierarchy = "time"


@admin.register(ProgramTrade)
class ProgramTradeAdmin(ReadOnlyAdmin):
    list_display = ["time", "stock_code", "sold_qty", "bought_qty", "net_qty", "net_won"]
    search_fields = ["stock_code"]
    date_hierarchy = "time"
