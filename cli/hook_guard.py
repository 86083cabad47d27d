"""What every hook has around it: a limit to its time, and an end that harms no node.

A scheduler drains the node or holds the job of a hook that hangs or fails. So a hook of ours says
what is wrong, to the log and to who started it, and ends with 0 all the same.
"""

import signal
import syslog
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from cli.errors import EXIT_FAILED, CliError
from cli.output import complain
from cli.show import plain
from shared.errors import DrayError

IDENT: Final = "dray-hook"


class OutOfTimeError(CliError):
    """The hook's time is over."""

    code = "out_of_time"


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Break off whatever still waits then; only the main thread can."""

    def over(*_: Any) -> None:
        raise OutOfTimeError(f"{what} took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def harmless(work: Callable[[], None], *, strict: bool) -> int:
    """The exit code: 0 whatever happens, unless the caller wants to know."""
    try:
        work()
    except DrayError as exc:
        report(one_line(exc))
        code = exc.exit_code if isinstance(exc, CliError) else EXIT_FAILED
    except Exception as exc:  # noqa: BLE001 - a fault of ours must not take a node away, either
        report(f"{type(exc).__name__}: {exc}")
        code = EXIT_FAILED
    else:
        return 0
    return code if strict else 0


def report(message: str) -> None:
    """To the system's log, and to stderr, which schedulers keep in different places, or nowhere."""
    line = plain(message)
    syslog.openlog(IDENT, syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING, line)
    complain(f"dray: {line}")


def one_line(exc: DrayError) -> str:
    return " ".join(exc.message.split())


@contextmanager
def in_one_line() -> Iterator[None]:
    """What a user sees among a scheduler's own messages has no line breaks."""
    try:
        yield
    except DrayError as exc:
        exc.message = one_line(exc)
        raise
