"""The copies on this node: which there are, how much room they take, which one goes first.

The files survive the agent, and on a disk also the node's boot. What is found at the start is
believed if its size, its superblock and its card agree and nobody has written to it since; what
somebody has touched has to be read in full before it is used again.
"""

import fcntl
import os
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from services.node_agent.cache import measuring
from services.node_agent.cache.card import SUFFIX, Card, read_card, write_card
from services.node_agent.cache.errors import CacheFullError, CacheUnusableError
from shared.files import publishing, remove_stale_partials
from shared.image.recipe import PackKey, Recipe
from shared.logging import get_logger
from shared.models import ImageId, Sha256
from shared.settings.agent import CacheSettings

log = get_logger(__name__)

IMAGE: Final = ".squashfs"
_PIN: Final = ".pin"
_LOCK: Final = ".lock"
_NAME: Final = re.compile(r"([0-9a-f]{64})(\.squashfs|\.json|\.pin)")


@dataclass(eq=False, slots=True)
class Copy:
    """One copy. `users` are the mounts that it serves."""

    image_id: ImageId
    path: Path
    size: int
    content_digest: Sha256
    packs: frozenset[PackKey]
    used_at: float
    sound: bool
    users: int = 0
    added_at: float = field(default_factory=time.monotonic)

    def card(self) -> Card | None:
        return read_card(self.path.with_suffix(SUFFIX))


class Shelf:
    """A directory of the agent's own. Whatever touches files blocks; any thread may call."""

    def __init__(self, directory: Path, settings: CacheSettings) -> None:
        self.directory = directory
        self.max_bytes = settings.max_bytes
        self._keep_free = settings.reserve_bytes
        self._copies: dict[ImageId, Copy] = {}
        self._coming: dict[ImageId, int] = {}
        self._always = frozenset(settings.pinned)
        self._pins: set[ImageId] = set()
        self._lock = threading.Lock()
        self._alone: BinaryIO | None = None

    def open(self) -> None:
        """Take the directory over, with what an earlier agent left in it."""
        try:
            self._take_over()
        except OSError as exc:
            self.close()
            raise CacheUnusableError(f"cannot use {self.directory}: {exc.strerror}") from exc
        measuring.BYTES.set(self.used_bytes)

    def _take_over(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._close_to_others()
        self._alone = (self.directory / _LOCK).open("ab")
        try:
            fcntl.flock(self._alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self.close()
            raise CacheUnusableError(f"another agent has its cache in {self.directory}") from exc
        remove_stale_partials(self.directory)
        names = (_NAME.fullmatch(path.name) for path in tuple(self.directory.iterdir()))
        for image_id in {name[1] for name in names if name}:
            self._find(image_id)

    def _close_to_others(self) -> None:
        """Private images are in it, too; and what somebody else put there is no copy of ours."""
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            owner = os.fstat(directory).st_uid
            if owner != os.geteuid():
                raise CacheUnusableError(
                    f"{self.directory} belongs to uid {owner}, who could put "
                    "images of their own there: let the agent make it, or give it to the agent's "
                    "user"
                )
            os.fchmod(directory, 0o700)
        finally:
            os.close(directory)
        for path in tuple(self.directory.iterdir()):
            if (path.name == _LOCK or _NAME.fullmatch(path.name)) and not _is_ours(path):
                log.warning("cached_file_of_somebody_else", path=str(path))
                path.unlink()

    def close(self) -> None:
        if self._alone is not None:
            self._alone.close()

    @property
    def used_bytes(self) -> int:
        return sum(copy.size for copy in tuple(self._copies.values()))

    @property
    def copies(self) -> tuple[Copy, ...]:
        """The one that was used last comes first."""
        return tuple(sorted(self._copies.values(), key=lambda copy: -copy.used_at))

    def get(self, image_id: ImageId) -> Copy | None:
        return self._copies.get(image_id)

    def is_pinned(self, image_id: ImageId) -> bool:
        return image_id in self._always or image_id in self._pins

    def pin(self, image_id: ImageId) -> None:
        """Keep it, also over restarts, once it is there."""
        self._file(image_id, _PIN).touch(mode=0o600)
        self._pins.add(image_id)

    def unpin(self, image_id: ImageId) -> None:
        self._file(image_id, _PIN).unlink(missing_ok=True)
        self._pins.discard(image_id)

    def take(self, image_id: ImageId) -> Copy | None:
        """A sound copy, which stays until it is given back."""
        with self._lock:
            copy = self._copies.get(image_id)
            if copy is None or not copy.sound:
                return None
            copy.users += 1
            copy.used_at = time.time()
        with suppress(OSError):  # only the order of eviction after a restart
            os.utime(copy.path.with_suffix(SUFFIX))
        return copy

    def give_back(self, copy: Copy) -> None:
        with self._lock:
            copy.users -= 1

    @contextmanager
    def room_for(self, recipe: Recipe) -> Iterator[BinaryIO]:
        """A new file for this image, which is in the cache when the body ends well."""
        victims = self._reserve(recipe.image_id, recipe.size)
        try:
            self._evict(victims)
            path = self._file(recipe.image_id, IMAGE)
            with publishing(path) as file:
                os.fchmod(file.fileno(), 0o600)
                yield file
                os.fsync(file.fileno())
                checked = os.fstat(file.fileno())
            try:
                write_card(path.with_suffix(SUFFIX), recipe, checked)
            except BaseException:
                self.remove(recipe.image_id)
                raise
            self._add(recipe, path, time.time(), sound=True)
        finally:
            with self._lock:
                del self._coming[recipe.image_id]

    def confirm(self, copy: Copy, card: Card) -> None:
        """All of it was read, and is what it should be."""
        write_card(copy.path.with_suffix(SUFFIX), card.recipe, copy.path.stat())
        copy.sound = True

    def distrust(self, image_id: ImageId) -> None:
        """To be read in full before anybody gets it again."""
        copy = self._copies.get(image_id)
        if copy is not None:
            copy.sound = False
            with suppress(OSError):
                os.utime(copy.path)  # so that the next agent finds it touched, too

    def remove(self, image_id: ImageId) -> None:
        with self._lock:
            self._copies.pop(image_id, None)
        self._unlink([image_id])

    def _find(self, image_id: ImageId) -> None:
        path = self._file(image_id, IMAGE)
        if self._file(image_id, _PIN).exists():
            self._pins.add(image_id)
        card = read_card(path.with_suffix(SUFFIX))
        if card is None or card.recipe.image_id != image_id or not _looks_like(path, card.recipe):
            log.info("cached_image_dropped", image=image_id)
            self._unlink([image_id])
            return
        used_at = path.with_suffix(SUFFIX).stat().st_mtime
        self._add(card.recipe, path, used_at, sound=card.is_of(path.stat()))

    def _add(self, recipe: Recipe, path: Path, used_at: float, *, sound: bool) -> None:
        copy = Copy(
            image_id=recipe.image_id,
            path=path,
            size=recipe.size,
            content_digest=recipe.content_digest,
            packs=frozenset(segment.pack for segment in recipe.segments),
            used_at=used_at,
            sound=sound,
        )
        with self._lock:
            self._copies[recipe.image_id] = copy
        measuring.BYTES.set(self.used_bytes)

    def _reserve(self, image_id: ImageId, size: int) -> list[Copy]:
        """Those that have to go for it, which nobody gets any more."""
        with self._lock:
            if image_id in self._coming:
                raise CacheFullError(f"image {image_id} is on its way already")
            victims = self._victims(image_id, size)
            self._coming[image_id] = size
            for copy in victims:
                del self._copies[copy.image_id]
        return victims

    def _evict(self, victims: Sequence[Copy]) -> None:
        if not victims:
            return
        measuring.EVICTIONS.inc(len(victims))
        log.info("cached_images_evicted", images=[copy.image_id for copy in victims])
        try:
            self._unlink(copy.image_id for copy in victims)
        except OSError:
            with self._lock:  # they take room still: the next one that needs it tries again
                for copy in victims:
                    copy.sound = False
                    self._copies.setdefault(copy.image_id, copy)
            raise

    def _victims(self, image_id: ImageId, size: int) -> list[Copy]:
        """Those that were not used for the longest time, as many as have to go."""
        status = os.statvfs(self.directory)
        coming = sum(self._coming.values())
        needed = max(
            self.used_bytes + coming + size - self.max_bytes,
            coming + size + self._keep_free - status.f_bavail * status.f_frsize,
        )
        victims: list[Copy] = []
        for copy in reversed(self.copies):
            if needed <= 0:
                break
            if copy.users or (self.is_pinned(copy.image_id) and copy.image_id != image_id):
                continue
            victims.append(copy)
            needed -= copy.size
        if needed > 0:
            raise CacheFullError(
                f"image {image_id} of {size:,} bytes does not fit into {self.directory}: "
                f"{needed:,} bytes are missing beside what is in use or pinned; "
                "see agent.cache.max_bytes and agent.cache.reserve_bytes"
            )
        return victims

    def _unlink(self, image_ids: Iterable[ImageId]) -> None:
        # The card first: an image without one is nothing.
        for image_id in image_ids:
            for suffix in (SUFFIX, IMAGE):
                self._file(image_id, suffix).unlink(missing_ok=True)
        measuring.BYTES.set(self.used_bytes)

    def _file(self, image_id: ImageId, suffix: str) -> Path:
        return self.directory / f"{image_id}{suffix}"


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _looks_like(path: Path, recipe: Recipe) -> bool:
    """Size and superblock: what a copy that was cut short or replaced would not have."""
    superblock = bytes.fromhex(recipe.superblock)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return size == recipe.size and file.read(len(superblock)) == superblock
    except OSError:
        return False
