"""Shared parts of the admin pages: read-only pages, exports, stock code fields, figures and colours."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from import_export.admin import ExportMixin
from import_export.formats.base_formats import CSV, XLSX
from unfold.admin import ModelAdmin
from unfold.contrib.import_export.forms import ExportForm

from aegis.codes import NotACode, plain
from desk.roles import UserRequest
from market.codes import ManyStocks, explain, resolve

MAX_COLUMNS = 9
NAME_LENGTH = 60


class Figures:
    """Keeps the types of figures, dates and empty cells, and prevents a text from starting a formula."""

    def _escape_formulae(self, dataset: Any) -> None:
        for _ in range(len(dataset)):
            dataset.append([cell.lstrip("=") if isinstance(cell, str) else cell for cell in dataset.lpop()])


class Excel(Figures, XLSX):
    pass


class KoreanCSV(Figures, CSV):
    """CSV with the byte order mark that Excel needs to read Korean."""

    def export_data(self, dataset: Any, **options: Any) -> str:
        return "\ufeff" + str(super().export_data(dataset, **options))


class Exported(ExportMixin):
    """Exports the rows of the list, as it is filtered, as CSV or Excel."""

    export_form_class = ExportForm

    def get_export_formats(self) -> list[type]:
        return [KoreanCSV, Excel]

    def get_data_for_export(self, request: HttpRequest, queryset: QuerySet[Any], **kwargs: Any) -> Any:
        """Return the rows with native types: a formatted figure such as "197,300" cannot be summed."""
        return super().get_data_for_export(request, queryset, **kwargs | {"force_native_type": True})

    def export_action(self, request: UserRequest, *args: Any, **options: Any) -> HttpResponse:
        response: HttpResponse = super().export_action(request, *args, **options)
        if request.method == "POST" and response.get("Content-Disposition"):
            from desk.actions import log_export

            log_export(request.user, self.model)
        return response


class ReadOnly:
    """Rows that only AEGIS writes."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class StockCodeField(forms.CharField):
    """A stock, entered by its code or its whole name. The value is our code of the stock."""

    def clean(self, value: Any) -> str:
        text = super().clean(value)
        if text in self.empty_values:
            return str(text)
        try:
            return resolve(text)
        except (NotACode, ManyStocks) as error:
            raise ValidationError(explain(error)) from error


class Page(Exported, ModelAdmin):
    """A full-width list that can be exported. Stock codes and search terms are normalised, however they are typed."""

    list_fullwidth = True
    list_filter_sheet = True
    list_per_page = 50
    list_horizontal_scrollbar_top = False
    show_full_result_count = False

    def formfield_for_dbfield(self, db_field: "models.Field[Any, Any]", request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is None or db_field.name != "stock_code":
            return field
        return StockCodeField(
            label=field.label,
            help_text=field.help_text,
            widget=field.widget,
            required=field.required,
            max_length=NAME_LENGTH,
        )

    def get_search_results(self, request: HttpRequest, rows: QuerySet[Any], term: str) -> tuple[QuerySet[Any], bool]:
        results: tuple[QuerySet[Any], bool] = super().get_search_results(request, rows, plain(term))
        return results


class Record(ReadOnly, Page):
    """A read-only list and its rows."""


class ReadOnlyTable(Record):
    """A read-only page of a table without a page of its own: its first columns."""

    def __init__(self, model: type[models.Model], site: admin.AdminSite) -> None:
        names = [field.name for field in model._meta.concrete_fields if field.name not in ("id", "password")]
        self.list_display = names[:MAX_COLUMNS]
        super().__init__(model, site)


def figure(value: Any, *, sign: bool = False, digits: int = 0, unit: str = "") -> str:
    """Return a number in tabular figures. With `sign` it has a sign, and the Korean colours of gain and loss."""
    if value is None:
        return format_html('<span class="figure">{}</span>', "-")
    colour = ("up" if value > 0 else "down" if value < 0 else "") if sign else ""
    text = f"{value:{'+' if sign and value else ''},.{digits}f}{unit}"
    return format_html('<span class="figure {}">{}</span>', colour, text)
