"""Data blocks, compressed by several threads and written in the order in which they came."""

import hashlib
from array import array
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from types import TracebackType
from typing import BinaryIO, Final, Self

from shared.image.codecs import BlockCodec
from shared.image.kinds import BLOCK_SIZE_MASK, RAW_BLOCK

# Several blocks per task: handing one over costs as much as compressing a few KiB.
_BATCH_BYTES: Final = 1 << 20
_BATCHES_PER_THREAD: Final = 3

_Batch = Future[tuple[bytes, list[int]]]


class BlockWriter:
    """Blocks are numbered from 0 as they are added; their sizes are known after `finish`."""

    def __init__(self, out: BinaryIO, codec: BlockCodec, threads: int) -> None:
        self._out = out
        self._codec = codec
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="layer-compress")
        self._in_flight: deque[_Batch | int] = deque()
        self._most_in_flight = threads * _BATCHES_PER_THREAD
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._digest = hashlib.sha256()
        self.count = 0
        self.length = 0
        self.sizes: array[int] = array("I")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, block: bytes) -> None:
        self._batch.append(block)
        self._batch_bytes += len(block)
        self.count += 1
        if self._batch_bytes >= _BATCH_BYTES:
            self._submit()

    def add_holes(self, count: int) -> None:
        """Whole blocks of zeros, which take no space."""
        self._submit()
        # Neighbouring holes are one item, or a sparse file could fill the memory with them.
        last = self._in_flight[-1] if self._in_flight else None
        if isinstance(last, int):
            self._in_flight[-1] = last + count
        else:
            self._in_flight.append(count)
        self.count += count

    def finish(self) -> "array[int]":
        """Write what is in flight; returns where each block starts, and the end of the last."""
        self._submit()
        while self._in_flight:
            self._write_next()
        on_disk = (size & BLOCK_SIZE_MASK for size in self.sizes)
        return array("Q", accumulate(on_disk, initial=0))

    def _submit(self) -> None:
        if self._batch:
            self._in_flight.append(self._pool.submit(self._compress, self._batch))
            self._batch = []
            self._batch_bytes = 0
        while len(self._in_flight) > self._most_in_flight:
            self._write_next()

    def _compress(self, blocks: list[bytes]) -> tuple[bytes, list[int]]:
        parts = []
        sizes = []
        for block in blocks:
            packed = self._codec.compress(block)
            if len(packed) < len(block):
                parts.append(packed)
                sizes.append(len(packed))
            else:
                parts.append(block)
                sizes.append(len(block) | RAW_BLOCK)
        return b"".join(parts), sizes

    def _write_next(self) -> None:
        item = self._in_flight.popleft()
        if isinstance(item, int):
            self.sizes.frombytes(bytes(self.sizes.itemsize * item))
            return
        data, sizes = item.result()
        self._out.write(data)
        self._digest.update(data)
        self.length += len(data)
        self.sizes.extend(sizes)
