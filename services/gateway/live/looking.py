"""What many follow is looked at once for all of them, and not at all while nobody follows."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from services.gateway.feed import TooManyFollowersError
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.tasks import cancel_all

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

FOLLOWERS_AT_ONCE: Final = 1000


class GatewayStoppingError(DrayError):
    """The gateway is being stopped: what is followed goes on at another one, or soon here."""

    code = "gateway_stopping"
    status = 503
    retryable = True


@dataclass(eq=False, slots=True)
class Seen(Generic[V]):
    """What was seen last of one thing. Who follows several has one event for all of them."""

    value: V | None = None
    error: Exception | None = None
    followers: set[asyncio.Event] = field(default_factory=set)
    looking: asyncio.Task[None] | None = None

    def now(self) -> V | None:
        """None: nothing yet. An error, if there is nothing more to be seen."""
        if self.error is not None:
            raise self.error
        return self.value

    def wake(self) -> None:
        for event in self.followers:
            event.set()


class Looking(Generic[K, V]):
    """Looks at things for those who follow them.

    `look` yields what is to be seen of one thing, again whenever that has changed, at its own pace.
    """

    def __init__(
        self, look: Callable[[K], AsyncGenerator[V, None]], most: int = FOLLOWERS_AT_ONCE
    ) -> None:
        self._look = look
        self._most = most
        self._seen: dict[K, Seen[V]] = {}
        self._followers = 0
        self._stopped = False

    def __len__(self) -> int:
        """At how many things it looks."""
        return len(self._seen)

    async def stop(self) -> None:
        """Nobody follows any more, so that a server that stops need not wait for them."""
        self._stopped = True
        for seen in list(self._seen.values()):
            seen.error = _stopping()
            seen.wake()
        tasks = [each.looking for each in self._seen.values() if each.looking is not None]
        await cancel_all(*tasks)

    @contextmanager
    def following(self, key: K, news: asyncio.Event, *, free: bool = False) -> Iterator[Seen[V]]:
        """`news` is set whenever there is something else to be seen.

        `free` does not count: operators look just when there are too many.
        """
        if self._stopped:
            raise _stopping()
        if not free and self._followers >= self._most:
            raise TooManyFollowersError(
                f"this gateway has {self._most} followers already; ask now and then instead, or "
                "follow at another gateway"
            )
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = Seen()
            seen.looking = asyncio.create_task(self._run(key, seen), name="looking")
        elif seen.value is not None:
            news.set()
        self._followers += not free
        seen.followers.add(news)
        try:
            yield seen
        finally:
            self._followers -= not free
            seen.followers.discard(news)
            if not seen.followers:
                self._leave(key, seen)

    async def _run(self, key: K, seen: Seen[V]) -> None:
        try:
            async with aclosing(self._look(key)) as values:
                async for value in values:
                    seen.value = value
                    seen.wake()
        except Exception as exc:  # noqa: BLE001 - it is theirs who follow
            seen.error = exc
            seen.wake()
            self._forget(key, seen)  # who comes from now on has it looked at anew

    def _leave(self, key: K, seen: Seen[V]) -> None:
        if seen.looking is not None:
            seen.looking.cancel()
        self._forget(key, seen)

    def _forget(self, key: K, seen: Seen[V]) -> None:
        if self._seen.get(key) is seen:
            del self._seen[key]


def _stopping() -> GatewayStoppingError:
    return GatewayStoppingError("this gateway is being stopped: follow again in a moment")


async def heard(news: asyncio.Event, deadline: Deadline) -> bool:
    """Wait for news; False: it is the end of the time, whatever there is still to be told."""
    if deadline.expired:
        return False
    try:
        async with asyncio.timeout(deadline.remaining()):
            await news.wait()
    except TimeoutError:
        return False
    news.clear()
    return True
