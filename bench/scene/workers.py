"""Converters and distributors that only say what they would do: real events, no bytes."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bench.scene.cast import SECOND_SYSTEM, SYSTEM, TROUBLES, WAITING
from bench.scene.content import Content, Layer, content, sha
from bench.scene.dead import UNDIGESTIBLE
from shared.bus.interface import Bus, Consumer
from shared.bus.topology import CONVERTER_CHECKS, CONVERTER_PULLS, distributor_queue
from shared.deadline import Deadline
from shared.events import (
    AnyEvent,
    Counted,
    Event,
    ImageChanged,
    ImageConverted,
    ImagePlaced,
    LayerProgress,
    PlacementRequested,
    PullEvent,
    PullFailed,
    PullProgressed,
    PullRequested,
    ReadersChanged,
    RefreshRequested,
    StorageReported,
)
from shared.states import State

TICK: Final = 0.5
GIB: Final = 1 << 30
CONVERTER_SLOTS: Final = 22
DISTRIBUTOR_SLOTS: Final = 4
_PLACING_RATE: Final = 0.9e9
_ROOM: Final = ((SYSTEM, 263, 1_300, 2_900), (SECOND_SYSTEM, 42, 215, 96))
"""Of each image directory: images, and GiB that they take and that are free."""
_TROUBLES: Final = {trouble.reference: trouble for trouble in TROUBLES}


class Workers:
    """All converters and distributors of the site, as one service."""

    name = "workers"

    def __init__(
        self,
        bus: Bus,
        systems: tuple[str, ...],
        seed: int,
        *,
        head_start: int,
        slots: int,
        places: int,
    ) -> None:
        """The first `head_start` pulls are found half-way, as on a day that has long begun."""
        self._bus = bus
        self._systems = systems
        self._rng = Random(seed)
        self._head_start = head_start
        self._slots = slots
        self._places = places
        self._consumers: list[Consumer] = []
        self._died: dict[str, int] = {}

    async def start(self, deadline: Deadline) -> None:
        del deadline
        queues = [(CONVERTER_PULLS, self._slots), (CONVERTER_CHECKS, 4)]
        queues += [(distributor_queue(system), self._places) for system in self._systems]
        self._consumers = [
            await self._bus.consume(queue, self._handle, slots=slots) for queue, slots in queues
        ]
        for system, items, held, free in _ROOM:
            await self._say(
                StorageReported(
                    correlation_id=system,
                    system=system,
                    counted=Counted(items=items, bytes=held * GIB),
                    free_bytes=free * GIB,
                    reserve_bytes=50 * GIB,
                )
            )
        packs = Counted(items=640, bytes=548 * GIB)
        store = sha("store")[:16]
        await self._say(
            StorageReported(correlation_id=store, store=store, counted=packs, free_bytes=818 * GIB)
        )

    async def stop(self, deadline: Deadline) -> None:
        del deadline
        now = Deadline.after(0)
        await asyncio.gather(*(consumer.stop(now) for consumer in self._consumers))

    async def _handle(self, event: AnyEvent) -> None:
        match event:
            case PullRequested():
                await self._convert(event)
            case RefreshRequested():
                moved = content(event.reference).recipe().source.reference
                await self._say(ImageChanged(**event.context, reference_digest=moved))
            case PlacementRequested():
                await self._place(event)
            case ReadersChanged():
                self._stumble(event)
            case _:
                return

    def _stumble(self, event: ReadersChanged) -> None:
        """Dies as an event does that nobody can digest; replayed, it is digested."""
        if not event.correlation_id.startswith(UNDIGESTIBLE):
            return
        tries = self._died.get(event.id, 0)
        self._died[event.id] = tries + 1
        if tries < 4:
            raise OSError("the metadata server does not answer")

    async def _convert(self, event: PullRequested) -> None:
        wanted = content(event.reference)
        if await self._troubled(event, wanted):
            return
        rng = Random(f"{event.key} {event.attempt}")
        pull = _Pull(event, wanted, rate=rng.uniform(30e6, 170e6), rng=rng)
        if self._head_start > 0:
            self._head_start -= 1
            pull.skip(self._rng.uniform(0.02, 0.75))
        async for report in pull.reports():
            await self._say(report)
            await asyncio.sleep(TICK)
        authenticated = "#" in event.key  # an owner's: see image_key
        converted = ImageConverted(
            **event.context, recipe=wanted.recipe(), authenticated=authenticated
        )
        await self._say(converted)

    async def _troubled(self, event: PullRequested, wanted: Content) -> bool:
        trouble = _TROUBLES.get(event.reference)
        if trouble is not None:
            await asyncio.sleep(TICK)
            said = {"code": trouble.code, "message": trouble.message}
            await self._say(PullFailed(**event.context, **said, retryable=trouble.retryable))
            return True
        waiting = WAITING.get(event.reference)
        while waiting is not None:
            some = int(wanted.blobs * 0.31)
            await self._say(
                PullProgressed(
                    **event.context,
                    stage=State.PULLING,
                    done=some,
                    total=wanted.blobs,
                    layers=_parts(wanted.layers, some),
                    waiting=waiting,
                )
            )
            await asyncio.sleep(10)
        return False

    async def _place(self, event: PlacementRequested) -> None:
        size = event.recipe.size
        for done in range(0, size, int(_PLACING_RATE * TICK)):
            await self._say(
                PullProgressed(
                    **event.context,
                    stage=State.TRANSFER,
                    done=done,
                    total=size,
                    rate=_PLACING_RATE,
                )
            )
            await asyncio.sleep(TICK)
        await self._say(
            ImagePlaced(
                **event.context,
                system=event.system,
                image_id=event.recipe.image_id,
                content_digest=event.recipe.content_digest,
                size=size,
            )
        )

    async def _say(self, event: Event) -> None:
        await self._bus.publish(event, Deadline.after(10))


@dataclass(slots=True)
class _Pull:
    """One pull on its way, tick by tick."""

    event: PullEvent
    wanted: Content
    rate: float
    rng: Random
    done: float = field(init=False)
    ticks: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.done = sum(layer.blob for layer in self.wanted.layers if layer.of_base)

    def skip(self, share: float) -> None:
        self.done += (self.wanted.blobs - self.done) * share

    async def reports(self) -> AsyncIterator[PullProgressed]:
        total = self.wanted.blobs
        while self.done < total:
            yield self._report(State.PULLING, int(self.done), total, self._now())
            self.done += self._now() * TICK
            self.ticks += 1
        if self.rng.random() < 0.3:
            for _ in range(self.rng.randint(4, 12)):
                yield self._report(State.EXAMINATION, total, total, 0.0)
        packed = sum(layer.pack for layer in self.wanted.layers)
        for done in range(0, packed, int(450e6 * TICK)):
            yield self._report(State.CONVERSION, done, packed, 450e6)

    def _now(self) -> float:
        return self.rate * (1 + 0.3 * math.sin(self.ticks / 3 + self.rate))

    def _report(self, stage: State, done: int, total: int, rate: float) -> PullProgressed:
        return PullProgressed(
            **self.event.context,
            stage=stage,
            done=done,
            total=total,
            rate=round(rate, 1),
            layers=_parts(self.wanted.layers, int(self.done)),
        )


def _parts(layers: tuple[Layer, ...], done: int) -> tuple[LayerProgress, ...]:
    """Three layers at a time come in; those of base images are there already."""
    parts, left = [], done
    for layer in layers:
        some = layer.blob if layer.of_base else min(layer.blob, left)
        left -= min(layer.blob, left)
        parts.append(
            LayerProgress(digest=layer.digest, done=some, total=layer.blob, cached=layer.of_base)
        )
    return tuple(parts)
