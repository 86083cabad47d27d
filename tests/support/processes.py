"""A server as a child process that a test can stop, kill, freeze and thaw."""

import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

STOP_SECONDS = 30.0
FREEZE_SECONDS = 10.0


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop every thread of it; the signal alone lets them run on for a moment."""
    process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + FREEZE_SECONDS
    while not _stopped(process.pid):
        assert time.monotonic() < end, f"process {process.pid} runs on after SIGSTOP"
        time.sleep(0.001)


def _stopped(pid: int) -> bool:
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            states.add(task.joinpath("stat").read_text().rpartition(")")[2].split()[0])
    return states == {"T"}


class ServerProcess:
    """Whoever derives from it starts `_process`."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it as a service manager does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop answering with every connection left open, as behind a broken network."""
        assert self._process is not None
        freeze(self._process)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        self._process = None
