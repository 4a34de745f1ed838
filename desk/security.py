"""What a page may load and run: our own files, nothing from elsewhere, nothing written into the page."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

STRICT = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
# the admin's Alpine evaluates the expressions in its templates, and its theme writes a style element
ADMIN = STRICT | {"script-src": "'self' 'unsafe-eval'", "style-src": "'self' 'unsafe-inline'"}
# some of our own pages wear the admin's clothes
ADMIN_PATHS = ("/admin/", "/desk/two-factor", "/desk/quality")


class ContentSecurityPolicyMiddleware:
    """Names the policy on every answer, https://developer.mozilla.org/en-US/docs/Web/HTTP/CSP."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        policy = ADMIN if request.path.startswith(ADMIN_PATHS) else STRICT
        words = "; ".join(f"{kind} {sources}" for kind, sources in policy.items())
        response.headers.setdefault("Content-Security-Policy", words)
        return response
