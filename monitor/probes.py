"""The pages for monitoring systems: `/healthz`, `/readyz`, `/metrics`.

Any client learns whether AEGIS is up and ready. Figures and reasons are for requests from this machine, requests with
`AEGIS_METRICS_TOKEN` as a bearer token, and staff.
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
    """Whether the sender of a request may read figures and reasons."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.METRICS_TOKEN and secrets.compare_digest(token.encode(), settings.METRICS_TOKEN.encode()):
        return True
    return _is_this_machine(request) or admin.site.has_permission(request)


def _is_this_machine(request: HttpRequest) -> bool:
    """Whether the request was sent on this machine, and not forwarded by a proxy on it."""
    is_forwarded = any(
        name.startswith("HTTP_X_FORWARDED") or name in ("HTTP_FORWARDED", "HTTP_VIA") for name in request.META
    )
    return not settings.METRICS_TOKEN and not is_forwarded and request.META.get("REMOTE_ADDR") in LOOPBACK


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if this process runs. Nothing else is checked."""
    return HttpResponse("ok\n", content_type="text/plain")


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if everything that trading needs works, else 503; with the result of each check for `may_read`."""
    checks = health.check(clock.now())
    is_ready = all(check.ok for check in checks if check.name not in health.NOT_IN_READINESS)
    payload: dict[str, object] = {"ready": is_ready}
    if may_read(request):
        payload["checks"] = {check.name: check.text or "ok" for check in checks}
    return JsonResponse(payload, status=200 if is_ready else 503, json_dumps_params={"ensure_ascii": False})


@never_cache
@require_safe
def metrics_page(request: HttpRequest) -> HttpResponse:
    """Answer with the figures in Prometheus' text format, or 403."""
    if not may_read(request):
        return HttpResponse(status=403)
    return HttpResponse(metrics.prometheus_text(clock.now()), content_type=CONTENT_TYPE_LATEST)
