"""Loop devices, by the kernel's own calls. Standard library only."""

import errno
import fcntl
import os
import struct
from typing import Final

_LOOP_SET_FD: Final = 0x4C00
_LOOP_CLR_FD: Final = 0x4C01
_LOOP_SET_STATUS64: Final = 0x4C04
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_READ_ONLY: Final = 1
_AUTOCLEAR: Final = 4

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encryption, key size,
# flags; file name, crypt name, key; init.
_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
# struct loop_config: fd, block size, info, reserved.
_CONFIG_HEAD: Final = struct.Struct("=II")
_RESERVED: Final = bytes(8 * 8)

_ATTEMPTS: Final = 64
"""How often a free device may be snatched by somebody else before we give up."""


def attach(backing: int, name: str, *, writable: bool = False) -> tuple[int, str]:
    """A fresh loop device over an open file, gone with its last user: descriptor and path."""
    flags = _AUTOCLEAR | (0 if writable else _READ_ONLY)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                configure(device, backing, name, flags)
            except OSError as exc:
                os.close(device)
                if exc.errno != errno.EBUSY:  # somebody else was faster
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device stays free long enough to be taken")


def configure(device: int, backing: int, name: str, flags: int) -> None:
    try:
        fcntl.ioctl(
            device, _LOOP_CONFIGURE, _CONFIG_HEAD.pack(backing, 0) + _info(name, flags) + _RESERVED
        )
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        configure_in_two_steps(device, backing, name, flags)


def configure_in_two_steps(device: int, backing: int, name: str, flags: int) -> None:
    """For kernels before 5.8, which have no LOOP_CONFIGURE."""
    fcntl.ioctl(device, _LOOP_SET_FD, backing)
    try:
        fcntl.ioctl(device, _LOOP_SET_STATUS64, _info(name, flags))
    except OSError:
        fcntl.ioctl(device, _LOOP_CLR_FD)
        raise


def _info(name: str, flags: int) -> bytes:
    shown = name.encode()[:63]  # what losetup -l shows
    return _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, shown, b"", b"", 0, 0)
