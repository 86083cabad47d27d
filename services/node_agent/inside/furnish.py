"""What is mounted in a job's image: what every inside has, the site's, and what the user wants."""

from collections.abc import Sequence
from dataclasses import replace

from services.node_agent.inside.order import Disk
from shared.inside.host import host_mounts, own_directories
from shared.inside.people import Person
from shared.inside.plan import Bind, Mount, Node, Plan, Tmpfs
from shared.inside.volumes import Volume
from shared.settings.inside import InsideSettings


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
    own = [
        mount
        for mount in own_directories(person)
        if isinstance(mount, Bind) and not _within(mount.target, site.site_fs)
    ]
    mounts: list[Mount] = [
        _sized(mount, site)
        for mount in host_mounts(person, nodes)
        if not (isinstance(mount, Tmpfs) and mount.target in site.site_fs)
    ]
    mounts += [Bind(path, path, optional=True) for path in site.site_fs]
    mounts += own
    mounts += modules
    mounts += [
        volume.mount if volume.cache is None else replace(volume.mount, source=_disk(number))
        for number, volume in enumerate(volumes)
    ]
    return Plan(image, tuple(mounts), reserved=reserved(site))


def disks_of(volumes: Sequence[Volume]) -> tuple[Disk, ...]:
    """What the plan for the same volumes binds besides directories."""
    return tuple(
        Disk(_disk(number), volume.source, volume.cache)
        for number, volume in enumerate(volumes)
        if volume.cache is not None
    )


def _disk(number: int) -> str:
    return f"disk:{number}"


def reserved(site: InsideSettings) -> tuple[str, ...]:
    """Where no user may have a volume."""
    return tuple(path for path in site.site_fs if path != "/tmp")  # noqa: S108 - of the image


def _sized(mount: Mount, site: InsideSettings) -> Mount:
    return Tmpfs(mount.target, mount.mode, site.tmp_size) if isinstance(mount, Tmpfs) else mount


def _within(path: str, places: Sequence[str]) -> bool:
    return any(f"{path}/".startswith(f"{place}/") for place in places)
