"""What other gateways changed in one collection, for those who keep a part of it in memory.

They hear of this process's changes by listening to the catalog. A document that is known in its
latest version is not read again.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from shared.catalog.interface import Changed, Collection

Part = TypeVar("Part", bound=BaseModel)

# Some milliseconds of reading between two moments at which others may go on.
PAGE: Final = 200


class Polled(Generic[Part]):
    """The order of changes of a collection, followed from look to look."""

    def __init__(
        self,
        collection: Collection[Any],
        kind: type[Part],
        wanted: Callable[[Changed], bool],
        note: Callable[[str, Part], None],
    ) -> None:
        self._collection = collection
        self._kind = kind
        self._wanted = wanted
        self._note = note
        self._position = 0

    async def begin(self) -> None:
        """What was changed before now will not be told."""
        self._position = await self._collection.position()

    async def look(self) -> None:
        changes, position = await self._collection.changed_since(self._position)
        keys = [each.key for each in changes if self._wanted(each)]
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            for key, part in await self._collection.outlines_of(self._kind, page):
                self._note(key, part)
        self._position = position


class Rounds:
    """One round at a time, for all who want one at that moment."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._began = float("-inf")
        self._running: asyncio.Task[None] | None = None

    async def within(self, seconds: float) -> None:
        """Return when a round has ended that began at most so long ago."""
        wanted = time.monotonic() - seconds
        while self._began < wanted:
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._round(), name="changes-round")
            await asyncio.shield(self._running)

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _round(self) -> None:
        began = time.monotonic()
        await self._work()
        self._began = began
