"""The content security policy: a page may load and run our own files only, and no inline scripts or styles."""

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
# some of our own pages use the admin's templates
ADMIN_PATHS = ("/admin/", "/desk/two-factor", "/desk/quality")


class ContentSecurityPolicyMiddleware:
    """Adds the policy to every response, https://developer.mozilla.org/en-US/docs/Web/HTTP/CSP."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        policy = ADMIN if request.path.startswith(ADMIN_PATHS) else STRICT
        value = "; ".join(f"{directive} {sources}" for directive, sources in policy.items())
        response.headers.setdefault("Content-Security-Policy", value)
        return response
