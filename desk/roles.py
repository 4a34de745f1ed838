"""The permissions of three groups. Every `migrate` grants the missing ones, and removes none.

A viewer reads, a trader also acts on orders and stops trading, an administrator also manages users and groups. All of
them need staff status to log in.
"""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Q
from django.http import HttpRequest

VIEWER, TRADER, ADMINISTRATOR = "viewer", "trader", "administrator"
# Django's own permissions stand for actions here: these rows are never edited in the admin
TRADE = "orders.change_tradeorder"
SWITCH = "orders.change_tradingswitch"

VIEWABLE_APPS = ("market", "portfolio", "orders", "desk")
_TRADING = Q(codename__in=("change_tradeorder", "change_tradingswitch")) | Q(codename__endswith="_blacklistedstock")
_VIEWING = Q(content_type__app_label__in=VIEWABLE_APPS, codename__startswith="view_")

GRANTS = {
    VIEWER: _VIEWING,
    TRADER: _VIEWING
    | (Q(content_type__app_label="orders") & _TRADING)
    | Q(content_type__app_label="django_celery_beat", codename__startswith="view_"),
    ADMINISTRATOR: Q(content_type__app_label__in=(*VIEWABLE_APPS, "django_celery_beat", "auth", "admin")),
}


class UserRequest(HttpRequest):
    """A request of a logged-in user: the type for views and admin pages that require a login."""

    user: User


def grant(sender: AppConfig, using: str = "default", **kwargs: Any) -> None:
    """Give each group its permissions of one app, which `migrate` has just created."""
    for name, condition in GRANTS.items():
        permissions = Permission.objects.using(using).filter(condition, content_type__app_label=sender.label)
        if not permissions:
            continue
        group, _ = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*permissions)
