"""How much one image may cost whoever plans it, and whether anybody still wants the plan."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from shared.image.codecs import BlockCodec
from shared.image.errors import ImageTooLargeError, WorkCancelledError

# Of a path's parts: Linux could open some 2,000, honest paths have some tens.
MAX_DEPTH: Final = 1024
# Some milliseconds of work on files.
CHECK_EVERY: Final = 4096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Of all layers together: far above honest images, far below what would hurt."""

    max_nodes: int = 8_000_000
    max_index_bytes: int = 1 << 30
    max_steps: int = 64_000_000


class Budget:
    """What one image has used of its limits; every loop over its files looks here now and then."""

    def __init__(self, limits: ImageLimits, cancelled: threading.Event) -> None:
        self._limits = limits
        self._cancelled = cancelled
        self._nodes = 0
        self._index_bytes = 0
        self._steps = 0

    def check(self) -> None:
        if self._cancelled.is_set():
            raise WorkCancelledError("planning the image was cancelled")

    def watched(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with a check before every few thousand of them."""
        for number, item in enumerate(items):
            if not number % CHECK_EVERY:
                self.check()
            yield item

    def add_nodes(self, count: int) -> None:
        self._nodes += count
        if self._nodes > self._limits.max_nodes:
            raise ImageTooLargeError(
                f"the image's layers have {self._nodes:,} files and directories or more, and "
                f"{self._limits.max_nodes:,} are allowed: split the image, or leave files out"
            )

    def add_index_bytes(self, count: int) -> None:
        self._index_bytes += count
        if self._index_bytes > self._limits.max_index_bytes:
            raise ImageTooLargeError(
                f"what the image's layers say of their files takes {self._index_bytes >> 20:,} MiB "
                f"or more, and {self._limits.max_index_bytes >> 20:,} MiB are allowed: "
                "split the image, or leave files out"
            )

    def add_steps(self, count: int) -> None:
        """Parts of paths on the way to a directory, those of symlinks' targets included."""
        self._steps += count
        if self._steps > self._limits.max_steps:
            raise ImageTooLargeError(
                "finding the directories of the image's files takes more than "
                f"{self._limits.max_steps:,} steps, which is not allowed"
            )


class WatchedCodec:
    """Tables are made block by block, so a codec is where giving them up is noticed."""

    def __init__(self, codec: BlockCodec, budget: Budget) -> None:
        self._codec = codec
        self._budget = budget

    def compress(self, block: bytes, /) -> bytes:
        self._budget.check()
        return self._codec.compress(block)

    def decompress(self, block: bytes, limit: int, /) -> bytes:
        return self._codec.decompress(block, limit)
