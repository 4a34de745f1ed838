"""The admin: operators can read every table and change a few. Tables that AEGIS writes are read-only."""

from django.apps import apps
from django.contrib import admin

from desk.admin import market, orders, people, portfolio, schedule
from desk.admin.base import ReadOnlyTable

__all__ = ("market", "orders", "people", "portfolio", "schedule")

# shown on the page of another model
WITHIN = {"market.TradingSession"}

for model in (
    table for label in ("market", "portfolio", "orders", "desk") for table in apps.get_app_config(label).get_models()
):
    if model._meta.label not in WITHIN and not admin.site.is_registered(model):
        admin.site.register(model, ReadOnlyTable)
