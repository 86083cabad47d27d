"""The Linux system calls around mounts that Python has no names for. Standard library only.

Each raises OSError with the kernel's errno. A call gives the interpreter's lock away while it
runs, so it may be made from a thread.
"""

import ctypes
import errno
import fcntl
import os
import re
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_MOVE: Final = 0x2000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000

MNT_DETACH: Final = 0x2
UMOUNT_NOFOLLOW: Final = 0x8

IN_OPEN: Final = 0x20
IN_IGNORED: Final = 0x8000
IN_ONESHOT: Final = 0x80000000

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWUSER: Final = 0x10000000

_NS_GET_MNTNS_ID: Final = 0x8008B705

_SYNC_WRITE: Final = 2

_MOUNT_SETATTR: Final = 442
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
# The flags that it shares with mount(2), under the same numbers.
_ATTRIBUTES: Final = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC

CAP_SETGID: Final = 6
CAP_SETUID: Final = 7

# A program of the kernel's packet filter over (number, machine, ...) of a system call.
_LOAD: Final = 0x20
_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_FAIL_WITH: Final = 0x00050000
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SET_FILTER: Final = 1
_ALL_THREADS: Final = 1
_FILTER_MODE: Final = 2
_IOCTL: Final = {"x86_64": (16, 54, 0x40000202)}
_IOCTL_ELSEWHERE: Final = (29, 54)
"""By its numbers, and those for programs of 32 bits."""
_TYPING: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX."""

PROC_SUPER_MAGIC: Final = 0x9FA0

_PR_SET_DUMPABLE: Final = 4
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode() or None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        target,
    )


def restrict_tree(fd: int, flags: int) -> bool:
    """Set flags of the mount at `fd` and of all that is mounted in it, at once.

    False where the kernel, before 5.12, has no call for that.
    """
    attributes = struct.pack("=QQQQ", flags & _ATTRIBUTES, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(fd),
        b"",
        ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    if result != 0 and ctypes.get_errno() == errno.ENOSYS:
        return False
    _check(result, f"file descriptor {fd}")
    return True


def umount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter a namespace of this kind; into one of users only a process with one thread can."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), f"file descriptor {fd}")


def inotify() -> int:
    """A file descriptor that tells what happens to files; it never blocks."""
    fd: int = _libc.inotify_init1(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC))
    _check(min(fd, 0), "inotify")
    return fd


def inotify_watch(fd: int, path: str, mask: int) -> int:
    """The number by which `fd` will speak of this file."""
    number: int = _libc.inotify_add_watch(
        ctypes.c_int(fd), os.fsencode(path), ctypes.c_uint32(mask)
    )
    _check(min(number, 0), path)
    return number


def mount_namespace_id() -> int | None:
    """Of this process; None before Linux 6.10, which tells none."""
    found = bytearray(8)
    with Path("/proc/self/ns/mnt").open("rb") as namespace:
        try:
            fcntl.ioctl(namespace, _NS_GET_MNTNS_ID, found)
        except OSError as exc:
            if exc.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return None
    return int.from_bytes(found, sys.byteorder)


def current_cpu() -> int:
    number: int = _libc.sched_getcpu()
    return number


def mount_points(directory: str) -> list[str]:
    """Every mount point at or below `directory` (a path without symbolic links), oldest first."""
    with open("/proc/self/mountinfo", "rb") as lines:  # noqa: PTH123
        found = [unescaped(line.split(b" ")[4]) for line in lines]
    return [point for point in found if f"{point}/".startswith(f"{directory}/")]


def unescaped(field: bytes) -> str:
    """A field of mountinfo, in which blanks and backslashes are octal numbers."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def pivot_root(new_root: str, put_old: str) -> None:
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root)


def set_no_new_privileges() -> None:
    """From now on no exec of this process or its children gains privileges: no setuid."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent() -> None:
    """Be killed when the thread that forked us ends. A change of user takes this back."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def drop_capabilities() -> None:
    """Give up every capability for good: no exec gives one back, not even to root.

    Of the calling thread, as the kernel has it; meant for a process that has one only.
    """
    number = 0
    while (there := _libc.prctl(_PR_CAPBSET_READ, *_words(number))) >= 0:  # as far as it knows any
        if there:
            _prctl(_PR_CAPBSET_DROP, number)
        number += 1
    clear_capabilities()


def clear_capabilities() -> None:
    """Give up those that there are; an exec of root's would give some back. Of this thread."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    none = bytes(2 * 3 * 4)  # effective, permitted and inheritable, in two halves
    _check(_libc.capset(header, none), "capset")


def has_capabilities(*numbers: int) -> bool:
    """Whether this thread may use all of these now."""
    lines = Path("/proc/thread-self/status").read_text(encoding="ascii", errors="replace")
    found = int(lines.partition("CapEff:")[2].split()[0], 16)
    return all(found >> number & 1 for number in numbers)


def allow_only(machine: int, calls: Sequence[int]) -> None:
    """From now on no thread of this process can make other system calls: they fail with EPERM.

    `machine` is as the kernel calls it (AUDIT_ARCH); needs set_no_new_privileges().
    """
    code = [
        (_LOAD, 0, 0, 4),  # the machine, since each numbers its calls differently
        (_IF_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM),
        (_LOAD, 0, 0, 0),
        *((_IF_EQUAL, len(calls) - at, 0, call) for at, call in enumerate(calls)),
        (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    program = struct.pack("@HP", len(code), ctypes.addressof(text))
    result = _libc.syscall(
        ctypes.c_long(_SECCOMP[os.uname().machine]),
        ctypes.c_uint(_SET_FILTER),
        ctypes.c_uint(_ALL_THREADS),
        program,
    )
    _check(result, "seccomp")


def type_nothing() -> None:
    """From now on nothing here puts words into a terminal that would seem to be typed.

    Needs set_no_new_privileges(); a kernel without such filters is left as it is.
    """
    second = 24 if sys.byteorder == "little" else 28
    calls = _IOCTL.get(os.uname().machine, _IOCTL_ELSEWHERE)
    code = [
        (_LOAD, 0, 0, 0),
        *((_IF_EQUAL, len(calls) - at, 0, call) for at, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, second),
        *((_IF_EQUAL, len(_TYPING) - at, 0, what) for at, what in enumerate(_TYPING)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL_WITH | errno.EPERM),
    ]
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(text)))
    try:
        _prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(program))
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise


def set_undumpable() -> None:
    """No other process of the same user may look into this one, or trace it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def filesystem_type(fd: int) -> int:
    """The kernel's number for the kind of file system that a file is in."""
    found = ctypes.create_string_buffer(256)  # larger than a statfs is anywhere
    _check(_libc.fstatfs(ctypes.c_int(fd), found), f"file descriptor {fd}")
    return ctypes.c_long.from_buffer(found).value


def become_with_capabilities(uid: int, gid: int, gids: list[int]) -> None:
    """From root to somebody else who can still do what root can: what they make is theirs."""
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups(gids)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(2 * 3 * 4)
    _check(_libc.capget(header, sets), "capget")
    low, high = struct.unpack("=IIIIII", sets.raw)[1::3]  # what is permitted
    _check(_libc.capset(header, struct.pack("=IIIIII", low, low, 0, high, high, 0)), "capset")


def start_writing(fd: int, start: int, end: int) -> None:
    """Hand what is written between the two places to the storage, without waiting for it."""
    length = ctypes.c_int64(end - start)
    flags = ctypes.c_uint(_SYNC_WRITE)
    result = _libc.sync_file_range(fd, ctypes.c_int64(start), length, flags)
    _check(result, f"file descriptor {fd}")


def file_system_type(path: str) -> int:
    """The magic number of the file system that a path is on."""
    found = ctypes.create_string_buffer(256)  # longer than any struct statfs; f_type comes first
    _check(_libc.statfs(os.fsencode(path), found), path)
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF


def _prctl(option: int, *arguments: int) -> None:
    _check(_libc.prctl(option, *_words(*arguments)), "prctl")


def _words(*arguments: int) -> tuple[ctypes.c_ulong, ...]:
    return tuple(map(ctypes.c_ulong, (*arguments, 0, 0, 0, 0)[:4]))


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
