"""Ten thousand agents that only say what they would do, and the scheduler's jobs on them."""

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Final

from bench.scene.cast import SECOND_SYSTEM, SYSTEM
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import work_queues
from shared.catalog.records import NodeRecord
from shared.deadline import Deadline
from shared.events import (
    Event,
    JobAllocated,
    JobEntered,
    JobReleased,
    NodeCache,
    NodeCapacity,
    NodeEvent,
    NodeFailed,
    NodeHeartbeat,
    NodeStaged,
)
from shared.hostlist import expand
from shared.models import utcnow
from shared.tasks import cancel_all

HEARTBEAT: Final = 120.0
_TICK: Final = 0.25
_LATE: Final = 0.22
_FAILING: Final = 0.003
_FAILURES: Final = (
    ("mount_failed", "mount: loop device /dev/loop17: no space left on device"),
    ("image_damaged", "segment 3 is not what the recipe says: <i>read error</i> on /scratch"),
    ("unsupported_codec", "this kernel has no zstd in squashfs: boot the current node image"),
)


class SceneBus(EmbeddedBus):
    """The bus of the process; what goes to nodes is handed to the agents at once."""

    def __init__(self, systems: tuple[str, ...]) -> None:
        super().__init__(work_queues(systems))
        self.told: asyncio.Queue[NodeEvent] = asyncio.Queue()

    async def publish(self, event: Event, deadline: Deadline) -> None:
        if isinstance(event, NodeEvent):
            self.told.put_nowait(event)
        else:
            await super().publish(event, deadline)


@dataclass(order=True, slots=True)
class _Answer:
    """What an agent will say, and when, by the loop's clock."""

    at: float
    number: int
    event: NodeStaged | NodeFailed = field(compare=False)


@dataclass(slots=True)
class _Node:
    name: str
    system: str
    jobs: set[str] = field(default_factory=set)


class Agents:
    """The agents of all nodes, as one service."""

    name = "agents"

    def __init__(
        self, bus: SceneBus, hostlists: dict[str, str], seed: int, heartbeat: float
    ) -> None:
        self._bus = bus
        self._rng = Random(seed)
        self._heartbeat_every = heartbeat
        self._nodes = {
            node: _Node(node, system)
            for system, hostlist in hostlists.items()
            for node in expand(hostlist)
        }
        self._answers: list[_Answer] = []
        self._numbers = itertools.count()
        self._awaited: Counter[str] = Counter()
        """Of a job, how many nodes have not answered."""
        self._tasks: list[asyncio.Task[None]] = []
        self.slow: dict[str, float] = {}
        """Over how many seconds the nodes of a job are ready; jobs that are not here are quick."""
        self.gone: set[str] = set()
        """Nodes that say nothing any more."""

    async def start(self, deadline: Deadline) -> None:
        del deadline
        self._tasks = [
            asyncio.create_task(self._listen(), name="agents-listen"),
            asyncio.create_task(self._speak(), name="agents-speak"),
            asyncio.create_task(self._beat(), name="agents-beat"),
        ]

    async def stop(self, deadline: Deadline) -> None:
        del deadline
        await cancel_all(*self._tasks)

    @property
    def count(self) -> int:
        return len(self._nodes)

    def records(self) -> Iterator[NodeRecord]:
        """As if every agent had been heard already."""
        now = utcnow()
        for node in self._nodes.values():
            beat = self._heartbeat(node)
            yield NodeRecord(
                key=node.name,
                node=node.name,
                system=node.system,
                kernel=beat.kernel,
                mounter=beat.mounter,
                codecs=beat.codecs,
                mounts=0,
                capacity=beat.capacity,
                start_id=beat.start_id,
                seen_at=now,
                due_at=now + timedelta(seconds=3 * self._heartbeat_every),
            )

    async def _listen(self) -> None:
        while True:
            event = await self._bus.told.get()
            node = self._nodes.get(event.node)
            if node is None or event.node in self.gone:
                continue
            if isinstance(event, JobReleased):
                node.jobs.discard(event.job_id)
            elif isinstance(event, JobAllocated):
                seconds, answer = self._answer(event)
                node.jobs.add(event.job_id)
                self._awaited[event.job_id] += 1
                at = asyncio.get_running_loop().time() + seconds
                heapq.heappush(self._answers, _Answer(at, next(self._numbers), answer))

    def _answer(self, event: JobAllocated) -> tuple[float, NodeStaged | NodeFailed]:
        rng = self._rng
        whole = self.slow.get(event.job_id)
        took = min(rng.lognormvariate(1.2, 0.5), 60)
        # Most of a slow job's nodes are there at once, and the rest one by one.
        late = whole is not None and rng.random() < _LATE
        wait = rng.random() * whole if whole is not None and late else took
        to = {"correlation_id": event.job_id, "causation_id": event.id}
        if whole is not None and rng.random() < _FAILING:
            code, message = rng.choice(_FAILURES)
            failed = NodeFailed(
                **to, node=event.node, job_id=event.job_id, code=code, message=message
            )
            return wait, failed
        in_place = rng.random() < 0.05
        staged = NodeStaged(
            **to, node=event.node, job_id=event.job_id, seconds=round(took, 3), in_place=in_place
        )
        return wait, staged

    async def _speak(self) -> None:
        while True:
            now = asyncio.get_running_loop().time()
            for _ in range(250):
                if not self._answers or self._answers[0].at > now:
                    break
                answer = heapq.heappop(self._answers).event
                await self._say(answer)
                await self._begin(answer)
            await asyncio.sleep(_TICK)

    async def _begin(self, answer: NodeStaged | NodeFailed) -> None:
        """The last node has answered: the job's first process goes into its image."""
        self._awaited[answer.job_id] -= 1
        if self._awaited[answer.job_id] == 0:
            entered = JobEntered(job_id=answer.job_id, seconds_ago=0.2)
            beat = self._heartbeat(self._nodes[answer.node])
            await self._say(beat.model_copy(update={"entered": (entered,)}))

    async def _beat(self) -> None:
        """One after the other, evenly over the time between two heartbeats of one node."""
        each = max(1, int(len(self._nodes) * _TICK / self._heartbeat_every))
        for number, node in enumerate(itertools.cycle(tuple(self._nodes.values()))):
            if node.name not in self.gone:
                await self._say(self._heartbeat(node))
            if number % each == 0:
                await asyncio.sleep(_TICK)

    def _heartbeat(self, node: _Node) -> NodeHeartbeat:
        return NodeHeartbeat(
            correlation_id=node.name,
            node=node.name,
            system=node.system,
            kernel="6.4.0-150600.23-default",
            mounter="loop",
            codecs=("gzip", "zstd"),
            mounts=len(node.jobs),
            jobs=tuple(sorted(node.jobs)),
            capacity=NodeCapacity(
                version="0.1.0",
                cpus=128 if node.system == SYSTEM else 288,
                memory_bytes=256 << 30 if node.system != SECOND_SYSTEM else 896 << 30,
                booted_at=utcnow() - timedelta(days=12),
                cache=NodeCache(
                    policy="copy_when_busy", max_bytes=64 << 30, used_bytes=21 << 30, images=5
                ),
            ),
            start_id="1",
        )

    async def _say(self, event: Event) -> None:
        await self._bus.publish(event, Deadline.after(10))
