"""Entering an image: run a command with a mounted or unpacked image as its root directory.

Light and without privileges of its own: root gets a mount namespace, anybody else a user namespace
besides. The command runs as whoever called, with read-only image, the host's /proc, /sys and /dev,
no capabilities, and no way to gain privileges. The image is hostile until proven otherwise: nothing
is ever mounted through a symbolic link of it, and what root alone may write to in /proc and /sys
nobody can.
"""

import errno
import os
import pwd
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final, NoReturn

from cli.errors import EXIT_NOT_RUN, CliError
from shared import linux

HOST_TREES: Final = ("/proc", "/sys", "/dev")
KERNEL_TREES: Final = ("/proc", "/sys")
"""Root may write to the kernel's settings by the files' modes, without any capability."""
NEEDED_TREES: Final = ("/proc", "/dev")
"""Hardly a program does without."""
HOST_FILES: Final = ("/etc/resolv.conf", "/etc/passwd", "/etc/group", "/etc/hosts")
SYSTEM_DIRECTORIES: Final = frozenset(
    {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32"}
    | {"opt", "proc", "run", "sbin", "sys", "usr", "var"}
)
"""An image has its own: a home or working directory in one of them is not brought along."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a remount must repeat, lest it try to take it away: statvfs and mount use the same bits.
_KEPT_FLAGS: Final = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
# CPython ignores these; a command expects the default.
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_SYSCTLS: Final = (
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


class EnterError(CliError):
    """The image could not be entered."""

    code = "not_entered"
    exit_code: ClassVar[int] = EXIT_NOT_RUN


class NamespacesRefusedError(EnterError):
    """The kernel does not let this user make the namespaces that are needed."""

    code = "namespaces_refused"


class CommandNotFoundError(EnterError):
    """The command is not in the image."""

    code = "command_not_found"
    exit_code: ClassVar[int] = 127


class CommandNotExecutableError(EnterError):
    """The command is in the image and cannot be executed."""

    code = "command_not_executable"
    exit_code: ClassVar[int] = 126


def enter(
    root: Path, command: Sequence[str], *, env: Mapping[str, str], workdir: str | None = None
) -> NoReturn:
    """Replace this process, which must have one thread only, by the command in the image.

    `workdir` must exist in there; without one it is the current directory, else home, else "/".
    """
    home, here = _home(), _working_directory()
    make_namespaces()
    try:
        inside = _bind_read_only(root)
        try:
            _furnish(inside, (home, here))
            _change_root(inside)
        finally:
            os.close(inside)
    except OSError as exc:
        raise EnterError(_refused_mount(root, exc)) from exc
    _give_up_privileges()
    _change_directory(workdir, (here, home))
    execute(command, env)


def make_namespaces() -> None:
    """A mount namespace whose mounts nobody else sees; for others than root by a user namespace."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid == 0:
            linux.unshare(linux.CLONE_NEWNS)
        else:
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
            # Each user stays who he is. Groups that are not mapped keep working, under no name.
            Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1\n", encoding="ascii")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1\n", encoding="ascii")
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    except OSError as exc:
        raise NamespacesRefusedError(explain_refusal(exc, uid)) from exc


def _give_up_privileges() -> None:
    linux.set_no_new_privileges()
    try:
        linux.drop_capabilities()
    except OSError as exc:
        raise EnterError(
            f"cannot give up all capabilities before the command runs ({exc.strerror}): the "
            "container or service that we run in lacks CAP_SETPCAP"
        ) from exc


def explain_refusal(exc: OSError, uid: int, sysctls: Path = Path("/proc/sys")) -> str:
    """Why the kernel refused, and what to ask the administrator for."""
    if uid == 0:
        return (
            f"this root may not make a mount namespace ({exc.strerror}): the container or service "
            "that we run in lacks CAP_SYS_ADMIN"
        )
    for name, refusing, wanted in _SYSCTLS:
        with suppress(OSError):
            if (sysctls / name).read_text(encoding="ascii").strip() == refusing:
                key = name.replace("/", ".")
                return (
                    f"ordinary users may not enter images on this machine: {key} is {refusing}. "
                    f"Ask the administrator for: sysctl -w {wanted}"
                )
    if exc.errno == errno.ENOSPC:
        return (
            "there are too many user namespaces on this machine. Ask the administrator for a "
            "higher user.max_user_namespaces"
        )
    return (
        f"the kernel refuses user namespaces to ordinary users ({exc.strerror}) although no sysctl "
        "forbids them: a container's seccomp profile, a chroot or a security module does. "
        "Ask the administrator to allow unshare(CLONE_NEWUSER)"
    )


def _bind_read_only(root: Path) -> int:
    """Mount the image over itself, to be read only, and open it."""
    place = str(root.resolve(strict=True))
    linux.mount(place, place, flags=linux.MS_BIND | linux.MS_REC)
    inside = os.open(place, os.O_PATH | os.O_DIRECTORY)
    _restrict(inside, linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV)
    return inside


def _restrict(fd: int, flags: int) -> None:
    flags |= os.statvfs(fd).f_flag & _KEPT_FLAGS
    linux.mount("none", _by_fd(fd), flags=linux.MS_REMOUNT | linux.MS_BIND | flags)


def _furnish(inside: int, own: Sequence[str]) -> None:
    """Put into the image what it has a place for."""
    bound = {tree: _bind(tree, inside) for tree in HOST_TREES}
    if missing := [tree for tree in NEEDED_TREES if not bound[tree]]:
        print(
            f"dray: warning: the image has no place for the host's {' and '.join(missing)}: some "
            "programs will fail",
            file=sys.stderr,
        )
    if os.geteuid() == 0:
        for tree in KERNEL_TREES:
            if bound[tree]:
                _restrict_tree(tree, inside)
    with _opened(inside, "/tmp") as place:  # noqa: S108 - the image's
        if place is not None:
            flags = linux.MS_NOSUID | linux.MS_NODEV
            linux.mount("tmpfs", _by_fd(place), "tmpfs", flags, "mode=1777")
    for path in own:
        if path.split("/")[1] not in SYSTEM_DIRECTORIES | {""}:
            _bind(path, inside)
    for file in HOST_FILES:
        _bind(file, inside, flags=linux.MS_RDONLY)


def _bind(path: str, inside: int, *, flags: int = 0) -> bool:
    """Bind the host's file or directory if the image has one of the same kind at its path."""
    with _opened(inside, path) as place:
        if place is None or not os.path.exists(path):  # noqa: PTH110 - stdlib strings throughout
            return False
        there, here = os.fstat(place), os.stat(path)  # noqa: PTH116
        if stat.S_ISDIR(there.st_mode) != stat.S_ISDIR(here.st_mode):
            return False
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return True  # it came along with another one
        linux.mount(path, _by_fd(place), flags=linux.MS_BIND | linux.MS_REC)
    if flags:
        with _opened(inside, path) as bound:
            if bound is not None:
                _restrict(bound, flags)
    return True


def _restrict_tree(tree: str, inside: int) -> None:
    """Make a bound tree read only, with everything that is mounted in it.

    The kernel has one call for that from version 5.12 only.
    """
    root = os.readlink(_by_fd(inside))  # noqa: PTH115
    for target in linux.mount_points(root + tree):
        with _opened(inside, target.removeprefix(root)) as place:
            if place is not None:  # else it is under another mount, and out of reach for all
                _restrict(place, linux.MS_RDONLY)


@contextmanager
def _opened(inside: int, path: str) -> Iterator[int | None]:
    """A directory or regular file of the image, None if there is none; never by a symbolic link."""
    fd = os.dup(inside)
    try:
        for name in path.strip("/").split("/"):
            try:
                following = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:
                yield None
                return
            os.close(fd)
            fd = following
        mode = os.fstat(fd).st_mode
        yield fd if stat.S_ISDIR(mode) or stat.S_ISREG(mode) else None
    finally:
        os.close(fd)


def _change_root(inside: int) -> None:
    os.fchdir(inside)
    try:
        linux.pivot_root(".", ".")
        linux.umount(".", linux.MNT_DETACH)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        move_root()
    os.chdir("/")


def move_root() -> None:
    """For diskless nodes that run from their initial RAM file system: it cannot be pivoted."""
    linux.mount(".", "/", flags=linux.MS_MOVE)
    os.chroot(".")


def _change_directory(wanted: str | None, usual: Sequence[str]) -> None:
    if wanted is not None:
        try:
            os.chdir(wanted)
        except OSError as exc:
            raise EnterError(f"cannot work in {wanted} of the image: {exc.strerror}") from exc
        return
    for path in usual:
        with suppress(OSError):
            os.chdir(path)
            return


def execute(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Become the command, as found in the PATH of `env`."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    name = command[0]
    if "/" in name:
        candidates = [name]
    else:
        directories = env.get("PATH", DEFAULT_PATH).split(":")
        candidates = [f"{directory or '.'}/{name}" for directory in directories]
    problem: EnterError | None = None
    for path in candidates:
        try:
            os.execve(path, list(command), dict(env))  # noqa: S606 - a shell has no place here
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ENOTDIR) or os.path.lexists(path):
                problem = problem or _not_executed(path, exc)
        except ValueError as exc:
            raise EnterError(f"the command or the environment cannot be passed on: {exc}") from exc
    raise problem or CommandNotFoundError(f"{name}: there is no such command in the image")


def _not_executed(path: str, exc: OSError) -> EnterError:
    if exc.errno == errno.E2BIG:
        return EnterError(f"{path}: the arguments and the environment are too long")
    if exc.errno in (errno.ENOENT, errno.ENOTDIR):
        return CommandNotFoundError(f"{path}: its interpreter or loader is not in the image")
    if exc.errno == errno.ENOEXEC:
        machine = os.uname().machine
        why = f"neither a program for {machine} nor a script that begins with #!"
        return CommandNotExecutableError(f"{path}: {why}")
    if Path(path).is_dir():
        return CommandNotExecutableError(f"{path} is a directory")
    return CommandNotExecutableError(f"{path} cannot be executed: {exc.strerror}")


def _refused_mount(root: Path, exc: OSError) -> str:
    where = f" ({exc.filename})" if exc.filename else ""
    if exc.errno == errno.ENOENT and not root.exists():
        return f"the image is not mounted at {root}"
    if exc.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        return f"{explain_refusal(exc, os.geteuid())}{where}"
    return f"cannot enter the image at {root}: {exc.strerror}{where}"


def _home() -> str:
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a uid that no directory service knows
        return "/"
    return home if home.startswith("/") else "/"


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it was removed under us
        return "/"


def _by_fd(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
