"""Two-factor login: set up by a code, asked ever after, with recovery codes for a lost telephone."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

As = Callable[..., Client]
NAME, PASSWORD = "the trader", "a good password"


def code_of(device: TOTPDevice, *, drift: int = 0) -> str:
    return f"{totp(device.bin_key, device.step, device.t0, device.digits, drift):06d}"


def log_in(code: str = "") -> Any:
    fields = {"username": NAME, "password": PASSWORD, "otp_code": code}
    return Client().post(reverse("admin:login") + "?next=/", fields)


@pytest.fixture
def device(as_a: As) -> TOTPDevice:
    """The trader's telephone, set up."""
    trader = as_a("trader")
    page = trader.get(reverse("two_factor")).content.decode()
    made = TOTPDevice.objects.get()
    assert "data:image/svg+xml" in page
    assert not made.confirmed
    page = trader.post(reverse("two_factor"), {"code": code_of(made)}).content.decode()
    assert all(token.token in page for token in StaticToken.objects.all())
    # the code that proved it is spent: the next one is a step later
    TOTPDevice.objects.update(last_t=-1)
    return TOTPDevice.objects.get(confirmed=True)


def test_without_it_name_and_password_do(user_of: Callable[..., User]) -> None:
    user_of("trader")
    assert log_in().status_code == 302


def test_once_set_up_the_code_is_asked(device: TOTPDevice) -> None:
    assert "인증 코드가 없거나 틀렸습니다" in log_in().content.decode()
    assert log_in(code_of(device)).status_code == 302


def test_a_code_works_once(device: TOTPDevice) -> None:
    code = code_of(device)
    assert log_in(code).status_code == 302
    assert log_in(code).status_code == 200


def test_wrong_codes_make_the_next_wait(device: TOTPDevice) -> None:
    assert log_in("000000").status_code == 200
    assert log_in(code_of(device)).status_code == 200


def test_a_wrong_first_code_turns_nothing_on(as_a: As) -> None:
    trader = as_a("trader")
    trader.get(reverse("two_factor"))
    assert "코드가 틀렸습니다" in trader.post(reverse("two_factor"), {"code": "000000"}).content.decode()
    assert not TOTPDevice.objects.filter(confirmed=True).exists()


def test_a_recovery_code_stands_in_once(device: TOTPDevice) -> None:
    recovery = StaticToken.objects.first().token
    assert log_in(recovery).status_code == 302
    assert log_in(recovery).status_code == 200


def test_an_administrator_takes_it_off(device: TOTPDevice, admin_client: Client) -> None:
    chosen = {"action": "remove_second_factor", "_selected_action": [device.user_id]}
    admin_client.post(reverse("admin:auth_user_changelist"), chosen)
    assert log_in().status_code == 302


def test_its_owner_takes_it_off_by_a_code(device: TOTPDevice) -> None:
    trader = Client()
    trader.force_login(device.user)
    trader.post(reverse("two_factor"), {"code": code_of(device)})
    assert not TOTPDevice.objects.exists()


def test_no_page_of_the_admin_shows_the_secret(device: TOTPDevice, admin_client: Client) -> None:
    for url in (reverse("admin:auth_user_change", args=[device.user_id]), reverse("admin:index")):
        assert device.key not in admin_client.get(url).content.decode()
    assert admin_client.get("/admin/otp_totp/totpdevice/").status_code == 404
