"""A command in an image as a child, for a caller that has something to do afterwards.

Signals go to the command, and its end becomes ours: its exit status, or 128 + the signal's number
as a shell says it.
"""

import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from cli import enter as entering
from cli.enter import EnterError
from cli.errors import EXIT_NOT_RUN

_KILLED_BY: Final = 128
FORWARDED: Final = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
    }
)


def run_inside(
    root: Path, command: Sequence[str], *, env: Mapping[str, str], workdir: str | None = None
) -> int:
    """Run the command in the image and wait for its end; an EnterError if it never began."""
    watched = FORWARDED | {signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take the status with it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        reading, writing = os.pipe()  # closed by exec: then the command has begun
        child = os.fork()
        if child == 0:
            os.close(reading)
            for number in FORWARDED:
                if callable(signal.getsignal(number)):  # the caller's; what is ignored stays so
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            _enter_or_report(writing, root, command, env, workdir)
        os.close(writing)
        status = _wait(child, watched)
        with open(reading, "rb") as report:  # noqa: PTH123 - a descriptor
            _raise_reported(report.read())
        return status
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, watched: frozenset[signal.Signals]) -> int:
    while True:
        arrived = signal.sigwaitinfo(watched)
        if arrived.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else _KILLED_BY - code
        elif arrived.si_code <= 0:
            # Sent by a process, to us. What the terminal sends, the command has got as well.
            os.kill(child, arrived.si_signo)


def _enter_or_report(
    writing: int,
    root: Path,
    command: Sequence[str],
    env: Mapping[str, str],
    workdir: str | None,
) -> NoReturn:
    """In the child: never returns into the caller's code, whatever happens."""
    try:
        entering.enter(root, command, env=env, workdir=workdir)
    except EnterError as exc:
        os.write(writing, f"{type(exc).__name__}\n{exc.message}".encode())
    except BaseException:  # noqa: BLE001 - nothing may leave this process but its end
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(EXIT_NOT_RUN)


def _raise_reported(report: bytes) -> None:
    if report:
        name, _, message = report.decode("utf-8", "replace").partition("\n")
        kinds: list[type[EnterError]] = [EnterError, *EnterError.__subclasses__()]
        raise next(kind for kind in kinds if kind.__name__ == name)(message)
