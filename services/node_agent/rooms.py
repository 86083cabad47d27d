"""Rooms: directories that only admitted users may enter, each with the mount of a private image.

Mount points are told to everybody by /proc, so a name alone hides nothing. A room's access list
names the users who have asked for the image and may have it; it goes with the mount.
"""

import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from services.node_agent.errors import MountFailedError
from shared.models import ImageId

INSIDE: Final = "root"
"""The mount point in a room."""

_ACL: Final = "system.posix_acl_access"
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_VERSION: Final = 2
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_ALL, _ENTER, _NOTHING = 7, 5, 0
_NO_ID: Final = 0xFFFFFFFF


class Rooms:
    """Those of one node. All of it blocks."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o711)
        self.directory = directory.resolve()

    def of(self, image_id: ImageId) -> Path:
        return self.directory / image_id

    def make(self, image_id: ImageId) -> Path:
        """A new room for nobody yet; returns its mount point."""
        room = self.of(image_id)
        room.mkdir(mode=0o700)
        inside = room / INSIDE
        inside.mkdir()
        return inside

    def admit(self, image_id: ImageId, uid: int) -> None:
        """Let a user in; nothing to do where the image is mounted for everybody."""
        room = self.of(image_id)
        try:
            admitted = _admitted(room)
            if uid not in admitted:
                os.setxattr(room, _ACL, _acl((*admitted, uid)))
        except FileNotFoundError:
            return
        except OSError as exc:
            raise MountFailedError(
                f"users cannot be let into {room}: {exc.strerror}; the operator must put "
                "agent.run_dir on a file system with POSIX access lists, such as /run"
            ) from exc


def _admitted(room: Path) -> tuple[int, ...]:
    try:
        content = os.getxattr(room, _ACL)
    except OSError as exc:
        if exc.errno == errno.ENODATA:
            return ()
        raise
    entries = _ENTRY.iter_unpack(content[_HEADER.size :])
    return tuple(uid for tag, _, uid in entries if tag == _USER)


def _acl(uids: Iterable[int]) -> bytes:
    entries = [
        (_OWNER, _ALL, _NO_ID),
        *((_USER, _ENTER, uid) for uid in sorted(uids)),
        (_GROUP, _NOTHING, _NO_ID),
        (_MASK, _ENTER, _NO_ID),
        (_OTHER, _NOTHING, _NO_ID),
    ]
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)
