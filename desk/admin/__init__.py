"""The admin: every table to look at, few to change. What machines write, people only read here."""

from django.apps import apps
from django.contrib import admin

from desk.admin import market, orders, people, portfolio, schedule
from desk.admin.base import Plain

__all__ = ("market", "orders", "people", "portfolio", "schedule")

# shown within another's page
WITHIN = {"market.TradingSession"}

for model in (
    each for label in ("market", "portfolio", "orders", "desk") for each in apps.get_app_config(label).get_models()
):
    if model._meta.label not in WITHIN and not admin.site.is_registered(model):
        admin.site.register(model, Plain)
