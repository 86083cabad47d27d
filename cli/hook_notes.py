"""Jobs that have ended while nobody was there to be told: notes of it, one small file each.

The next hook on the same machine that finds somebody tells him. Without a note, what such a job
held would be held for ever.
"""

import errno
import os
import pwd
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cli.errors import CliError, UsageError
from shared.errors import DrayError

SUFFIX: Final = ".ended"
AT_ONCE: Final = 64
"""A hook has other work to do."""
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\[\]-]{0,127}")


class NotesUnusableError(CliError):
    """The directory of the notes cannot be written by whom the hook runs as."""

    code = "notes_unusable"


def checked(job_id: str) -> str:
    """The job's id, which may be used as a name of a file."""
    if not _JOB.fullmatch(job_id):
        raise UsageError(f"{job_id!r} is no job's id: give --job, or set SLURM_JOB_ID")
    return job_id


class Notes:
    """In one directory, which is made when there is something to note."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def kept(self, job_id: str) -> Iterator[None]:
        """Note the job's end if the body cannot tell it; its error says if that failed, too."""
        try:
            yield
        except DrayError as exc:
            try:
                self.add(job_id)
            except NotesUnusableError as trouble:
                exc.message = (
                    f"{exc.message}; and the end of job {job_id} cannot be noted for later: "
                    f"{trouble.message}"
                )
            raise

    def add(self, job_id: str) -> None:
        path = self._path(job_id)
        with self._usable():
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.touch()

    def drop(self, job_id: str) -> bool:
        """The id is in use again, or its end has been told. Whether there was a note."""
        path = self._path(job_id)
        with self._usable():
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def tell(self, release: Callable[[str], None]) -> None:
        """Of the oldest ones; an error of `release` ends it, and keeps what is left."""
        with self._usable():
            try:
                found = sorted(
                    self._directory.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime
                )
            except (FileNotFoundError, NotADirectoryError):
                return
            if found and not os.access(self._directory, os.W_OK):
                # They would be told again and again, also when their ids are in use again.
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        for path in found[:AT_ONCE]:
            release(path.name.removesuffix(SUFFIX))
            with self._usable():
                path.unlink(missing_ok=True)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise NotesUnusableError(
                f"{exc.strerror or exc}: give {_user()} a directory to write to "
                f"(install -d -o {_user()} -m 755 {self._directory})"
            ) from exc

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{checked(job_id)}{SUFFIX}"


def _user() -> str:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
