"""Entering an image: run a command with a mounted or unpacked image as its root directory.

Light and without privileges of its own: root gets a mount namespace, anybody else a user namespace
besides. The command runs as whoever called, in what `shared.inside` puts together, without any
capability, and with no way to gain privileges.
"""

import errno
import os
import signal
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, NoReturn

from cli import lacking
from cli.errors import EXIT_NOT_RUN, CliError
from shared import linux
from shared.errors import DrayError
from shared.inside.assemble import assemble
from shared.inside.enter import REFUSING, change_root, join
from shared.inside.environment import DEFAULT_PATH
from shared.inside.people import Person
from shared.inside.plan import Plan
from shared.inside.site import Site
from shared.inside.volumes import Volume

_NO_SITE: Final = Site()
# CPython ignores these; a command expects the default.
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_WANTED: Final = {
    "user/max_user_namespaces": "15000",
    "kernel/unprivileged_userns_clone": "1",
    "kernel/apparmor_restrict_unprivileged_userns": "0",
}
SYSCTLS: Final = tuple(
    (name, refusing, f"{name.replace('/', '.')}={_WANTED[name]}") for name, refusing in REFUSING
)
"""Each that may keep users out, by which value, and what to ask for instead."""


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
    root: Path,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    workdir: str | None = None,
    volumes: Sequence[Volume] = (),
    site: Site = _NO_SITE,
) -> NoReturn:
    """Replace this process, which must have one thread only, by the command in the image.

    `workdir` must exist in there; without one it is the current directory, else home, else "/".
    """
    person, here = Person.here(), _working_directory()
    mounts = (*site.mounts(person, own=(here,)), *(volume.mount for volume in volumes))
    plan = Plan(str(root), mounts, reserved=site.reserved)
    seen = lacking.seen(site)
    make_namespaces()
    try:
        inside = assemble(plan, in_user_namespace=person.uid != 0)
        try:
            change_root(inside)
        finally:
            os.close(inside)
    except OSError as exc:
        raise EnterError(_refused_mount(root, exc)) from exc
    except DrayError as exc:
        raise EnterError(exc.message) from exc
    _give_up_privileges()
    lacking.say_file_systems(seen)
    _change_directory(workdir, (here, person.home))
    execute(command, env)


def enter_job(
    pinned: Path, command: Sequence[str], *, env: Mapping[str, str], workdir: str | None = None
) -> NoReturn:
    """The same where the node's agent has put the inside together, for all ranks of the job.

    Nothing is mounted any more: two system calls lead there, however many ranks do the same.
    """
    here = _working_directory()
    home = env.get("HOME", "/")
    try:
        join(pinned)
    except OSError as exc:
        raise EnterError(
            f"cannot enter the image that this node's agent prepared at {pinned}: {exc.strerror}; "
            "has the job ended?"
        ) from exc
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
        # What is mounted later where the user has directories is still seen.
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    except OSError as exc:
        raise NamespacesRefusedError(explain_refusal(exc, uid)) from exc


def _give_up_privileges() -> None:
    _leave_directories()
    linux.set_no_new_privileges()
    if os.geteuid() == 0:
        linux.type_nothing()  # a shell of root's may read the terminal next
    try:
        linux.drop_capabilities()
    except OSError as exc:
        raise EnterError(
            f"cannot give up all capabilities before the command runs ({exc.strerror}): the "
            "container or service that we run in lacks CAP_SETPCAP"
        ) from exc


def _leave_directories() -> None:
    """One of the host that the caller has open would lead the command out of the image."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a name is a number
        with suppress(OSError):  # that of the list itself
            if int(name) > 2 and stat.S_ISDIR(os.fstat(int(name)).st_mode):
                os.set_inheritable(int(name), False)


def explain_refusal(exc: OSError, uid: int, sysctls: Path = Path("/proc/sys")) -> str:
    """Why the kernel refused, and what to ask the administrator for."""
    if uid == 0:
        return (
            f"this root may not make a mount namespace ({exc.strerror}): the container or service "
            "that we run in lacks CAP_SYS_ADMIN"
        )
    for name, refusing, wanted in SYSCTLS:
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


def _change_directory(wanted: str | None, usual: Sequence[str]) -> None:
    if wanted is not None:
        try:
            _work_in(wanted)
        except OSError as exc:
            raise EnterError(f"cannot work in {wanted} of the image: {exc.strerror}") from exc
        return
    for path in usual:
        with suppress(OSError):
            _work_in(path)
            return


def _work_in(path: str) -> None:
    """By /proc/self/fd a path, the image's own perhaps, could lead to what is open of the host."""
    os.chdir(path)
    try:
        os.getcwd()  # noqa: PTH109 - an error where no path from the root leads here
    except OSError:
        os.chdir("/")
        raise


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


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it was removed under us
        return "/"
