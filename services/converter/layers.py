"""One layer from where it lies into a pack of the store.

The source is read on the event loop; hashing, inflating and compressing happen in a process that
takes the bytes from a pipe. Whoever leaves here has no process running on behind it.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from services.converter import measuring
from services.converter.origins import Origins
from services.converter.packers.packers import Packers
from services.converter.packing.limits import Limits
from services.converter.packing.pack_layer import PackSummary
from services.converter.packing.stream import LayerDigests
from services.converter.sources.interface import SourceLayer
from shared.deadline import Deadline
from shared.files import move_durably
from shared.image.packs.pack import pack_key
from shared.image.recipe import PackKey, PackOptions
from shared.models import Digest, Sha256
from shared.progress import Part
from shared.store.stamps import note_stamp, read_stamp
from shared.store.store import PackStore


@dataclass(frozen=True, slots=True)
class LayerOrder:
    """One layer that somebody wants packed: how, and by when."""

    layer: SourceLayer
    options: PackOptions
    part: Part
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer that is in the store."""

    key: PackKey
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class LayerPacker:
    """Makes packs, each once, however many conversions want it at the same time."""

    store: PackStore
    packers: Packers
    limits: Limits
    origins: Origins | None = None
    """Of a store that users share; None: all that is in it is one user's own."""

    async def pack(self, order: LayerOrder) -> PackedLayer:
        layer = order.layer
        if layer.stamp is not None:
            return await self._stamped(order, layer.stamp)
        assert layer.diff_id is not None
        return PackedLayer(await self._promised(order, layer.diff_id), layer.diff_id)

    async def _promised(self, order: LayerOrder, diff_id: Digest) -> PackKey:
        key = pack_key(diff_id, order.options, literal=order.layer.literal)
        was_there = await asyncio.to_thread(self.store.pack_path(key).exists)
        async with self.store.building(key, order.deadline) as path:
            if path is not None:
                measuring.packed(await self._stream(order, path))
                await self._proved(key, order.layer)
                return key
        origins = self.origins
        if origins is not None and not await origins.allow(key, order.layer, order.deadline):
            # It may be somebody else's: whoever wants it must have it, too.
            async with origins.scratch(key) as scratch:
                measuring.packed(await self._stream(order, scratch), proved=True)
            await self._proved(key, order.layer)
            return key
        _reused(order, awaited=not was_there)
        return key

    async def _stamped(self, order: LayerOrder, stamp: Sha256) -> PackedLayer:
        """Its digest is what comes out; or what came out when it looked the same before."""
        root, options, literal = self.store.root, order.options, order.layer.literal
        name = pack_key(f"stamp:{stamp}", options, literal=literal)
        async with self.store.making(name, order.deadline) as unnamed:
            known = await asyncio.to_thread(read_stamp, root, stamp)
            if known is not None:
                key = pack_key(known, options, literal=literal)
                if await asyncio.to_thread(self.store.use_pack, key):
                    _reused(order)
                    return PackedLayer(key, known)
            made = await self._stream(order, unnamed)
            measuring.packed(made)
            async with self.store.building(made.key, order.deadline) as path:
                if path is not None:
                    await asyncio.to_thread(move_durably, unnamed, path)
            await asyncio.to_thread(note_stamp, root, stamp, made.diff_id)
        order.part.done = order.part.total
        return PackedLayer(made.key, made.diff_id)

    async def _proved(self, key: PackKey, layer: SourceLayer) -> None:
        if self.origins is not None:
            await self.origins.note(key, layer)

    async def _stream(self, order: LayerOrder, path: Path) -> PackSummary:
        layer = order.layer
        # What is too large even packed is not worth its transfer.
        self.limits.check_bytes(layer.size)
        size = layer.size if layer.stamp is None else None
        expected = LayerDigests(blob=layer.blob, diff_id=layer.diff_id, size=size)
        with measuring.packing():
            return await self._packed(order, path, expected)

    async def _packed(self, order: LayerOrder, path: Path, expected: LayerDigests) -> PackSummary:
        layer, part, deadline = order.layer, order.part, order.deadline
        async with (
            deadline.bound(f"packing layer {layer.name}"),
            self.packers.packing(
                layer.name,
                expected=expected,
                options=order.options,
                limits=self.limits,
                out_path=path,
                literal=layer.literal,
            ) as work,
            aclosing(layer.open(deadline)) as blob,
        ):
            async for chunk in blob:
                measuring.fetched(len(chunk))
                if not await work.write(chunk):
                    break
                part.done = min(part.total, part.done + len(chunk))
            return await work.finish()


def _reused(order: LayerOrder, *, awaited: bool = False) -> None:
    measuring.reused(order.layer.size, awaited=awaited)
    order.part.cached = True
    order.part.done = order.part.total
