"""The process that has a user's rights: `python -m services.converter.user_files.child FD`.

It loads what it needs, becomes the user for good, and then opens files for its owner until that
one hangs up. It never has a descriptor that the user should not see: what it
could leak is what a path like /proc/self/fd/N would find.
"""

import os
import resource
import select
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from services.converter.crossing import encoded, told
from services.converter.user_files import here
from services.converter.user_files.jobs import JOBS
from services.converter.user_files.messages import (
    MAX_FDS,
    MAX_PACKET,
    Become,
    Done,
    Open,
    order_of,
)
from shared.errors import MissingDependencyError
from shared.image.codecs import load
from shared.linux import clear_capabilities, set_no_new_privileges, set_undumpable

NOBODYS_GROUP: Final = 65534
_CODECS: Final = ("isal.isal_zlib", "lz4.block", "lzma", "zstandard")


def main() -> None:
    owner = socket.socket(fileno=int(sys.argv[1]))
    for codec in _CODECS:  # which lie where the user may not be let in
        with suppress(MissingDependencyError):  # told by the job that needs it
            load(codec)
    try:
        whom = Become.model_validate_json(owner.recv(MAX_PACKET))
        if whom.uid is not None:
            become(whom.uid, whom.gids)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the owner hears of it
        owner.send(encoded(told(exc)))
        return
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    owner.send(encoded(Done()))
    while _served(owner):
        pass


def become(uid: int, gids: Sequence[int]) -> None:
    """Take these rights, and no way back; PermissionError if that cannot be."""
    os.chdir("/")
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() != uid:
        group = gids[0] if gids else NOBODYS_GROUP
        os.setgroups(gids)
        os.setresgid(group, group, group)
        os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid,) * 3 or uid == 0:
        raise PermissionError(1, "cannot become that user")
    set_no_new_privileges()
    # They go by themselves only where root becomes somebody else.
    clear_capabilities()
    # The user must not look into it, nor make it do anything: it was another's a moment ago.
    set_undumpable()


def _served(owner: socket.socket) -> bool:
    """One order; False if the owner has gone."""
    packet, fds, _, _ = socket.recv_fds(owner, MAX_PACKET, MAX_FDS)
    if not packet:
        return False
    opened: list[int] = []
    try:
        order = order_of(packet)
        if isinstance(order, Open):
            within = fds[0] if fds else None
            opening = here.open_file if order.do == "file" else here.open_directory
            opened.append(opening(order.path, within))
            answer = encoded(Done())
        else:
            found = JOBS[order.job](order.order.encode(), fds)
            answer = encoded(Done(answer=found.decode()))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the owner hears of it
        answer = encoded(told(exc))
    with suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(owner, [answer], opened)
    for fd in (*fds, *opened):
        with suppress(OSError):  # a job may have closed what it was given
            os.close(fd)
    return True


def _end_with(owner: socket.socket) -> None:
    """Nobody works for an owner that has gone."""
    watched = select.poll()
    watched.register(owner, 0)  # which is told of its end all the same
    watched.poll()
    os._exit(1)


if __name__ == "__main__":
    main()
