"""From an image that a job has on this node to its inside: what is asked, and of whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.node_agent.holds import Holds
from services.node_agent.inside.adding import SiteModules, modules_for
from services.node_agent.inside.furnish import changes_of, disks_of, plan_of, site_of
from services.node_agent.inside.hooks import HookCall, Hooks
from services.node_agent.inside.insides import Insides, Wish
from services.node_agent.readers import User
from services.node_agent.threads import DaemonThreads
from shared.deadline import Deadline
from shared.inside.manifest import Manifest
from shared.inside.people import Person
from shared.inside.volumes import parse_volumes
from shared.models import ImageId, JobId
from shared.settings.inside import InsideSettings

_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Wants:
    """What a user wants in an image, in their own words."""

    volumes: Sequence[str] = ()
    modules: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """What the scheduler says of the job's devices."""


class Furnishing:
    """Insides, for the jobs of this node."""

    def __init__(self, holds: Holds, insides: Insides, site: InsideSettings) -> None:
        self._holds = holds
        self._insides = insides
        self._site = site
        self._modules = SiteModules(site.modules)
        self._threads = DaemonThreads(_THREADS, "furnishing")

    async def furnish(
        self,
        job_id: JobId,
        image_id: ImageId,
        user: User,
        wants: Wants,
        deadline: Deadline,
        *,
        as_default: bool = False,
    ) -> Path:
        """Where the inside is; the image is mounted, and held by the job.

        As the default it is what ranks find by the image's name: only the scheduler may say so.
        """
        if user.uid != 0:
            await self._holds.require_readable(image_id, user, deadline)
        config = await self._holds.config(image_id, deadline)
        view = self._holds.view(image_id)

        def wish() -> Wish:
            person = Person.of(user.uid, None, sorted(user.gids))
            volumes = parse_volumes(wants.volumes, site_of(self._site).reserved)
            added = modules_for(
                self._modules,
                wants.modules,
                config.labels,
                Path(view.path),
                image_env=config.env,
                env=wants.env,
            )
            plan = plan_of(
                view.path, person, self._site, volumes, modules=added.mounts, nodes=added.nodes
            )
            manifest = Manifest(
                env=config.env,
                changes=(*added.changes, changes_of(self._site.env)),
                workdir=config.workdir,
                entrypoint=config.entrypoint,
                cmd=config.cmd,
            )
            call = HookCall(job_id, person.uid, image_id, Path(view.path))
            hooks = Hooks(call, added.before, added.after)
            return Wish(plan, person, manifest, hooks, disks_of(volumes))

        async with deadline.bound("looking up what the job wants in its image"):
            wanted = await self._threads.run(wish)
        named = image_id if as_default else None
        return await self._insides.have(job_id, wanted, deadline, image=named)
