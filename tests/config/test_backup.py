"""A backup that was restored is the only one there is."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from aegis.sessions import KST
from ops import backup
from orders.models import OrderEvent, TradeOrder

NOW = datetime(2026, 11, 23, 18, 30, tzinfo=KST)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _the_test_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_database_name", lambda: connection.settings_dict["NAME"])


@pytest.fixture
def some_orders() -> None:
    for number in range(20):
        order = TradeOrder.objects.create(
            request_id=f"r{number}", stock_code="005930", stock_name="삼성전자", order_type="BUY", market="KRX",
            order_kind="00", qty=1, price=70_000, status="PENDING", status_at=NOW, created_at=NOW,
            order_date=NOW.date(),
        )  # fmt: skip
        OrderEvent.objects.create(order=order, at=NOW, kind="CREATED")


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database beside ours."""
    name = "aegis_restored"
    with backup._connected() as server:
        server.execute(f"DROP DATABASE IF EXISTS {name}")
        server.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield name
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.usefixtures("some_orders")
def test_a_backup_is_restored_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("backup", to=tmp_path, check=True)
    out = capsys.readouterr().out
    assert "all equal" in out or "모두 일치" in out
    (path,) = tmp_path.glob("*.dump")
    assert backup.read_counts(path)["trade_orders"] == 20
    assert path.stat().st_mode & 0o077 == 0
    with backup._connected() as server:
        query = "SELECT count(*) FROM pg_database WHERE datname LIKE %s"
        assert server.execute(query, [f"{backup.SCRATCH}%"]).fetchone() == (0,)


@pytest.mark.usefixtures("some_orders")
def test_a_backup_that_lacks_rows_is_found_out(tmp_path: Path) -> None:
    path = backup.write_backup(tmp_path, at=NOW)
    counts = path.with_suffix(".json")
    counts.write_text(counts.read_text().replace('"trade_orders": 20', '"trade_orders": 21'))
    with pytest.raises(backup.BackupFailed, match="trade_orders 21 > 20"):
        backup.verify_backup(path)


@pytest.mark.usefixtures("some_orders")
def test_a_torn_file_is_no_backup(tmp_path: Path) -> None:
    path = backup.write_backup(tmp_path, at=NOW)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(backup.BackupFailed, match="pg_restore"):
        backup.verify_backup(path)


@pytest.mark.usefixtures("some_orders")
def test_what_is_lost_comes_back(tmp_path: Path, another: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = backup.write_backup(tmp_path, at=NOW)
    monkeypatch.setattr(backup, "_database_name", lambda: another)
    call_command("restore", str(path))
    with backup._connected() as restored:
        row = restored.execute("SELECT count(*), max(stock_name) FROM trade_orders").fetchone()
        assert row == (20, "삼성전자")
        with pytest.raises(psycopg.errors.CheckViolation):
            restored.execute("UPDATE trade_orders SET filled_qty = 2")


@pytest.mark.usefixtures("some_orders")
def test_no_restore_goes_over_what_is_there(tmp_path: Path) -> None:
    path = backup.write_backup(tmp_path, at=NOW)
    with pytest.raises(CommandError, match="trade_orders"):
        call_command("restore", str(path))
    assert TradeOrder.objects.count() == 20


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"nothing\.dump"):
        call_command("restore", str(tmp_path / "nothing.dump"))
