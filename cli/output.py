"""Where the output goes: what happens when it cannot be written, and how errors are told."""

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_READER_GONE, CliError, RefusedError
from cli.show import plain
from shared.errors import DrayError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT: Final = 1


class OutputLostError(CliError):
    """What a command has to say cannot be written to where stdout leads."""

    code = "output_lost"


class ReaderGoneError(CliError):
    """Who read the output has enough of it."""

    code = "reader_gone"
    exit_code = EXIT_READER_GONE


class _Raw(io.RawIOBase):
    """Names its errors: an OSError could as well come from what a command does."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return self._written(data)
        except BrokenPipeError as exc:
            raise ReaderGoneError("nobody reads the output any more") from exc
        except OSError as exc:
            raise OutputLostError(
                f"cannot write the output: {exc.strerror}; send it elsewhere"
            ) from exc

    def _written(self, data: "ReadableBuffer") -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                # Somebody else who has this terminal, or pipe, made it so.
                select.select([], [self._fd], [])


def guarded(command: Callable[[], None]) -> int:
    """The exit code of a whole run: every error is told, and all that was printed has arrived."""
    sys.stdout = _stdout()
    try:
        code = _run(command)
        sys.stdout.flush()
    except ReaderGoneError as exc:
        code = exc.exit_code
        _discard()
    except OutputLostError as exc:
        code = told(exc, exc.exit_code)
        _discard()
    return code


def _run(command: Callable[[], None]) -> int:
    try:
        command()
    except SystemExit as exc:
        return _code_of(exc)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ReaderGoneError, OutputLostError):
        raise
    except DrayError as exc:
        return told(exc, exc.exit_code if isinstance(exc, CliError) else EXIT_FAILED)
    except OSError as exc:
        # Of a file that somebody named, where no command has better words for it.
        complain(f"dray: {plain(exc.filename or 'here')}: {exc.strerror or exc} [os_error]")
        return EXIT_FAILED
    return 0


def told(exc: DrayError, code: int) -> int:
    """Say an error in one line on stderr, and return the exit code."""
    # It may quote what an image, a registry or an archive says.
    reason = exc.problem if isinstance(exc, RefusedError) else exc.code
    complain(f"dray: {plain(exc.message)} [{plain(reason)}]")
    return code


def complain(line: str) -> None:
    """One line on stderr; whoever closed that does not want to know."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError as exc:
        if exc.errno not in {errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO}:
            raise


def _stdout() -> io.TextIOWrapper:
    """As Python makes it, but for who is told what goes wrong with it."""
    if sys.stdout is None:  # it was closed when we started
        _discard()
    raw = _Raw(STDOUT)
    # What a terminal's alphabet lacks must not end a command.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(sys.stdout, "encoding", "utf-8"),
        errors="replace",
        line_buffering=raw.isatty(),
    )


def _discard() -> None:
    """Python flushes what is left when it ends: into nothing."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing != STDOUT:
        os.dup2(nothing, STDOUT)
        os.close(nothing)


def _code_of(exc: SystemExit) -> int:
    if exc.code is None or isinstance(exc.code, int):
        return exc.code or 0
    complain(str(exc.code))
    return EXIT_FAILED
