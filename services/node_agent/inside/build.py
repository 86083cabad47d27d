"""Puts one inside together: `python -m services.node_agent.inside.build FD`, as root.

A process of its own, since a thread cannot change its user and its namespaces without the others.
First a mount namespace, whose root is the image; then, for those who enter without privileges, a
copy of it in a user namespace that is the user's own. In a copy for others than root the kernel
locks all mounts: nobody can take one away there, or a flag of one. The agent pins both meanwhile.
"""

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Final

from services.node_agent.inside.disk import mount_disk
from services.node_agent.inside.order import (
    MAX_PACKET,
    MOUNTS_READY,
    USERS_READY,
    BuildOrder,
    Disk,
    refusal,
)
from services.node_agent.inside.younger import unshare_mounts
from shared import linux
from shared.errors import DrayError
from shared.inside.assemble import assemble, open_path
from shared.inside.enter import change_root
from shared.inside.errors import VolumeRefusedError
from shared.inside.plan import Plan

_UMASK: Final = 0o022


def build(order: BuildOrder, agent: socket.socket) -> None:
    os.umask(_UMASK)
    unshare_mounts()
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)

    disks = {disk.name: _mounted(order, disk) for disk in order.disks}

    def open_source(path: str, of_user: bool) -> int:  # noqa: FBT001 - as `Open` has it
        if path in disks:
            return disks[path]
        return _open_as(order, path) if of_user else open_path(path)

    inside = assemble(Plan.from_json(order.plan), open_source, in_user_namespace=False)
    sys.excepthook = _end_without_reading
    change_root(inside)
    os.close(inside)
    agent.send(MOUNTS_READY)
    # Without an agent nobody pins what is made.
    if agent.recv(MAX_PACKET) and order.for_users:
        linux.become_with_capabilities(order.uid, order.gid, list(order.gids))
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        agent.send(USERS_READY)
        agent.recv(MAX_PACKET)


def _end_without_reading(kind: type[BaseException], exc: BaseException, _: object) -> None:
    """A traceback shows lines of source files, by decoders that these name: the image's by now."""
    os.write(2, f"{kind.__name__}: {exc}\n".encode("utf-8", "replace"))
    os._exit(1)


def _mounted(order: BuildOrder, disk: Disk) -> int:
    """Its root. It is mounted where nobody but root could lead us elsewhere."""
    called = f"{disk.directory} (perNodeCache)"
    try:
        directory = _open_as(order, disk.directory, writable=True)
    except OSError as exc:
        raise VolumeRefusedError(
            f"volume {called}: you cannot write there on this node ({exc.strerror})"
        ) from exc
    try:
        at = Path(order.place) / disk.name
        at.mkdir(mode=0o700)
        return mount_disk(directory, called, disk.size, (order.uid, order.gid), at)
    finally:
        os.close(directory)


def _open_as(order: BuildOrder, path: str, *, writable: bool = False) -> int:
    """Opened with the user's rights and with nothing of ours at hand, whatever the path is."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        pid = os.fork()
        if pid == 0:
            _open_and_exit(order, path, theirs, writable=writable)
        theirs.close()
        packet, fds, _, _ = socket.recv_fds(ours, 16, 1)
        os.waitpid(pid, 0)
    if fds:
        return fds[0]
    number = int(packet or b"0") or 5  # EIO: it ended without a word
    raise OSError(number, os.strerror(number), path)


def _open_and_exit(order: BuildOrder, path: str, answer: socket.socket, *, writable: bool) -> None:
    try:
        os.closerange(0, answer.fileno())
        os.closerange(answer.fileno() + 1, 1 << 16)
        os.setgroups(list(order.gids))
        os.setresgid(order.gid, order.gid, order.gid)
        os.setresuid(order.uid, order.uid, order.uid)
        linux.die_with_parent()
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | (os.O_DIRECTORY if writable else 0))
        if writable and not os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        socket.send_fds(answer, [b"0"], [fd])
    except OSError as exc:
        answer.send(str(exc.errno).encode())
    finally:
        os._exit(0)


def main() -> None:
    agent = socket.socket(fileno=int(sys.argv[1]))
    order = BuildOrder.unpacked(agent.recv(MAX_PACKET))
    try:
        build(order, agent)
    except DrayError as exc:
        agent.send(refusal(exc.message))
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        what = f"the image could not be furnished on this node: {exc.strerror}{where}"
        agent.send(refusal(what))


if __name__ == "__main__":
    main()
