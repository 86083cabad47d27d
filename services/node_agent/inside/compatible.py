"""Whether a module's libraries can work in an image, and if not, what its owner can do about it."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from services.node_agent.errors import ElfError, InsideRefusedError
from services.node_agent.inside.abi import ImageAbi, Mpi, Version, mpi_of
from services.node_agent.inside.elf import read_elf
from services.node_agent.inside.module import BindEntry, CopyEntry, Module

_WAY_OUT: Final = "or run without it (--module=none)"
_BRINGS: Final = {"mpich": "MPICH or one of its kin", "openmpi": "Open MPI"}
_BUILD: Final = {
    "mpich": "MPICH 3.1 or later, MVAPICH2 2 or Intel MPI 5 or later",
    "openmpi": "Open MPI",
}
_NAMES: Final = ("libmpi.so.*", "libmpich.so.*")
_MOST: Final = 64


def require_compatible(modules: Mapping[str, Module], image: ImageAbi) -> None:
    """Raises InsideRefusedError with what does not fit. Blocks: it reads the modules' libraries."""
    for name, module in modules.items():
        brought = next(_libraries(module), None) if module.mpi else None
        needed = _needed(module, brought)
        if module.mpi is None and needed is None:
            continue
        _require_machine(name, image)
        _require_libc(name, image, needed)
        if module.mpi is not None:
            _require_mpi(name, module, image, brought)


def _libraries(module: Module) -> Iterator[Mpi]:
    """The MPI that a module binds, by itself or in a directory, or copies."""
    places: tuple[BindEntry | CopyEntry, ...] = (*module.binds, *module.copies)
    for place in places:
        path = Path(place.source)
        inside = (path, path / "lib", path / "lib64")
        found = [each for at in inside for name in _NAMES for each in sorted(at.glob(name))]
        for file in (path, *found[:_MOST]):
            library = _library(file)
            if library is not None and library.family == module.mpi:
                yield library


def _library(path: Path) -> Mpi | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return mpi_of(read_elf(lambda at, size: os.pread(fd, size, at)), str(path))
    except (ElfError, OSError):
        return None
    finally:
        os.close(fd)


def _needed(module: Module, brought: Mpi | None) -> Version | None:
    """The C library that the module asks for: by its file, and by its MPI."""
    wanted: list[Version] = []
    if module.min_libc:
        major, _, minor = module.min_libc.partition(".")
        wanted.append((int(major), int(minor)))
    if brought is not None and brought.asks:
        wanted.append(brought.asks)
    return max(wanted, default=None)


def _require_machine(name: str, image: ImageAbi) -> None:
    here = os.uname().machine
    if image.machine not in {None, here}:
        raise InsideRefusedError(
            f"the image is for {image.machine}, and this node is {here}: pull it for this "
            f"platform; the module {name} brings libraries for {here}"
        )


def _require_libc(name: str, image: ImageAbi, needed: Version | None) -> None:
    if image.libc == "musl":
        raise InsideRefusedError(
            f"the image's C library is musl, as in Alpine, and what the module {name} brings needs "
            f"glibc: build the image from Debian, Rocky or the like, {_WAY_OUT}"
        )
    if needed is None or image.libc_version is None or image.libc_version >= needed:
        return
    raise InsideRefusedError(
        f"the image's C library is glibc {_dotted(image.libc_version)}, and what the module {name} "
        f"brings needs {_dotted(needed)} or later: build the image from a newer system, {_WAY_OUT}"
    )


def _require_mpi(name: str, module: Module, image: ImageAbi, brought: Mpi | None) -> None:
    """An image that has none to be found may have it where nobody looks, or in its programs."""
    assert module.mpi is not None
    if not image.mpi:
        return
    own = [library for library in image.mpi if library.family == module.mpi]
    if not own:
        raise InsideRefusedError(
            f"the image has {image.mpi[0].called}, and the module {name} brings "
            f"{_BRINGS[module.mpi]}: build the image with {_BUILD[module.mpi]}, choose another "
            f"module, {_WAY_OUT}"
        )
    number = brought.number if brought else 12 if module.mpi == "mpich" else None
    if number is None or any(library.number == number for library in own):
        return
    theirs = brought.called if brought else _BRINGS[module.mpi]
    raise InsideRefusedError(
        f"the image has {own[0].called}, whose programs cannot use what the module {name} brings, "
        f"{theirs}: build the image with that version, {_WAY_OUT}"
    )


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
