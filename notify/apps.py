from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class NotifyConfig(AppConfig):
    name = "notify"
    # the tables keep the app label that they had before this package existed
    label = "desk"
    verbose_name = _("Desk")
