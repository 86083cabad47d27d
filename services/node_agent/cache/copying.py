"""Copy one image into the cache: from other images of this node what they have, the rest from the
shared file, and every region hashed in the memory that it is written from.

The threads are daemons, for the shared directory may hang for ever.
"""

import mmap
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from services.node_agent.cache.delta import Holdings, Part, donors_for
from services.node_agent.cache.errors import CopyFailedError
from services.node_agent.cache.shelf import Shelf
from services.node_agent.cache.throttle import Throttle
from shared.image.errors import ImageCorruptError, WorkCancelledError
from shared.image.making.parallel import Region, Stop
from shared.image.making.target import Target
from shared.image.making.verify import ImageCheck, RegionCheck
from shared.image.making.weave import clear, clone, write_superblock
from shared.image.recipe import Recipe
from shared.models import ImageId

_PIECE: Final = 1 << 20
_MOST_THREADS: Final = 4
"""Of one copy: the node is there for its jobs."""


@dataclass(slots=True)
class Tally:
    """Where the bytes of a copy came from, and which donors turned out to be damaged."""

    copied: int = 0
    saved: int = 0
    damaged: set[ImageId] = field(default_factory=set)


def copy_image(
    recipe: Recipe, shared_file: Path, shelf: Shelf, throttle: Throttle, cancelled: threading.Event
) -> Tally:
    """When this returns, the cache has every byte that the recipe promises. Blocks.

    CacheFullError; ImageCorruptError where the shared file is not what its recipe says;
    CopyFailedError for whatever a disk or file system says.
    """
    try:
        with (
            shared_file.open("rb") as source,
            shelf.room_for(recipe) as file,
            donors_for(recipe, shelf) as holdings,
        ):
            work = _Work(
                recipe, source, file, holdings=holdings, throttle=throttle, cancelled=cancelled
            )
            return work.run()
    except OSError as exc:
        raise CopyFailedError(f"cannot copy {shared_file} into the cache: {exc.strerror}") from exc


class _Work:
    """The threads of one copy, and what they share."""

    def __init__(
        self,
        recipe: Recipe,
        source: BinaryIO,
        file: BinaryIO,
        *,
        holdings: Holdings,
        throttle: Throttle,
        cancelled: threading.Event,
    ) -> None:
        self._recipe = recipe
        self._source = source
        self._fd = file.fileno()
        self._holdings = holdings
        self._throttle = throttle
        self._stop = Stop(cancelled)
        self._check = ImageCheck(self._fd, recipe, Path(source.name).name, self._stop)
        self._regions = iter(recipe.regions)
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._tally = Tally()

    def run(self) -> Tally:
        clear(self._recipe, self._fd)
        count = min(_MOST_THREADS, len(os.sched_getaffinity(0)), len(self._recipe.regions))
        with Target.over(self._fd) as target:
            threads = [
                threading.Thread(target=self._work, args=(target,), name="copy", daemon=True)
                for _ in range(count)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if self._errors:
            raise min(self._errors, key=lambda exc: isinstance(exc, WorkCancelledError))
        write_superblock(self._recipe, self._fd)
        os.fdatasync(self._fd)
        self._check.frame()
        return self._tally

    def _work(self, target: Target) -> None:
        # Of whole pages, as writing past the cache wants it.
        piece = memoryview(mmap.mmap(-1, _PIECE))
        try:
            for region in self._left():
                self._bring(region, target, piece)
        except BaseException as exc:  # noqa: BLE001 - the owner's, whatever it is
            self._errors.append(exc)
            self._stop.fail()

    def _left(self) -> Iterator[Region]:
        while True:
            with self._lock:
                region = next(self._regions, None)
            if region is None:
                return
            yield region

    def _bring(self, region: Region, target: Target, piece: memoryview) -> None:
        parts = tuple(self._holdings.parts(region))
        try:
            tally = _Region(self, region, target, piece).copy(parts)
        except (ImageCorruptError, OSError):
            donors = {part.donor.image_id for part in parts if part.donor is not None}
            if not donors:
                raise
            # Which of them it was nobody knows; the shared file has all of it.
            tally = _Region(self, region, target, piece).copy((Part(region.length),))
            with self._lock:
                self._tally.damaged |= donors
        with self._lock:
            self._tally.copied += tally["copied"]
            self._tally.saved += tally["saved"]

    def from_shared(self, buffer: memoryview, offset: int) -> int:
        self._stop.check()
        self._throttle.wait(len(buffer), self._stop.check)
        return _read(self._source, buffer, offset)

    def from_donor(self, file: BinaryIO, buffer: memoryview, offset: int) -> int:
        self._stop.check()
        return _read(file, buffer, offset)

    def check(self, region: Region) -> RegionCheck:
        return self._check.region(region)


@dataclass(frozen=True, slots=True)
class _Region:
    """One region, by one thread."""

    work: _Work
    region: Region
    target: Target
    piece: memoryview

    def copy(self, parts: tuple[Part, ...]) -> Counter[str]:
        tally: Counter[str] = Counter()
        check = self.work.check(self.region)
        done = 0
        for part in parts:
            if part.donor is None:
                self._read(None, self.region.offset + done, done, part.length, check)
                tally["copied"] += part.length
            else:
                shared = self._share(part.donor.file, part, done, check)
                offset, length = part.offset + shared, part.length - shared
                self._read(part.donor.file, offset, done + shared, length, check)
                tally["saved"] += part.length
            done += part.length
        check.end()
        return tally

    def _share(self, donor: BinaryIO, part: Part, done: int, check: RegionCheck) -> int:
        """Blocks of the donor's, where the file system can share them; how many bytes."""
        start = self.region.offset + done
        shared = clone(donor, part.offset, self.target.fd, start, part.length)
        check.read(start, start + shared)
        return shared

    def _read(
        self, donor: BinaryIO | None, offset: int, done: int, length: int, check: RegionCheck
    ) -> None:
        end = done + length
        while done < end:
            buffer = self.piece[: end - done]
            size = (
                self.work.from_shared(buffer, offset)
                if donor is None
                else self.work.from_donor(donor, buffer, offset)
            )
            check.take(buffer[:size])
            self.target.write(buffer[:size], self.region.offset + done)
            offset += size
            done += size


def _read(file: BinaryIO, buffer: memoryview, offset: int) -> int:
    size = os.preadv(file.fileno(), [buffer], offset)
    if not size:
        raise ImageCorruptError(f"{Path(file.name).name} became shorter while it was copied")
    return size
