"""The beat schedule: to read, and for an administrator to pause a task or change its interval."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django_celery_beat.admin import PeriodicTaskAdmin as BeatTaskAdmin
from django_celery_beat.admin import PeriodicTaskForm, TaskSelectWidget
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

for model in (PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule):
    admin.site.unregister(model)


class TaskSelect(UnfoldAdminSelectWidget, TaskSelectWidget):
    """A choice of the workers' tasks, in the style of the admin."""


class TaskForm(PeriodicTaskForm):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["task"].widget = UnfoldAdminTextInputWidget()
        self.fields["regtask"].widget = TaskSelect()


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(BeatTaskAdmin, ModelAdmin):
    form = TaskForm
    list_display = ["name", "enabled", "period", "why", "last_run_at", "total_run_count"]
    list_fullwidth = True

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the actions that pause or run tasks, if the user may change tasks: the library does not check."""
        return super().get_actions(request) if self.has_change_permission(request) else {}

    @display(description=_("why"))
    def why(self, task: PeriodicTask) -> str:
        return gettext(task.description) if task.description else "-"

    @display(description=_("period"))
    def period(self, task: PeriodicTask) -> str:
        return str(task.interval or task.crontab or "-")


@admin.register(IntervalSchedule)
class IntervalScheduleAdmin(ModelAdmin):
    list_display = ["every", "period"]


@admin.register(CrontabSchedule)
class CrontabScheduleAdmin(ModelAdmin):
    list_display = ["minute", "hour", "day_of_week", "day_of_month", "month_of_year", "timezone"]
