"""Runs a simulator: REST and WebSocket on one port, in one event loop; in a thread for tests."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from infra import clock
from simulator.api import master_files
from simulator.api.control import CommandResult, ControlApi
from simulator.api.list_printing import DEFAULT, Printing
from simulator.api.rest import Rest
from simulator.broker import Firm, Settings, Wire
from simulator.feed.hub import FeedHub

TICK_SECONDS = 0.1
_SHUTDOWN_SECONDS = 2.0

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class PortTaken(Exception):
    """Another program listens on the simulator's port."""


class Server:
    """One simulator on one port. All methods except `run` are called inside its event loop."""

    def __init__(self, settings: Settings) -> None:
        self.firm = Firm(settings)
        self.feed = FeedHub(self.firm, clock.now)
        self.rest = Rest(self.firm, clock.now)
        self.control = ControlApi(self.firm, self.feed)
        self._stopping = asyncio.Event()

    async def run(self, host: str, port: int, ready: Callable[[int], None]) -> None:
        """Serve until `stop`. Calls `ready` with the port once it listens. Raises PortTaken."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{tail:.*}", self._entry)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, handle_signals=False)
        await runner.setup()
        try:
            listener = _listen(host, port)
            await web.SockSite(runner, listener).start()
            self.firm.advance(clock.now())
            tick_task = asyncio.create_task(self._tick())
            ready(listener.getsockname()[1])
            await self._stopping.wait()
            tick_task.cancel()
        finally:
            self.feed.hang_up()
            await runner.cleanup()
            self.firm.exchange.ledger.close()

    def stop(self) -> None:
        self._stopping.set()

    async def _entry(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self.feed.serve(request)
        response: web.StreamResponse
        if request.path == "/simulator" or request.path.startswith("/simulator/"):
            response = await self.control.answer(request)
        elif request.path.startswith(master_files.PATH):
            response = self._file(request.path.removeprefix(master_files.PATH))
        else:
            response = await self.rest.answer(request)
        self.publish_news()
        return response

    def _file(self, name: str) -> web.Response:
        content = master_files.file_content(name, self.firm.exchange.world.halted)
        if content is None:
            return web.Response(status=404, text=f"no file is called {name}")
        return web.Response(body=content, content_type="application/zip")

    def publish_news(self) -> None:
        """Send the exchange's news to the feeds."""
        self.feed.publish(self.firm.exchange.take_news())

    async def _tick(self) -> None:
        while True:
            try:
                self.firm.advance(clock.now())
                self.publish_news()
                self.feed.send_periodic()
                self.feed.drop_if_flapping()
            except Exception:
                log.exception("a step of the market failed")
            await asyncio.sleep(TICK_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"port {port} on {host} is not free ({error.strerror}): stop the program that listens there, "
            "or choose another with --port"
        ) from error
    listener.listen(128)
    return listener


def run(settings: Settings, *, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Run a simulator in the foreground until SIGTERM or SIGINT. Raises PortTaken."""

    async def main() -> None:
        server = Server(settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        await server.run(host, port, ready)

    asyncio.run(main())


class Simulator:
    """A running simulator, for tests. Methods may be called from any thread."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, thread: threading.Thread, port: int) -> None:
        self._server = server
        self._loop = loop
        self._thread = thread
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}"

    def ledger(self, account: str) -> CommandResult:
        """Return the answer of GET /simulator/ledger for an account."""
        return self._run(lambda: self._server.control.ledger(account, clock.now()))

    def events(self) -> list[dict[str, Any]]:
        """Return all events of the ledger."""
        return self._run(self._server.firm.exchange.ledger.events)

    def set_price(self, code: str, price: int, freeze: bool = True) -> None:
        """Trade a stock tick by tick to `price` won, and by default freeze it there."""
        self.command("POST", f"/simulator/quotes/{code}", {"price": price, "freeze": freeze})

    def step(self, count: int = 1) -> None:
        """Let the crowd act `count` times now."""
        self._run(lambda: self._server.control.step(count, clock.now()))

    def command(self, method: str, path: str, body: dict[str, Any] | None = None) -> CommandResult:
        """Execute any command of /simulator/. Raises BadCommand."""
        return self._run(lambda: self._server.control.carry_out(method, path, {}, body or {})) or {}

    def fault(self, name: str, **params: Any) -> CommandResult:
        """Put a fault in force. Takes the name, scope, count and parameters of POST /simulator/faults."""
        return self.command("POST", "/simulator/faults", {"name": name, **params})

    def clear_faults(self) -> None:
        """End all faults."""
        self.command("POST", "/simulator/faults", {"clear": True})

    def drop_sockets(self) -> None:
        """Close all realtime sessions."""
        self._run(self._server.feed.hang_up)

    def stop(self) -> None:
        """Stop the server. A second call has no effect."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
            self._thread.join(10)

    def _run(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the server's event loop, publish its news, and return its result."""
        future: Future[Result] = Future()

        def task() -> None:
            try:
                result = work()
                self._server.publish_news()
            except BaseException as error:  # noqa: BLE001 - `result` raises it again in the calling thread
                future.set_exception(error)
            else:
                future.set_result(result)

        self._loop.call_soon_threadsafe(task)
        return future.result(60)


@contextlib.contextmanager
def serve(
    seed: int = 1,
    wire: Wire = "2026-09",
    paper: bool = False,
    rate: int | None = 0,
    ledger_path: Path | str | None = None,
    port: int = 0,
    ticking: bool = True,
    notice_columns: int | None = None,
    codes: Iterable[str] | None = None,
    specification: bool = False,
    printing: Printing = DEFAULT,
) -> Iterator[Simulator]:
    """Run a simulator on 127.0.0.1 in its own thread.

    `rate` is in calls per second: 0 disables the call limit, None uses the environment's. `port` 0 uses a free port.
    Without `ticking` the crowd acts only on `step`; phases still begin and end by the clock. `codes` lists only these
    stocks, which makes the start faster. With `specification` the TR ids of the user's specification are accepted too.
    `printing` sets the modes of the order lists.
    """
    settings = Settings(
        seed=seed,
        wire=wire,
        is_paper=paper,
        specification=specification,
        rate=rate,
        notice_columns=notice_columns,
        ledger_path=Path(ledger_path) if ledger_path else None,
        is_ticking=ticking,
        codes=frozenset(codes) if codes is not None else None,
        printing=printing,
    )
    simulator = _start(settings, port)
    try:
        yield simulator
    finally:
        simulator.stop()


def _start(settings: Settings, port: int) -> Simulator:
    started: Future[tuple[Server, asyncio.AbstractEventLoop, int]] = Future()

    async def main() -> None:
        server = Server(settings)
        loop = asyncio.get_running_loop()
        await server.run("127.0.0.1", port, lambda bound_port: started.set_result((server, loop, bound_port)))

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if started.done():
                log.exception("the simulator died")
            else:
                started.set_exception(error)

    thread = threading.Thread(target=work, name="kis-simulator", daemon=True)
    thread.start()
    server, loop, bound_port = started.result(30)
    return Simulator(server, loop, thread, bound_port)
