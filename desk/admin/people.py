"""Pages of the users, their groups, and the record of their actions."""

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from desk import actions, two_factor
from desk.admin.base import Record
from desk.roles import UserRequest

for model in (User, Group, TOTPDevice, StaticDevice):
    # the devices' own pages would show the secrets of the second factor
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg] # generic in the stubs alone
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "is_active", "is_staff", "is_superuser", "roles", "second_factor", "last_login"]
    list_filter = ["is_active", "is_staff", "groups"]
    actions = ["remove_second_factor"]

    @display(description=_("groups"))
    def roles(self, user: User) -> str:
        return ", ".join(group.name for group in user.groups.all()) or "-"

    @display(description=_("two-factor login"), boolean=True)
    def second_factor(self, user: User) -> bool:
        return two_factor.has_two_factors(user)

    @admin.action(description=_("Take the second factor off"), permissions=["change"])
    def remove_second_factor(self, request: UserRequest, users: QuerySet[User]) -> None:
        for user in users:
            two_factor.remove(user)
            actions.log_action(request.user, user, gettext("second factor taken off"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    pass


@admin.register(LogEntry)
class LogEntryAdmin(Record):
    """The operators' actions: user, time and object."""

    list_display = ["action_time", "user", "content_type", "object_repr", "what"]
    list_filter = ["user", "action_flag", "content_type"]
    search_fields = ["object_repr", "change_message", "user__username"]
    date_hierarchy = "action_time"
    list_select_related = ["user", "content_type"]

    @display(description=_("action"))
    def what(self, entry: LogEntry) -> str:
        return entry.get_change_message() or str(entry.get_action_flag_display())
