"""What the collections of one catalog share: the store, its time limit, and who is told.

Every call to the database runs in a task of its own: a caller that is cancelled, or out of time,
stops waiting, but neither leaves half a transaction behind nor breaks a connection.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from shared.catalog.interface import ChangeListener, PendingEvent
from shared.catalog.records import Record
from shared.catalog.store import Store
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, DeadlineExceededError
from shared.logging import get_logger
from shared.metrics import CATALOG_SECONDS

T = TypeVar("T")

MOST_CALLS = 4096
"""Calls that a silent database may leave waiting before new ones are refused at once."""

log = get_logger(__name__)


class Session:
    """What the collections of one catalog share: the store, its time limit, the listeners."""

    def __init__(self, store: Store, timeout: float) -> None:
        self.store = store
        self.listeners: list[ChangeListener] = []
        self._timeout = timeout
        self._calls: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def answering(self, doing: str, deadline: Deadline | None) -> AsyncIterator[None]:
        """Bound the body, which only waits for the database, and blame the database."""
        try:
            async with (deadline or Deadline.after(self._timeout)).bound(doing):
                yield
        except DeadlineExceededError as exc:
            message = (
                f"{self.store.place} does not answer: {exc.message}; is it overloaded or down?"
            )
            raise CatalogUnavailableError(message) from exc

    async def ask(
        self, doing: str, call: Coroutine[object, object, T], deadline: Deadline | None = None
    ) -> T:
        """Wait for a call that goes on to its end even if nobody waits for it any more."""
        if len(self._calls) >= MOST_CALLS:
            call.close()
            message = (
                f"{self.store.place} is too slow: {len(self._calls)} calls wait for it already"
            )
            raise CatalogUnavailableError(message)
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        task.add_done_callback(partial(_measure, time.perf_counter()))
        async with self.answering(doing, deadline):
            return await asyncio.shield(task)

    async def drain(self) -> None:
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._timeout)

    def tell(self, record: Record, pending: tuple[PendingEvent, ...]) -> None:
        for listener in self.listeners:
            try:
                listener(record, pending)
            except Exception:  # the change is true already; the outbox makes up for the listener
                log.exception("change_listener_failed", key=record.key)


def _measure(began: float, done: asyncio.Task[object]) -> None:
    failed = done.cancelled() or done.exception() is not None
    CATALOG_SECONDS.labels("failed" if failed else "done").observe(time.perf_counter() - began)
