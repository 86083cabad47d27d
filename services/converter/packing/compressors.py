"""The threads that compress a layer's blocks.

Where threads cannot keep up, a few batches wait beside those in work, and then the reader does.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from shared.image.codecs import BlockCodec
from shared.image.kinds import RAW_BLOCK

# What a layer may have waiting besides what every thread is busy with.
_AHEAD: Final = 2

Packed = tuple[bytes, list[int]]


class Compressors:
    """A pool of `threads` threads; 0 is one per core."""

    def __init__(self, threads: int = 0) -> None:
        threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self.most_in_flight = threads + _AHEAD
        """How many batches one layer may have in the queue or in work."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def compress(self, codec: BlockCodec, blocks: list[bytes]) -> Future[Packed]:
        """What the blocks become, one behind the other, and their sizes as squashfs has them."""
        return self._pool.submit(_compress, codec, blocks)


def _compress(codec: BlockCodec, blocks: list[bytes]) -> Packed:
    parts: list[bytes] = []
    sizes: list[int] = []
    for block in blocks:
        packed = codec.compress(block)
        if len(packed) < len(block):
            parts.append(packed)
            sizes.append(len(packed))
        else:
            parts.append(block)
            sizes.append(len(block) | RAW_BLOCK)
    return b"".join(parts), sizes
