"""What every inside has of its node: kernel, devices, names, and the user's own directories."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from shared.inside.people import NSSWITCH, Person, group, passwd
from shared.inside.plan import Bind, Devices, Mount, Node, Text, Tmpfs

NODES: Final = tuple(
    Node(f"/dev/{name}")
    for name in (
        *("null", "zero", "full", "random", "urandom", "tty"),
        # Terminals, and what processes of one node share.
        *("pts", "shm", "mqueue"),
    )
)
SYSTEM_DIRECTORIES: Final = frozenset(
    {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32"}
    | {"opt", "proc", "run", "sbin", "sys", "tmp", "usr", "var"}
)
"""An image has its own: nothing of the host's takes their place without being asked for."""


def host_mounts(person: Person, nodes: Iterable[Node] = ()) -> tuple[Mount, ...]:
    """`nodes` are devices besides those that each program expects. Blocks: it asks for names."""
    root = person.uid == 0
    return (
        # Root may write to the kernel's settings by the files' modes, without any capability.
        Bind("/proc", "/proc", read_only=root),
        Bind("/sys", "/sys", read_only=True, optional=True),
        Devices(nodes=_distinct((*NODES, *nodes))),
        Tmpfs("/tmp"),  # noqa: S108 - the image's
        Text("/etc/passwd", passwd(person)),
        Text("/etc/group", group(person)),
        Text("/etc/nsswitch.conf", NSSWITCH),
        Bind("/etc/resolv.conf", "/etc/resolv.conf", read_only=True, optional=True),
        Bind("/etc/hosts", "/etc/hosts", read_only=True, optional=True),
    )


def _distinct(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Each once, and none that comes along with a directory of the same place on the host."""
    by_path: dict[str, Node] = {}
    for node in nodes:
        by_path.setdefault(node.path, node)

    def comes_along(node: Node) -> bool:
        parents = (str(parent) for parent in PurePosixPath(node.path).parents)
        return any(parent in by_path for parent in parents)

    return tuple(node for node in by_path.values() if not comes_along(node))


def own_directories(person: Person, *paths: str) -> tuple[Bind, ...]:
    """The user's home, where they are, and the like; of root none: what is in an image may be
    hostile, and root's files have nothing else to guard them.
    """
    if person.uid == 0:
        return ()
    chosen: list[str] = []
    for path in (person.home, *paths):
        below = any(f"{path}/".startswith(f"{above}/") for above in chosen)
        if path.split("/")[1] not in SYSTEM_DIRECTORIES | {""} and not below:
            chosen.append(path)
    return tuple(Bind(path, path, optional=True, as_user=True) for path in chosen)
