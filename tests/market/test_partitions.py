from datetime import date, datetime

import pytest
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor

from aegis.sessions import KST
from market import partitions
from market.models import MarketCandle

PLAIN, PARTED = ("market", "0002_market_days"), ("market", "0003_candle_partitions")


def candle(time: datetime, **words: object) -> MarketCandle:
    prices = {"open": 100, "high": 110, "low": 90, "close": 105, "volume": 7, "value": 700, "trade_count": 2}
    return MarketCandle(time=time, symbol="005930", interval="1m", venue="KRX", **{**prices, **words})


def tables() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'market_candles'::regclass")
        return sorted(name for (name,) in cursor.fetchall())


@pytest.mark.django_db
def test_months_are_made_ahead_and_once() -> None:
    made = partitions.ensure_ahead(date(2026, 11, 30))
    assert made == ["market_candles_2026_11", "market_candles_2026_12", "market_candles_2027_01"]
    assert partitions.ensure_ahead(date(2026, 11, 30)) == []
    assert tables() == made


@pytest.mark.django_db
def test_a_month_begins_at_midnight_in_korea() -> None:
    partitions.ensure([date(2026, 11, 1), date(2026, 12, 1)])
    candle(datetime(2026, 11, 30, 23, 59, tzinfo=KST)).save()
    candle(datetime(2026, 12, 1, 0, 0, tzinfo=KST)).save()
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM market_candles ORDER BY time")
        assert [name for (name,) in cursor.fetchall()] == ["market_candles_2026_11", "market_candles_2026_12"]


@pytest.mark.django_db
def test_there_is_one_candle_a_minute() -> None:
    partitions.ensure([date(2026, 11, 1)])
    candle(datetime(2026, 11, 23, 9, 0, tzinfo=KST)).save()
    with pytest.raises(IntegrityError):
        candle(datetime(2026, 11, 23, 9, 0, tzinfo=KST)).save()


@pytest.mark.django_db(transaction=True)
def test_a_plain_table_is_parted_and_joined_again_without_losing_a_row() -> None:
    times = [datetime(2026, month, 28, 9, 0, tzinfo=KST) for month in (1, 11, 12)]
    try:
        MigrationExecutor(connection).migrate([PLAIN])
        MarketCandle.objects.bulk_create([candle(time) for time in times])
        MigrationExecutor(connection).migrate([PARTED])
        assert sorted(MarketCandle.objects.values_list("time", flat=True)) == times
        assert tables() == ["market_candles_2026_01", "market_candles_2026_11", "market_candles_2026_12"]
        MarketCandle.objects.create(**{**_words(times[0]), "venue": "NXT"})
        MigrationExecutor(connection).migrate([PLAIN])
        assert MarketCandle.objects.count() == 4
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())


def _words(time: datetime) -> dict[str, object]:
    row = candle(time)
    return {field.name: getattr(row, field.name) for field in MarketCandle._meta.fields if field.name != "id"}
