"""The gateway's logic for jobs and nodes, over a real catalog, without a bus."""

from datetime import timedelta
from pathlib import Path

from services.gateway.auth.compose import site_secret
from services.gateway.auth.identity import Principal, Scope
from services.gateway.feed import ChangeFeed
from services.gateway.held import Held
from services.gateway.images import Images
from services.gateway.jobs.fan_out import FanOut
from services.gateway.jobs.jobs import Jobs
from services.gateway.jobs.nodes import Nodes
from services.gateway.jobs.stagings import Stagings
from services.gateway.lifecycle import Lifecycle
from services.gateway.private import private_images
from services.gateway.pulls import Pulls
from services.gateway.transitions import Transitions
from shared.api import JobRequest
from shared.bus.connect import connect_bus
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import (
    JobRecord,
    NodeRecord,
    StagingRecord,
    StagingState,
    staging_key,
)
from shared.catalog.store import sortable
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import JobAllocated, JobReleased, NodeFailed, NodeHeartbeat, NodeStaged
from shared.models import utcnow
from tests.support.conditions import eventually
from tests.support.transitions import ready

SLURM = Principal("slurm", frozenset(Scope), "token")


async def _nobody_known(uid: int) -> Principal:
    return Principal(str(uid), frozenset(), "nobody", uid)


class Gateway:
    """One of the gateways over a catalog; job 17 is the one that it is about."""

    def __init__(self, catalog: Catalog, place: Path, *, stage_timeout: float = 60.0) -> None:
        self.catalog = catalog
        self.place = place
        settings = Settings.model_validate(
            {
                "data_dir": place,
                "systems": {"cluster": {"image_dir": "/images"}},
                "catalog": {"timeout": 5.0},
            }
        )
        feed = ChangeFeed(catalog)
        private = private_images(settings, catalog, site_secret(settings))
        self.pulls = pulls = Pulls(
            catalog,
            feed,
            Transitions(settings.pull, settings.systems),
            logins=private.logins,
            adoption=private.adoption,
            lifecycle=Lifecycle(settings, catalog, connect_bus(settings, "test"), feed),
            timeout=5.0,
        )
        self.fan_out = FanOut(catalog, timeout=5.0, stage_timeout=stage_timeout)
        self.noted: list[str] = []
        self.jobs = Jobs(
            catalog,
            Images(catalog),
            pulls,
            self.fan_out,
            lambda _, images: self.noted.extend(image.reference for image in images),
            users=_nobody_known,
            rules=settings.jobs,
            timeout=5.0,
        )
        self.stagings = Stagings(catalog, 5.0)
        self.nodes = Nodes(catalog, self.fan_out, settings.jobs, heartbeat=30.0, timeout=5.0)
        self.held = Held(catalog)

    async def announce(
        self, *nodes: str, images: tuple[str, ...] = (), uid: int | None = None
    ) -> JobRecord:
        image = ready()
        assert image.image_id is not None
        wanted = images or (image.image_id,)
        request = JobRequest(job_id="17", images=wanted, nodes=nodes, uid=uid)
        return await self.jobs.announce(request, SLURM)

    async def close(self) -> None:
        await self.fan_out.stop()
        await self.stagings.stop()
        await self.nodes.stop()

    async def begun(self, *nodes: str) -> JobRecord:
        """Announced, and all nodes told."""
        job = await self.announce(*nodes)
        await eventually(self.quiet, within=5)
        return job

    async def published(self) -> None:
        """What is in the outbox was sent, whatever became of it."""
        await self.catalog.settle(*await self.catalog.pending(utcnow(), 1000))

    async def staging(self, node: str) -> StagingRecord:
        found = await self.catalog.stagings.get(staging_key("17", node))
        assert found is not None
        return found

    async def state(self, node: str) -> StagingState:
        return (await self.staging(node)).state

    async def change_job(self, **fields: object) -> None:
        def step(found: JobRecord | None) -> Change[JobRecord] | None:
            return Change(found.but(**fields)) if found else None

        await self.catalog.jobs.change("17", step, Deadline.after(5))

    async def beat(self, node: str, *jobs: str, start: str = "first") -> None:
        await self.nodes.on_heartbeat(
            NodeHeartbeat(
                correlation_id=node,
                node=node,
                system="cluster",
                kernel="6.1",
                mounter="loop",
                codecs=("zstd",),
                mounts=1,
                jobs=jobs,
                start_id=start,
            )
        )

    async def silence(self, node: str, *, seconds: float = 3600) -> None:
        """The node was heard last so long ago."""
        ago = utcnow() - timedelta(seconds=seconds)

        def step(found: NodeRecord | None) -> Change[NodeRecord] | None:
            return Change(found.but(seen_at=ago, due_at=ago)) if found else None

        await self.catalog.nodes.change(node, step, Deadline.after(5))
        await self.nodes.overdue(100)

    async def all_stagings(self) -> list[StagingRecord]:
        """Of the latest announcement."""
        job = await self.catalog.jobs.get("17")
        assert job is not None
        where = {"job_id": "17", "announced_at": sortable(job.announced_at)}
        return await self.catalog.stagings.find(where, limit=1000)

    async def told(self, kind: type[JobAllocated | JobReleased]) -> list[str]:
        """Which nodes the outbox has such an event for."""
        pending = await self.catalog.pending(utcnow(), 1000)
        return sorted(one.event.node for one in pending if isinstance(one.event, kind))

    async def quiet(self) -> bool:
        job = await self.catalog.jobs.get("17")
        return job is not None and job.told

    async def heard_back(self, node: str, kind: type[NodeStaged | NodeFailed]) -> None:
        """The agent's answer to what it was last told."""
        staging = await self.catalog.stagings.get(staging_key("17", node))
        assert staging is not None
        common = {"correlation_id": "17", "causation_id": staging.allocation, "job_id": "17"}
        if kind is NodeStaged:
            event = NodeStaged.model_validate({**common, "node": node, "seconds": 0.1})
            await self.stagings.on_staged(event)
        else:
            failed = {**common, "node": node, "code": "c", "message": "m"}
            await self.stagings.on_failed(NodeFailed.model_validate(failed))
