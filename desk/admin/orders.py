"""Pages of orders, their events, requests and executions, of stops and the trading switch: to read and to act on.

The rows of an order are never edited.
"""

from collections.abc import Collection
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import lazy
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from import_export.fields import Field
from import_export.resources import ModelResource
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, RangeDateFilter
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanWidget,
)

from aegis.broker import Quote
from aegis.lifecycle import OPEN, Status
from aegis.requests import RequestState
from aegis.stops import StopKind, StopUnit
from aegis.trading_state import TradingState
from desk import actions
from desk.actions import ActionResult
from desk.admin.base import Page, ReadOnly, Record, figure
from desk.roles import SWITCH, TRADE, UserRequest
from desk.timeline import family_of, notes, requests_of, timeline
from infra import clock
from kis.factory import broker
from market import codes
from market.models import Stock
from orders import kill_switch, stop_polling, stops
from orders.management.changing import OrderChange
from orders.models import (
    BlacklistedStock,
    BrokerRequest,
    OrderEvent,
    RawNotice,
    Reconciliation,
    StopEvent,
    StopRule,
    SwitchChange,
    TradeExecution,
    TradeOrder,
    TradingSwitch,
)
from orders.stop_rows import LIVE
from orders.unknown import undecided
from portfolio.service import PortfolioService

COLOURS = {
    Status.SUBMITTING.value: "info",
    Status.PENDING.value: "info",
    Status.PARTIAL.value: "primary",
    Status.FILLED.value: "success",
    Status.CANCELLED.value: "",
    Status.EXPIRED.value: "",
    Status.REJECTED.value: "warning",
    Status.UNKNOWN.value: "danger",
}

REQUEST_COLOURS = {
    RequestState.REQUESTED.value: "info",
    RequestState.SENT.value: "info",
    RequestState.ACKNOWLEDGED.value: "primary",
    RequestState.CONFIRMED.value: "success",
    RequestState.REJECTED.value: "warning",
    RequestState.UNKNOWN.value: "danger",
    RequestState.NOT_SENT.value: "",
    RequestState.LAPSED.value: "warning",
}


def show_result(request: HttpRequest, result: ActionResult) -> None:
    messages.add_message(request, messages.SUCCESS if result.is_done else messages.ERROR, result.text)


def go_to(url: str) -> HttpResponse:
    """Close a dialog and load a page, https://htmx.org/headers/hx-redirect/."""
    return HttpResponse(headers={"HX-Redirect": url})


class DecisionForm(BaseDialogForm):
    """An operator's decision which order at the broker an UNKNOWN order is."""

    NEVER = "never"
    number = forms.ChoiceField(label=_("It is"), widget=UnfoldAdminRadioSelectWidget())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        order = get_object_or_404(TradeOrder, pk=self.object_id)
        candidates = [(candidate["order_no"], _describe(candidate)) for candidate in order.candidates]
        self.fields["number"].choices = self.fields["number"].widget.choices = [
            *candidates,
            (self.NEVER, _("none of them: it never arrived")),
        ]


class AmendForm(BaseDialogForm):
    """The new price of an order in won, and the number of shares to amend. `actions.amend` checks what is possible."""

    price = forms.IntegerField(
        label=_("new price (won)"),
        min_value=1,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text=_("empty: the price stays, and the order is reduced to the quantity below"),
    )
    qty = forms.IntegerField(
        label=_("quantity"),
        min_value=1,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text=_("with a price: how many shares move; empty: all that is open"),
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors and data.get("price") is None and data.get("qty") is None:
            raise ValidationError(gettext("enter a new price, the number of shares that stay open, or both"))
        return data


def _describe(candidate: dict[str, Any]) -> str:
    return _("{order_no}: {market} {placed_at}, {qty:,} at {price:,}, filled {filled_qty:,}").format(**candidate)


@admin.register(TradeOrder)
class TradeOrderAdmin(Record):
    list_display = [
        "when",
        "stock",
        "side",
        "market",
        "quantity",
        "price_named",
        "filled",
        "average",
        "state",
        "attempt",
        "strategy",
        "strategy_id",
        "order_no",
        "origin",
    ]
    list_display_links = ["when", "stock"]
    list_filter = [
        ("order_date", RangeDateFilter),
        ("status", ChoicesCheckboxFilter),
        ("market", ChoicesCheckboxFilter),
        ("origin", ChoicesCheckboxFilter),
        ("order_type", ChoicesCheckboxFilter),
        "strategy",
        "strategy_id",
    ]
    list_filter_submit = True
    search_fields = ["stock_code", "stock_name", "order_no", "request_id", "strategy_id"]
    search_help_text = _("stock name or code, order number, strategy")
    date_hierarchy = "order_date"
    actions = ["cancel_chosen"]
    actions_list = ["reconcile_all"]
    actions_detail = ["cancel", "amend", "chase_now", "reconcile", "decide"]
    change_form_outer_before_template = "desk/family.html"
    fieldsets = [
        (
            _("Details"),
            {
                "classes": ["collapse"],
                "fields": [
                    ("request_id", "origin", "replaces"),
                    ("strategy_id", "strategy", "tick_offset"),
                    ("stock_code", "stock_name", "order_type"),
                    ("market", "order_kind", "branch"),
                    ("qty", "price", "arrival_price"),
                    ("status", "status_at", "never_arrived"),
                    ("filled_qty", "filled_amount", "refusal"),
                    ("created_at", "sent_at", "accepted_at"),
                    ("confirmed_at", "needs_reconciliation", "not_found_count"),
                    ("missing_since", "unlisted_since"),
                    ("cancel_requested_at", "cancel_requested_by", "end_cause"),
                    ("chase_at", "chase_step", "chase_note"),
                    ("wait_seconds", "max_retries", "step_ticks", "market_after"),
                ],
            },
        )
    ]

    def has_trade_permission(self, request: HttpRequest, *args: Any) -> bool:
        return request.user.has_perm(TRADE)

    def has_open_permission(self, request: HttpRequest, pk: Any = None) -> bool:
        """Whether to offer the actions on open orders. A POST always passes: the action itself answers with a text."""
        return self._offers(request, pk, OPEN)

    def has_unknown_permission(self, request: HttpRequest, pk: Any = None) -> bool:
        if not request.user.has_perm(TRADE):
            return False
        return request.method == "POST" or undecided().filter(pk=pk).exists()

    def _offers(self, request: HttpRequest, pk: Any, states: Collection[Status]) -> bool:
        if not request.user.has_perm(TRADE):
            return False
        return request.method == "POST" or TradeOrder.objects.filter(pk=pk, status__in=states).exists()

    @display(description=_("time"), ordering="created_at")
    def when(self, order: TradeOrder) -> Any:
        return order.created_at

    @display(description=_("stock"), ordering="stock_name")
    def stock(self, order: TradeOrder) -> str:
        return format_html('{} <span class="quiet">{}</span>', order.stock_name, order.stock_code)

    @display(description=_("side"), ordering="order_type")
    def side(self, order: TradeOrder) -> str:
        # a buy is red, a sale blue, as on Korean screens
        colour = "up" if order.order_type == "BUY" else "down"
        return format_html('<span class="{}">{}</span>', colour, order.get_order_type_display())

    @display(description=_("quantity"), ordering="qty")
    def quantity(self, order: TradeOrder) -> str:
        return figure(order.qty)

    @display(description=_("price"), ordering="price")
    def price_named(self, order: TradeOrder) -> str:
        return figure(order.price) if order.price else format_html('<span class="figure">{}</span>', _("market price"))

    @display(description=_("filled quantity"), ordering="filled_qty")
    def filled(self, order: TradeOrder) -> str:
        return figure(order.filled_qty)

    @display(description=_("average fill"))
    def average(self, order: TradeOrder) -> str:
        return figure(order.average_fill)

    @display(description=_("status"), ordering="status", label=COLOURS)
    def state(self, order: TradeOrder) -> tuple[str, str]:
        return order.status, str(order.get_status_display())

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        order = self.get_object(request, object_id)
        if order is not None and self.has_view_permission(request, order):
            family = family_of(order)
            extra_context = (extra_context or {}) | {
                "family": [(member, notes(member)) for member in family],
                "requests": requests_of(family),
                "moments": timeline(family),
                "this_order": order,
                "requested_qty": family[0].qty,
                "family_filled": sum(member.filled_qty for member in family),
            }
        page: HttpResponse = super().change_view(request, object_id, form_url, extra_context)
        return page

    def _back_to(self, order: TradeOrder) -> HttpResponse:
        return go_to(reverse("admin:orders_tradeorder_change", args=[order.pk]))

    @action(
        description=_("Cancel the order"),
        icon="cancel",
        permissions=["open"],
        url_path="cancel",
        dialog={
            "title": _("Cancel this order?"),
            "description": _("The open shares are cancelled at the broker. Filled shares stay."),
            "form_submit_text": _("Cancel the order"),
        },
    )
    def cancel(self, request: UserRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        order = get_object_or_404(TradeOrder, pk=object_id)
        show_result(request, actions.cancel(order, by=request.user))
        return self._back_to(order)

    @action(
        description=_("Amend the order"),
        icon="edit",
        permissions=["open"],
        url_path="amend",
        dialog={
            "title": _("Amend this order?"),
            "description": _("The open shares move to the new price, and the chase ends. Filled shares stay."),
            "form_class": AmendForm,
            "form_submit_text": _("Amend the order"),
        },
    )
    def amend(self, request: UserRequest, form: AmendForm, object_id: str) -> HttpResponse:
        order = get_object_or_404(TradeOrder, pk=object_id)
        change = OrderChange(form.cleaned_data["price"], form.cleaned_data["qty"])
        show_result(request, actions.amend(order, change, by=request.user))
        return self._back_to(order)

    @action(
        description=_("Chase now"),
        icon="fast_forward",
        permissions=["open"],
        url_path="chase",
        dialog={
            "title": _("Chase this order now?"),
            "description": _("It is cancelled and ordered again nearer to the market, as its plan says."),
            "form_submit_text": _("Chase now"),
        },
    )
    def chase_now(self, request: UserRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        order = get_object_or_404(TradeOrder, pk=object_id)
        show_result(request, actions.chase_now(order, by=request.user))
        return self._back_to(order)

    @action(
        description=_("Reconcile"),
        icon="fact_check",
        permissions=["trade"],
        url_path="reconcile",
        dialog={
            "title": _("Ask the broker now?"),
            "description": _("All orders are compared with the broker's list, and differences are corrected."),
            "form_submit_text": _("Reconcile"),
        },
    )
    def reconcile(self, request: UserRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        order = get_object_or_404(TradeOrder, pk=object_id)
        show_result(request, actions.reconcile_now(by=request.user, order=order))
        return self._back_to(order)

    @action(
        description=_("Decide"),
        icon="gavel",
        permissions=["unknown"],
        url_path="decide",
        dialog={
            "title": _("What became of this order?"),
            "description": _("Look the order up in the broker's own app first: AEGIS relies on your decision."),
            "form_class": DecisionForm,
            "form_submit_text": _("Decide"),
        },
    )
    def decide(self, request: UserRequest, form: DecisionForm, object_id: str) -> HttpResponse:
        order = get_object_or_404(TradeOrder, pk=object_id)
        number = form.cleaned_data["number"]
        show_result(request, actions.decide(order, None if number == form.NEVER else number, by=request.user))
        return self._back_to(order)

    @action(
        description=_("Reconcile"),
        icon="fact_check",
        permissions=["trade"],
        url_path="reconcile-all",
        dialog={
            "title": _("Ask the broker now?"),
            "description": _("All orders are compared with the broker's list, and differences are corrected."),
            "form_submit_text": _("Reconcile"),
        },
    )
    def reconcile_all(self, request: UserRequest, form: BaseDialogForm) -> HttpResponse:
        show_result(request, actions.reconcile_now(by=request.user))
        return go_to(reverse("admin:orders_tradeorder_changelist"))

    @admin.action(description=_("Cancel the chosen orders"), permissions=["trade"])
    def cancel_chosen(self, request: UserRequest, chosen: QuerySet[TradeOrder]) -> HttpResponse | None:
        if request.POST.get("confirmed"):
            for order in chosen:
                show_result(request, actions.cancel(order, by=request.user))
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": _("Cancel these orders?"),
            "orders": chosen,
            "opts": self.model._meta,
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "desk/cancel_chosen.html", context)


class BlacklistForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs alone
    """A stock is entered by its code or its name. The name is completed from the stock master."""

    class Meta:
        model = BlacklistedStock
        fields = ["stock_code", "stock_name", "reason", "until"]
        widgets = {"reason": UnfoldAdminTextareaWidget(attrs={"rows": 2})}


@admin.register(BlacklistedStock)
class BlacklistedStockAdmin(Page):
    form = BlacklistForm
    list_display = ["stock_code", "stock_name", "reason", "until"]
    list_display_links = ["stock_code", "stock_name"]
    search_fields = ["stock_code", "stock_name", "reason"]

    class Media:
        js = ["desk/stock_search.js"]

    def save_model(self, request: HttpRequest, row: BlacklistedStock, form: BlacklistForm, change: bool) -> None:
        if not row.stock_name and (stock := Stock.objects.filter(pk=row.stock_code).first()):
            row.stock_name = stock.name
        super().save_model(request, row, form, change)


class SwitchForm(BaseDialogForm):
    reason = forms.CharField(label=_("reason"), max_length=200, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}))


@admin.register(TradingSwitch)
class TradingSwitchAdmin(Record):
    list_display = ["position", "reason", "changed_by", "changed_at"]
    actions_list = ["halt", "reduce", "resume"]

    @display(description=_("state"), label={"ACTIVE": "success", "REDUCING": "warning", "HALTED": "danger"})
    def position(self, row: TradingSwitch) -> tuple[str, str]:
        return row.state, str(row.get_state_display())

    def has_switch_permission(self, request: HttpRequest, *args: Any) -> bool:
        return request.user.has_perm(SWITCH)

    @action(
        description=_("Halt"),
        icon="block",
        permissions=["switch"],
        url_path="halt",
        dialog={
            "title": _("Halt all trading?"),
            "description": lazy(kill_switch.explain_halt, str)(),
            "form_class": SwitchForm,
            "form_submit_text": _("Halt"),
        },
    )
    def halt(self, request: UserRequest, form: SwitchForm) -> HttpResponse:
        return self._turn(request, TradingState.HALTED, form)

    @action(
        description=_("Sales only"),
        icon="trending_down",
        permissions=["switch"],
        url_path="reduce",
        dialog={
            "title": _("Allow sales only?"),
            "description": _(
                "Holdings can be sold, and stops stay active. Nothing is bought, and resting buy orders are cancelled."
            ),
            "form_class": SwitchForm,
            "form_submit_text": _("Sales only"),
        },
    )
    def reduce(self, request: UserRequest, form: SwitchForm) -> HttpResponse:
        return self._turn(request, TradingState.REDUCING, form)

    @action(
        description=_("Resume"),
        icon="play_arrow",
        permissions=["switch"],
        url_path="resume",
        dialog={
            "title": _("Resume trading?"),
            "description": _("Orders can be sent again."),
            "form_class": SwitchForm,
            "form_submit_text": _("Resume"),
        },
    )
    def resume(self, request: UserRequest, form: SwitchForm) -> HttpResponse:
        return self._turn(request, TradingState.ACTIVE, form)

    def _turn(self, request: UserRequest, state: TradingState, form: SwitchForm) -> HttpResponse:
        show_result(request, actions.switch_to(state, by=request.user, reason=form.cleaned_data["reason"]))
        return go_to(reverse("admin:orders_tradingswitch_changelist"))


@admin.register(SwitchChange)
class SwitchChangeAdmin(Record):
    """Each change of the trading state, by an operator or by a trip."""

    list_display = ["at", "by", "from_state", "to_state", "reason", "is_trip"]
    list_filter = ["is_trip", "to_state"]
    date_hierarchy = "at"


class StopEventInline(ReadOnly, TabularInline):
    model = StopEvent
    fields = ["at", "title", "detail"]
    readonly_fields = ["title"]
    extra = 0

    @display(description=_("kind"))
    def title(self, event: StopEvent) -> str:
        return gettext(stops.SAID.get(event.kind, event.kind))


CHANGEABLE = ("unit", "value", "sources", "may_trigger_now")


class StopForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs alone
    """Arms a stop, or changes the trigger of an armed stop. The service reports errors by field."""

    by = ""
    may_trigger_now = forms.BooleanField(
        label=_("It may sell at once"),
        required=False,
        help_text=_("Confirm this if the price is beyond the threshold already."),
        widget=UnfoldBooleanWidget,
    )

    class Meta:
        model = StopRule
        fields = ["stock_code", "kind", "unit", "value", "quantity", "sources"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors:
            unit, value, now = StopUnit(data["unit"]), data["value"], clock.now()
            choices = {"sources": data["sources"], "may_trigger_now": data["may_trigger_now"]}
            try:
                if self.instance.pk:
                    stops.preview_edit(StopRule.objects.get(pk=self.instance.pk), unit, value, at=now, **choices)
                else:
                    choices["quantity"] = data["quantity"]
                    stops.draft_stop(
                        data["stock_code"], StopKind(data["kind"]), unit, value, by=self.by, at=now, **choices
                    )
            except ValidationError as error:
                for name, field_messages in error.message_dict.items():
                    self.add_error(name if name in self.fields else None, field_messages)
        return data


class StopRequest(UserRequest):
    """A request that arms or changes a stop. `quote` was read just before it, None if there is none."""

    quote: Quote | None


@admin.register(StopRule)
class StopRuleAdmin(Record):
    form = StopForm
    list_display = [
        "stock",
        "kind",
        "threshold",
        "unit",
        "fires_at",
        "position",
        "state_at",
        "armed_by",
        "order",
        "note",
    ]
    list_display_links = ["stock", "kind"]
    list_filter = [("state", ChoicesCheckboxFilter), ("kind", ChoicesCheckboxFilter)]
    list_filter_submit = True
    search_fields = ["stock_code", "stock_name"]
    list_select_related = ["order"]
    inlines = [StopEventInline]
    actions_detail = ["disarm", "rearm"]

    class Media:
        js = ["desk/stock_search.js"]

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return request.user.has_perm(TRADE)

    def has_change_permission(self, request: HttpRequest, obj: StopRule | None = None) -> bool:
        return request.user.has_perm(TRADE) and (obj is None or obj.state == StopRule.State.ARMED)

    def has_disarm_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(TRADE) and (
            object_id is None or StopRule.objects.filter(pk=object_id, state__in=LIVE).exists()
        )

    def has_rearm_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        stop = StopRule.objects.filter(pk=object_id, state=StopRule.State.HELD_EXTERNALLY)
        return request.user.has_perm(TRADE) and (object_id is None or stop.exists())

    def get_fields(self, request: HttpRequest, obj: StopRule | None = None) -> list[str]:
        inputs = ["stock_code", "kind", "unit", "value", "quantity", "sources"]
        if self.has_change_permission(request, obj):
            inputs.append("may_trigger_now")
        if obj is None:
            return inputs
        facts = ["stock_name", "state", "fires_at", "high", "atr", "feed_price", "feed_at", "trigger_price", "note"]
        return [*inputs, *facts]

    def get_readonly_fields(self, request: HttpRequest, obj: StopRule | None = None) -> list[str]:
        if obj is None:
            return []
        return [name for name in self.get_fields(request, obj) if name not in CHANGEABLE]

    def save_model(self, request: StopRequest, row: StopRule, form: StopForm, change: bool) -> None:
        data, by = form.cleaned_data, request.user.get_username()
        unit, value = StopUnit(data["unit"]), data["value"]
        choices = {"sources": data["sources"], "may_trigger_now": data["may_trigger_now"]}
        choices["quote"], now = getattr(request, "quote", None), clock.now()
        if change:
            stops.edit(StopRule.objects.get(pk=row.pk), unit, value, by=by, at=now, **choices)
        else:
            choices["quantity"] = data["quantity"]
            row.pk = stops.arm(data["stock_code"], StopKind(data["kind"]), unit, value, by=by, at=now, **choices).pk
            row.refresh_from_db()

    def changeform_view(self, request: StopRequest, object_id: Any = None, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "POST" and request.user.has_perm(TRADE):
            # read before the form's transaction starts: no transaction waits for the broker
            request.quote = self._quote(request, object_id)
        try:
            page: HttpResponse = super().changeform_view(request, object_id, *args, **kwargs)
        except ValidationError as error:  # the stop triggered, or another was armed, between the check and the save
            messages.error(request, " ".join(error.messages))
            return redirect("admin:orders_stoprule_changelist")
        return page

    def _quote(self, request: HttpRequest, object_id: Any) -> Quote | None:
        """Return a quote of the stock whose stop is about to be armed or changed, None if it is no holding."""
        stop_code = (
            StopRule.objects.filter(pk=object_id).values_list("stock_code", flat=True).first() if object_id else ""
        )
        try:
            code = stop_code or codes.resolve(request.POST.get("stock_code", ""))
        except ValueError:
            return None
        sources = request.POST.get("sources", "")
        if sources not in dict(StopRule.SOURCES) or not PortfolioService().get_holding(code):
            return None
        return stop_polling.quote_before(code, sources, broker(), clock.now)

    @action(
        description=_("Disarm"),
        icon="front_hand",
        permissions=["disarm"],
        url_path="disarm",
        dialog={
            "title": _("Disarm this stop?"),
            "description": _(
                "The shares are no longer guarded by it. The order that it has at the broker is cancelled."
            ),
            "form_submit_text": _("Disarm"),
        },
    )
    def disarm(self, request: UserRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        show_result(request, actions.disarm(get_object_or_404(StopRule, pk=object_id), by=request.user))
        return go_to(reverse("admin:orders_stoprule_change", args=[object_id]))

    @action(
        description=_("Arm again"),
        icon="shield",
        permissions=["rearm"],
        url_path="rearm",
        dialog={
            "title": _("Arm this stop again?"),
            "description": _(
                "Its order was cancelled or amended. If the price has reached the stop's limit, it sells at once."
            ),
            "form_submit_text": _("Arm again"),
        },
    )
    def rearm(self, request: UserRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        show_result(request, actions.rearm(get_object_or_404(StopRule, pk=object_id), by=request.user))
        return go_to(reverse("admin:orders_stoprule_change", args=[object_id]))

    @display(description=_("threshold"), ordering="value")
    def threshold(self, rule: StopRule) -> str:
        value = rule.value.normalize()
        return figure(value, digits=max(0, -int(value.as_tuple().exponent)))

    @display(description=_("fires at"))
    def fires_at(self, rule: StopRule) -> str:
        is_live = rule.state in LIVE
        return figure((stops.current_limit(rule) if is_live else rule.trigger_price) or None)

    @display(description=_("stock"), ordering="stock_name")
    def stock(self, rule: StopRule) -> str:
        return format_html('{} <span class="quiet">{}</span>', rule.stock_name, rule.stock_code)

    @display(
        description=_("state"),
        ordering="state",
        label={
            "ARMED": "success",
            "TRIGGERED": "warning",
            "ORDERED": "warning",
            "DONE": "info",
            "FAILED": "danger",
            "HELD_EXTERNALLY": "danger",
        },
    )
    def position(self, rule: StopRule) -> tuple[str, str]:
        return rule.state, str(rule.get_state_display())


class ExecutionResource(ModelResource):
    """The columns of exported fills: those of the table, and the strategy of the order."""

    strategy_id = Field("order__strategy_id", column_name="strategy_id")

    class Meta:
        model = TradeExecution


@admin.register(TradeExecution)
class TradeExecutionAdmin(Record):
    resource_classes = [ExecutionResource]
    list_display = [
        "executed_at",
        "stock",
        "side",
        "quantity",
        "price",
        "amount",
        "costs",
        "profit",
        "strategy",
        "order_no",
        "source",
        "voided_at",
    ]
    list_filter = [
        ("executed_at", RangeDateFilter),
        ("source", ChoicesCheckboxFilter),
        ("order__strategy_id", admin.AllValuesFieldListFilter),
    ]
    list_filter_submit = True
    search_fields = ["stock_code", "order_no", "order__stock_name", "order__strategy_id"]
    date_hierarchy = "executed_at"
    list_select_related = ["order"]

    @display(description=_("stock"), ordering="stock_code")
    def stock(self, fill: TradeExecution) -> str:
        return format_html('{} <span class="quiet">{}</span>', fill.order.stock_name, fill.stock_code)

    @display(description=_("side"), ordering="order__order_type")
    def side(self, fill: TradeExecution) -> str:
        colour = "up" if fill.order.order_type == "BUY" else "down"
        return format_html('<span class="{}">{}</span>', colour, fill.order.get_order_type_display())

    @display(description=_("quantity"), ordering="exec_qty")
    def quantity(self, fill: TradeExecution) -> str:
        return figure(fill.exec_qty)

    @display(description=_("price"), ordering="exec_price")
    def price(self, fill: TradeExecution) -> str:
        return figure(fill.exec_price)

    @display(description=_("amount"), ordering="exec_amount")
    def amount(self, fill: TradeExecution) -> str:
        return figure(fill.exec_amount)

    @display(description=_("strategy"), ordering="order__strategy_id")
    def strategy(self, fill: TradeExecution) -> str:
        return fill.order.strategy_id

    @display(description=_("costs"))
    def costs(self, fill: TradeExecution) -> str:
        return figure(fill.fee + fill.tax)

    @display(description=_("realised profit"), ordering="realized_profit")
    def profit(self, fill: TradeExecution) -> str:
        return figure(fill.realized_profit, sign=True)


@admin.register(BrokerRequest)
class BrokerRequestAdmin(Record):
    """The requests to the broker, with who made them and their outcome."""

    list_display = [
        "requested_at",
        "about",
        "kind",
        "position",
        "requested_by",
        "who",
        "quantity",
        "named_price",
        "confirmed",
        "order_no",
        "confirmed_at",
        "code",
        "message",
    ]
    list_filter = [
        ("requested_at", RangeDateFilter),
        ("kind", ChoicesCheckboxFilter),
        ("state", ChoicesCheckboxFilter),
        ("requested_by", ChoicesCheckboxFilter),
    ]
    list_filter_submit = True
    search_fields = ["order_no", "who", "code", "message", "order__stock_code", "order__stock_name", "order__order_no"]
    date_hierarchy = "requested_at"
    list_select_related = ["order", "makes"]

    @display(description=_("order"), ordering="order")
    def about(self, row: BrokerRequest) -> str:
        if row.order is None:
            return "-"
        return format_html('{} <span class="quiet">#{}</span>', row.order.stock_name, row.order_id)

    @display(
        description=_("state"),
        ordering="state",
        label=REQUEST_COLOURS,
    )
    def position(self, row: BrokerRequest) -> tuple[str, str]:
        return row.state, str(row.get_state_display())

    @display(description=_("quantity"), ordering="qty")
    def quantity(self, row: BrokerRequest) -> str:
        return figure(row.qty)

    @display(description=_("price"), ordering="price")
    def named_price(self, row: BrokerRequest) -> str:
        return figure(row.price or None)

    @display(description=_("confirmed quantity"), ordering="confirmed_qty")
    def confirmed(self, row: BrokerRequest) -> str:
        return figure(row.confirmed_qty if row.state == RequestState.CONFIRMED else None)


@admin.register(RawNotice)
class RawNoticeAdmin(Record):
    list_display = ["received_at", "kind", "order_no", "order", "state", "committed_ms"]
    list_filter = ["state", "kind", ("order_date", RangeDateFilter)]
    list_filter_submit = True
    search_fields = ["order_no"]
    date_hierarchy = "received_at"
    list_select_related = ["order"]


@admin.register(OrderEvent)
class OrderEventAdmin(Record):
    list_display = ["at", "order", "kind", "detail"]
    list_filter = ["kind", ("at", RangeDateFilter)]
    list_filter_submit = True
    search_fields = ["order__stock_code", "order__stock_name", "order__order_no", "detail"]
    date_hierarchy = "at"
    list_select_related = ["order"]


@admin.register(Reconciliation)
class ReconciliationAdmin(Record):
    list_display = ["at", "outcome", "seen", "corrected", "adopted", "resolved", "error"]
    list_filter = ["outcome"]
    date_hierarchy = "at"
