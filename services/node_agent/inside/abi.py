"""What an image brings that a module's libraries have to get along with: machine, libc, MPI.

All of it is read from the mounted image by `walk`, so no link of it leads out; only regular files
are opened, and of those a few bytes each. What cannot be read says nothing, and is no error; an
image in which looking takes for ever is.
"""

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from services.node_agent.errors import ElfError, InsideRefusedError
from services.node_agent.inside.elf import Elf, read_elf
from services.node_agent.inside.ldcache import LARGEST, paths_in
from services.node_agent.inside.module import Family
from shared.inside.errors import NotAssembledError
from shared.inside.walk import by_fd, opened, resolve

Version = tuple[int, int]

_CACHE: Final = "/etc/ld.so.cache"
_LIBC: Final = "libc.so.6"
_MPI_NAMES: Final = (
    *("libmpi.so.12", "libmpich.so.12", "libmpi.so.40", "libmpi.so.20"),
    # Of old: before MPICH's family agreed upon one ABI, and Open MPI before 2.
    *("libmpich.so.10", "libmpich.so.8", "libmpich.so.3", "libmpich.so.2", "libmpich.so.1"),
    *("libmpi.so.1", "libmpi.so.0"),
)
_MPI_NAME: Final = re.compile(r"lib(mpi|mpich)\.so\.([0-9]{1,3})")
_GLIBC: Final = re.compile(r"GLIBC_2\.([0-9]{1,3})(?:\.[0-9]+)?")
_TRIPLETS: Final = {"ppc64le": "powerpc64le-linux-gnu", "i686": "i386-linux-gnu"}
_MOST_DIRECTORIES: Final = 32
_LONGEST_PATH: Final = 512
_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Mpi:
    """A library that programs in the image were linked with."""

    family: Family
    number: int
    """Of its name: libmpi.so.40 has 40. Another number is another ABI."""
    path: str
    asks: Version | None = None
    """The C library that it needs at least."""

    @property
    def called(self) -> str:
        return f"{_called(self.family, self.number)} ({self.path.rpartition('/')[2]})"


@dataclass(frozen=True, slots=True)
class ImageAbi:
    """What was found; None and nothing where it was not."""

    machine: str | None = None
    libc: Literal["glibc", "musl"] | None = None
    libc_version: Version | None = None
    mpi: tuple[Mpi, ...] = ()


def look(image: Path, env: Iterable[str] = ()) -> ImageAbi:
    """Of a mounted image, whose own environment is `env`, NAME=VALUE. Blocks.

    Raises InsideRefusedError where the time does not suffice.
    """
    try:
        root = os.open(image, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ImageAbi()
    try:
        return _Image(root, env).abi()
    finally:
        os.close(root)


def mpi_of(elf: Elf, path: str) -> Mpi | None:
    """Which MPI a library is, by its name and by what it needs."""
    found = _MPI_NAME.fullmatch(elf.soname or path.rpartition("/")[2])
    if found is None:
        return None
    number = int(found[2])
    # Open MPI 1.10 took the name that MPICH's family has.
    open_mpi = any(name.startswith(("libopen-rte.", "libopen-pal.")) for name in elf.needed)
    mpich = found[1] == "mpich" or (number == 12 and not open_mpi)
    return Mpi("mpich" if mpich else "openmpi", number, path, latest(elf.asks))


def latest(versions: Iterable[str]) -> Version | None:
    """The latest of the C library's."""
    found = (_GLIBC.fullmatch(name) for name in versions)
    numbers = [int(match[1]) for match in found if match is not None]
    return (2, max(numbers)) if numbers else None


class _Image:
    def __init__(self, root: int, env: Iterable[str]) -> None:
        self._root = root
        self._end = time.monotonic() + _SECONDS
        with self._file(_CACHE) as fd:
            content = os.pread(fd, LARGEST, 0) if fd is not None else b""
        self._cache = paths_in(content, {_LIBC, *_MPI_NAMES})
        own = [entry.partition("=")[2] for entry in env if entry.startswith("LD_LIBRARY_PATH=")]
        named = [path for path in own[-1].split(":") if path.startswith("/")] if own else []
        named = [path for path in named if len(path) <= _LONGEST_PATH]
        self._named = tuple(named[:_MOST_DIRECTORIES])
        self._machine = os.uname().machine

    def abi(self) -> ImageAbi:
        libc = self._first(_LIBC, self._usual())
        programs = ("/bin/sh", "/bin/busybox", "/usr/bin/env")
        other = None if libc else next(filter(None, map(self._elf, programs)), None)
        musl = libc is None and any(
            self._elf(f"/lib/ld-musl-{machine}.so.1") for machine in (self._machine, "armhf")
        )
        machine = libc.machine if libc else other.machine if other else None
        return ImageAbi(
            machine=machine,
            libc="glibc" if libc else "musl" if musl else None,
            libc_version=latest(libc.offers) if libc else None,
            mpi=tuple(self._mpi()),
        )

    def _mpi(self) -> Iterator[Mpi]:
        homes = (f"{place}/{name}/lib" for place in self._usual() for name in ("mpich", "openmpi"))
        usual = (*self._named, *self._usual(), *homes, "/usr/lib/mpich/lib", "/usr/lib/openmpi/lib")
        found = (self._directory(path) for path in dict.fromkeys(usual))
        places = [path for path in dict.fromkeys(found) if path is not None]
        for name in _MPI_NAMES:
            path = next(self._paths(name, places), None)
            elf = self._elf(path) if path else None
            if elf is not None and path is not None:
                library = mpi_of(elf, path)
                if library is not None:
                    yield library

    def _first(self, name: str, places: Iterable[str]) -> Elf | None:
        found = (self._elf(path) for path in self._paths(name, places))
        return next((elf for elf in found if elf is not None), None)

    def _paths(self, name: str, places: Iterable[str]) -> Iterator[str]:
        """Where a library may be, and is a file."""
        for path in (*self._cache.get(name, ()), *(f"{place}/{name}" for place in places)):
            with self._file(path) as fd:
                if fd is not None:
                    yield path

    def _usual(self) -> tuple[str, ...]:
        triplet = _TRIPLETS.get(self._machine, f"{self._machine}-linux-gnu")
        names = (f"lib/{triplet}", f"usr/lib/{triplet}", "lib64", "usr/lib64", "lib", "usr/lib")
        return (*(f"/{name}" for name in names), "/usr/local/lib", "/usr/local/lib64")

    def _elf(self, path: str) -> Elf | None:
        with self._file(path) as fd:
            if fd is None:
                return None
            try:
                return read_elf(lambda at, size: os.pread(fd, size, at))
            except (ElfError, OSError):
                return None

    def _directory(self, path: str) -> str | None:
        """Where it really is in the image."""
        self._require_time()
        try:
            place = resolve(self._root, path)
        except (NotAssembledError, OSError, ValueError):
            return None
        return place.path if place.directory and not place.missing else None

    def _require_time(self) -> None:
        """A link of many words that leads to another such, and so on, costs more than it takes."""
        if time.monotonic() > self._end:
            raise InsideRefusedError(
                f"the image's C library and MPI could not be looked at within {_SECONDS:g} s, as "
                "the job's modules want it: try again, or run without them (--module=none)"
            )

    @contextmanager
    def _file(self, path: str) -> Iterator[int | None]:
        """A regular file of the image, opened; a device or a pipe never is."""
        self._require_time()
        fd = None
        try:
            place = resolve(self._root, path)
            if not place.missing:
                with opened(self._root, place.found) as named:
                    if stat.S_ISREG(os.fstat(named).st_mode):
                        fd = os.open(by_fd(named), os.O_RDONLY | os.O_CLOEXEC)
        except (NotAssembledError, OSError, ValueError):
            fd = None
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)


def _called(family: Family, number: int) -> str:
    if family == "mpich":
        return "MPICH or one of its kin" if number == 12 else "an MPICH of before 2014"
    versions = {40: "Open MPI 3, 4 or 5", 20: "Open MPI 2", 12: "Open MPI 1.10"}
    return versions.get(number, "an old Open MPI")
