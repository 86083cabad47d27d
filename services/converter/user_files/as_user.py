"""Files of the user who imports them, opened by processes that have this user's rights.

Whose rights a converter can take is decided here. Where it has the capabilities CAP_SETUID and
CAP_SETGID, as root has: any person's, but not those of root, of the machine's services or its own,
whose files are the site's secrets. Else nobody's but its own: it could not tell what else it may
read from what the user may.
"""

import asyncio
import fcntl
import os
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.converter.user_files.errors import NotAsThisUserError, PlaceNotAllowedError
from services.converter.user_files.messages import Become, Open
from services.converter.user_files.process import START_SECONDS, Process, died
from shared.deadline import Deadline
from shared.linux import (
    CAP_SETGID,
    CAP_SETUID,
    PROC_SUPER_MAGIC,
    filesystem_type,
    has_capabilities,
)
from shared.threads import in_thread

OPEN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class User:
    """Whose files, and the groups that count for them."""

    uid: int
    gids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Users:
    """All of them. `places` are the directories to read from; none given: anywhere."""

    places: tuple[Path, ...] = ()
    min_uid: int = 1000
    """Below are users that are services."""

    @asynccontextmanager
    async def files(self, user: User, deadline: Deadline) -> AsyncIterator["AsUser"]:
        """No process is left afterwards, also none that is at work."""
        self._check_possible(user)
        files = AsUser(user, await asyncio.to_thread(_resolved, self.places))
        try:
            start = deadline.sooner(START_SECONDS)
            doing = "starting to read files as their user"
            await in_thread(files.start, threading.Event(), start, doing)
            yield files
        finally:
            await asyncio.to_thread(files.close)

    def _check_possible(self, user: User) -> None:
        own = os.geteuid()
        if user.uid == 0:
            raise NotAsThisUserError(
                "files are not imported with root's rights, which reach the site's secrets: "
                "import as an ordinary user who may read the file"
            )
        if has_capabilities(CAP_SETUID, CAP_SETGID):
            if user.uid == own or user.uid < self.min_uid:
                raise NotAsThisUserError(
                    f"files are not imported for uid {user.uid}, which is a service's and no "
                    "person's; if it is a person's, the operator must lower "
                    "converter.import_min_uid"
                )
        elif user.uid != own:
            raise NotAsThisUserError(
                f"this converter runs as uid {own}, which cannot tell what uid {user.uid} may "
                "read: the operator must give it CAP_SETUID and CAP_SETGID, or run it as root, "
                "to import for others; else push the image to a registry and pull it"
            )


class AsUser:
    """As UserFiles: one process opens, and each job has another."""

    def __init__(self, user: User, places: tuple[str, ...]) -> None:
        self.scope = f"user {user.uid}"  # with a space, as no registry is called
        self._whom = Become(uid=user.uid, gids=user.gids)
        self._places = places
        self._opening = Process()
        self._working: set[Process] = set()
        self._changing = threading.Lock()
        self._closed = False

    def start(self) -> None:
        self._opening.start(self._whom)

    def open_file(self, path: str | Path, *, within: int | None = None) -> int:
        return self._opened(Open(do="file", path=str(path)), within, stat.S_IFREG)

    def open_directory(self, path: str | Path, *, within: int | None = None) -> int:
        return self._opened(Open(do="directory", path=str(path)), within, stat.S_IFDIR)

    def run(self, job: str, order: bytes, fds: Sequence[int]) -> bytes:
        process = Process()
        try:
            with self._changing:
                if self._closed:
                    raise died()
                self._working.add(process)
            process.start(self._whom)
            return process.run(job, order, fds)
        finally:
            process.close()
            with self._changing:
                self._working.discard(process)

    def close(self) -> None:
        with self._changing:
            self._closed = True
            working = tuple(self._working)
        for process in working:
            process.kill()
        self._opening.close()

    def _opened(self, order: Open, within: int | None, kind: int) -> int:
        _, fds = self._opening.ask(order, () if within is None else (within,), OPEN_SECONDS)
        if len(fds) != 1:
            raise died()
        try:
            self._check(fds[0], order.path, kind)
        except BaseException:
            os.close(fds[0])
            raise
        return fds[0]

    def _check(self, fd: int, path: str, kind: int) -> None:
        """What came is looked at again: this, and no name, is what will be read."""
        readable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if stat.S_IFMT(os.fstat(fd).st_mode) != kind or not readable:
            raise died()
        place = Path(f"/proc/self/fd/{fd}").readlink()
        known = any(f"{place}/".startswith(allowed) for allowed in self._places) and _is_ours(fd)
        if filesystem_type(fd) == PROC_SUPER_MAGIC or (self._places and not known):
            where = ", ".join(each.rstrip("/") for each in self._places)
            raise PlaceNotAllowedError(
                f"{path} is not where this site imports from: copy it to a place below "
                f"{where or 'a directory of yours'}"
            )


def _is_ours(fd: int) -> bool:
    """Whether its mount is one of this machine's: in a namespace of their own, where anybody can
    enter by /proc/PID/root, a user calls any directory by any name.
    """
    about = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    found = about.partition("mnt_id:")[2].split()[0].encode()
    with Path("/proc/self/mountinfo").open("rb") as mounts:
        return any(line.split(b" ", 1)[0] == found for line in mounts)


def _resolved(places: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(f"{os.path.realpath(place).rstrip('/')}/" for place in places)
