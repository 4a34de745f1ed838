"""What an operator can set wrongly: each mistake gets one sentence that names the variable."""

import os
import re
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from aegis.account import Account
from config import env
from config.env import BASE_DIR
from kis.environment import PAPER, SIM, Credentials


def manage(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(BASE_DIR / "manage.py"), *words],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in env.BROKER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nothing_set")
def test_paper_names_every_variable_it_misses_at_once() -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        env.credentials(PAPER)
    assert all(name in str(refused.value) for name in env.BROKER_VARIABLES)


@pytest.mark.usefixtures("nothing_set")
def test_paper_names_only_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEY", "key")
    monkeypatch.setenv("KIS_HTS_ID", "  ")
    with pytest.raises(ImproperlyConfigured) as refused:
        env.credentials(PAPER)
    assert "KIS_APP_KEY" not in str(refused.value)
    assert "KIS_HTS_ID" in str(refused.value)


@pytest.mark.usefixtures("nothing_set")
def test_a_rehearsal_needs_no_variable() -> None:
    assert str(env.credentials(SIM).account) == env.REHEARSAL["KIS_ACCOUNT_NUMBER"]


@pytest.mark.parametrize("number", ["1234567-01", "12345678-1", "12345678 01", "1234567801x", "계좌"])
def test_a_malformed_account_number_is_shown_beside_a_good_one(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("KIS_ACCOUNT_NUMBER", number)
    with pytest.raises(ImproperlyConfigured, match="KIS_ACCOUNT_NUMBER") as refused:
        env.credentials(SIM)
    assert number in str(refused.value)
    assert "12345678-01" in str(refused.value)


@pytest.mark.parametrize("command", [("check",), ("run",), ("demo",), ("orders",)])
def test_every_command_fails_at_once_with_one_sentence(command: tuple[str, ...]) -> None:
    done = manage(*command, KIS_ENV="paper")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(name in done.stderr for name in env.BROKER_VARIABLES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KIS_ENV", "real"),
        ("KIS_TR_DIALECT", "v2"),
        ("KIS_FEE_RATE", "0.14%"),
        ("AEGIS_WEB_PORT", "http"),
        ("AEGIS_UNFILLED_WAIT_SECONDS", "soon"),
        ("AEGIS_STOP_WAIT_SECONDS", "soon"),
        ("AEGIS_STOP_WAIT_SECONDS", "0"),
        ("AEGIS_STOP_WAIT_SECONDS", "61"),
        ("AEGIS_LOG_LEVEL", "loud"),
        ("AEGIS_MAX_ORDER_WON", "-1"),
        ("AEGIS_STOP_SOURCES", "KRX,NYSE"),
        ("AEGIS_STOP_SOURCES", ","),
        ("AEGIS_STOP_WITNESS_WON", "-1"),
        ("AEGIS_MAX_REFUSALS", "some"),
        ("AEGIS_MAX_POSITION_PERCENT", "130"),
        ("AEGIS_LANGUAGE", "jp"),
        ("DATABASE_URL", "localhost:5432"),
        ("REDIS_URL", "http://127.0.0.1"),
    ],
)
def test_a_value_that_cannot_be_read_names_its_variable(name: str, value: str) -> None:
    done = manage("check", **{name: value})
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert name in done.stderr


def test_a_variable_that_is_set_but_empty_is_not_set() -> None:
    assert manage("check", AEGIS_WEB_PORT="", DATABASE_URL="", KIS_ENV="").returncode == 0


def test_operators_are_addressed_in_korean_unless_they_ask_for_english() -> None:
    assert "필요" in manage("check", KIS_ENV="paper").stderr
    assert "needs" in manage("check", KIS_ENV="paper", AEGIS_LANGUAGE="en").stderr


def test_an_unused_database_is_explained_not_traced() -> None:
    done = manage("orders", DATABASE_URL="postgres://me:hidden@127.0.0.1:1/nowhere", AEGIS_LANGUAGE="en")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "DATABASE_URL" in done.stderr
    assert "hidden" not in done.stderr


def test_the_example_names_every_variable_and_changes_nothing() -> None:
    readers = "".join(path.read_text(encoding="utf-8") for path in (BASE_DIR / "config").glob("*.py"))
    read = set(re.findall(r'"((?:KIS|AEGIS)_[A-Z_]+|DATABASE_URL|REDIS_URL)"', readers))
    example = (BASE_DIR / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert read == named
    assert re.findall(r"^[^#\n].*", example, re.MULTILINE) == ["KIS_ENV=sim"]


@pytest.mark.parametrize(
    ("text", "venues"),
    [("", ("KRX", "NXT")), ("NXT", ("NXT",)), (" NXT , KRX,NXT", ("NXT", "KRX")), ("  ", ("KRX", "NXT"))],
)
def test_a_variable_of_a_few_words_takes_one_or_more(
    monkeypatch: pytest.MonkeyPatch, text: str, venues: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AEGIS_STOP_SOURCES", text)
    assert env.choices("AEGIS_STOP_SOURCES", ("KRX", "NXT"), ("KRX", "NXT")) == venues


FIRST = Credentials("first-key", "first-secret", Account("12345678", "01"), "me")


def test_further_app_keys_are_none_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIS_APP_KEYS", raising=False)
    assert env.market_data_credentials(FIRST) == ()


def test_further_app_keys_are_pairs_for_the_same_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KEYS", " key-2:se+cr/et=, key-3 : secret-3 ,")
    second, third = env.market_data_credentials(FIRST)
    assert (second.app_key, second.app_secret, third.app_key, third.app_secret) == (
        "key-2",
        "se+cr/et=",
        "key-3",
        "secret-3",
    )
    assert (second.account, second.hts_id) == (FIRST.account, FIRST.hts_id)
    assert "key-2" not in repr(second)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("planted-key", 1),
        ("planted-key:", 1),
        (":planted-secret", 1),
        ("key-2:secret-2,planted-key", 2),
        ("key-2:secret-2:planted-secret", 1),
        ("key-2:secret-2,key-2:planted-secret", 2),
        ("first-key:planted-secret", 1),
    ],
)
def test_a_wrong_pair_is_named_by_its_number_and_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, value: str, number: int
) -> None:
    monkeypatch.setenv("KIS_APP_KEYS", value)
    with pytest.raises(ImproperlyConfigured, match=f"KIS_APP_KEYS: .*{number}") as refused:
        env.market_data_credentials(FIRST)
    assert not any(word in str(refused.value) for word in ("planted", "key-2", "secret-2", "first-key"))


def test_further_app_keys_are_masked_in_logs() -> None:
    script = "from config import settings; import logging; print(settings.LOGGING['formatters']['text']['secrets'])"
    told = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"KIS_APP_KEYS": "planted-key-2:planted-secret-2", "AEGIS_ENV_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
        cwd=BASE_DIR,
    ).stdout
    assert "planted-key-2" in told
    assert "planted-secret-2" in told


def test_the_heartbeat_is_an_address_of_the_web_and_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_HEARTBEAT_URL", "planted-word")
    with pytest.raises(ImproperlyConfigured, match="AEGIS_HEARTBEAT_URL") as refused:
        env.server_url("AEGIS_HEARTBEAT_URL", ("http", "https"), "https://hc.example.com/ping/a-token")
    assert "planted" not in str(refused.value)
    script = "from config import settings; print(settings.LOGGING['formatters']['text']['secrets'])"
    told = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"AEGIS_HEARTBEAT_URL": "https://hc.example.com/ping/abc", "AEGIS_ENV_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
        cwd=BASE_DIR,
    ).stdout
    assert "'https://hc.example.com/ping/abc'" in told
    assert "'ping/abc'" in told
