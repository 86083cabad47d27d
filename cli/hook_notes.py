"""Jobs that have ended while nobody was there to be told: notes of it, one small file each.

The next hook on the same machine that finds somebody tells him. Without a note, what such a job
held would be held for ever.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cli.errors import UsageError

SUFFIX: Final = ".ended"
AT_ONCE: Final = 64
"""A hook has other work to do."""
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\[\]-]{0,127}")


def checked(job_id: str) -> str:
    """The job's id, which may be used as a name of a file."""
    if not _JOB.fullmatch(job_id):
        raise UsageError(f"{job_id!r} is no job's id: give --job, or set SLURM_JOB_ID")
    return job_id


class Notes:
    """In one directory, which is made when there is something to note."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, job_id: str) -> None:
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._path(job_id).touch()

    def drop(self, job_id: str) -> None:
        """The id is in use again, or its end has been told."""
        with suppress(FileNotFoundError, NotADirectoryError):
            self._path(job_id).unlink()

    def tell(self, release: Callable[[str], None]) -> None:
        """Of the oldest ones; an error of `release` ends it, and keeps what is left."""
        with suppress(FileNotFoundError, NotADirectoryError):
            found = sorted(
                self._directory.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime
            )
            for path in found[:AT_ONCE]:
                release(path.name.removesuffix(SUFFIX))
                path.unlink(missing_ok=True)

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{checked(job_id)}{SUFFIX}"
