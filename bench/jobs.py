"""`python -m bench.jobs`: a job of ten thousand nodes, from its announcement to its end.

One real gateway, with a bus in its process that stands for the agents: it takes what they are sent,
and their answers come all at once. What is measured is until the catalog says so and the outbox is
empty. Meanwhile somebody polls the job; how late the event loop was is sampled every five
milliseconds. The last round has no agents at all: each event finds nobody.
"""

import argparse
import asyncio
import json
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

from bench.gateway.fill import SYSTEM, fill, reference
from services.gateway.app import build
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import work_queues
from shared.catalog.open import catalog_at
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import UndeliverableError
from shared.events import Event, JobAllocated, NodeEvent, NodeHeartbeat, NodeStaged
from shared.hostlist import expand
from shared.logging import configure_logging
from shared.models import utcnow
from shared.service import spare_collector
from shared.settings.site import LogSettings
from shared.tasks import cancel_all

SAMPLE_SECONDS: Final = 0.005
LOOK_SECONDS: Final = 0.1
ALL_AT_ONCE: Final = 100
CHECKOUT: Final = Path(__file__).resolve().parents[1]
JOBS: Final = "/api/v1/jobs"


class Agents(EmbeddedBus):
    """The bus, which keeps what is sent to nodes; without agents, nobody takes it."""

    def __init__(self, *, there: bool) -> None:
        super().__init__(work_queues([SYSTEM]))
        self._there = there
        self.told: list[NodeEvent] = []

    async def publish(self, event: Event, deadline: Deadline) -> None:
        if not isinstance(event, NodeEvent):
            await super().publish(event, deadline)
        elif self._there:
            self.told.append(event)
        else:
            raise UndeliverableError("there is no agent")

    @property
    def busy(self) -> bool:
        """Whether something waits for the gateway or is being handled."""
        return any(each.handling or each.queue.waiting for each in self._consumers)


@dataclass(slots=True)
class Lag:
    """How late the event loop was, and how long it computed at one go: the lag by itself."""

    samples: list[float] = field(default_factory=list)
    longest: float = 0.0

    async def watch(self) -> None:
        while True:
            asked, before = time.monotonic() + SAMPLE_SECONDS, time.thread_time()
            await asyncio.sleep(SAMPLE_SECONDS)
            self.samples.append(time.monotonic() - asked)
            self.longest = max(self.longest, time.thread_time() - before - SAMPLE_SECONDS)

    def __str__(self) -> str:
        in_order = sorted(self.samples) or [0.0]
        p99 = in_order[len(in_order) * 99 // 100]
        most, busy = in_order[-1] * 1e3, self.longest * 1e3
        return f"loop lag p99 {p99 * 1e3:.0f} ms, most {most:.0f} ms (computing: {busy:.0f} ms)"


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway, as the scheduler sees it, and what is behind it."""

    api: aiohttp.ClientSession
    bus: Agents
    outbox_empty: Callable[[], Awaitable[bool]]

    async def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        async with self.api.request(method, f"http://localhost{path}", json=body) as answer:
            found: dict[str, Any] = await answer.json()
            if not answer.ok:
                sys.exit(f"{method} {path}: {found}")
            return found

    async def reached(self, job: str, **counts: int) -> None:
        """The catalog says so, and nothing is left to be sent."""
        while True:
            seen = (await self.ask("GET", f"{JOBS}/{job}"))["counts"]
            if counts.items() <= seen.items() and await self.outbox_empty():
                return
            await asyncio.sleep(LOOK_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--mongo", metavar="URL", help="of an empty database of a replica set")
    parser.add_argument("--poll", nargs=2, metavar=("SOCKET", "JOB"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.poll:
        asyncio.run(_poll(*arguments.poll))
        return 0
    configure_logging(LogSettings(format="json", level="error"))
    with TemporaryDirectory(prefix="dray-bench-") as work:
        url = arguments.mongo or f"sqlite://{work}/catalog.db"
        asyncio.run(_run(Path(work), url, arguments.nodes))
    return 0


async def _run(work: Path, url: str, nodes: int) -> None:
    await fill(url, 1, 0)
    hostlist = f"nid[00001-{nodes:05}]"
    async with _site(work, url, there=True) as site:
        body = {"job_id": "1", "system": SYSTEM, "images": [reference(0)]}
        async with _measured("announced", nodes):
            await site.ask("POST", JOBS, {**body, "nodes": hostlist})
            await _told(site.bus, nodes)
            await site.reached("1", PENDING=nodes)
        async with _polled(work / "gateway.sock", "1"):
            allocated = [event for event in site.bus.told if isinstance(event, JobAllocated)]
            async with _measured("answered, while it is polled", nodes):
                await _at_once(site.bus, list(map(_staged, allocated)))
                await site.reached("1", STAGED=nodes)
            beats = list(map(_beat, expand(hostlist)))
            async with _measured("first heartbeats", nodes):
                await _at_once(site.bus, beats)
                await _digested(site.bus)
            async with _measured("heartbeats", nodes):
                await _at_once(site.bus, beats)
                await _digested(site.bus)
        async with _measured("released", nodes):
            await site.ask("DELETE", f"{JOBS}/1")
            await _told(site.bus, 2 * nodes)
            await site.reached("1", RELEASED=nodes)
    # The nodes have announced themselves and are gone: each has to be told as soon as it is back.
    async with _site(work, url, there=False) as site, _measured("announced, without agents", nodes):
        await site.ask("POST", JOBS, {**body, "job_id": "2", "nodes": hostlist})
        await site.reached("2", FAILED=nodes)


@asynccontextmanager
async def _site(work: Path, url: str, *, there: bool) -> AsyncIterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings.model_validate(
        {
            "data_dir": work,
            "systems": {SYSTEM: {"image_dir": work / "images"}},
            "agent": {"system": SYSTEM},
            "catalog": {"url": url},
            "gateway": {"listen": f"127.0.0.1:{port}"},
        }
    )
    bus = Agents(there=there)
    gateway = build(settings, bus)
    outbox = catalog_at(url, timeout=10.0)
    connector = aiohttp.UnixConnector(str(settings.gateway_socket))
    await gateway.start(Deadline.after(30))
    spare_collector(rarely=True)
    try:
        await outbox.open(Deadline.after(10))
        async with aiohttp.ClientSession(connector=connector) as api:

            async def empty() -> bool:
                return not await outbox.pending(utcnow(), 1)

            yield Site(api, bus, empty)
    finally:
        await outbox.close()
        await gateway.stop(Deadline.after(10))


@asynccontextmanager
async def _measured(what: str, nodes: int) -> AsyncIterator[None]:
    lag = Lag()
    watching = asyncio.create_task(lag.watch())
    began, cpu = time.perf_counter(), _cpu()
    yield
    seconds, spent = time.perf_counter() - began, _cpu() - cpu
    await cancel_all(watching)
    rate = f"{nodes / seconds:.0f} nodes/s, {spent / nodes * 1e6:.0f} us of CPU each"
    print(f"{what:>30}: {seconds:5.2f} s, {rate}; {lag}", flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@asynccontextmanager
async def _polled(path: Path, job: str) -> AsyncIterator[None]:
    """Somebody asks for the job again and again, from a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.jobs", "--poll", str(path), job),
        cwd=CHECKOUT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield
    finally:
        said, _ = await process.communicate(b"")  # the end of its input is its end
        times = sorted(json.loads(said))
        median, worst = times[len(times) // 2], times[-1]
        print(
            f"{'polled':>30}: {len(times)} times, p50 {median * 1e3:.0f} ms, "
            f"most {worst * 1e3:.0f} ms",
            flush=True,
        )


async def _poll(path: str, job: str) -> None:
    times = []
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as api:
        print("ready", flush=True)
        while not ended.done():
            began = time.perf_counter()
            async with api.get(f"http://localhost{JOBS}/{job}") as answer:
                await answer.read()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(LOOK_SECONDS)
    print(json.dumps(times))


async def _at_once(bus: Agents, events: list[NodeStaged] | list[NodeHeartbeat]) -> None:
    for number, event in enumerate(events):
        await bus.publish(event, Deadline.after(10))
        if number % ALL_AT_ONCE == 0:
            await asyncio.sleep(0)


async def _digested(bus: Agents) -> None:
    while bus.busy:  # noqa: ASYNC110 - nothing says when
        await asyncio.sleep(LOOK_SECONDS)


async def _told(bus: Agents, events: int) -> None:
    while len(bus.told) < events:  # noqa: ASYNC110 - nothing says when
        await asyncio.sleep(LOOK_SECONDS)
    if len(bus.told) > events:
        sys.exit(f"{len(bus.told)} events were sent in place of {events}")


def _staged(event: JobAllocated) -> NodeStaged:
    return NodeStaged(
        correlation_id=event.job_id,
        causation_id=event.id,
        node=event.node,
        job_id=event.job_id,
        seconds=1.0,
    )


def _beat(node: str) -> NodeHeartbeat:
    return NodeHeartbeat(
        correlation_id=node,
        node=node,
        system=SYSTEM,
        kernel="6.1.0",
        mounter="loop",
        codecs=("gzip", "zstd"),
        mounts=1,
        jobs=("1",),
        start_id="1",
    )


if __name__ == "__main__":
    sys.exit(main())
