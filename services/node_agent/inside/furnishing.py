"""From an image that a job has on this node to its inside: what is asked, and of whom."""

import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.node_agent.holds import Holds
from services.node_agent.inside.adding import SiteModules, modules_for
from services.node_agent.inside.furnish import disks_of, plan_of, reserved
from services.node_agent.inside.hooks import HookCall, Hooks
from services.node_agent.inside.insides import Insides, Wish
from services.node_agent.readers import User
from services.node_agent.threads import DaemonThreads
from shared.deadline import Deadline
from shared.inside.environment import Changes
from shared.inside.manifest import Manifest
from shared.inside.people import Person
from shared.inside.volumes import parse_volumes
from shared.models import ImageId, JobId
from shared.settings.inside import EnvSettings, InsideSettings

_THREADS: Final = 4
_NOBODY: Final = 65534


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
            person = person_of(user)
            volumes = parse_volumes(wants.volumes, reserved(self._site))
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
                changes=(*added.changes, _changes(self._site.env)),
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


def person_of(user: User) -> Person:
    """As this node knows them. Blocks."""
    try:
        gid = pwd.getpwuid(user.uid).pw_gid
    except KeyError:
        gid = min(user.gids, default=_NOBODY)
    return Person.of(user.uid, gid, sorted(user.gids))


def _changes(env: EnvSettings) -> Changes:
    return Changes(set=env.set, prepend=env.prepend, append=env.append, unset=env.unset)
