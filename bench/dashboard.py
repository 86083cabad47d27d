"""`python -m bench.dashboard`: what it costs that many look at a busy site.

The site is that of `bench.scene`: a real gateway over SQLite, and in its process what stands for
converters, users and the agents of ten thousand nodes, while a job of all of them is staged. Twenty
viewers follow `/live` and twenty that job's nodes, from a process of their own, as admins. First
the site is measured with nobody who looks. How late the event loop was is sampled every five
milliseconds; delays are from a change in the catalog until a viewer has read of it.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

from bench.jobs import CHECKOUT, Lag
from bench.scene.scheduler import HUGE
from bench.scene.site import Scale, Site, prepared
from shared.catalog.interface import PendingEvent
from shared.catalog.records import ImageRecord, Record, StagingRecord
from shared.deadline import Deadline
from shared.hostlist import expand
from shared.logging import configure_logging
from shared.service import Service, spare_collector
from shared.settings.site import LogSettings
from shared.tasks import cancel_all

API: Final = "/api/v1"
SETTLE_SECONDS: Final = 2.0
READERS: Final = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """How much is to be measured."""

    scale: Scale
    viewers: int
    seconds: float


QUICK: Final = Asked(Scale(nodes=200, pulls=10, converters=10, heartbeat=2.0), 2, 3.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.dashboard", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small site, for some seconds")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--pulls", type=int, default=200)
    parser.add_argument("--viewers", type=int, default=20, help="of each kind")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--view", nargs=3, metavar=("URL", "VIEWERS", "JOB"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.view:
        url, viewers, job = arguments.view
        print(json.dumps(asyncio.run(_view(url, int(viewers), job))))
        return 0
    pulls = arguments.pulls
    # No pull waits: each of them reports twice a second.
    scale = Scale(
        nodes=arguments.nodes, pulls=pulls, converters=pulls, distributors=pulls, heartbeat=30.0
    )
    asked = QUICK if arguments.quick else Asked(scale, arguments.viewers, arguments.seconds)
    configure_logging(LogSettings(format="json", level="error"))
    with TemporaryDirectory(prefix="dray-bench-") as work:
        asyncio.run(_run(Path(work), asked))
    return 0


async def _run(work: Path, asked: Asked) -> None:
    site = await prepared(work, asked.scale)
    changes = _Changes()
    site.catalog.listen(changes.note)
    async with _started(site):
        await _announced(site)
        with_nobody = await _measured("nobody looks", asked.seconds / 4, changes)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.dashboard"),
            *("--view", site.url, str(asked.viewers), HUGE),
            cwd=CHECKOUT,
            env={**os.environ, "DRAY_BENCH_TOKEN": site.admin},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(SETTLE_SECONDS)
        measured = await _measured(f"2 x {asked.viewers} look", asked.seconds, changes)
        said, _ = await process.communicate(b"")  # the end of its input is its end
    seen = json.loads(said)
    looking = measured - with_nobody
    print(f"{'looking':>18}: {looking * 100:.0f}% of a core more")
    if seen["gone"]:
        sys.exit(f"{seen['gone']} viewers were dropped")
    for path, each in seen["streams"].items():
        rate = f"{each['bytes'] / 1024:.1f} KiB/s and {each['events']:.1f} events/s each"
        print(f"{path:>18}: {rate}")
    print(f"{'pulls':>18}: {_delays(seen['pull_delays'])}")
    behind = (at - changes.staged.get(node, at + 1) for node, at in seen["nodes"].items())
    # Of a node that has changed once more nobody has heard yet.
    print(f"{'nodes':>18}: {_delays([each for each in behind if each >= 0])}", flush=True)


@dataclass(slots=True)
class _Changes:
    """What changed in the catalog: how often, and when a node was staged."""

    pulls: int = 0
    nodes: int = 0
    staged: dict[str, float] = field(default_factory=dict)

    def note(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        if isinstance(record, ImageRecord):
            self.pulls += 1
        elif isinstance(record, StagingRecord):
            self.nodes += 1
            if record.job_id == HUGE:
                self.staged[record.node] = time.time()


@asynccontextmanager
async def _started(site: Site) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for service in site.services:
            stack.push_async_callback(_stop, service)
            await service.start(Deadline.after(120))
        spare_collector(rarely=True)
        yield


async def _announced(site: Site) -> None:
    """The scheduler has other jobs before the large one."""
    async with Deadline.after(60).bound("waiting for the large job"):
        while await site.catalog.jobs.get(HUGE) is None:  # noqa: ASYNC110 - nothing says when
            await asyncio.sleep(0.1)


async def _stop(service: Service) -> None:
    await service.stop(Deadline.after(20))


async def _measured(what: str, seconds: float, changes: _Changes) -> float:
    """Print what the gateway did; how many cores it took."""
    lag = Lag()
    watching = asyncio.create_task(lag.watch())
    began, cpu = time.perf_counter(), _cpu()
    pulls, nodes = changes.pulls, changes.nodes
    await asyncio.sleep(seconds)
    took, spent = time.perf_counter() - began, _cpu() - cpu
    await cancel_all(watching)
    pulls, nodes = changes.pulls - pulls, changes.nodes - nodes
    median = sorted(lag.samples)[len(lag.samples) // 2]
    print(
        f"{what:>18}: {pulls / took:.0f} changes of pulls and {nodes / took:.0f} of jobs' nodes a "
        f"second, CPU {spent / took * 100:.0f}%, loop lag p50 {median * 1e3:.1f} ms, {lag}",
        flush=True,
    )
    return spent / took


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _delays(seconds: list[float]) -> str:
    if not seconds:
        return "nothing was seen"
    in_order = sorted(seconds)
    median, most = in_order[len(in_order) // 2], in_order[len(in_order) * 99 // 100]
    return f"{len(in_order)} seen, p50 {median * 1e3:.0f} ms, p99 {most * 1e3:.0f} ms behind"


@dataclass(slots=True)
class _Viewer:
    """One who follows a stream. Who `reads` it as a page would notes when they heard of what."""

    reads: bool
    began: asyncio.Event = field(default_factory=asyncio.Event)
    size: int = 0
    events: int = 0
    delays: list[float] = field(default_factory=list)
    names: tuple[str, ...] = ()
    nodes: dict[str, float] = field(default_factory=dict)

    async def follow(self, http: aiohttp.ClientSession, url: str) -> None:
        async with http.get(url) as response:
            response.raise_for_status()
            left = b""
            async for chunk in response.content.iter_any():
                self.began.set()
                self.size += len(chunk)
                self.events += chunk.count(b"event: ")
                if self.reads:
                    *whole, left = (left + chunk).split(b"\n\n")
                    for event in whole:
                        self._read(event, time.time())

    def begin(self) -> None:
        """What was told until now was the beginning."""
        self.size = self.events = 0
        self.delays.clear()

    def _read(self, event: bytes, now: float) -> None:
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
        kind = fields.get(b"event")
        if kind not in {b"pull", b"grid", b"change"}:
            return
        told: dict[str, Any] = json.loads(fields[b"data"])
        if kind == b"pull":
            self.delays.append(now - datetime.fromisoformat(told["updated_at"]).timestamp())
        elif kind == b"grid":
            self.names = expand(told["hostlist"])
        else:
            self.nodes |= dict.fromkeys((self.names[place] for place in told["at"]), now)


async def _view(url: str, viewers: int, job: str) -> dict[str, Any]:
    """Until its input ends. Two of each kind read; taking events apart is not what is measured."""
    headers = {"Authorization": f"Bearer {os.environ['DRAY_BENCH_TOKEN']}"}
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    kinds = {path: [_Viewer(n < READERS) for n in range(viewers)] for path in _paths(job)}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as http:
        tasks = [
            asyncio.create_task(viewer.follow(http, f"{url}{API}{path}"))
            for path, those in kinds.items()
            for viewer in those
        ]
        everybody = [viewer for those in kinds.values() for viewer in those]
        all_began = asyncio.gather(*(viewer.began.wait() for viewer in everybody))
        first: set[asyncio.Future[Any]] = {all_began, *tasks}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()  # says why it is not there
        print("ready", flush=True)
        await asyncio.sleep(SETTLE_SECONDS)
        began = time.monotonic()
        for viewer in everybody:
            viewer.begin()
        await ended
        took = time.monotonic() - began
        gone = sum(task.done() for task in tasks)
        await cancel_all(*tasks)
    return {
        "gone": gone,
        "streams": {path: _mean(those, took) for path, those in kinds.items()},
        "pull_delays": [delay for viewer in everybody for delay in viewer.delays],
        "nodes": {node: at for viewer in everybody for node, at in viewer.nodes.items()},
    }


def _paths(job: str) -> tuple[str, str]:
    return "/live", f"/jobs/{job}/events"


def _mean(viewers: list[_Viewer], seconds: float) -> dict[str, float]:
    return {
        "bytes": sum(viewer.size for viewer in viewers) / len(viewers) / seconds,
        "events": sum(viewer.events for viewer in viewers) / len(viewers) / seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
