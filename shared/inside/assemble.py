"""Carries a plan out: the inside of an image, in a mount namespace that nobody else sees.

Root does it for a job, once on each node; anybody can do it in a user namespace of their own. What
is in the image can lead it nowhere: see `walk`.
"""

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from shared import linux
from shared.inside import skeleton
from shared.inside.errors import NotAssembledError, VolumeRefusedError
from shared.inside.plan import Bind, Copy, Devices, Mount, Node, Plan, Text, Tmpfs
from shared.inside.rules import in_system, require_free
from shared.inside.skeleton import Wanted, restrict
from shared.inside.walk import Place, by_fd, make_place, opened, parts, resolve

Open = Callable[[str, bool], int]
"""Opens a path of the host for its name alone; with True by the rights of the job's user."""

_SAFE: Final = linux.MS_NOSUID | linux.MS_NODEV
_OVERLAYS_FOR_USERS: Final = (5, 11)
"""Since this kernel a user may mount one in a namespace of their own."""
_LARGEST_COPY: Final = 128 << 20
_CHUNK: Final = 1 << 20
_DEV_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


@dataclass(frozen=True, slots=True)
class _Step:
    """A mount with its place in the image, and its source where it has one."""

    mount: Mount
    place: Place
    directory: bool
    source: int | None = None
    within: Mount | None = None
    """The earlier one that its place is in."""


def open_path(path: str, _: bool = False) -> int:  # noqa: FBT001, FBT002 - as `Open` has it
    """By one's own rights."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def assemble(plan: Plan, open_source: Open = open_path, *, in_user_namespace: bool) -> int:
    """The root directory of the inside, opened; it is mounted over the image's own directory."""
    overlays = not in_user_namespace or _kernel() >= _OVERLAYS_FOR_USERS
    with ExitStack() as kept:
        image = os.open(plan.image, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        kept.callback(os.close, image)
        steps: list[_Step] = []
        for mount in plan.mounts:
            step = _prepared(mount, plan, image, open_source, steps, overlays=overlays)
            if step is not None:
                steps.append(step)
                if step.source is not None:
                    kept.callback(os.close, step.source)
        at = os.path.realpath(plan.image)
        wanted = [Wanted(step.place, step.directory) for step in steps if step.within is None]
        root = skeleton.build(image, at, wanted, in_user_namespace=in_user_namespace)
        with ExitStack() as failed:
            failed.callback(os.close, root)
            for step in steps:
                _carry_out(step, root)
            restrict(root, linux.MS_RDONLY | _SAFE)
            failed.pop_all()
        return root


def _prepared(
    mount: Mount,
    plan: Plan,
    image: int,
    open_source: Open,
    earlier: list[_Step],
    *,
    overlays: bool,
) -> _Step | None:
    try:
        place = _place_of(mount, plan, image)
    except NotAssembledError:
        if _optional(mount):
            return None
        raise
    within = _outermost(place, earlier)
    overlaid = bool(place.found and place.missing) and within is None
    if overlaid and _optional(mount) and not overlays:
        return None
    source = _source_of(mount, open_source)
    if source is None and isinstance(mount, Bind | Copy):
        return None
    directory = not isinstance(mount, Text | Copy)
    if isinstance(mount, Bind) and source is not None:
        directory = stat.S_ISDIR(os.fstat(source).st_mode)
    fits = bool(place.missing) or len(place.names) == 1 or place.directory == directory
    if fits or within is not None:
        return _Step(mount, place, directory, source, within)
    if source is not None:
        os.close(source)
    if _optional(mount):
        return None
    kinds = ("directory", "file") if directory else ("file", "directory")
    raise VolumeRefusedError(f"{mount.target} of the image is a {kinds[1]}, and no {kinds[0]}")


def _optional(mount: Mount) -> bool:
    return isinstance(mount, Bind | Text | Copy) and mount.optional


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _place_of(mount: Mount, plan: Plan, image: int) -> Place:
    """What stands right below the root is replaced, were it a link; links further down are read."""
    below_root = len([name for name in mount.target.split("/") if name]) == 1
    place = resolve(image, mount.target, to_itself=below_root)
    if not place.names:
        raise NotAssembledError(f"{mount.target} is the image's root, where nothing is mounted")
    if isinstance(mount, Bind) and mount.of_user:
        require_free(place.path, plan.reserved, written=mount.target)
    elif isinstance(mount, Bind | Copy) and in_system(place.path) and not in_system(mount.target):
        raise NotAssembledError(
            f"{mount.target} is {place.path} in this image, where nothing is mounted that was not "
            "meant to be: build the image without that link"
        )
    return place


def _outermost(place: Place, earlier: list[_Step]) -> Mount | None:
    for step in earlier:
        names = step.place.names
        if len(names) < len(place.names) and place.names[: len(names)] == names:
            return step.mount
    return None


def _source_of(mount: Mount, open_source: Open) -> int | None:
    """What of the host is bound or copied, opened."""
    if not isinstance(mount, Bind | Copy):
        return None
    of_user = isinstance(mount, Bind) and mount.of_user
    try:
        source = (
            open_source(mount.source, mount.of_user or mount.as_user)
            if isinstance(mount, Bind)
            else os.open(mount.source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        )
    except OSError as exc:
        if mount.optional:
            return None
        if of_user:
            raise VolumeRefusedError(
                f"volume {mount.source}:{mount.target}: {mount.source} cannot be had on this node "
                f"({exc.strerror})"
            ) from exc
        raise NotAssembledError(f"cannot open {mount.source}: {exc.strerror}") from exc
    if _usable(mount, os.fstat(source)):
        return source
    os.close(source)
    if mount.optional:
        return None
    if isinstance(mount, Copy):
        raise NotAssembledError(
            f"{mount.source} is no file of at most {_LARGEST_COPY >> 20} MiB: bind it, and do not "
            "copy it"
        )
    raise VolumeRefusedError(f"{mount.source} is neither a directory nor a regular file")


def _usable(mount: Bind | Copy, found: os.stat_result) -> bool:
    regular = stat.S_ISREG(found.st_mode)
    if isinstance(mount, Copy):
        return regular and found.st_size <= _LARGEST_COPY
    if mount.devices or regular or stat.S_ISDIR(found.st_mode):
        return True
    return stat.S_ISSOCK(found.st_mode) and not mount.of_user


def _carry_out(step: _Step, root: int) -> None:
    mount, names = step.mount, step.place.names
    if step.within is not None and not isinstance(step.within, Bind):
        make_place(root, names, directory=step.directory)
    try:
        with opened(root, names) as place:
            match mount:
                case Bind():
                    assert step.source is not None
                    flags = linux.MS_BIND | linux.MS_REC
                    linux.mount(by_fd(step.source), by_fd(place), flags=flags)
                case Tmpfs():
                    options = f"mode={mount.mode:o},size={mount.size}"
                    linux.mount("tmpfs", by_fd(place), "tmpfs", _SAFE, options)
                case Devices():
                    linux.mount("tmpfs", by_fd(place), "tmpfs", linux.MS_NOSUID, "mode=755,size=1m")
                case Text():
                    _put(mount.content.encode(), 0o444, root, place)
                case Copy():
                    assert step.source is not None
                    executable = os.fstat(step.source).st_mode & 0o111
                    _put(step.source, 0o555 if executable else 0o444, root, place)
    except FileNotFoundError as exc:
        if _optional(mount):
            return
        raise NotAssembledError(
            f"there is no place for {mount.target} in what is mounted around it: make it there"
        ) from exc
    match mount:
        case Bind():
            flags = linux.MS_NOSUID | (0 if mount.devices else linux.MS_NODEV)
            with opened(root, names) as bound:
                _restrict_tree(bound, flags | (linux.MS_RDONLY if mount.read_only else 0))
        case Text() | Copy():
            with opened(root, names) as bound:
                restrict(bound, linux.MS_RDONLY | _SAFE)
        case Devices():
            with opened(root, names) as dev:
                _furnish_dev(dev, mount.nodes)


def _put(content: bytes | int, mode: int, root: int, place: int) -> None:
    """The file has no name of its own when it is mounted: the image shows it in its place only."""
    name = ".dray-text"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=root)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)
        if isinstance(content, bytes):
            file.write(content)
        else:
            _copy(content, fd)
    with opened(root, (name,)) as made:
        linux.mount(by_fd(made), by_fd(place), flags=linux.MS_BIND)
    os.unlink(name, dir_fd=root)


def _copy(source: int, target: int) -> None:
    left = _LARGEST_COPY
    while left and (sent := os.sendfile(target, source, None, min(_CHUNK, left))):
        left -= sent


def _restrict_tree(fd: int, flags: int) -> None:
    """Restrict a mount with everything that is mounted in it."""
    if linux.restrict_tree(fd, flags):
        return
    top = os.readlink(by_fd(fd))  # noqa: PTH115 - stdlib strings throughout
    for target in linux.mount_points(top):
        inner = [name for name in target.removeprefix(top).split("/") if name]
        try:
            with opened(fd, inner) as each:
                restrict(each, flags)
        except FileNotFoundError:
            continue  # it is under another mount, and out of reach for all


def _furnish_dev(dev: int, nodes: tuple[Node, ...]) -> None:
    for node in nodes:
        names = tuple(parts(node.path.removeprefix("/dev/")))
        try:
            source = open_path(node.of_host)
        except OSError:
            continue  # this node of the cluster has none
        try:
            directory = stat.S_ISDIR(os.fstat(source).st_mode)
            make_place(dev, names, directory=directory)
            with opened(dev, names) as place:
                linux.mount(by_fd(source), by_fd(place), flags=linux.MS_BIND | linux.MS_REC)
        finally:
            os.close(source)
    for name, target in _DEV_LINKS:
        os.symlink(target, name, dir_fd=dev)
    restrict(dev, linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NOEXEC)
