from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _

from desk import third_party_messages  # noqa: F401 the texts of libraries without Korean


class DeskConfig(AppConfig):
    name = "desk"
    label = "desk_pages"
    verbose_name = _("Desk")

    def ready(self) -> None:
        from django.contrib import admin

        from desk.roles import grant

        admin.site.login_template = "desk/login.html"
        post_migrate.connect(grant, dispatch_uid="desk.roles")
