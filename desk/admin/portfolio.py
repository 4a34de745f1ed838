"""Pages of the holdings, their unexplained changes, and the account history."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _
from unfold.decorators import display

from desk.admin.base import Record, figure
from portfolio.models import AccountSnapshot, Portfolio, PortfolioEvent


@admin.register(Portfolio)
class PortfolioAdmin(Record):
    list_display = ["stock_name", "stock_code", "shares", "average", "price", "value", "profit", "updated_at"]
    search_fields = ["stock_code", "stock_name"]

    @display(description=_("quantity"), ordering="quantity")
    def shares(self, holding: Portfolio) -> str:
        return figure(holding.quantity)

    @display(description=_("average price"), ordering="avg_price")
    def average(self, holding: Portfolio) -> str:
        return figure(holding.avg_price)

    @display(description=_("current price"), ordering="current_price")
    def price(self, holding: Portfolio) -> str:
        return figure(holding.current_price)

    @display(description=_("valuation"))
    def value(self, holding: Portfolio) -> str:
        return figure(holding.quantity * holding.current_price)

    @display(description=_("profit rate (%)"), ordering="profit_rate")
    def profit(self, holding: Portfolio) -> str:
        return figure(holding.profit_rate, sign=True, digits=2)


@admin.register(PortfolioEvent)
class PortfolioEventAdmin(Record):
    list_display = ["at", "stock_name", "stock_code", "kind", "qty_before", "qty_after", "avg_price_after"]
    list_filter = ["kind"]
    search_fields = ["stock_code", "stock_name"]
    date_hierarchy = "at"


@admin.register(AccountSnapshot)
class AccountSnapshotAdmin(Record):
    list_display = ["timestamp", "total", "cash", "cash_d2", "held", "profit"]
    date_hierarchy = "timestamp"

    @display(description=_("total asset"), ordering="total_asset")
    def total(self, snapshot: AccountSnapshot) -> str:
        return figure(snapshot.total_asset)

    @display(description=_("deposit"), ordering="deposit")
    def cash(self, snapshot: AccountSnapshot) -> str:
        return figure(snapshot.deposit)

    @display(description=_("deposit D+2"), ordering="deposit_d2")
    def cash_d2(self, snapshot: AccountSnapshot) -> str:
        return figure(snapshot.deposit_d2)

    @display(description=_("valuation"), ordering="valuation")
    def held(self, snapshot: AccountSnapshot) -> str:
        return figure(snapshot.valuation)

    @display(description=_("net profit today"), ordering="net_profit_today")
    def profit(self, snapshot: AccountSnapshot) -> str:
        return figure(snapshot.net_profit_today, sign=True)
