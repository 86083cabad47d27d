"""Slurm, Dray and a registry together, as the system tests of jobs with images need them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.conditions import eventually
from tests.support.images import Pusher
from tests.support.registry import DebianRegistry
from tests.support.slurm import Batch, Done, Slurm
from tests.support.slurm_hooks import Installed
from tests.support.slurm_images import telling_image
from tests.support.slurm_site import Cluster, NodesSite

PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class World:
    """A cluster with Dray's hooks, and a registry, under the name by which pulls reach it."""

    slurm: Slurm
    site: NodesSite
    dray: Installed
    registry: DebianRegistry
    host: str

    def push(self, name: str, tag: str = "1", *, tells: str = "", more: int = 0) -> str:
        """An image that tells its name; how to call it."""
        image = telling_image(tells or name, more)
        Pusher(self.registry.url).push(image, f"team/{name}", tag)
        return f"{self.host}/team/{name}:{tag}"

    async def sbatch(self, script: str, *options: str, **how: Any) -> Batch:
        return await asyncio.to_thread(self.slurm.sbatch, script, *options, **how)

    async def srun(self, *words: str, **how: Any) -> Done:
        return await asyncio.to_thread(self.slurm.srun, *words, **how)

    async def told(self, job_id: str) -> dict[str, Any]:
        """What the gateway knows of a job."""
        return (await self.site.ask("GET", f"/api/v1/jobs/{job_id}"))[1]

    def line(self, *words: str) -> str:
        """A line of a job's script: a step on each node that runs the job's image."""
        return f"srun /bin/sh -c '{self.dray.inside(*words)}'\n"

    async def is_over(self, job_id: str) -> None:
        """Its end was told, and nothing of it is on any node."""

        async def gone() -> bool:
            held = [await self.site.agent(node, "GET", "/v1/status") for node in self.site.nodes]
            released = (await self.told(job_id)).get("released_at")
            return bool(released) and not any(job_id in status["jobs"] for status in held)

        await eventually(gone, within=30)

    async def is_unharmed(self) -> None:
        """No node was taken away, and none holds anything."""
        self.slurm.cancel_all()
        assert self.slurm.drained() == {}
        await asyncio.to_thread(self.slurm.wait_until_idle, PATIENCE)
        await eventually(lambda: self.site.mounts() == [], within=30)
        assert [str(path) for path in self.dray.state.glob("*/*")] == []


@asynccontextmanager
async def running(cluster: Cluster, dray: Installed, directory: Path) -> AsyncIterator[World]:
    """All of it, with a registry of its own in `directory`."""
    with DebianRegistry(directory) as registry:
        async with cluster.running():
            yield World(cluster.slurm, cluster.site, dray, registry, registry.host)


def said(job: Batch) -> list[str]:
    """What the image's program has told."""
    return [line for line in job.output().splitlines() if line.startswith("in ")]
