"""The rehearsal's clock: to a trading day's morning, and never back."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.sessions import KST
from infra import clock
from ops import rehearsal_start
from ops.models import Installation
from ops.rehearsal_start import RehearsalHours, hours, opening_time
from orders.models import TradeOrder


def korea(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=KST)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-23 03:00:00", "2026-11-23 09:00:05"),
        ("2026-11-23 14:00:00", "2026-11-23 09:00:05"),  # today's morning, though it is past
        ("2026-11-23 22:00:00", "2026-11-23 09:00:05"),
        ("2026-11-21 11:00:00", "2026-11-23 09:00:05"),  # a Saturday
        ("2026-12-25 11:00:00", "2026-12-28 09:00:05"),  # a holiday before a weekend
    ],
)
def test_the_first_rehearsal_begins_on_a_trading_mornings_opening(now: str, expected: str) -> None:
    assert opening_time(korea(now), is_first=True, is_fresh=False) == korea(expected)


@pytest.mark.parametrize("now", ["2026-11-23 09:00:00", "2026-11-23 15:19:59"])
def test_a_session_under_way_goes_on(now: str) -> None:
    assert opening_time(korea(now), is_first=False, is_fresh=False) is None


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-23 08:59:59", "2026-11-23 09:00:05"),
        ("2026-11-23 15:20:00", "2026-11-24 09:00:05"),
        ("2026-11-20 18:00:00", "2026-11-23 09:00:05"),
        ("2026-09-23 18:00:00", "2026-09-28 09:00:05"),  # 추석 and a weekend
    ],
)
def test_a_session_that_is_over_gives_way_to_the_next(now: str, expected: str) -> None:
    assert opening_time(korea(now), is_first=False, is_fresh=False) == korea(expected)


def test_a_scripted_day_begins_before_the_opening_of_a_day_not_yet_seen() -> None:
    expected = korea("2026-11-24 08:00:05")
    for now in ("2026-11-23 08:00:05", "2026-11-23 08:30:00", "2026-11-23 16:00:00"):
        assert opening_time(korea(now), is_first=False, is_fresh=True, hours=rehearsal_start.whole_day) == expected
    assert rehearsal_start.whole_day(date(2026, 11, 22)) is None


def test_a_scripted_day_passes_over_a_late_open_which_has_no_pre_market() -> None:
    assert rehearsal_start.whole_day(date(2026, 11, 19)) is None
    eve = korea("2026-11-18 16:00:00")
    assert opening_time(eve, is_first=False, is_fresh=True, hours=rehearsal_start.whole_day) == korea(
        "2026-11-20 08:00:05"
    )


def test_a_fresh_rehearsal_takes_a_day_not_yet_seen() -> None:
    assert opening_time(korea("2026-11-23 09:30:00"), is_first=False, is_fresh=True) == korea("2026-11-24 09:00:05")


def test_a_late_opening_is_waited_for() -> None:
    exam_day = date(2026, 11, 19)  # 수능
    assert hours(exam_day) == RehearsalHours(korea("2026-11-19 10:00:00"), korea("2026-11-19 16:20:00"))
    assert opening_time(korea("2026-11-18 20:00:00"), is_first=False, is_fresh=False) == korea("2026-11-19 10:00:05")


def test_a_calendar_without_days_is_said_not_searched_for_ever() -> None:
    with pytest.raises(ValueError, match="no trading day"):
        opening_time(korea("2026-11-23 16:00:00"), is_first=False, is_fresh=False, hours=lambda day: None)


@given(
    now=st.builds(
        lambda day, moment: datetime.combine(day, moment, KST),
        st.dates(date(2025, 1, 1), date(2028, 11, 1)),
        st.times(),
    ),
    is_fresh=st.booleans(),
)
def test_time_only_goes_forward_into_an_open_session(now: datetime, is_fresh: bool) -> None:
    moment = opening_time(now, is_first=False, is_fresh=is_fresh)
    session = hours((moment or now).date())
    assert session is not None
    assert session.opens_at <= (moment or now) < session.closes_at
    assert moment is None or moment > now
    if is_fresh:
        assert moment is not None
        assert moment.date() > now.date() or now < moment - timedelta(seconds=5)


@pytest.fixture
def belonging(db: None, clock_at: Callable[[str], datetime]) -> Installation:
    """A database of a rehearsal under way, whose clock stands in the afternoon."""
    clock_at("2026-11-23 14:00:00")
    return Installation.objects.create(environment="sim", account="50000000-01")


def _add_order_of(day: date) -> None:
    TradeOrder.objects.create(
        stock_code="005930",
        order_type="BUY",
        qty=1,
        price=1,
        order_date=day,
        status_at=clock.now(),
        created_at=clock.now(),
    )


def test_a_ledger_is_kept_as_long_as_its_database(belonging: Installation) -> None:
    ledger = rehearsal_start.start_rehearsal(is_fresh=False)
    ledger.touch()
    assert rehearsal_start.start_rehearsal(is_fresh=False) == ledger
    assert rehearsal_start.ledger_start_date() == date(2026, 11, 23)
    belonging.delete()
    Installation.objects.create(environment="sim", account="50000000-01")
    assert rehearsal_start.start_rehearsal(is_fresh=False) != ledger


def test_a_ledger_that_is_lost_is_begun_anew_after_the_last_day_with_orders(belonging: Installation) -> None:
    ledger = rehearsal_start.start_rehearsal(is_fresh=False)
    _add_order_of(date(2026, 11, 27))
    assert rehearsal_start.start_rehearsal(is_fresh=False) != ledger
    assert clock.now().date() == rehearsal_start.ledger_start_date() == date(2026, 11, 30)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_day_with_orders_is_not_played_again_by_a_clock_that_is_lost_or_behind(
    belonging: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    rehearsal_start.start_rehearsal(is_fresh=False).touch()
    _add_order_of(date(2026, 11, 27))
    if is_lost:
        monkeypatch.setattr(rehearsal_start, "HOME", tmp_path)
        (tmp_path / "simulator").mkdir()
        installation = Installation.objects.get()
        (tmp_path / "simulator" / f"{installation.ledger_id}.jsonl").touch()
    rehearsal_start.start_rehearsal(is_fresh=not is_lost)
    assert clock.now().date() == date(2026, 11, 30)
