"""The views of the dashboard: the page, its stream of changes, its charts and its buttons."""

import json
from collections.abc import Callable, Iterator
from functools import wraps

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from aegis.codes import NotACode, normalise, plain
from aegis.sessions import KST
from aegis.trading_state import TradingState
from desk import actions, dashboard, navigation
from desk.live import Broadcast, Parts, TooManyViewers
from desk.roles import SWITCH, TRADE, UserRequest
from infra import clock
from market.models import Stock
from orders import execution_quality
from orders.models import TradeOrder

View = Callable[..., HttpResponseBase]
# a stream ends after this time and the page opens another, so a user who was logged out soon loses access
STREAM_SECONDS = 300.0
STOCKS_FOUND = 12
DAYS_OF_QUALITY = (1, 7, 30, 90)

broadcast = Broadcast(lambda language: dashboard.render_parts(language, clock.now()))


def staff_only(view: View) -> View:
    """Redirect a user who is not logged in to the login, and answer 403 to a user who is not staff."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path(), "admin:login")
        if not admin.site.has_permission(request):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return never_cache(guarded)


def may(permission: str) -> Callable[[View], View]:
    """Restrict a POST view to staff with `permission`; others get 403."""

    def decorator(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
            if not request.user.has_perm(permission):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return staff_only(require_POST(guarded))

    return decorator


@staff_only
@require_GET
def show(request: HttpRequest) -> HttpResponse:
    """The dashboard page."""
    now = clock.now()
    context = {
        "parts": dashboard.render_parts(get_language(), now),
        "now": now,
        "stocks": dashboard.chart_stocks(now.astimezone(KST).date()),
        "environment": navigation.environment(request),
        "may_trade": request.user.has_perm(TRADE),
        "may_switch": request.user.has_perm(SWITCH),
    }
    return render(request, "desk/dashboard.html", context)


@staff_only
@require_GET
def live(request: HttpRequest) -> StreamingHttpResponse:
    """The changes of the page as server-sent events: each second the time, and the parts that changed."""
    response = StreamingHttpResponse(_events(get_language()), content_type="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # a proxy must not buffer the events
    return response


def _events(language: str) -> Iterator[str]:
    # the session and the user have been read; the stream needs no connection for its minutes
    connection.close()
    yield "retry: 1000\n\n"
    try:
        for parts in broadcast.watch(language, seconds=STREAM_SECONDS):
            yield _event(parts)
    except TooManyViewers:
        text = json.dumps(_("Too many dashboards are open: close one of them"))
        yield f"event: full\ndata: {text}\n\n"


def _event(parts: Parts) -> str:
    return f"data: {json.dumps({'now': clock.now().timestamp(), 'parts': parts})}\n\n"


@staff_only
@require_GET
def equity(request: HttpRequest) -> HttpResponse:
    points = dashboard.equity(clock.now(), of_today=request.GET.get("range") == "today")
    return JsonResponse({"points": points})


@staff_only
@require_GET
def candles(request: HttpRequest, code: str) -> HttpResponse:
    try:
        code = normalise(code)
    except NotACode as error:
        raise Http404(str(error)) from error
    return JsonResponse(dashboard.candles(code, clock.now(), by_day=request.GET.get("range") == "days"))


@staff_only
@require_GET
def quality_page(request: HttpRequest) -> HttpResponse:
    """The costs of orders against their arrival price, and against a market order at that time."""
    if not request.user.has_perm("orders.view_tradeorder"):
        raise PermissionDenied
    choice = request.GET.get("days", "")
    days = int(choice) if choice in map(str, DAYS_OF_QUALITY) else DAYS_OF_QUALITY[0]
    context = {
        **admin.site.each_context(request),
        "title": _("Execution quality"),
        "report": execution_quality.report(clock.now(), days=days),
        "days": days,
        "choices": DAYS_OF_QUALITY,
    }
    return render(request, "desk/quality.html", context)


@staff_only
@require_GET
def stocks(request: HttpRequest) -> HttpResponse:
    """Stocks whose code begins with `q`, or whose name contains it."""
    query = plain(request.GET.get("q", ""))
    if not query or not request.user.has_perm("market.view_stock"):
        return JsonResponse({"stocks": []})
    matches = Stock.objects.filter(Q(code__istartswith=query) | Q(name__icontains=query)).order_by("name")
    return JsonResponse({"stocks": list(matches.values("code", "name")[:STOCKS_FOUND])})


def _response(*results: actions.ActionResult) -> HttpResponse:
    is_done = all(result.is_done for result in results)
    return JsonResponse(
        {"done": is_done, "text": "\n".join(result.text for result in results)}, status=200 if is_done else 409
    )


@may(TRADE)
def cancel(request: UserRequest, pk: int) -> HttpResponse:
    return _response(actions.cancel(get_object_or_404(TradeOrder, pk=pk), by=request.user))


@may(TRADE)
def cancel_all(request: UserRequest) -> HttpResponse:
    return _response(*actions.cancel_all(by=request.user))


@may(TRADE)
def chase_now(request: UserRequest, pk: int) -> HttpResponse:
    return _response(actions.chase_now(get_object_or_404(TradeOrder, pk=pk), by=request.user))


@may(SWITCH)
def switch(request: UserRequest, state: str) -> HttpResponse:
    target = {"halt": TradingState.HALTED, "reduce": TradingState.REDUCING, "resume": TradingState.ACTIVE}[state]
    reason = request.POST.get("reason", "").strip() or _("on the dashboard")
    return _response(actions.switch_to(target, by=request.user, reason=reason))
