"""The admin: every table to look at, few to change. What machines write, people only read here."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from orders.models import BlacklistedStock, OrderEvent, RawNotice, TradeExecution, TradeOrder, TradingSwitch
from portfolio.models import AccountSnapshot, Portfolio


class ReadOnly:
    """Rows that have one writer, and it is not a person."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(ReadOnly, admin.TabularInline):
    extra = 0
    can_delete = False
    show_change_link = True


class ExecutionInline(ReadOnlyInline):
    model = TradeExecution
    fields = ["executed_at", "exec_qty", "exec_price", "cumulative_qty", "source", "fee", "tax", "voided_at"]


class EventInline(ReadOnlyInline):
    model = OrderEvent
    fields = ["at", "kind", "detail"]


class NoticeInline(ReadOnlyInline):
    model = RawNotice
    fields = ["received_at", "kind", "state", "committed_ms"]


class RetryInline(ReadOnlyInline):
    model = TradeOrder
    fk_name = "root"
    verbose_name_plural = _("retries")
    fields = ["attempt", "order_no", "qty", "price", "filled_qty", "status"]


@admin.register(TradeOrder)
class TradeOrderAdmin(ReadOnly, admin.ModelAdmin):
    list_display = [
        "created_at",
        "stock_name",
        "stock_code",
        "order_type",
        "market",
        "qty",
        "price",
        "filled_qty",
        "average",
        "status",
        "attempt",
        "strategy",
        "order_no",
        "origin",
    ]
    list_display_links = ["created_at", "stock_name"]
    list_filter = ["status", "order_type", "market", "origin", "strategy", "order_date"]
    search_fields = ["stock_code", "stock_name", "order_no", "request_id"]
    date_hierarchy = "order_date"
    inlines = [RetryInline, ExecutionInline, EventInline, NoticeInline]

    @admin.display(description=_("average fill"))
    def average(self, order: TradeOrder) -> str:
        return f"{order.average_fill:,.0f}" if order.average_fill else "-"


@admin.register(BlacklistedStock)
class BlacklistedStockAdmin(admin.ModelAdmin):
    list_display = ["stock_code", "stock_name", "reason", "until"]
    search_fields = ["stock_code", "stock_name", "reason"]
    list_filter = ["until"]


@admin.register(TradingSwitch)
class TradingSwitchAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["state", "reason", "changed_by", "changed_at"]


@admin.register(TradeExecution)
class TradeExecutionAdmin(ReadOnly, admin.ModelAdmin):
    list_display = [
        "executed_at",
        "stock_code",
        "order_no",
        "exec_qty",
        "exec_price",
        "source",
        "fee",
        "tax",
        "voided_at",
    ]
    list_filter = ["source", "executed_at"]
    search_fields = ["stock_code", "order_no"]
    date_hierarchy = "executed_at"


@admin.register(RawNotice)
class RawNoticeAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["received_at", "kind", "order_no", "state", "committed_ms"]
    list_filter = ["state", "kind", "order_date"]
    search_fields = ["order_no"]
    date_hierarchy = "received_at"


@admin.register(OrderEvent)
class OrderEventAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["at", "order", "kind", "detail"]
    list_filter = ["kind", "at"]
    search_fields = ["order__stock_code", "order__order_no", "detail"]
    date_hierarchy = "at"
    list_select_related = ["order"]


@admin.register(Portfolio)
class PortfolioAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["stock_name", "stock_code", "quantity", "avg_price", "current_price", "profit_rate", "updated_at"]
    search_fields = ["stock_code", "stock_name"]


@admin.register(AccountSnapshot)
class AccountSnapshotAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["timestamp", "total_asset", "deposit", "deposit_d2", "valuation", "net_profit_today"]
    list_filter = ["timestamp"]
    date_hierarchy = "timestamp"
