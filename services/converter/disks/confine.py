"""Takes from this process all that a reader of hostile bytes could do harm with, for good.

What it has open it may read and write, and it may have memory, but only so much. It can open no
file, connect to nothing, start no program and no thread. The kernel holds it to that by a list of
the calls that it may make (seccomp); where there is no such list for the machine, what keeps it is
Python and that it is the user's process. All modules must have been loaded before.
"""

import errno
import os
import resource
from typing import Final

from shared.linux import allow_only, set_no_new_privileges

_X86_64: Final = (
    *(0, 1, 3, 5, 7, 8, 9, 10, 11, 12),  # read write close fstat poll lseek, memory
    *(13, 14, 15, 17, 18, 19, 20, 24, 25, 28),  # signals, pread pwrite readv writev, memory
    *(32, 35, 39, 44, 45, 46, 47, 60, 72, 74, 75, 77),  # dup, packets to the owner, fcntl, fsync
    *(96, 131, 186, 202, 219, 228, 230, 231, 262),  # time, locks of threads, the end, fstat
    *(271, 273, 318, 324, 334),  # ppoll, threads that are there, random numbers
)
_AARCH64: Final = (
    *(63, 64, 57, 80, 62, 222, 226, 215, 214),
    *(134, 135, 139, 67, 68, 65, 66, 124, 216, 233),
    *(23, 101, 172, 206, 207, 211, 212, 93, 25, 82, 83, 46),
    *(169, 132, 178, 98, 128, 113, 115, 94, 79),
    *(73, 99, 278, 283, 293),
)
# As the kernel names machines to such a list, and what they may call.
_MACHINES: Final = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}


def confine(memory: int) -> None:
    """`memory` in bytes. Not undone: for processes that do one thing and end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))
    set_no_new_privileges()
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return
    try:
        allow_only(*machine)
    except OSError as exc:
        # A kernel, or a container, that has no such lists.
        if exc.errno not in {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES}:
            raise
