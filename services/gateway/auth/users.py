"""Names and groups of user ids, as this machine knows them (NSS), kept for a while."""

import asyncio
import os
import pwd
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from services.gateway.auth.workers import Workers

KNOWN_SECONDS: Final = 300.0
UNKNOWN_SECONDS: Final = 30.0
"""Who is unknown may just have been added, or the directory was away."""
MOST: Final = 4096
_THREADS: Final = 4
_WAITING: Final = 512
_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class User:
    """A user id's name and groups; one that nobody knows is called by its number."""

    uid: int
    name: str
    gids: frozenset[int]
    known: bool


class Users:
    """Answers from memory where it can; else in threads, since a directory may hang."""

    def __init__(
        self,
        look_up: Callable[[int], User] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up or from_nss
        self._clock = clock
        self._kept: OrderedDict[int, tuple[float, User]] = OrderedDict()
        self._asking: dict[int, asyncio.Task[User]] = {}
        self._workers = Workers(
            "the directory of users", threads=_THREADS, waiting=_WAITING, seconds=_SECONDS
        )

    async def find(self, uid: int, gid: int | None) -> User:
        """The user, with the group that came along, which may be none of its usual ones."""
        user = self._fresh(uid)
        if user is None:
            user = await asyncio.shield(self._asking.get(uid) or self._ask(uid))
        return _with(user, gid)

    def at_hand(self, uid: int, gid: int | None) -> User | None:
        """The same, as far as it is in memory."""
        user = self._fresh(uid)
        return None if user is None else _with(user, gid)

    def close(self) -> None:
        self._workers.close()

    def _ask(self, uid: int) -> asyncio.Task[User]:
        """One question for all who want to know at the same time, as the ranks of a job do."""
        asking = asyncio.create_task(self._answer(uid), name=f"user-{uid}")
        self._asking[uid] = asking
        asking.add_done_callback(lambda _: self._asking.pop(uid))
        # Whoever waited may be gone before it fails.
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        return asking

    async def _answer(self, uid: int) -> User:
        user = await self._workers.run(lambda: self._look_up(uid))
        self._keep(user)
        return user

    def _fresh(self, uid: int) -> User | None:
        kept = self._kept.get(uid)
        return kept[1] if kept is not None and kept[0] > self._clock() else None

    def _keep(self, user: User) -> None:
        seconds = KNOWN_SECONDS if user.known else UNKNOWN_SECONDS
        self._kept[user.uid] = self._clock() + seconds, user
        self._kept.move_to_end(user.uid)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)


def _with(user: User, gid: int | None) -> User:
    if gid is None or gid in user.gids:
        return user
    return replace(user, gids=user.gids | {gid})


def from_nss(uid: int) -> User:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, str(uid), frozenset(), known=False)
    gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(uid, entry.pw_name, frozenset(gids), known=True)
