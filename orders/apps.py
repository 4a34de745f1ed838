from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OrdersConfig(AppConfig):
    name = "orders"
    verbose_name = _("Orders")

    def ready(self) -> None:
        from market import interest
        from orders.periodic_sync import our_stocks

        interest.register(our_stocks)
