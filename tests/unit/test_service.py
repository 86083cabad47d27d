"""Running services: order, signals, failures half-way; and what each serves about its health."""

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import aiohttp
import pytest
import structlog
from aiohttp import web

from shared.deadline import Deadline
from shared.errors import ConfigError, DeadlineExceededError
from shared.http.health import health_routes
from shared.http.server import HttpServer
from shared.metrics import EVENTS_PUBLISHED
from shared.service import COLLECT_AFTER, STOP_SECONDS, run_services
from tests.support.conditions import eventually
from tests.support.ports import free_port

Log = list[str]


class Recorded:
    """A service that writes down what is done to it."""

    def __init__(self, name: str, log: Log, *, start: Exception | None = None) -> None:
        self.name = name
        self.named = ""
        self.stop_seconds = 0.0
        self._log = log
        self._start_error = start

    async def start(self, deadline: Deadline) -> None:
        self.named = structlog.contextvars.get_contextvars()["service"]
        self._log.append(f"start {self.name}")
        if self._start_error is not None:
            raise self._start_error

    async def stop(self, deadline: Deadline) -> None:
        self.stop_seconds = deadline.remaining()
        self._log.append(f"stop {self.name}")


class Unstoppable(Recorded):
    """It raises when it is stopped."""

    def __init__(self, name: str, log: Log, error: Exception) -> None:
        super().__init__(name, log)
        self._stop_error = error

    async def stop(self, deadline: Deadline) -> None:
        await super().stop(deadline)
        raise self._stop_error


class NeverUp(Recorded):
    """Its start waits for something that does not come."""

    async def start(self, deadline: Deadline) -> None:
        await super().start(deadline)
        async with deadline.bound("waiting for a broker that is down"):
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def running(services: list[Recorded], log: Log) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(run_services(services, started=lambda: log.append("up")))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_they_start_in_order_and_stop_in_reverse(number: signal.Signals) -> None:
    log: Log = []
    services = [Recorded(name, log) for name in ("first", "second", "third")]
    async with running(services, log) as task:
        await eventually(lambda: "up" in log, within=5)
        assert log == ["start first", "start second", "start third", "up"]
        os.kill(os.getpid(), number)
        await asyncio.wait_for(task, 5)
    assert log[4:] == ["stop third", "stop second", "stop first"]
    assert all(0 < service.stop_seconds <= STOP_SECONDS for service in services)


@pytest.mark.parametrize(("name", "rarely"), [("gateway", True), ("converter", False)])
async def test_only_beside_a_gateway_garbage_may_grow_old(name: str, rarely: bool) -> None:
    """What a failed pull leaves in a circle holds its buffers."""
    usual = gc.get_threshold()
    log: Log = []
    try:
        async with running([Recorded(name, log)], log):
            await eventually(lambda: "up" in log, within=5)
            assert (gc.get_threshold() == COLLECT_AFTER) is rarely
            assert (gc.get_threshold() == usual) is not rarely
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


async def test_each_has_its_own_name_in_its_log_lines() -> None:
    log: Log = []
    services = [Recorded("first", log), Recorded("second", log)]
    async with running(services, log):
        await eventually(lambda: "up" in log, within=5)
    assert [service.named for service in services] == ["first", "second"]
    assert "service" not in structlog.contextvars.get_contextvars()


async def test_a_failing_start_stops_those_begun_and_says_why() -> None:
    log: Log = []
    services = [
        Recorded("first", log),
        Recorded("second", log, start=ConfigError("cannot listen on the moon")),
        Recorded("third", log),
    ]
    async with running(services, log) as task:
        with pytest.raises(ConfigError, match="the moon"):
            await asyncio.wait_for(task, 5)
    assert log == ["start first", "start second", "stop second", "stop first"]


async def test_a_signal_ends_a_start_that_hangs() -> None:
    log: Log = []
    services = [Recorded("first", log), NeverUp("second", log), Recorded("third", log)]
    async with running(services, log) as task:
        await eventually(lambda: "start second" in log, within=5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 5)
    assert log == ["start first", "start second", "stop second", "stop first"]


async def test_being_cancelled_stops_them_too() -> None:
    log: Log = []
    async with running([Recorded("only", log)], log) as task:
        await eventually(lambda: "up" in log, within=5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert log == ["start only", "up", "stop only"]


@pytest.mark.parametrize(
    "error", [DeadlineExceededError("a handler went on"), RuntimeError("a fault of ours")]
)
async def test_one_that_cannot_stop_keeps_no_other_from_it(error: Exception) -> None:
    log: Log = []
    services = [Recorded("first", log), Unstoppable("second", log, error), Recorded("third", log)]
    async with running(services, log) as task:
        await eventually(lambda: "up" in log, within=5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 5)
    assert log[-3:] == ["stop third", "stop second", "stop first"]


async def test_nothing_runs_on_behind_them() -> None:
    log: Log = []
    async with running([Recorded("only", log)], log) as task:
        await eventually(lambda: "up" in log, within=5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 5)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@contextlib.asynccontextmanager
async def serving(
    checks: Callable[[], Awaitable[Mapping[str, str | None]]], listen: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(health_routes(checks))
    server = HttpServer(app, listen)
    await server.start()
    try:
        yield f"http://{server.address}"
    finally:
        await server.stop()


async def fetch(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response.status, await response.text()


async def test_readiness_names_each_dependency_and_liveness_asks_none() -> None:
    found: dict[str, str | None] = {"catalog": None, "bus": None}

    async def checks() -> Mapping[str, str | None]:
        return found

    async with serving(checks) as base:
        assert await fetch(f"{base}/readyz") == (
            200,
            '{"status": "ok", "checks": {"catalog": "ok", "bus": "ok"}}',
        )
        found["bus"] = "not connected; reconnecting"
        status, body = await fetch(f"{base}/readyz")
        assert status == 503
        assert '"bus": "not connected; reconnecting"' in body
        assert '"catalog": "ok"' in body
        status, body = await fetch(f"{base}/livez")
        assert (status, json.loads(body)) == (200, {"status": "ok", "version": version("dray")})


async def test_metrics_are_served_in_prometheus_words() -> None:
    async def checks() -> Mapping[str, str | None]:
        return {}

    EVENTS_PUBLISHED.labels("test.event").inc(3)
    async with serving(checks) as base:
        status, body = await fetch(f"{base}/metrics")
    assert status == 200
    assert 'dray_events_published_total{type="test.event"} 3.0' in body
    assert "# TYPE dray_event_loop_lag_seconds histogram" in body


async def test_a_port_that_is_taken_is_said_before_anything_else_breaks() -> None:
    async def checks() -> Mapping[str, str | None]:
        return {}

    async with serving(checks) as base:
        address = base.removeprefix("http://")
        with pytest.raises(ConfigError, match=f"cannot listen on {re.escape(address)}: "):
            await HttpServer(web.Application(), address).start()


def _child(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """A service as a process of its own, under a umask that would hide all it makes."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DRAY_")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o077,
    )


SERVICES = ["services.gateway", "services.converter", "services.distributor"]


async def test_one_process_of_all_serves_until_it_is_asked_to_stop(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    dray = "from cli.main import main; main()"
    child = _child("-c", dray, "up", "--listen", address, "--data", str(tmp_path))
    try:
        await eventually(lambda: _ready(child, address), within=30)
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert re.search(r"^Umask:\s+0022$", status, re.MULTILINE)
        child.send_signal(signal.SIGTERM)
        output, _ = await asyncio.to_thread(child.communicate, timeout=30)
        assert child.returncode == 0, output
        assert "Traceback" not in output
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("module", [*SERVICES, "services.node_agent"])
def test_a_service_alone_refuses_the_bus_of_one_process(module: str, tmp_path: Path) -> None:
    child = _child("-m", module, DRAY_DATA_DIR=str(tmp_path))
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 1
    assert "bus.url: the embedded bus ends with its process" in output
    assert "`dray up`" in output


async def _ready(child: "subprocess.Popen[str]", address: str) -> bool:
    assert child.poll() is None, child.communicate()[0]
    try:
        return (await fetch(f"http://{address}/readyz"))[0] == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("module", SERVICES)
def test_a_process_with_wrong_settings_says_so_in_a_line_per_mistake(
    module: str, tmp_path: Path
) -> None:
    config = tmp_path / "dray.yaml"
    config.write_text("pull: {lease: 0}\nlog: {level: loud}\n")
    output, _ = (child := _child("-m", module, "--config", str(config))).communicate(timeout=30)
    assert child.returncode == 1
    first, *others = output.splitlines()
    assert first == (f"{module.rpartition('.')[2]}: the settings from {config} cannot be used:")
    assert [line.strip().partition(":")[0] for line in others] == ["pull.lease", "log.level"]
