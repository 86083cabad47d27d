"""Rooms: directories that only admitted users may enter, each with the mount of a private image.

Mount points are told to everybody by /proc, so a name alone hides nothing. A room's access list
names the users who have asked for the image and may have it; it goes with the mount.
"""

from pathlib import Path
from typing import Final

from services.node_agent import access
from services.node_agent.errors import MountFailedError
from shared.models import ImageId

INSIDE: Final = "root"
"""The mount point in a room."""


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
            access.let(uid, room, access.ENTER)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise MountFailedError(
                f"users cannot be let into {room}: {exc.strerror}; the operator must put "
                "agent.run_dir on a file system with POSIX access lists, such as /run"
            ) from exc
