from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class NotifyConfig(AppConfig):
    name = "notify"
    # of the tables, since before they had a package of their own
    label = "desk"
    verbose_name = _("Desk")
