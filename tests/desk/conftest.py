"""People at the desk: one of each role, logged in."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from tests.orders.conftest import buy, service

__all__ = ("buy", "service")


@pytest.fixture
def user_of(db: None) -> Callable[..., User]:
    """Make a user of a role: `user_of("trader")`."""

    def make(role: str | None, *, is_staff: bool = True) -> User:
        user = User.objects.create_user(f"the {role}", password="a good password", is_staff=is_staff)
        if role:
            user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def as_a(user_of: Callable[..., User]) -> Callable[..., Client]:
    """Log a new user of a role in: `as_a("viewer")` returns their browser."""

    def log_in(role: str | None, **words: bool) -> Client:
        client = Client()
        client.force_login(user_of(role, **words))
        return client

    return log_in
