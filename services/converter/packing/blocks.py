"""Data blocks, compressed by several threads and written in the order in which they came.

Where each file's blocks and each fragment are becomes known when they are written, and goes into
the pack's index then.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import BinaryIO, Final, Self

from services.converter.packing.compressors import Compressors, Packed
from services.converter.packing.twins import Twins, same_bytes
from shared.image.codecs import BlockCodec
from shared.image.kinds import BLOCK_SIZE_MASK, RAW_BLOCK
from shared.image.packs.index import PackIndex

# Several blocks per task: handing one over costs as much as compressing a few KiB.
_BATCH_BYTES: Final = 1 << 20
# Between two batches there may be holes, and files that begin or end.
_ITEMS_PER_BATCH: Final = 8
_FRAGMENT: Final = -1


@dataclass(frozen=True, slots=True)
class _Batch:
    packed: Future[Packed]
    # Before which of the blocks which file begins, and which of them are fragments.
    marks: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _State:
    """What has been written when a file begins that might be a twin."""

    length: int
    blocks: int
    digest: "hashlib._Hash"


class BlockWriter:
    """Fills `out`, and of the index what is about blocks. Leaving it leaves nothing in work."""

    def __init__(
        self, out: BinaryIO, codec: BlockCodec, compressors: Compressors, index: PackIndex
    ) -> None:
        self._out = out
        self._codec = codec
        self._compressors = compressors
        self._index = index
        self._in_flight: deque[_Batch | int | Callable[[], None]] = deque()
        self._batches_in_flight = 0
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._marks: list[tuple[int, int]] = []
        self._digest = hashlib.sha256()
        self._length = 0
        self._twins = Twins()
        self._begun: _State | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        batches = [item.packed for item in self._in_flight if isinstance(item, _Batch)]
        wait([packed for packed in batches if not packed.cancel()])

    def begin_file(self, file: int, size: int) -> bool:
        """The blocks that follow are this file's; tells whether `end_file` wants to be called."""
        suspect = self._twins.suspect(file, size)
        if suspect:
            self._submit()
            self._append(self._begin_twin)
        self._marks.append((len(self._batch), file))
        return suspect

    def end_file(self, file: int) -> None:
        """Where all of its blocks turn out to be those of an earlier file, it shares them."""
        self._submit()
        self._append(partial(self._end_twin, file))

    def add(self, block: bytes) -> None:
        self._batch.append(block)
        self._batch_bytes += len(block)
        if self._batch_bytes >= _BATCH_BYTES:
            self._submit()

    def add_fragment(self, block: bytes) -> None:
        """Fragments are numbered from 0 as they are added."""
        self._marks.append((len(self._batch), _FRAGMENT))
        self.add(block)

    def add_holes(self, count: int) -> None:
        """Whole blocks of zeros, which take no space."""
        self._submit()
        # Neighbouring holes are one item, or a sparse file could fill the memory with them.
        last = self._in_flight[-1] if self._in_flight else None
        if isinstance(last, int):
            self._in_flight[-1] = last + count
        else:
            self._append(count)

    def read_fragment(self, number: int) -> bytes:
        """What has been added, back from the file."""
        at = 2 * number
        fragments = self._index.fragments
        if len(fragments) <= at:
            self._submit()
        while len(fragments) <= at:
            self._write_next()
        start, size = fragments[at : at + 2]
        self._out.flush()
        stored = os.pread(self._out.fileno(), size & BLOCK_SIZE_MASK, start)
        if size & RAW_BLOCK:
            return stored
        return self._codec.decompress(stored, self._index.block_size)

    def finish(self) -> None:
        """Write what is in flight, and complete the index."""
        self._submit()
        while self._in_flight:
            self._write_next()
        self._index.data_length = self._length
        self._index.data_sha256 = self._digest.hexdigest()

    def _submit(self) -> None:
        if not (self._batch or self._marks):
            return
        packed = self._compressors.compress(self._codec, self._batch)
        self._batches_in_flight += 1
        batch, self._batch, self._batch_bytes = _Batch(packed, self._marks), [], 0
        self._marks = []
        self._append(batch)

    def _append(self, item: _Batch | int | Callable[[], None]) -> None:
        self._in_flight.append(item)
        most = self._compressors.most_in_flight
        while self._batches_in_flight > most or len(self._in_flight) > most * _ITEMS_PER_BATCH:
            self._write_next()

    def _write_next(self) -> None:
        item = self._in_flight[0]
        if isinstance(item, int):
            self._index.blocks.frombytes(bytes(self._index.blocks.itemsize * item))
        elif isinstance(item, _Batch):
            self._write(item)
            self._batches_in_flight -= 1
        else:
            item()
        # Only now: until it is written, leaving must wait for it.
        self._in_flight.popleft()

    def _write(self, batch: _Batch) -> None:
        data, sizes = batch.packed.result()
        index = self._index
        done, end = 0, self._length
        for position, file in batch.marks:
            end += sum(size & BLOCK_SIZE_MASK for size in sizes[done:position])
            index.blocks.extend(sizes[done:position])
            done = position
            if file == _FRAGMENT:
                index.fragments.extend((end, sizes[done]))
                end += sizes[done] & BLOCK_SIZE_MASK
                done += 1
            else:
                index.file_starts[file] = end
                index.file_blocks[file] = len(index.blocks)
        index.blocks.extend(sizes[done:])
        self._out.write(data)
        self._digest.update(data)
        self._length += len(data)

    def _begin_twin(self) -> None:
        self._begun = _State(self._length, len(self._index.blocks), self._digest.copy())

    def _end_twin(self, file: int) -> None:
        index, begun = self._index, self._begun
        assert begun is not None
        sizes = index.blocks[begun.blocks :]
        self._out.flush()
        for other in self._twins.rivals(file, index.file_sizes[file]):
            if index.file_block_sizes(other) == sizes and same_bytes(
                self._out.fileno(),
                index.file_starts[other],
                begun.length,
                self._length - begun.length,
            ):
                index.file_starts[file] = index.file_starts[other]
                index.file_blocks[file] = index.file_blocks[other]
                self._go_back(begun)
                return
        self._twins.remember(file, index.file_sizes[file])

    def _go_back(self, begun: _State) -> None:
        """As if nothing had been written since."""
        del self._index.blocks[begun.blocks :]
        self._length, self._digest = begun.length, begun.digest
        self._out.seek(self._length)
        self._out.truncate()
