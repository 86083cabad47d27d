"""The owner's side of one process that reads files with somebody's rights. All of it blocks."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from services.converter.crossing import Crashed, encoded
from services.converter.user_files.errors import FilesHangError, UserProcessDiedError
from services.converter.user_files.messages import (
    MAX_PACKET,
    Become,
    Done,
    Run,
    answer_of,
    error_of,
)
from shared.logging import get_logger
from shared.models import Strict

log = get_logger(__name__)

START_SECONDS: Final = 30.0
_END_SECONDS: Final = 5.0
_PROGRAM: Final = "services.converter.user_files.child"


class Process:
    """Answers one question at a time."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, whom: Become | None) -> None:
        """As whom it shall be; None: as who we are."""
        command = [sys.executable, "-P", "-m", _PROGRAM, str(self._theirs.fileno())]
        with self._theirs:
            # It has nothing of ours: what it had, its user could find below /proc/self/fd.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._theirs.fileno()],
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        self.ask(whom or Become(uid=None), (), START_SECONDS)

    def run(self, job: str, order: bytes, fds: Sequence[int]) -> bytes:
        answer, _ = self.ask(Run(job=job, order=order.decode()), fds, None)
        return answer.answer.encode()

    def ask(
        self, message: Strict, fds: Sequence[int], seconds: float | None
    ) -> tuple[Done, list[int]]:
        """The answer, and the descriptors that came with it."""
        try:
            with self._asking:
                self._socket.settimeout(seconds)
                socket.send_fds(self._socket, [encoded(message)], fds)
                found, opened, _, _ = socket.recv_fds(self._socket, MAX_PACKET, 1)
        except TimeoutError as exc:
            self.kill()  # its answer must not be taken for that to another question
            raise FilesHangError(
                f"the file system of the file did not answer the converter within {seconds:g} s: "
                "see whether the file can be read, then import it again"
            ) from exc
        except OSError as exc:
            raise died() from exc
        try:
            return _done(found), opened
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise

    def kill(self) -> None:
        """Whoever waits for an answer gets an error."""
        with suppress(OSError):
            # Wakes a thread that is waiting, which closing alone would not.
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            # Without CAP_KILL another user's is not ours to kill; it ends when we hang up.
            with suppress(PermissionError):
                self._process.kill()

    def close(self) -> None:
        """It is gone afterwards, unless it hangs in a file system."""
        self._theirs.close()
        self.kill()
        with self._asking:
            self._socket.close()
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("user_process_hangs", pid=self._process.pid)


def _done(packet: bytes) -> Done:
    if not packet:
        raise died()
    answer = answer_of(packet)
    if isinstance(answer, Done):
        return answer
    if isinstance(answer, Crashed):
        log.error("user_process_crashed", traceback=answer.traceback)
    raise error_of(answer)


def _environment() -> dict[str, str]:
    """Ours, without settings and the secrets in them; it finds the modules where we found them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRAY_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def died() -> UserProcessDiedError:
    return UserProcessDiedError(
        "the process that read the file as its user is gone: import it again; if it stays so, the "
        "operator must look at the converter's log"
    )
