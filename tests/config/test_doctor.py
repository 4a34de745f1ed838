"""The doctor finds what is wrong, says how to mend it, and passes what is well."""

import json
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.core.management import call_command

from aegis.account import Account
from aegis.broker import Broker
from kis import factory
from kis.environment import PAPER, Credentials
from ops import doctor
from ops.doctor import CheckResult, Severity
from simulator.api.server import Simulator
from tests.desk.botapi import TOKEN, serve

Look = Callable[[], Iterator[CheckResult]]


def found(look: Look, grade: Severity = Severity.ERROR) -> list[CheckResult]:
    return [finding for finding in look() if finding.severity is grade]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_running", lambda: True)


def test_a_slip_of_a_letter_is_noticed_and_the_right_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIS_APP_KYE", "x")
    (finding,) = found(doctor.examine_variables, Severity.WARN)
    assert "KIS_APP_KYE" in finding.text
    assert "KIS_APP_KEY" in finding.fix


def test_every_known_variable_is_known_to_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_TELEGRAM_TOKEN", "x")
    assert found(doctor.examine_variables, Severity.WARN) == []


def test_an_env_file_that_others_may_read_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("KIS_ENV=sim\n")
    monkeypatch.setattr(doctor, "ENV_FILE", path)
    path.chmod(0o644)
    (finding,) = found(doctor.examine_env_file, Severity.WARN)
    assert finding.fix == f"chmod 600 {path}"
    path.chmod(0o600)
    assert found(doctor.examine_env_file, Severity.OK)


def test_keys_that_were_cut_and_an_account_of_another_kind_are_noticed(settings: Any) -> None:
    settings.KIS_ENVIRONMENT = PAPER
    settings.KIS_CREDENTIALS = Credentials("a" * 35, "b" * 180, Account("12345678", "03"), "me")
    names = " ".join(finding.text for finding in found(doctor.examine_keys, Severity.WARN))
    assert "KIS_APP_KEY" in names
    assert "03" in names
    settings.KIS_CREDENTIALS = Credentials("a" * 36, "b" * 180, Account("12345678", "01"), "me")
    (well,) = found(doctor.examine_keys, Severity.OK)
    assert "12345678" not in well.text


def test_a_further_key_that_was_cut_is_named_by_its_number(settings: Any) -> None:
    settings.KIS_ENVIRONMENT = PAPER
    account = Account("12345678", "01")
    settings.KIS_CREDENTIALS = Credentials("a" * 36, "b" * 180, account, "me")
    whole, cut = Credentials("c" * 36, "d" * 180, account, "me"), Credentials("e" * 36, "f" * 179, account, "me")
    settings.KIS_MARKET_DATA_CREDENTIALS = (whole, cut)
    (finding,) = found(doctor.examine_keys, Severity.WARN)
    assert "pair 2" in finding.text or "2번째" in finding.text
    assert "f" * 20 not in finding.text + finding.fix


def test_one_channel_alone_is_noted(settings: Any) -> None:
    settings.TELEGRAM_TOKEN, settings.TELEGRAM_CHATS, settings.NOTIFY_URLS = "x", [1, 2], []
    assert [finding.topic for finding in found(doctor.examine_channels, Severity.NOTE)] == ["channels"]
    settings.NOTIFY_URLS = ["ntfy://desk"]
    assert found(doctor.examine_channels, Severity.NOTE) == []


def test_error_pages_with_settings_are_wrong_where_money_is(settings: Any) -> None:
    settings.KIS_ENVIRONMENT, settings.DEBUG = PAPER, True
    assert found(doctor.examine_environment)


@pytest.mark.django_db
def test_a_database_with_everything_in_place_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {finding.topic for finding in found(doctor.examine_database, Severity.OK)} == {"database", "migrations"}


def test_redis_that_forgets_is_wrong(store: redis.Redis) -> None:
    assert found(doctor.examine_redis, Severity.OK)
    before = store.config_get("maxmemory-policy")["maxmemory-policy"]
    store.config_set("maxmemory-policy", "allkeys-lru")
    try:
        (finding,) = found(doctor.examine_redis)
    finally:
        store.config_set("maxmemory-policy", before)
    assert "noeviction" in finding.fix


@pytest.mark.usefixtures("running")
def test_a_broker_that_answers_is_well(broker: Broker) -> None:
    assert {finding.topic for finding in found(doctor.examine_broker, Severity.OK)} == {
        "clock",
        "token",
        "socket key",
        "account",
    }


@pytest.mark.usefixtures("running", "broker")
def test_a_clock_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # the doctor's clock alone: the simulator of this process keeps the right time
    monkeypatch.setattr(doctor, "time", SimpleNamespace(time=lambda: time.time() + 45))
    assert [finding.topic for finding in found(doctor.examine_broker)] == ["clock"]


@pytest.mark.usefixtures("running", "broker")
def test_a_refused_key_names_its_variable(simulator: Simulator, store: redis.Redis) -> None:
    store.flushall()
    simulator.fault("gateway", path="/oauth2/tokenP", msg_cd="EGW00103", msg1="유효하지 않은 AppKey입니다.", status=403)
    (finding,) = found(doctor.examine_broker)
    assert finding.topic == "token"
    assert "KIS_APP_KEY" in finding.fix


@pytest.mark.usefixtures("running")
def test_a_broker_out_of_reach_is_named_by_its_address(settings: Any, store: redis.Redis) -> None:
    settings.KIS_ENVIRONMENT = settings.KIS_ENVIRONMENT.at("http://127.0.0.1:1")
    factory.reset()
    (finding,) = found(doctor.examine_broker)
    assert "127.0.0.1:1" in finding.text


def test_a_wrong_telegram_token_is_named_but_never_shown(settings: Any) -> None:
    with serve() as api:
        settings.TELEGRAM_URL, settings.TELEGRAM_TOKEN = api.url, TOKEN
        (well,) = found(doctor.examine_bot, Severity.OK)
        assert well.text == "@rehearsal_bot"
        settings.TELEGRAM_TOKEN = "1:not-the-token"
        (finding,) = found(doctor.examine_bot)
    assert "not-the-token" not in finding.text + finding.fix


@pytest.mark.django_db
@pytest.mark.parametrize("is_wrong", [True, False])
def test_its_exit_code_says_whether_something_must_be_mended(
    is_wrong: bool, monkeypatch: pytest.MonkeyPatch, store: redis.Redis
) -> None:
    grade = Severity.ERROR if is_wrong else Severity.WARN
    monkeypatch.setattr(doctor, "LOCAL_CHECKS", (lambda: iter([CheckResult("x", grade, "text", "mend")]),))
    out = StringIO()
    try:
        call_command("doctor", "--offline", "--json", stdout=out)
        code = 0
    except SystemExit as ended:
        code = ended.code
    assert code == int(is_wrong)
    told = json.loads(out.getvalue())
    assert told["ok"] is not is_wrong
    assert told["findings"][0]["mend"] == "mend"
