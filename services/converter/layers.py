"""One layer from where it lies into a pack of the store.

The source is read on the event loop; hashing, inflating and compressing happen in a process that
takes the bytes from a pipe. Whoever leaves here has no process running on behind it.
"""

from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from services.converter.origins import Origins
from services.converter.packers.packers import Packers
from services.converter.packing.limits import Limits
from services.converter.packing.stream import LayerDigests
from services.converter.sources.interface import SourceLayer
from shared.deadline import Deadline
from shared.image.packs.pack import pack_key
from shared.image.recipe import PackKey, PackOptions
from shared.progress import Part
from shared.store.store import PackStore


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
    packers: Packers
    limits: Limits
    origins: Origins | None = None
    """Of a store that users share; None: all that is in it is one user's own."""

    async def pack(self, order: LayerOrder) -> PackKey:
        key = pack_key(order.layer.diff_id, order.options)
        async with self.store.building(key, order.deadline) as path:
            if path is not None:
                await self._stream(order, path)
                await self._proved(key, order.layer)
                return key
        origins = self.origins
        if origins is not None and not await origins.allow(key, order.layer, order.deadline):
            # It may be somebody else's: whoever wants it must have it, too.
            async with origins.scratch(key) as scratch:
                await self._stream(order, scratch)
            await self._proved(key, order.layer)
            return key
        order.part.cached = True
        order.part.done = order.part.total
        return key

    async def _proved(self, key: PackKey, layer: SourceLayer) -> None:
        if self.origins is not None:
            await self.origins.note(key, layer)

    async def _stream(self, order: LayerOrder, path: Path) -> None:
        layer, part, deadline = order.layer, order.part, order.deadline
        # What is too large even packed is not worth its transfer.
        self.limits.check_bytes(layer.size)
        expected = LayerDigests(blob=layer.blob, diff_id=layer.diff_id, size=layer.size)
        async with (
            deadline.bound(f"packing layer {layer.name}"),
            self.packers.packing(
                layer.name,
                expected=expected,
                options=order.options,
                limits=self.limits,
                out_path=path,
            ) as work,
            aclosing(layer.open(deadline)) as blob,
        ):
            async for chunk in blob:
                if not await work.write(chunk):
                    break
                part.done += len(chunk)
            await work.finish()
