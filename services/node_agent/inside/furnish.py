"""What is mounted in a job's image: what every inside has, the site's, and what the user wants."""

from collections.abc import Sequence
from dataclasses import replace

from services.node_agent.inside.order import Disk
from shared.inside.environment import Changes
from shared.inside.manifest import operations
from shared.inside.people import Person
from shared.inside.plan import Mount, Node, Plan
from shared.inside.site import Site
from shared.inside.volumes import Volume
from shared.settings.inside import EnvSettings, InsideSettings


def plan_of(
    image: str,
    person: Person,
    site: InsideSettings,
    volumes: Sequence[Volume] = (),
    *,
    modules: Sequence[Mount] = (),
    nodes: Sequence[Node] = (),
) -> Plan:
    """`modules` and `nodes` are what modules add. Blocks: it asks who the user is."""
    has = site_of(site)
    mounts = [*has.mounts(person, nodes), *modules]
    mounts += [
        volume.mount if volume.cache is None else replace(volume.mount, source=_disk(number))
        for number, volume in enumerate(volumes)
    ]
    return Plan(image, tuple(mounts), reserved=has.reserved)


def site_of(settings: InsideSettings) -> Site:
    changes = operations([changes_of(settings.env)])
    return Site(settings.site_fs, settings.tmp_size, tuple(changes))


def changes_of(env: EnvSettings) -> Changes:
    return Changes(set=env.set, prepend=env.prepend, append=env.append, unset=env.unset)


def disks_of(volumes: Sequence[Volume]) -> tuple[Disk, ...]:
    """What the plan for the same volumes binds besides directories."""
    return tuple(
        Disk(_disk(number), volume.source, volume.cache)
        for number, volume in enumerate(volumes)
        if volume.cache is not None
    )


def _disk(number: int) -> str:
    return f"disk:{number}"
