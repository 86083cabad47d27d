"""The scheduler: a small, a large and a huge job that are being staged, and short ones that end."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Final

import aiohttp

from bench.scene.cast import OWNER, SECOND_SYSTEM, SYSTEM, USERS, User
from bench.scene.content import references
from bench.scene.nodes import Agents
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import NodeRecord
from shared.deadline import Deadline
from shared.hostlist import expand
from shared.models import utcnow
from shared.tasks import cancel_all

JOBS: Final = "http://localhost/api/v1/jobs"
HUGE: Final = "48213"
_SHORT_SECONDS: Final = 90.0
_QUEUED_SECONDS: Final = 0.8


@dataclass(frozen=True, slots=True)
class Job:
    """What is announced."""

    id: str
    system: str
    nodes: str
    user: User
    slow: float | None = None
    lost: int = 0
    """So many of its nodes are not heard any more."""


def site_nodes(huge: int) -> dict[str, str]:
    """Which nodes there are, by system."""
    return {
        SYSTEM: f"nid[{1:05}-{huge + 1000:05}]",
        SECOND_SYSTEM: "gpu[001-192]",
    }


def jobs(huge: int) -> tuple[Job, ...]:
    """Those that stay."""
    first = huge + 1
    return (
        Job("48102", SECOND_SYSTEM, "gpu[001-012]", OWNER, lost=1),
        Job("48177", SYSTEM, f"nid[{first:05}-{first + 639:05}]", USERS[3], slow=900, lost=3),
        Job(HUGE, SYSTEM, f"nid[{1:05}-{huge:05}]", USERS[4], slow=1200, lost=min(24, huge // 20)),
    )


class Scheduler:
    """Announces and releases jobs over the API, as the hooks of Slurm do; one service."""

    name = "scheduler"

    def __init__(
        self, catalog: Catalog, agents: Agents, socket: Path, *, nodes: int, seed: int
    ) -> None:
        self._catalog = catalog
        self._agents = agents
        self._socket = socket
        self._nodes = nodes
        self._rng = Random(seed)
        self._task: asyncio.Task[None] | None = None

    async def start(self, deadline: Deadline) -> None:
        del deadline
        self._task = asyncio.create_task(self._run(), name="scheduler")

    async def stop(self, deadline: Deadline) -> None:
        del deadline
        if self._task is not None:
            await cancel_all(self._task)

    async def _run(self) -> None:
        connector = aiohttp.UnixConnector(str(self._socket))
        async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as api:
            for number, job in enumerate(jobs(self._nodes)):
                await self._announce(api, job, number)
            for number in range(1 << 30):
                first = self._nodes + 700 + number % 4 * 64
                nodes = f"nid[{first:05}-{first + 31 + number % 3 * 16:05}]"
                short = Job(str(48300 + number), SYSTEM, nodes, self._rng.choice(USERS))
                await self._announce(api, short, number + 5)
                await asyncio.sleep(_SHORT_SECONDS / 3)
                if number >= 2:
                    await (await api.delete(f"{JOBS}/{48300 + number - 2}")).read()

    async def _announce(self, api: aiohttp.ClientSession, job: Job, number: int) -> None:
        if job.slow is not None:
            self._agents.slow[job.id] = job.slow
        nodes = expand(job.nodes)
        silent = self._rng.sample(nodes, job.lost)
        self._agents.gone.update(silent)
        at_hand = [
            name
            for n, name in enumerate(references(60))
            if (n % 7 == 3) is (job.system == SECOND_SYSTEM)
        ]
        body = {
            "job_id": job.id,
            "system": job.system,
            "images": [at_hand[number % len(at_hand)]],
            "nodes": job.nodes,
            "uid": job.user.uid,
        }
        # First as a job that waits for nodes, which holds its images.
        await (await api.post(JOBS, json={**body, "nodes": []})).read()
        await asyncio.sleep(_QUEUED_SECONDS)
        await (await api.post(JOBS, json=body)).read()
        for node in silent:
            await self._lose(job.id, node)

    async def _lose(self, job_id: str, node: str) -> None:
        """The gateway looks at the node as soon as it has been told of the job."""
        while await self._catalog.stagings.get(f"{job_id}/{node}") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.2)

        def silent(found: NodeRecord | None) -> Change[NodeRecord] | None:
            if found is None:
                return None
            seen = utcnow() - timedelta(minutes=self._rng.uniform(8, 40))
            return Change(found.but(seen_at=seen, due_at=utcnow()))

        await self._catalog.nodes.change(node, silent, Deadline.after(10))
