"""Who may do what: three groups that every `migrate` completes. It grants what is missing and takes nothing away.

A viewer sees, a trader also acts on orders and stops trading, an administrator also decides who may. All of
them need staff status to log in.
"""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Q
from django.http import HttpRequest

VIEWER, TRADER, ADMINISTRATOR = "viewer", "trader", "administrator"
# Django's own permissions, read as what they let one do: nobody edits such a row by hand
TRADE = "orders.change_tradeorder"
SWITCH = "orders.change_tradingswitch"

SEEN = ("market", "portfolio", "orders", "desk")
_TRADING = Q(codename__in=("change_tradeorder", "change_tradingswitch")) | Q(codename__endswith="_blacklistedstock")
_VIEWING = Q(content_type__app_label__in=SEEN, codename__startswith="view_")

GRANTS = {
    VIEWER: _VIEWING,
    TRADER: _VIEWING
    | (Q(content_type__app_label="orders") & _TRADING)
    | Q(content_type__app_label="django_celery_beat", codename__startswith="view_"),
    ADMINISTRATOR: Q(content_type__app_label__in=(*SEEN, "django_celery_beat", "auth", "admin")),
}


class UserRequest(HttpRequest):
    """A request of somebody who is logged in: what a view or an admin page says that lets no stranger in."""

    user: User


def grant(sender: AppConfig, using: str = "default", **about: Any) -> None:
    """Give each group what it should have of one app's permissions, which were just made."""
    for name, wanted in GRANTS.items():
        of_this_app = Permission.objects.using(using).filter(wanted, content_type__app_label=sender.label)
        if not of_this_app:
            continue
        group, _ = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*of_this_app)
