"""A line an event: its order on it, its secrets masked, as text or as an object."""

import json
import logging
import sys
from collections.abc import Callable
from types import TracebackType

import pytest

from aegis.broker import Broker
from aegis.terms import Side
from config.logging import JsonFormatter, LineFormatter, logging_config
from infra import clock, log_context
from market import reference_data
from orders.chase import run_due_steps
from orders.service import OrderIntent, OrderService
from simulator.api.server import Simulator

SECRET = 'planted-"secret"'
Record = Callable[..., logging.LogRecord]


@pytest.fixture
def record() -> Record:
    def make(message: str, *args: object, failure: BaseException | None = None) -> logging.LogRecord:
        trace: tuple[type[BaseException], BaseException, TracebackType | None] | None = None
        if failure is not None:
            trace = (type(failure), failure, failure.__traceback__)
        return logging.LogRecord("orders.chase", logging.WARNING, __file__, 1, message, args, trace)

    return make


@pytest.fixture(params=["text", "json"])
def formatter(request: pytest.FixtureRequest) -> logging.Formatter:
    if request.param == "json":
        return JsonFormatter(secrets=[SECRET, "tiny"])
    return LineFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", secrets=[SECRET, "tiny"])


def failed() -> Exception:
    try:
        raise ValueError(f"no: {SECRET}")
    except ValueError as error:
        return error


def test_a_secret_shows_nowhere_not_even_in_a_traceback(formatter: logging.Formatter, record: Record) -> None:
    line = formatter.format(record("key %s is a tiny word", SECRET, failure=failed()))
    assert "planted" not in line
    assert "tiny" in line
    assert "ValueError" in line


def test_an_event_is_one_line(formatter: logging.Formatter, record: Record) -> None:
    assert len(formatter.format(record("two\nlines")).splitlines()) == 1


def test_an_object_a_line_with_its_traceback(record: Record) -> None:
    line = JsonFormatter().format(record("order %d: %s", 12, "체결", failure=failed()))
    assert "\n" not in line
    words = json.loads(line)
    assert (words["level"], words["logger"], words["order"]) == ("WARNING", "orders.chase", 12)
    assert words["message"] == "order 12: 체결"
    assert words["time"].endswith("+09:00")
    assert "ValueError" in words["exception"]


def test_a_line_from_deep_below_knows_its_order(record: Record) -> None:
    with log_context.order_context(7):
        text = LineFormatter("%(message)s").format(record("place: try 1 of 4 failed"))
        assert json.loads(JsonFormatter().format(record("place: try 1 of 4 failed")))["order"] == 7
    assert text == "place: try 1 of 4 failed order=7"
    assert LineFormatter("%(message)s").format(record("quiet")) == "quiet"


def test_the_style_is_a_setting() -> None:
    assert logging_config("INFO", style="json")["handlers"]["stderr"]["formatter"] == "json"


@pytest.mark.django_db
def test_what_the_client_says_of_an_order_in_trouble_names_it(
    broker: Broker, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client knows no orders; the line it writes while one is worked on does."""
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price("005930", 70_000, freeze=True)
    order = OrderService(broker, clock.now).place(OrderIntent("005930", Side.BUY, 10, strategy="buy_normal"))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    client = logging.getLogger("kis.client")
    client.addHandler(handler)
    client.setLevel(logging.INFO)
    try:
        order.chase_at = clock.now()
        order.save()
        simulator.fault("too_fast", count=1)
        run_due_steps(order.pk, broker, clock.now)
    finally:
        client.removeHandler(handler)
        client.setLevel(logging.NOTSET)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert lines
    assert {line["order"] for line in lines} == {order.pk}
