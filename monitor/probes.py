"""The doors for machines: `/healthz`, `/readyz`, `/metrics`.

Strangers learn only whether we are up and ready. Figures and reasons are for this machine, for whoever sends
`AEGIS_METRICS_TOKEN` as a bearer token, and for staff.
"""

import secrets

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from infra import clock
from monitor import health, metrics

LOOPBACK = ("127.0.0.1", "::1")


def may_read(request: HttpRequest) -> bool:
    """Whether figures may be shown to who asks."""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.METRICS_TOKEN and secrets.compare_digest(given.encode(), settings.METRICS_TOKEN.encode()):
        return True
    return _is_this_machine(request) or admin.site.has_permission(request)


def _is_this_machine(request: HttpRequest) -> bool:
    """Whether the request comes from here, and not through a proxy that stands here."""
    is_forwarded = any(
        name.startswith("HTTP_X_FORWARDED") or name in ("HTTP_FORWARDED", "HTTP_VIA") for name in request.META
    )
    return not settings.METRICS_TOKEN and not is_forwarded and request.META.get("REMOTE_ADDR") in LOOPBACK


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers. Nothing else is asked."""
    return HttpResponse("ok\n", content_type="text/plain")


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Everything that trading needs is at work: 200, or 503 with what is not."""
    checks = health.check(clock.now())
    is_ready = all(check.ok for check in checks if check.name not in health.NOT_READY)
    told: dict[str, object] = {"ready": is_ready}
    if may_read(request):
        told["checks"] = {check.name: check.text or "ok" for check in checks}
    return JsonResponse(told, status=200 if is_ready else 503, json_dumps_params={"ensure_ascii": False})


@never_cache
@require_safe
def figures(request: HttpRequest) -> HttpResponse:
    """Figures for Prometheus."""
    if not may_read(request):
        return HttpResponse(status=403)
    return HttpResponse(metrics.render(clock.now()), content_type=CONTENT_TYPE_LATEST)
