"""`lfs`, Lustre's program for users: what it is asked, and within which time.

The options are those of Lustre's manual pages: lfs-setstripe(1) `-c` count, `-S` bytes, `-i -1`
(the servers choose where to begin), `-p` pool; lfs-mirror-create(1) `-N` with the count right
behind it, and then the options of setstripe; lfs-mirror-resync(1); lfs-ladvise(1) `-a willread -b
-s 0 -e END`; lfs-getstripe(1) `--yaml`. Mirrors need Lustre 2.11, ladvise 2.9.

A program that hangs in the kernel cannot be killed: it is left to itself after its time, and what
it was to make may still come to be.
"""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from shared.errors import DrayError
from shared.layout import PlacedLayout
from shared.settings.layout import LayoutSettings

_POLL: Final = 0.05
_MOST_OUTPUT: Final = 1 << 20
_MOST_TOLD: Final = 300
_FIELD: Final = re.compile(
    r"^[\s-]*(lmm_stripe_count|lmm_stripe_size|lcm_mirror_count):\s*(\d+)\s*$"
)
_POOL: Final = re.compile(r"^[\s-]*lmm_pool:\s*(\S{1,64})\s*$")

Trouble = Literal["missing", "refused", "late"]


class LfsError(DrayError):
    """`lfs` did not do what it was asked."""

    code = "lfs_failed"

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble: Trouble = trouble


@dataclass(frozen=True, slots=True)
class Wanted:
    """A layout for a file that is about to be made; None: as its directory says."""

    stripes: int
    stripe_size: int | None = None
    pool: str | None = None
    mirrors: int = 1


def create_arguments(wanted: Wanted, path: Path) -> list[str]:
    """Make an empty file of this layout."""
    verb = ["setstripe"] if wanted.mirrors == 1 else ["mirror", "create", f"-N{wanted.mirrors}"]
    options = ["-c", str(wanted.stripes), "-i", "-1"]
    if wanted.stripe_size is not None:
        options += ["-S", str(wanted.stripe_size)]
    if wanted.pool is not None:
        options += ["-p", wanted.pool]
    return [*verb, *options, str(path)]


def read_arguments(path: Path) -> list[str]:
    return ["getstripe", "--yaml", str(path)]


def resync_arguments(path: Path) -> list[str]:
    return ["mirror", "resync", str(path)]


def warm_arguments(path: Path, size: int) -> list[str]:
    return ["ladvise", "-a", "willread", "-b", "-s", "0", "-e", str(size), str(path)]


def layout_in(told: str) -> PlacedLayout:
    """What `getstripe --yaml` said: of a plain layout, or of one with components and mirrors.

    Line by line, since what is around these lines differs between versions.
    """
    stripes: list[int] = []
    sizes: list[int] = []
    mirrors, pool = 1, None
    for line in told.splitlines():
        if found := _FIELD.match(line):
            match found[1], int(found[2]):
                case "lmm_stripe_count", number:
                    stripes.append(number)
                case "lmm_stripe_size", number:
                    sizes.append(number)
                case _, number:
                    mirrors = max(1, number)
        elif found := _POOL.match(line):
            pool = pool or found[1]
    widest = max(range(len(stripes)), key=stripes.__getitem__, default=None)
    size = sizes[widest] if widest is not None and len(sizes) == len(stripes) else None
    return PlacedLayout(
        stripes=None if widest is None else stripes[widest],
        stripe_size=size,
        pool=pool,
        mirrors=mirrors,
    )


class Lfs:
    """The program of one system. All of it blocks, and raises LfsError."""

    def __init__(self, settings: LayoutSettings, cancelled: threading.Event) -> None:
        self._program = settings.lfs
        self._seconds = settings.lfs_timeout
        self._cancelled = cancelled

    def create(self, wanted: Wanted, path: Path) -> None:
        self._run(create_arguments(wanted, path), self._seconds)
        if not path.is_file() or path.stat().st_size:
            raise LfsError("refused", f"{self._program} made no empty file at {path.name}")

    def read(self, path: Path) -> PlacedLayout:
        return layout_in(self._run(read_arguments(path), self._seconds))

    def resync(self, path: Path, seconds: float) -> None:
        """Copy what was written to the first mirror to the others. Nobody may have it open."""
        self._run(resync_arguments(path), seconds)

    def warm(self, path: Path, size: int) -> None:
        self._run(warm_arguments(path, size), self._seconds)

    def _run(self, arguments: Sequence[str], seconds: float) -> str:
        """What it said on its stdout."""
        doing = f"{self._program} {' '.join(arguments[:2])}"
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    [self._program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                    start_new_session=True,
                )
            except OSError as exc:
                raise LfsError("missing", f"{self._program}: {exc.strerror}") from exc
            status = self._wait(process, seconds)
            if status is None:
                _kill(process)
                raise LfsError("late", f"{doing} did not end within {seconds:g} s")
            if status:
                err.seek(0)
                said = err.read(_MOST_TOLD).decode(errors="replace").strip()
                raise LfsError("refused", f"{doing} ended with status {status}: {said}")
            out.seek(0)
            return out.read(_MOST_OUTPUT).decode(errors="replace")

    def _wait(self, process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while (status := process.poll()) is None:
            if time.monotonic() > end or self._cancelled.wait(_POLL):
                return None
        return status


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
