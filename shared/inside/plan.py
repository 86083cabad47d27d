"""A plan: what is mounted where inside an image, in this order. It is carried out elsewhere.

It can be written as JSON, for it is made by one process and carried out by another.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host, with what is mounted in it."""

    source: str
    target: str
    read_only: bool = False
    devices: bool = False
    """Device nodes in it are devices; nowhere else they are."""
    optional: bool = False
    """Left out where the host or the image has no place for it."""
    of_user: bool = False
    """Named by the user: opened with their rights, and kept from where it would hide too much."""
    as_user: bool = False
    """Not named by them, and yet perhaps theirs to lead elsewhere: opened with their rights."""


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """An empty directory of the job's own."""

    target: str
    mode: int = 0o1777
    size: str = "50%"


@dataclass(frozen=True, slots=True)
class Text:
    """A small file made for the job."""

    target: str
    content: str
    optional: bool = True
    """Left out where the image has no place for it, and the kernel cannot make one."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A file of the host as it is when the job begins."""

    source: str
    target: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A device of the host, or a directory of them; below /dev in the image."""

    path: str
    source: str = ""
    """Where the host has it, if not at the same path."""

    @property
    def of_host(self) -> str:
        return self.source or self.path


@dataclass(frozen=True, slots=True)
class Devices:
    """A /dev with these nodes of the host, and what each program expects there."""

    target: str = "/dev"
    nodes: tuple[Node, ...] = ()


Mount = Bind | Tmpfs | Text | Copy | Devices


@dataclass(frozen=True, slots=True)
class Plan:
    """The inside of one image."""

    image: str
    """Where it is mounted, or unpacked."""
    mounts: tuple[Mount, ...] = ()
    reserved: tuple[str, ...] = ()
    """Paths that nothing of the user's may hide, be in, or be above of."""

    def to_json(self) -> str:
        mounts = [[type(mount).__name__, asdict(mount)] for mount in self.mounts]
        return json.dumps({"image": self.image, "mounts": mounts, "reserved": self.reserved})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Of what `to_json` wrote; it travels between processes of ours only."""
        raw = json.loads(text)
        mounts = tuple(_mount(kind, fields) for kind, fields in raw["mounts"])
        return cls(raw["image"], mounts, tuple(raw["reserved"]))


_KINDS: Final[Mapping[str, type[Bind | Tmpfs | Text | Copy | Devices]]] = {
    kind.__name__: kind for kind in (Bind, Tmpfs, Text, Copy, Devices)
}


def _mount(kind: str, fields: dict[str, Any]) -> Mount:
    if kind == Devices.__name__:
        fields = {**fields, "nodes": tuple(Node(**node) for node in fields["nodes"])}
    return _KINDS[kind](**fields)
