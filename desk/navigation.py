"""The frame of every admin page: its title, the environment, and the navigation."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext as _

from aegis.lifecycle import UNSETTLED, Status
from orders.models import TradeOrder

Item = dict[str, Any]


def subheader(request: HttpRequest) -> str:
    return _("Trading desk")


def favicon(request: HttpRequest) -> str:
    return static("desk/aegis.svg")


def stylesheet(request: HttpRequest) -> str:
    return static("desk/admin.css")


def environment(request: HttpRequest) -> list[str]:
    """Return the name of the environment, and the colour of its label: the more real the orders, the stronger."""
    return {
        "sim": [_("simulator"), "info"],
        "paper": [_("paper trading"), "warning"],
        "live": [_("LIVE") if settings.KIS_ARMED else _("LIVE, read only"), "danger"],
    }[settings.KIS_ENVIRONMENT.name.value]


def account_menu(request: HttpRequest) -> list[Item]:
    return [
        {"title": _("Change password"), "link": reverse("admin:password_change")},
        {"title": _("Two-factor login"), "link": reverse("two_factor")},
    ]


def sidebar(request: HttpRequest) -> list[Item]:
    def page(title: str, icon: str, model: str, query: str = "", **more: Any) -> Item:
        app, name = model.split(".")
        link = reverse(f"admin:{app}_{name}_changelist") + query
        url = f"{request.path}?{request.META.get('QUERY_STRING', '')}"
        is_active = url == link if query else request.path.startswith(link) and not _is_unknown_list(request)
        may_view = request.user.has_perm(f"{app}.view_{name}")
        return {
            "title": title,
            "icon": icon,
            "link": link,
            "permission": lambda _: may_view,
            "active": is_active,
            **more,
        }

    def group(title: str, *items: Item) -> Item:
        return {"title": title, "separator": True, "items": list(items)}

    unsettled = TradeOrder.objects.filter(status__in=UNSETTLED).count()
    unknown = TradeOrder.objects.filter(status=Status.UNKNOWN).count() if unsettled else 0
    return [
        {"items": [{"title": _("Dashboard"), "icon": "monitoring", "link": reverse("dashboard"), "active": False}]},
        group(
            _("Trading"),
            page(_("Orders"), "receipt_long", "orders.tradeorder", **_badge(unsettled, "info")),
            page(
                _("Unknown outcomes"),
                "help",
                "orders.tradeorder",
                f"?status__exact={Status.UNKNOWN}",
                **_badge(unknown, "danger"),
            ),
            page(_("Executions"), "done_all", "orders.tradeexecution"),
            page(_("Stops"), "front_hand", "orders.stoprule"),
            {
                "title": _("Execution quality"),
                "icon": "speed",
                "link": reverse("quality"),
                "permission": lambda request: request.user.has_perm("orders.view_tradeorder"),
            },
            page(_("Trading switch"), "power_settings_new", "orders.tradingswitch"),
            page(_("Turns of the switch"), "toggle_on", "orders.switchchange"),
            page(_("Blacklist"), "block", "orders.blacklistedstock"),
        ),
        group(
            _("Account"),
            page(_("Holdings"), "account_balance_wallet", "portfolio.portfolio"),
            page(_("Account history"), "show_chart", "portfolio.accountsnapshot"),
            page(_("Unexplained changes"), "rule", "portfolio.portfolioevent"),
        ),
        group(
            _("Market"),
            page(_("Stocks"), "storefront", "market.stock"),
            page(_("Watch list"), "visibility", "market.watchedstock"),
            page(_("Candles"), "candlestick_chart", "market.marketcandle"),
            page(_("Order books"), "stacked_bar_chart", "market.booksnapshot"),
            page(_("Daily prices"), "calendar_month", "market.dailyprice"),
            page(_("Basis"), "swap_vert", "market.marketmacro"),
            page(_("Program trading"), "smart_toy", "market.programtrade"),
            page(_("Trading days"), "event", "market.tradingday"),
        ),
        group(
            _("Records"),
            page(_("Order events"), "history", "orders.orderevent"),
            page(_("Requests to the broker"), "send", "orders.brokerrequest"),
            page(_("Notices"), "mark_email_read", "orders.rawnotice"),
            page(_("Reconciliations"), "fact_check", "orders.reconciliation"),
            page(_("Messages"), "chat", "desk.message"),
            page(_("Alarms"), "notifications_active", "desk.alarm"),
            page(_("Operators' actions"), "manage_history", "admin.logentry"),
        ),
        group(
            _("System"),
            page(_("Schedule"), "schedule", "django_celery_beat.periodictask"),
            page(_("Users"), "person", "auth.user"),
            page(_("Groups"), "group", "auth.group"),
        ),
    ]


def _is_unknown_list(request: HttpRequest) -> bool:
    return request.GET.get("status__exact") == Status.UNKNOWN.value


def _badge(count: int, variant: str) -> Item:
    return {"badge": str(count), "badge_variant": variant} if count else {}
