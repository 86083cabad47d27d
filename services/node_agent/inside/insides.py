"""The insides of this node: one for each image of a job and each way in which it is wanted.

All ranks of the job share it. It ends with its job, and outlives the agent: pinned namespaces need
nobody.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from services.node_agent.entries import Entries
from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.builder import Patience, build
from services.node_agent.inside.hooks import Hooks
from services.node_agent.inside.order import BuildOrder, Disk
from services.node_agent.inside.pins import ALIAS, Pins
from services.node_agent.threads import DaemonThreads
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.inside.manifest import Manifest
from shared.inside.people import Person
from shared.inside.plan import Plan
from shared.logging import get_logger
from shared.models import ImageId, JobId

log = get_logger(__name__)

_THREADS: Final = 16
_FILE_THREADS: Final = 2
_MOST_OF_A_USER: Final = 4
"""At a time: what one user wants may hang, and others wait for nobody."""
_MOST_OF_A_JOB: Final = 64
_MOST_HERE: Final = 512
"""Of one user: each takes mounts, of which a node has a hundred thousand for all."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One inside: what is mounted in it, what it says of itself, and whose it is."""

    plan: Plan
    person: Person
    manifest: Manifest
    hooks: Hooks | None = None
    disks: tuple[Disk, ...] = ()

    @property
    def digest(self) -> str:
        files = sorted(self.manifest.files().items())
        what = f"{self.person.uid} {self.person.gid} {self.plan.to_json()} {files!r} {self.disks!r}"
        return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Insides:
    """All of them, by name: the job's, and a digest of what it is."""

    def __init__(
        self, pins: Pins, *, user_namespaces: bool, entries: Entries | None = None
    ) -> None:
        """`entries` is to notice who comes in."""
        self._pins = pins
        self._entries = entries
        self._user_namespaces = user_namespaces
        self._building: dict[str, asyncio.Task[Path]] = {}
        self._given_up: dict[str, threading.Event] = {}
        self._users: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()
        # A file system that a user wants may hang for ever.
        self._threads = DaemonThreads(_THREADS, "inside")
        self._files = DaemonThreads(_FILE_THREADS, "pins")

    async def have(
        self, job_id: JobId, wish: Wish, deadline: Deadline, image: ImageId | None = None
    ) -> Path:
        """Where its namespaces are pinned; it is put together for the first who asks.

        With an image it is the job's own of that image, and found by its name as well.
        """
        name = f"{job_id}.{wish.person.uid}.{wish.digest}"
        task = self._building.get(name)
        if task is None:
            self._given_up[name] = given_up = threading.Event()
            task = asyncio.create_task(self._have(name, wish, given_up, deadline), name=name)
            self._building[name] = task
            task.add_done_callback(lambda _: self._forget(name))
        async with deadline.bound("furnishing the image on this node"):
            place = await asyncio.shield(task)
            if image is not None:
                alias = f"{job_id}{ALIAS}{image}"
                await self._files.run(lambda: self._pins.call(name, alias))
        return place

    async def end(self, job_id: JobId) -> None:
        """The job is over. Whoever is inside stays, and nobody else comes in."""
        for name, given_up in self._given_up.items():
            if _job(name) == job_id:
                given_up.set()
        under_way = [task for name, task in self._building.items() if _job(name) == job_id]
        if under_way:
            await asyncio.wait(under_way)
        await self._files.run(self._remove, lambda job: job == job_id)
        if self._entries is not None:
            self._entries.ended(job_id)

    async def adopt(self, running: Iterable[JobId]) -> None:
        """What an earlier agent left: kept where its job still runs."""
        kept = frozenset(running)
        await self._files.run(self._remove, lambda job: job not in kept)

    def _forget(self, name: str) -> None:
        self._building.pop(name, None)
        self._given_up.pop(name, None)

    async def _have(
        self, name: str, wish: Wish, given_up: threading.Event, deadline: Deadline
    ) -> Path:
        place = self._pins.directory / name
        whole = await self._files.run(lambda: self._pins.is_whole(name))
        if not whole:
            async with self._user(wish.person.uid):
                await self._files.run(lambda: self._require_room(name))
                if wish.hooks is not None:
                    await wish.hooks.run_before(deadline)
                await self._threads.run(lambda: self._build(name, wish, given_up, deadline))
                if wish.hooks is not None:
                    await self._run_after(name, wish.hooks, deadline)
            await self._files.run(lambda: self._pins.conclude(name))
            if self._entries is not None:
                self._entries.watch(_job(name), place)
        return place

    def _user(self, uid: int) -> asyncio.Semaphore:
        return self._users.setdefault(uid, asyncio.Semaphore(_MOST_OF_A_USER))

    def _build(self, name: str, wish: Wish, given_up: threading.Event, deadline: Deadline) -> None:
        patience = Patience(time.monotonic() + deadline.remaining(), given_up)
        build(self._pins, name, self._order(wish), wish.manifest.files(), patience)

    async def _run_after(self, name: str, hooks: Hooks, deadline: Deadline) -> None:
        """Nobody was told of it yet: where a hook fails, it never was."""
        try:
            await hooks.run_after(self._pins.directory / name, deadline)
        except BaseException:
            await self._files.run(lambda: self._pins.remove(name))
            raise

    def _require_room(self, name: str) -> None:
        """Of each user: what others made under a job's id does not count."""
        theirs = [_whose(each) for each in self._pins.names if _whose(each)[1] == _whose(name)[1]]
        if theirs.count(_whose(name)) >= _MOST_OF_A_JOB:
            raise InsideRefusedError(
                f"you have put images of job {_job(name)} together in {_MOST_OF_A_JOB} ways on "
                "this node: use the same volumes and modules for all ranks"
            )
        if len(theirs) >= _MOST_HERE:
            raise InsideRefusedError(
                f"your jobs have put images together in {_MOST_HERE} ways on this node: end some"
            )

    def _order(self, wish: Wish) -> BuildOrder:
        return BuildOrder(
            plan=wish.plan.to_json(),
            uid=wish.person.uid,
            gid=wish.person.gid,
            gids=wish.person.gids,
            disks=wish.disks,
            for_users=self._user_namespaces and wish.person.uid != 0,
        )

    def _remove(self, over: Callable[[str], bool]) -> None:
        for name in self._pins.names:
            if not over(_job(name)):
                continue
            try:
                self._pins.remove(name)
            except (DrayError, OSError) as exc:
                log.warning("inside_stays", inside=name, error=str(exc))
        self._pins.close()


def _job(name: str) -> str:
    return _whose(name)[0]


def _whose(name: str) -> tuple[str, str]:
    """The job and the user; an alias is nobody's, nor is what somebody else has left there.

    No job's id has the mark of an alias in it, and neither a digest nor a user a dot.
    """
    job, mark, _ = name.partition(ALIAS)
    if mark:
        return job, ""
    job, uid, *_ = (*name.rsplit(".", 2), "")
    return job, uid
