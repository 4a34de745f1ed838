"""Pages of market data, to read. The trading days can be corrected."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline

from aegis.codes import plain
from desk.admin.base import Page, Record
from infra import clock
from market import reference_data
from market.models import (
    BookSnapshot,
    DailyPrice,
    KeptBook,
    MarketCandle,
    MarketMacro,
    PriceBackfill,
    ProgramTrade,
    Stock,
    TradingDay,
    TradingSession,
    WatchedStock,
)


@admin.register(Stock)
class StockAdmin(Record):
    list_display = ["code", "name", "board", "instrument", "sector", "trades_on_nxt", "is_halted", "listed_on"]
    list_filter = ["board", "instrument", "trades_on_nxt", "is_halted"]
    search_fields = ["code", "name"]


@admin.register(WatchedStock)
class WatchedStockAdmin(Page):
    list_display = ["stock_code", "note", "rank"]
    search_fields = ["stock_code", "note"]


@admin.register(KeptBook)
class KeptBookAdmin(Page):
    list_display = ["stock_code", "venue", "until"]
    search_fields = ["stock_code"]


@admin.register(BookSnapshot)
class BookSnapshotAdmin(Record):
    list_display = ["time", "stock_code", "venue", "ask_prices", "bid_prices", "total_ask_qty", "total_bid_qty"]
    list_filter = ["venue"]
    search_fields = ["=stock_code"]
    show_full_result_count = False


class TradingSessionInline(TabularInline):
    model = TradingSession
    extra = 0


@admin.register(TradingDay)
class TradingDayAdmin(Page):
    """Days and their phases. After an operator corrects a day, no sync changes it."""

    list_display = ["date", "is_open", "kind", "source", "note", "synced_at"]
    list_filter = ["is_open", "kind", "source"]
    readonly_fields = ["source", "synced_at"]
    date_hierarchy = "date"
    inlines = [TradingSessionInline]
    actions = ["give_back"]

    def save_model(self, request: HttpRequest, day: TradingDay, form: "ModelForm[TradingDay]", change: bool) -> None:
        day.synced_at = clock.now()
        super().save_model(request, day, form, change)

    def save_related(self, request: HttpRequest, form: "ModelForm[TradingDay]", formsets: Any, change: bool) -> None:
        """Save the correction. If the day is new, or its kind changed, its phases follow the rules."""
        super().save_related(request, form, formsets, change)
        is_new_kind = not change or bool({"is_open", "kind"} & set(form.changed_data))
        if is_new_kind or form.changed_data or any(formset.has_changed() for formset in formsets):
            reference_data.correct_day(form.instance, by_the_rules=is_new_kind, now=clock.now())

    @admin.action(description=_("Let the broker's calendar decide again"), permissions=["change"])
    def give_back(self, request: HttpRequest, days: QuerySet[TradingDay]) -> None:
        days.update(source=TradingDay.Source.LIBRARY)


@admin.register(DailyPrice)
class DailyPriceAdmin(Record):
    list_display = ["date", "stock_code", "open", "high", "low", "close", "volume"]
    search_fields = ["stock_code"]
    date_hierarchy = "date"


@admin.register(MarketCandle)
class MarketCandleAdmin(Record):
    list_display = ["time", "symbol", "venue", "interval", "open", "high", "low", "close", "volume", "source"]
    list_display_links = None  # its id has no index
    list_filter = ["venue", "source"]
    search_fields = ["=symbol"]

    def get_search_results(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> tuple[QuerySet[Any], bool]:
        """Search by the code, or by the stock's name."""
        term = plain(term)
        codes = Stock.objects.filter(name__icontains=term).values("code") if term else ()
        matches, may_repeat = super().get_search_results(request, rows, term)
        return (matches | rows.filter(symbol__in=codes) if term else matches), may_repeat


@admin.register(MarketMacro)
class MarketMacroAdmin(Record):
    list_display = ["time", "kospi", "kosdaq", "kospi200", "kospi200_futures", "basis", "basis_rate", "regime"]
    list_display += ["foreign_net", "institution_net", "individual_net"]
    list_filter = ["regime"]
    date_hierarchy = "time"


@admin.register(ProgramTrade)
class ProgramTradeAdmin(Record):
    list_display = ["time", "stock_code", "sold_qty", "bought_qty", "net_qty", "net_won"]
    search_fields = ["=stock_code"]
    date_hierarchy = "time"


@admin.register(PriceBackfill)
class PriceBackfillAdmin(Record):
    list_display = ["stock_code", "since", "reached", "is_done", "failure", "updated_at"]
    list_filter = ["is_done"]
    search_fields = ["=stock_code"]
