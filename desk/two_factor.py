"""Two-factor login (TOTP, RFC 6238): six digits of an authenticator app beside the password. Each user may set it up.

Once confirmed, the code is required at every login. Ten recovery codes, shown once, replace a lost telephone; an
administrator may remove the second factor from an account.
"""

import base64
import binascii
from typing import Any

import segno
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django_otp import devices_for_user
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from unfold.forms import AuthenticationForm
from unfold.widgets import BASE_INPUT_CLASSES

from desk.roles import UserRequest

RECOVERY_CODES = 10


def has_two_factors(user: User) -> bool:
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def remove(user: User) -> None:
    """Remove the second factor from an account."""
    TOTPDevice.objects.filter(user=user).delete()
    StaticDevice.objects.filter(user=user).delete()


def verify(user: User, code: str) -> bool:
    """Whether `code` is valid for one of the user's devices. Each wrong code makes the device wait longer."""
    with transaction.atomic():
        for device in devices_for_user(user, for_verify=True):
            # six digits are a code of the app, a recovery code is longer: wrong codes of one must not lock the other
            is_recovery = isinstance(device, StaticDevice)
            if is_recovery is (len(code) > TOTPDevice().digits) and device.verify_is_allowed()[0]:
                return bool(device.verify_token(code))
    return False


class LoginForm(AuthenticationForm):
    """Name and password, and the code if the user has set up two-factor login."""

    otp_code = forms.CharField(
        label=gettext_lazy("Authentication code"),
        required=False,
        max_length=16,
        help_text=gettext_lazy("only if two-factor login is set up"),
        widget=forms.TextInput(
            attrs={"class": " ".join(BASE_INPUT_CLASSES), "autocomplete": "one-time-code", "inputmode": "numeric"}
        ),
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean()
        user, code = self.get_user(), data.get("otp_code", "").replace(" ", "")
        if user is not None and has_two_factors(user) and not (code and verify(user, code)):
            raise ValidationError(
                _("The authentication code is missing or wrong: enter the newest one of your authenticator app"),
                code="otp",
            )
        return data


class CodeForm(forms.Form):
    code = forms.CharField(
        label=gettext_lazy("Authentication code"),
        max_length=6,
        widget=forms.TextInput(
            attrs={"class": " ".join(BASE_INPUT_CLASSES), "autocomplete": "one-time-code", "inputmode": "numeric"}
        ),
    )


@never_cache
@login_required
def two_factor(request: UserRequest) -> HttpResponse:
    """Show the QR code and confirm it by a first code; or remove the second factor by a code."""
    is_on = has_two_factors(request.user)
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        code = form.cleaned_data["code"]
        if is_on and verify(request.user, code):
            remove(request.user)
            messages.success(request, _("Two-factor login is off"))
            return redirect("two_factor")
        if not is_on and (recovery := _confirm(request.user, code)):
            return _page(request, recovery=recovery)
        form.add_error("code", _("The code is wrong: enter the newest one of your authenticator app"))
    device = None if is_on else _unconfirmed(request.user)
    return _page(request, form=form, is_on=is_on, device=device)


def _unconfirmed(user: User) -> TOTPDevice:
    device = TOTPDevice.objects.filter(user=user, confirmed=False).first()
    return device or TOTPDevice.objects.create(user=user, name="authenticator", confirmed=False)


@transaction.atomic
def _confirm(user: User, code: str) -> list[str]:
    """Return the recovery codes if `code` proves that the app has the secret, else an empty list."""
    device = _unconfirmed(user)
    if not device.verify_is_allowed()[0] or not device.verify_token(code):
        return []
    device.confirmed = True
    device.save()
    StaticDevice.objects.filter(user=user).delete()
    recovery = StaticDevice.objects.create(user=user, name="recovery")
    codes = [StaticToken.random_token() for _ in range(RECOVERY_CODES)]
    StaticToken.objects.bulk_create(StaticToken(device=recovery, token=token) for token in codes)
    return codes


def _page(request: HttpRequest, *, device: TOTPDevice | None = None, **more: Any) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": _("Two-factor login"), **more}
    if device is not None:
        context["qr"] = segno.make(device.config_url, error="m").svg_data_uri(scale=5, border=2)
        context["secret"] = base64.b32encode(binascii.unhexlify(device.key)).decode("ascii")
    return render(request, "desk/two_factor.html", context)
