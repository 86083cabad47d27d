"""One layer from where it lies into a pack of the store.

The source is read on the event loop; hashing, inflating and compressing happen in threads that
take the bytes from a bounded feed. Whoever leaves here has no thread running on behind it.
"""

import asyncio
import threading
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from services.converter.packing.compressors import Compressors
from services.converter.packing.feed import Feed, FeedClosedError
from services.converter.packing.limits import Limits
from services.converter.packing.pack_layer import pack_layer
from services.converter.packing.stream import LayerDigests
from services.converter.sources.interface import SourceLayer
from shared.deadline import Deadline
from shared.image.errors import WorkCancelledError
from shared.image.packs.pack import pack_key
from shared.image.recipe import PackKey, PackOptions
from shared.progress import Part
from shared.store.store import PackStore
from shared.threads import ended


@dataclass(frozen=True, slots=True)
class LayerOrder:
    """One layer that somebody wants packed: how, and by when."""

    layer: SourceLayer
    options: PackOptions
    part: Part
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class LayerPacker:
    """Makes packs, each once, however many conversions want it at the same time."""

    store: PackStore
    executor: Executor
    compressors: Compressors
    limits: Limits

    async def pack(self, order: LayerOrder) -> PackKey:
        key = pack_key(order.layer.diff_id, order.options)
        async with self.store.building(key, order.deadline) as path:
            if path is None:
                order.part.cached = True
                order.part.done = order.part.total
            else:
                await self._stream(order, path)
        return key

    async def _stream(self, order: LayerOrder, path: Path) -> None:
        layer, part, deadline = order.layer, order.part, order.deadline
        # What is too large even packed is not worth its transfer.
        self.limits.check_bytes(layer.size)
        feed = Feed()
        cancelled = threading.Event()

        def work() -> None:
            pack_layer(
                feed,
                expected=LayerDigests(blob=layer.blob, diff_id=layer.diff_id, size=layer.size),
                options=order.options,
                out_path=path,
                compressors=self.compressors,
                limits=self.limits,
                on_progress=lambda done: setattr(part, "done", done),
                cancelled=cancelled,
            )

        packing = asyncio.get_running_loop().run_in_executor(self.executor, work)
        try:
            async with deadline.bound(f"packing layer {layer.name}"):
                try:
                    async with aclosing(layer.open(deadline)) as blob:
                        async for chunk in blob:
                            await feed.write(chunk)
                    await feed.finish()
                except FeedClosedError:
                    pass  # the packer gave up first: its own error, below, says why
                await asyncio.shield(packing)
        except BaseException as exc:
            cancelled.set()
            # In a thread CancelledError is nobody's task's end: it would be printed as a crash.
            given_up = isinstance(exc, asyncio.CancelledError)
            feed.fail(WorkCancelledError("packing the layer was cancelled") if given_up else exc)
            await ended(packing)
            raise
