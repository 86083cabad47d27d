"""The process that packers are forked from: `python -m services.converter.packers.nursery FD`.

It has one thread, so that forking it is safe, and has loaded what packers need, so that one costs
milliseconds. It knows nothing of layers: it hands two descriptors to each packer, tells its owner
how each one ended, and ends when its owner has and the last of them.
"""

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

from services.converter.crossing import encoded
from services.converter.packers.child import live
from services.converter.packers.messages import MAX_PACKET, Ended, Unstarted
from shared.errors import MissingDependencyError
from shared.image.codecs import load
from shared.linux import clear_capabilities

_CODECS: Final = ("isal.igzip_lib", "isal.isal_zlib", "zstandard")
# Whoever stops a service tells all of its processes; when packers end is its owner's affair.
_OWNERS_AFFAIR: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Nursery:
    """Forks on request, and waits for those it has forked."""

    def __init__(self, owner: socket.socket) -> None:
        self._owner = owner
        self._packers: dict[int, socket.socket] = {}
        self._woken, self._waking = socket.socketpair()
        self._woken.settimeout(0)
        self._waking.settimeout(0)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        ready = select.poll()
        ready.register(self._owner, select.POLLIN)
        ready.register(self._woken, select.POLLIN)
        wanted = True
        while wanted or self._packers:
            for fd, _ in ready.poll():
                if fd == self._woken.fileno():
                    self._woken.recv(MAX_PACKET)
                    self._bury()
                elif not self._fork_one():
                    wanted = False
                    ready.unregister(self._owner)

    def _fork_one(self) -> bool:
        """False if the owner has gone."""
        try:
            order, fds, _, _ = socket.recv_fds(self._owner, MAX_PACKET, 2)
        except ConnectionResetError:
            return False
        if not order:
            return False
        if len(fds) < 2:  # no room for them here: the owner sees that its end is closed
            for fd in fds:
                os.close(fd)
            return True
        pipe, results = fds[0], socket.socket(fileno=fds[1])
        try:
            pid = os.fork()
        except OSError as exc:
            _tell(results, Unstarted(reason=str(exc)))
            results.close()
        else:
            if pid == 0:
                self._forget()
                live(order, pipe, results)
            self._packers[pid] = results
        os.close(pipe)
        return True

    def _forget(self) -> None:
        """A packer that kept the others' sockets would hide their end."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for kept in (self._owner, self._woken, self._waking, *self._packers.values()):
            kept.close()

    def _bury(self) -> None:
        while self._packers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._packers.pop(pid) as results:
                _tell(results, Ended(status=os.waitstatus_to_exitcode(status)))


def _tell(owner: socket.socket, message: Ended | Unstarted) -> None:
    with suppress(OSError):  # who has hung up does not want to know
        owner.send(encoded(message))


def main() -> None:
    for number in _OWNERS_AFFAIR:
        signal.signal(number, signal.SIG_IGN)
    if os.geteuid() != 0:
        clear_capabilities()  # what a converter may have is for imports, not for what packs layers
    owner = socket.socket(fileno=int(sys.argv[1]))
    for codec in _CODECS:
        with suppress(MissingDependencyError):  # told by the packer that needs it
            load(codec)
    # What is there by now is there for good: a collector that looked at it would copy its pages.
    gc.collect()
    gc.freeze()
    Nursery(owner).run()
    os._exit(0)  # without taking the interpreter to pieces, for which an owner may be waiting


if __name__ == "__main__":
    main()
