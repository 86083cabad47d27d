"""What a job's modules add to the inside of an image: mounts, devices, variables and hooks."""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.node_agent.inside.abi import look
from services.node_agent.inside.cdi import DIRECTORIES, CdiDevices
from services.node_agent.inside.cdi_parts import Parts, parts_of
from services.node_agent.inside.choosing import choose
from services.node_agent.inside.compatible import require_compatible
from services.node_agent.inside.module import Hook, Module
from services.node_agent.inside.site_files import SiteFiles
from shared.inside.environment import Changes
from shared.inside.plan import Bind, Copy, Mount, Node

_MOST_OF_A_PATTERN: Final = 256


@dataclass(frozen=True, slots=True)
class Additions:
    """For `furnish.plan_of`, `manifest.Manifest` and `hooks.run_hooks`."""

    names: tuple[str, ...] = ()
    """The modules, in the order in which they have their word."""
    mounts: tuple[Mount, ...] = ()
    nodes: tuple[Node, ...] = ()
    changes: tuple[Changes, ...] = ()
    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()


class SiteModules:
    """The modules of a site, and the devices of this node, as their files are now."""

    def __init__(self, directory: Path, cdi: Sequence[Path] = DIRECTORIES) -> None:
        self.files = SiteFiles(directory, Module, ".yaml")
        self.devices = CdiDevices(cdi)


def modules_for(
    site: SiteModules,
    wanted: Sequence[str],
    labels: Mapping[str, str],
    image: Path,
    *,
    image_env: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
) -> Additions:
    """For a job that wants these by name, with an image that is mounted at `image`.

    `env` is the scheduler's for whoever asks: it says which GPUs they have. Raises
    InsideRefusedError. Blocks.
    """
    modules = choose(site.files.read(), wanted, labels)
    if any(module.mpi or module.min_libc for module in modules.values()):
        require_compatible(modules, look(image, image_env))
    devices = {
        name: [parts_of(found) for found in site.devices.edits(module.cdi, env or {})]
        for name, module in modules.items()
    }
    return Additions(
        names=tuple(modules),
        mounts=tuple(_mounts(modules, devices)),
        nodes=tuple(_nodes(modules, devices)),
        changes=tuple(_changes(modules, devices)),
        before=tuple(hook for module in modules.values() for hook in module.before),
        after=tuple(hook for module in modules.values() for hook in module.after),
    )


def _mounts(
    modules: Mapping[str, Module], devices: Mapping[str, Sequence[Parts]]
) -> Iterator[Mount]:
    seen: set[Mount] = set()
    for name, module in modules.items():
        own: list[Mount] = [mount for parts in devices[name] for mount in parts.mounts]
        own += [
            Bind(
                bind.source,
                bind.target or bind.source,
                read_only=bind.read_only,
                optional=bind.optional,
            )
            for bind in module.binds
        ]
        own += [
            Copy(copy.source, copy.target or copy.source, optional=copy.optional)
            for copy in module.copies
        ]
        for mount in own:
            if mount not in seen:  # two modules may want the same
                seen.add(mount)
                yield mount


def _nodes(modules: Mapping[str, Module], devices: Mapping[str, Sequence[Parts]]) -> Iterator[Node]:
    for name, module in modules.items():
        yield from (node for parts in devices[name] for node in parts.nodes)
        for pattern in module.devices:
            found = sorted(glob.glob(pattern))  # noqa: PTH207 - what is no pattern is no error
            yield from (Node(path) for path in found[:_MOST_OF_A_PATTERN])


def _changes(
    modules: Mapping[str, Module], devices: Mapping[str, Sequence[Parts]]
) -> Iterator[Changes]:
    for name, module in modules.items():
        yield from (changes for parts in devices[name] for changes in parts.changes)
        own = module.env
        yield Changes(own.set, own.prepend, own.append, own.unset)
