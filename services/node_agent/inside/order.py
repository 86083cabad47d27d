"""What the process that puts an inside together is told, and what it says: one packet each.

Standard library only, since that process is started for each job. Both ends are ours.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final

MAX_PACKET: Final = 160 << 10
MOUNTS_READY: Final = b"mounts"
USERS_READY: Final = b"users"
GO_ON: Final = b"go on"


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system of the node's own, whose data lies in a directory of the user's meanwhile."""

    name: str
    """What the plan binds."""
    directory: str
    size: int


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """One inside for one user."""

    plan: str
    """As `Plan.to_json` writes it."""
    uid: int
    gid: int
    gids: tuple[int, ...]
    disks: tuple[Disk, ...] = ()
    place: str = ""
    """A directory of root's own, below which they are mounted first."""
    for_users: bool = True
    """With a user namespace of the user's own, by which they enter without any privilege."""

    def packed(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpacked(cls, packet: bytes) -> "BuildOrder":
        fields = json.loads(packet)
        disks = tuple(Disk(**disk) for disk in fields["disks"])
        return cls(**{**fields, "gids": tuple(fields["gids"]), "disks": disks})


def refusal(message: str) -> bytes:
    """It could not be put together, and why."""
    return b"refused " + message[:4096].encode()


def refused(packet: bytes) -> str | None:
    return packet[8:].decode() if packet.startswith(b"refused ") else None
