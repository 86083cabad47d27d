"""The root directory of the inside: the image's own entries, and a place for each mount.

The image cannot be written to, and has no place for most of what is mounted. So the root is a small
tmpfs in which each entry of the image's root is mounted again; a directory further down gets an
overlay, where, and only where, a place in it is missing. All else is read straight from the image.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared import linux
from shared.inside.errors import NotAssembledError
from shared.inside.walk import Place, by_fd, make_place, opened, opened_entry

_MOST_ENTRIES: Final = 4096
_LARGEST: Final = "1g"
"""Of what is made or copied for an inside; it can be written to by nobody afterwards."""
_SAFE: Final = linux.MS_NOSUID | linux.MS_NODEV
_IMAGE: Final = linux.MS_RDONLY | _SAFE
# What a remount must repeat, lest it try to take it away: statvfs and mount use the same bits.
_KEPT_FLAGS: Final = _IMAGE | linux.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class Wanted:
    """A place that must be there, for a directory or a file."""

    place: Place
    directory: bool


def restrict(fd: int, flags: int) -> None:
    """Add flags to the mount that `fd` is the root of."""
    flags |= os.statvfs(fd).f_flag & _KEPT_FLAGS
    linux.mount("none", by_fd(fd), flags=linux.MS_REMOUNT | linux.MS_BIND | flags)


def build(image: int, at: str, wanted: Iterable[Wanted], *, in_user_namespace: bool) -> int:
    """Mount the root over the directory `at`; returns it, opened, still writable.

    `image` is the image's root directory, which may be `at` itself.
    """
    needs = tuple(wanted)
    overlays = _overlays(needs)
    scratch = _tmpfs(at)
    try:
        root = _tmpfs(at)
        try:
            covered = {need.place.names[0] for need in needs if len(need.place.names) == 1}
            _mirror(image, root, covered)
            for number, names in enumerate(overlays):
                _overlay(image, scratch, root, names, number, in_user_namespace=in_user_namespace)
            for need in needs:
                if need.place.missing or len(need.place.names) == 1:
                    _make(root, need)
            for names in overlays:
                with opened(root, names) as fd:
                    restrict(fd, _IMAGE)
        except BaseException:
            os.close(root)
            raise
    finally:
        os.close(scratch)
    return root


def _overlays(needs: Iterable[Wanted]) -> list[tuple[str, ...]]:
    """The directories of the image that lack a place, but for those in another one of them."""
    lacking = {need.place.found for need in needs if need.place.missing and need.place.found}
    chosen: list[tuple[str, ...]] = []
    for names in sorted(lacking):
        if not any(names[: len(above)] == above for above in chosen):
            chosen.append(names)
    return chosen


def _tmpfs(at: str) -> int:
    linux.mount("tmpfs", at, "tmpfs", _SAFE, f"mode=0755,size={_LARGEST}")
    return os.open(at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _mirror(image: int, root: int, covered: set[str]) -> None:
    listing = os.open(by_fd(image), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = os.listdir(listing)  # noqa: PTH208 - a descriptor has no other way
    finally:
        os.close(listing)
    if len(names) > _MOST_ENTRIES:
        raise NotAssembledError(
            f"the image's root directory has {len(names)} entries, and {_MOST_ENTRIES} may be"
        )
    for name in names:
        if name in covered:
            continue
        with opened_entry(image, name) as fd:
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(name, dir_fd=image), name, dir_fd=root)
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                make_place(root, (name,), directory=stat.S_ISDIR(mode))
                with opened(root, (name,)) as place:
                    linux.mount(by_fd(fd), by_fd(place), flags=linux.MS_BIND)
                with opened(root, (name,)) as bound:
                    restrict(bound, _IMAGE)


def _overlay(
    image: int,
    scratch: int,
    root: int,
    names: tuple[str, ...],
    number: int,
    *,
    in_user_namespace: bool,
) -> None:
    for kind in ("upper", "work"):
        os.mkdir(f"{kind}{number}", 0o755, dir_fd=scratch)
    with opened(image, names) as lower, opened(root, names) as place:
        own = os.fstat(lower)
        os.chmod(f"upper{number}", stat.S_IMODE(own.st_mode), dir_fd=scratch)
        options = (
            f"lowerdir={by_fd(lower)},upperdir={by_fd(scratch)}/upper{number},"
            f"workdir={by_fd(scratch)}/work{number}"
        )
        if in_user_namespace:
            options += ",userxattr"
        try:
            linux.mount("overlay", by_fd(place), "overlay", _SAFE, options)
        except OSError as exc:
            raise NotAssembledError(
                f"the image has no place for everything in /{'/'.join(names)}, and this kernel "
                f"makes none by an overlay ({exc.strerror}): make the mount points in the image "
                "(RUN mkdir -p …), or choose places right below '/'"
            ) from exc


def _make(root: int, need: Wanted) -> None:
    names = need.place.names
    if need.place.missing:
        with opened(root, need.place.found) as start:
            make_place(start, need.place.missing, directory=need.directory)
    else:
        make_place(root, names, directory=need.directory)
