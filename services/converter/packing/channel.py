"""A bounded queue between two threads that either can close, waking the other."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ChannelClosedError(Exception):
    """The other side has gone."""


class Channel(Generic[T]):
    """`put` waits for room, `get` for an item; both end with ChannelClosedError after `close`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._closed = False

    def put(self, item: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                raise ChannelClosedError
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> T | None:
        """The next item; None when `timeout` seconds brought none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items, timeout)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._closed:
                raise ChannelClosedError
            return None

    def close(self) -> None:
        """No more items: what was put before can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
