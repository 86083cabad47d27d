"""Changes of many documents, written together for little more than the price of one.

Ten thousand nodes answer at the same moment: while a batch is being written, the next one gathers.
Whoever asked goes on when its own change is durable, so an event is acknowledged no earlier.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from shared.catalog.interface import Change, Collection, Step
from shared.catalog.records import Record
from shared.deadline import Deadline
from shared.errors import ConflictError
from shared.events import Event
from shared.tasks import cancel_all

R = TypeVar("R", bound=Record)

AT_ONCE: Final = 100
"""Some ten milliseconds of computing, between two moments at which others may go on."""
MOST_ROUNDS: Final = 20
_PAUSE: Final = 0.01


@dataclass(eq=False, slots=True)
class _Wish(Generic[R]):
    """One change that somebody waits for."""

    key: str
    step: Step[R]
    done: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, error: Exception | None = None) -> None:
        if self.done.done():
            return  # nobody waits any more
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Batches(Generic[R]):
    """What is asked for at once is written at once."""

    def __init__(self, collection: Collection[R], timeout: float) -> None:
        self._collection = collection
        self._timeout = timeout
        self._waiting: deque[_Wish[R]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def change(self, key: str, step: Step[R]) -> None:
        """As `Collection.change`; several steps for one document are taken in their order."""
        wish = _Wish(key, step)
        self._waiting.append(wish)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="batches")
        await wish.done

    async def stop(self) -> None:
        if self._writing is not None:
            await cancel_all(self._writing)

    async def _write(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                await self._write_batch(batch)
            except Exception as exc:  # noqa: BLE001 - it is theirs who wait for it
                for wish in batch:
                    wish.settle(exc)
            except BaseException:
                for wish in (*batch, *self._waiting):
                    wish.done.cancel()
                raise

    async def _write_batch(self, batch: list[_Wish[R]]) -> None:
        wishes: dict[str, list[_Wish[R]]] = {}
        for wish in batch:
            wishes.setdefault(wish.key, []).append(wish)
        steps = {key: _one_step(wish.step for wish in those) for key, those in wishes.items()}
        deadline = Deadline.after(self._timeout)
        async for written in _rounds(self._collection, steps, deadline):
            for key in written:
                for wish in wishes.pop(key):
                    wish.settle()
        for key, those in wishes.items():
            for wish in those:
                wish.settle(_conflict([key]))


async def change_every(
    collection: Collection[R], steps: Mapping[str, Step[R]], deadline: Deadline
) -> None:
    """`Collection.change_all`, again for what others changed meanwhile."""
    left = set(steps)
    async for written in _rounds(collection, steps, deadline):
        left -= written
    if left:
        raise _conflict(sorted(left))


async def _rounds(
    collection: Collection[R], steps: Mapping[str, Step[R]], deadline: Deadline
) -> AsyncGenerator[set[str], None]:
    """What was written in each round, until that is all, or it is given up."""
    left = set(steps)
    for number in range(MOST_ROUNDS):
        overtaken = await collection.change_all({key: steps[key] for key in left}, deadline)
        yield left - overtaken
        left = overtaken
        if not left or deadline.expired:
            return
        await asyncio.sleep(random.uniform(0, _PAUSE * min(number + 1, 10)))


def _one_step(steps: Iterable[Step[R]]) -> Step[R]:
    """One after the other, as if each had been written."""
    in_order = tuple(steps)
    if len(in_order) == 1:
        return in_order[0]

    def step(found: R | None) -> Change[R] | None:
        record, events = found, list[Event]()
        for each in in_order:
            change = each(record)
            if change is not None:
                record = change.record
                events += change.events
        return None if record is None or record is found else Change(record, tuple(events))

    return step


def _conflict(keys: list[str]) -> ConflictError:
    return ConflictError(
        f"{len(keys)} records, such as {keys[0]}, were changed by others again and again; try again"
    )
