"""One time limit for all requests, with one timer for all of them.

A timer for each costs a request more than most of its answer does; and that a request which takes
half a minute is ended a moment later than it should matters to nobody.
"""

import asyncio
from typing import Final

from aiohttp import web

from shared.errors import DeadlineExceededError

_LOOKS: Final = 20
"""How often at least, within the limit, it is looked whether somebody is late."""


class TimeLimit:
    """Ends whatever takes longer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause = seconds / _LOOKS
        self._ends: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._armed = False

    def enter(self) -> asyncio.Task[object]:
        """The task at hand has so long from now on, until it leaves."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._ends[task] = loop.time() + self._seconds
        if not self._armed:
            self._armed = True
            loop.call_later(self._pause, self._look, loop)
        return task

    def leave(self, task: asyncio.Task[object]) -> None:
        del self._ends[task]
        self._late.discard(task)

    def ended(self, task: asyncio.Task[object]) -> bool:
        """Whether this limit alone cancelled it: then it may go on, to say so."""
        return task in self._late and task.uncancel() == 0

    def exceeded(self, request: web.Request) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"timed out after {self._seconds:g} s while answering {request.method} {request.path}"
        )

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        # In the order in which they began, which is that of their ends.
        for task, end in tuple(self._ends.items()):
            if end > now:
                break
            if task not in self._late:
                self._late.add(task)
                task.cancel()
        self._armed = bool(self._ends)
        if self._armed:
            loop.call_later(self._pause, self._look, loop)
