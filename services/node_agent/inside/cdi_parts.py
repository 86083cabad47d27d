"""From what a CDI file says of devices to mounts, nodes and variables of an inside.

No hook of it is run: it would be the vendor's program, as root, with an image that may be hostile.
What the known ones do for libraries is done by mounting each, in a directory of its own, by the
names that programs ask for; what else the known ones do is not needed here. Others are refused.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.node_agent.errors import ElfError, InsideRefusedError
from services.node_agent.inside.cdi import Edits
from services.node_agent.inside.cdi_spec import CdiHook, CdiMount, CdiNode
from services.node_agent.inside.elf import Elf, read_elf
from shared.inside.environment import Changes
from shared.inside.plan import Bind, Node

LIBRARIES: Final = "/.dray/lib"
"""Holds what a file's hooks would make known to the loader, and nothing of the image's."""

_HOOK_PROGRAMS: Final = frozenset({"nvidia-ctk", "nvidia-cdi-hook"})
_LINKS: Final = "create-symlinks"
_FOLDERS: Final = frozenset({"update-ldcache", "create-soname-symlinks"})
_NOT_NEEDED: Final = frozenset(
    {
        "chmod",  # of directories in /dev, which everybody may read here
        "enable-cuda-compat",  # left to the image: LD_LIBRARY_PATH=/usr/local/cuda/compat
        "disable-device-node-modification",  # nobody may make a node in an inside
    }
)
_BINDS: Final = frozenset({None, "", "none", "bind"})


@dataclass(frozen=True, slots=True)
class Parts:
    """What devices come to."""

    mounts: tuple[Bind, ...] = ()
    nodes: tuple[Node, ...] = ()
    changes: tuple[Changes, ...] = ()


def parts_of(found: Edits) -> Parts:
    """Raises InsideRefusedError. Blocks: it looks at what is named."""
    nodes = dict.fromkeys(
        _node(found.file, node) for edits in found.edits for node in edits.device_nodes
    )
    binds = dict.fromkeys(
        _bind(found.file, mount) for edits in found.edits for mount in edits.mounts
    )
    hooks = [_known(found.file, hook) for edits in found.edits for hook in edits.hooks]
    folders = {
        posixpath.normpath(value)
        for name, args in hooks
        if name in _FOLDERS
        for value in _values(args, "--folder")
    }
    links = [link for name, args in hooks if name == _LINKS for link in _values(args, "--link")]
    by_name = _by_their_names(binds, folders)
    extra_binds, extra_nodes = _linked(links, binds, nodes, by_name, folders)
    libraries = [
        Bind(source, f"{LIBRARIES}/{posixpath.basename(path)}", read_only=True)
        for path, source in by_name.items()
    ]
    values = {
        name: value
        for edits in found.edits
        for name, _, value in (entry.partition("=") for entry in edits.env)
    }
    loader = {"LD_LIBRARY_PATH": LIBRARIES} if libraries else {}
    return Parts(
        mounts=(*binds, *libraries, *extra_binds),
        nodes=(*nodes, *extra_nodes),
        changes=(Changes(set={**values, **found.env}, prepend=loader),),
    )


def _node(file: str, node: CdiNode) -> Node:
    source = node.host_path or node.path
    if not node.path.startswith("/dev/"):
        raise InsideRefusedError(f"{file} has a device at {node.path}, which is not below /dev")
    _require_there(file, source)
    return Node(node.path, source if source != node.path else "")


def _bind(file: str, mount: CdiMount) -> Bind:
    if mount.type not in _BINDS and not {"bind", "rbind"} & set(mount.options):
        raise InsideRefusedError(
            f"{file} wants a {mount.type} at {mount.container_path}: only files and directories of "
            "the node can be had"
        )
    _require_there(file, mount.host_path)
    return Bind(mount.host_path, mount.container_path, read_only="ro" in mount.options)


def _require_there(file: str, path: str) -> None:
    if not os.path.lexists(path):
        raise InsideRefusedError(
            f"{file} names {path}, which this node does not have: the operators have to generate "
            "it anew, as after each update of the driver"
        )


def _known(file: str, hook: CdiHook) -> tuple[str, Sequence[str]]:
    """What it does, and to what."""
    known = {_LINKS, *_FOLDERS, *_NOT_NEEDED}
    if posixpath.basename(hook.path) in _HOOK_PROGRAMS:
        for index, word in enumerate(hook.args):
            if word in known:
                return word, hook.args[index + 1 :]
    words = " ".join((hook.path, *hook.args[1:]))[:200]
    raise InsideRefusedError(
        f"{file} wants a hook that is not run here: {words}. The operators can remove it from a "
        "copy of the file, and have a module do what it does"
    )


def _values(args: Sequence[str], option: str) -> Iterator[str]:
    for index, word in enumerate(args):
        if word == option and index + 1 < len(args):
            yield args[index + 1]
        elif word.startswith(f"{option}="):
            yield word.removeprefix(f"{option}=")


def _by_their_names(binds: Iterable[Bind], folders: set[str]) -> dict[str, str]:
    """Libraries in these folders, where ldconfig would have them: the path, and the host's file."""
    found: dict[str, str] = {}
    for bind in binds:
        folder, name = posixpath.split(bind.target)
        if folder in folders and ".so" in name and name.startswith("lib"):
            elf = _elf(bind.source)
            if elf is not None and elf.machine == os.uname().machine:  # there may be 32 bits, too
                plain = "/" not in elf.soname and elf.soname not in {"", ".", ".."}
                found[posixpath.join(folder, elf.soname if plain else name)] = bind.source
    return found


def _elf(path: str) -> Elf | None:
    try:
        with Path(path).open("rb", buffering=0) as file:
            return read_elf(lambda at, size: os.pread(file.fileno(), size, at))
    except (ElfError, OSError):
        return None


def _linked(
    links: Iterable[str],
    binds: Iterable[Bind],
    nodes: Iterable[Node],
    by_name: dict[str, str],
    folders: set[str],
) -> tuple[list[Bind], list[Node]]:
    """What a link would lead to, mounted in its place; libraries are added to the others."""
    sources = {bind.target: bind.source for bind in binds} | by_name
    devices = {node.path: node.of_host for node in nodes}
    extra_binds: dict[str, Bind] = {}
    extra_nodes: dict[str, Node] = {}
    for link in links:
        target, _, path = link.partition("::")
        place = posixpath.normpath(path)
        end = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if not place.startswith("/") or ".." in place.split("/"):
            continue
        if end in devices and place.startswith("/dev/"):
            extra_nodes[place] = Node(place, devices[end])
        elif end in sources:
            if posixpath.dirname(place) in folders:
                by_name[place] = sources[end]
            else:
                extra_binds[place] = Bind(sources[end], place, read_only=True)
            sources[place] = sources[end]
    return list(extra_binds.values()), list(extra_nodes.values())
