"""How far a conversion is, drawn as a pull is drawn; and what is told of it at its end."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from cli.answers import Layer, Progress
from cli.progress import Bars, Moment
from shared.progress import Part
from shared.states import State
from shared.tasks import cancel_all
from shared.waiting import Waits

INTERVAL: Final = 0.1
STAGES: Final = {
    State.PULLING: "reading layers",
    State.CONVERSION: "making one squashfs of them",
    State.TRANSFER: "writing and verifying the file",
}


@dataclass(slots=True)
class Watching:
    """What the conversion tells."""

    stage: State = State.PULLING
    parts: dict[str, Part] = field(default_factory=dict)
    whole: Part | None = None
    began: float = field(default_factory=time.monotonic)
    made: set[str] = field(default_factory=set)
    waits: Waits = field(default_factory=Waits)

    def expect(self, parts: dict[str, Part]) -> None:
        # After a repair the layers are gone through again, and most are found.
        self.note_made()
        self.parts = parts
        self.enter(State.PULLING)

    def enter(self, stage: State, whole: Part | None = None) -> None:
        self.stage, self.whole = stage, whole
        self.began = time.monotonic()

    def note_made(self) -> None:
        self.made.update(name for name, part in self.parts.items() if not part.cached)

    def now(self) -> Moment:
        parts = self.parts.values() if self.whole is None else (self.whole,)
        return Moment(self.stage, self._progress(parts))

    def _progress(self, parts: Iterable[Part]) -> Progress:
        parts = tuple(parts)
        fetched = sum(part.done for part in parts if not part.cached)
        return Progress(
            stage=self.stage,
            done=sum(min(part.done, part.total) for part in parts),
            total=sum(part.total for part in parts),
            rate=fetched / max(time.monotonic() - self.began, INTERVAL),
            layers=tuple(
                Layer(name, min(part.done, part.total), part.total, part.cached)
                for name, part in self.parts.items()
            ),
            waiting=self.waits.reason,
        )


class Meter:
    """Counts layers, and draws bars where somebody sees them."""

    def __init__(self, *, drawn: bool) -> None:
        self._drawn = drawn
        self._watching = Watching()

    @property
    def layers(self) -> int:
        return len(self._watching.parts)

    @property
    def reused(self) -> int:
        self._watching.note_made()
        return self.layers - len(self._watching.made)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watching]:
        if not self._drawn:
            yield self._watching
            return
        bars = Bars(stderr=True, meaning=STAGES)
        with bars.drawing, self._watching.waits.heard():
            task = asyncio.create_task(self._draw(bars))
            try:
                yield self._watching
            finally:
                await cancel_all(task)

    async def _draw(self, bars: Bars) -> None:
        while True:
            bars.update(self._watching.now())
            await asyncio.sleep(INTERVAL)
