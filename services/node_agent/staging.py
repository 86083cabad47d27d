"""From an image's id to a directory with its files in it."""

import errno
import os
import struct
from pathlib import Path
from typing import Final

from services.node_agent.errors import ImageNotMountableError, ImageNotPlacedError
from services.node_agent.mounter import How, Mounter, Source
from services.node_agent.mounts import Standing, mounted_images
from services.node_agent.probe import COMPRESSORS, MAGIC
from services.node_agent.readers import SOMEBODY, User, may_read
from services.node_agent.rooms import INSIDE, Rooms
from services.node_agent.sidecar import read_recipe
from services.node_agent.unmount import clear
from shared.config import Settings
from shared.errors import DrayError
from shared.events import NodeImage
from shared.image.errors import ImageCorruptError
from shared.image.recipe import ImageConfig
from shared.logging import get_logger
from shared.models import ImageId

log = get_logger(__name__)

# Of the superblock: magic, compressor, version, bytes used.
_SUPERBLOCK: Final = struct.Struct("<I16xH6xHH8xQ")
_PATIENCE: Final = 3.0
"""How long the last processes of a job may take to leave an image."""
_DEAD: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT})


class Stager:
    """The images of one system, mounted straight from its shared directory. All of it blocks."""

    def __init__(self, settings: Settings, mounter: Mounter) -> None:
        self.how: How = mounter.how
        self._system = settings.agent.system
        self._image_dir = settings.systems[self._system].image_dir
        self._directory = mount_directory(settings)
        self._rooms = Rooms(settings.agent_dir / "private")
        self._mounter = mounter

    def path(self, image_id: ImageId) -> Path:
        room = self._rooms.of(image_id)
        return room / INSIDE if room.is_dir() else self._directory / image_id

    def stage(self, image_id: ImageId, copy: Path | None = None) -> None:
        """Mount an image that was examined, in place of whatever stands there.

        From a copy on this node, or else straight from the shared directory. One that is private
        is mounted in a room that nobody may enter yet.
        """
        self.unstage(image_id)
        try:
            if self.readable(image_id, SOMEBODY):
                target = self._directory / image_id
                target.mkdir()
            else:
                target = self._rooms.make(image_id)
            source = Source(copy, cached=True) if copy else Source(self._file(image_id))
            self._mounter.mount(source, target)
        except BaseException:
            self.unstage(image_id)
            raise

    def cover(self, image_id: ImageId, copy: Path) -> None:
        """Mount a copy over what is mounted: who is in there stays, who comes now gets the copy."""
        self._mounter.mount(Source(copy, cached=True), self.path(image_id))

    def admit(self, image_id: ImageId, user: User) -> None:
        """Let a user, who may have it, to an image that is mounted."""
        self._rooms.admit(image_id, user.uid)

    def unstage(self, image_id: ImageId) -> None:
        clear(self._rooms.of(image_id), _PATIENCE)
        clear(self._directory / image_id, _PATIENCE)

    def adopt(self, wanted: frozenset[ImageId]) -> dict[ImageId, Standing]:
        """What an earlier agent left and somebody still wants; the rest is taken away."""
        kept: dict[ImageId, Standing] = {}
        found = mounted_images(self._directory) | mounted_images(self._rooms.directory, INSIDE)
        for image_id, standing in found.items():
            if image_id not in wanted:
                continue
            if self.is_alive(image_id):
                kept[image_id] = standing
            elif self._revive(image_id):
                kept[image_id] = Standing(self.how)
        for path in (*self._directory.iterdir(), *self._rooms.directory.iterdir()):
            if path.name in kept:
                continue
            try:
                clear(path)
            except (DrayError, OSError) as exc:
                log.warning("leftover_stays", path=str(path), error=str(exc))
            else:
                log.info("leftover_removed", path=str(path))
        return kept

    def _revive(self, image_id: ImageId) -> bool:
        """Mount again, at the same place, what died while there was no agent."""
        try:
            self.stage(image_id)
        except (DrayError, OSError) as exc:
            log.warning("mount_stays_dead", image=image_id, error=str(exc))
            return False
        log.info("mount_revived", image=image_id)
        return True

    def is_alive(self, image_id: ImageId) -> bool:
        """False if the process behind a mount, or the whole directory, is gone."""
        try:
            self.path(image_id).stat()
        except OSError as exc:
            return exc.errno not in _DEAD
        return True

    def examine(self, image: NodeImage) -> None:
        """Whether the image is here, is what the request says, and can be read."""
        file = self._file(image.image_id)
        try:
            with file.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                head = stream.read(_SUPERBLOCK.size)
        except FileNotFoundError as exc:
            raise self._not_placed(image.image_id) from exc
        except OSError as exc:
            raise ImageNotMountableError(f"cannot read {file}: {exc.strerror}") from exc
        if size != image.size:
            raise ImageCorruptError(
                f"{file} has {size} bytes and should have {image.size}: it was cut short or "
                "replaced; pull the image again"
            )
        self._examine_superblock(file, head, size)

    def require_readable(self, image_id: ImageId, user: User) -> None:
        """For whom it is not, a private image is not here."""
        if not self.readable(image_id, user):
            raise self._not_placed(image_id)

    def readable(self, image_id: ImageId, user: User) -> bool:
        return may_read(self._file(image_id).with_suffix(".json"), user)

    def config(self, image_id: ImageId) -> ImageConfig:
        """What the image says about how it wants to be run."""
        if not self._file(image_id).is_file():
            raise self._not_placed(image_id)
        return read_recipe(self._file(image_id).with_suffix(".json"), image_id).config

    def _not_placed(self, image_id: ImageId) -> ImageNotPlacedError:
        return ImageNotPlacedError(
            f"image {image_id} is not in {self._image_dir}, where this node looks for the images "
            f"of system '{self._system}', or it is not yours to use: pull it, and check that "
            f"systems.{self._system}.image_dir is the same directory on this node"
        )

    def _file(self, image_id: ImageId) -> Path:
        return self._image_dir / f"{image_id}.squashfs"

    def _examine_superblock(self, file: Path, head: bytes, size: int) -> None:
        if len(head) < _SUPERBLOCK.size:
            raise ImageCorruptError(f"{file} is too short to be a squashfs image")
        magic, compressor, major, minor, used = _SUPERBLOCK.unpack(head)
        if magic != MAGIC or (major, minor) != (4, 0):
            raise ImageCorruptError(f"{file} is no squashfs 4.0 image; pull the image again")
        if used > size:
            raise ImageCorruptError(f"{file} holds {size} of {used} bytes; pull the image again")
        codec = COMPRESSORS.get(compressor, f"number {compressor}")
        if codec not in self._mounter.codecs:
            usable = sorted(self._mounter.codecs)
            raise ImageNotMountableError(
                f"{file.name} is compressed with {codec}, and this node mounts "
                f"{' and '.join(usable)} only ({self._mounter.how}): "
                f"set systems.{self._system}.pack.compression to {usable[0]} "
                "and pull the image again"
            )


def mount_directory(settings: Settings) -> Path:
    """Where the mounts of this agent are; made so that its names can be used but not listed."""
    directory = settings.agent_dir / "mounts"
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o711)
    return directory.resolve()
