from django.apps import AppConfig


class KisConfig(AppConfig):
    name = "kis"
    verbose_name = "한국투자증권"
