"""What the inside of each image has of its site: shared file systems, variables, modules.

Root's agent gives it all to jobs. Who puts an image together alone gets of it what takes no root.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from shared.inside.host import host_mounts, own_directories
from shared.inside.people import Person
from shared.inside.plan import Bind, Mount, Node, Tmpfs

_TMP = "/tmp"  # noqa: S108 - that of the image


@dataclass(frozen=True, slots=True)
class Site:
    """As the settings of a node's agent have it."""

    file_systems: tuple[str, ...] = ()
    tmp_size: str = "50%"
    changes: tuple[str, ...] = ()
    """Operations on the environment, for `manifest.apply`."""
    modules: tuple[str, ...] = ()
    """Those that a job has without asking for them."""

    @property
    def reserved(self) -> tuple[str, ...]:
        """Where no user may have a volume."""
        return tuple(path for path in self.file_systems if path != _TMP)

    def mounts(
        self, person: Person, nodes: Iterable[Node] = (), own: Sequence[str] = ()
    ) -> tuple[Mount, ...]:
        """Without what is the user's wish; `own` are directories of theirs besides the home.

        Blocks: it asks for names.
        """
        mounts = [
            replace(mount, size=self.tmp_size) if isinstance(mount, Tmpfs) else mount
            for mount in host_mounts(person, nodes)
            if not (isinstance(mount, Tmpfs) and mount.target in self.file_systems)
        ]
        mounts += [Bind(path, path, optional=True) for path in self.file_systems]
        mounts += [bind for bind in own_directories(person, *own) if not self._has(bind.target)]
        return tuple(mounts)

    def _has(self, path: str) -> bool:
        return any(f"{path}/".startswith(f"{place}/") for place in self.file_systems)
