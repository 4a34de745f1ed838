"""The desk's own pages."""

from django.urls import path, re_path

from desk import two_factor, views
from monitor import probes

urlpatterns = [
    path("", views.show, name="dashboard"),
    path("desk/live", views.live, name="live"),
    path("desk/equity", views.equity, name="equity"),
    path("desk/candles/<str:code>", views.candles, name="candles"),
    path("desk/quality", views.quality_page, name="quality"),
    path("desk/stocks", views.stocks, name="stocks"),
    path("desk/orders/<int:pk>/cancel", views.cancel, name="cancel"),
    path("desk/orders/<int:pk>/chase", views.chase_now, name="chase"),
    path("desk/orders/cancel-all", views.cancel_all, name="cancel_all"),
    re_path(r"^desk/switch/(?P<state>halt|reduce|resume)$", views.switch, name="switch"),
    path("desk/two-factor", two_factor.two_factor, name="two_factor"),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.metrics_page, name="metrics"),
]
# for monitoring systems, which have no account here
OPEN_TO_ALL: frozenset[str] = frozenset({"healthz", "readyz", "metrics"})
