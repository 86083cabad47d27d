"""Mounting through a loop device: the fastest way, for root.

Each mount gets a device of its own that the kernel frees when the last user is gone; mount(8)
would share one device between all mounts of a file, and with it the device's life.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from services.node_agent.errors import MounterUnavailableError, MountFailedError
from services.node_agent.mounter import How, Source
from services.node_agent.probe import mountable_codecs
from services.node_agent.unmount import clear
from shared import linux
from shared.image.kinds import ALIGNMENT
from shared.logging import get_logger

log = get_logger(__name__)

_LOOP_SET_FD: Final = 0x4C00
_LOOP_CLR_FD: Final = 0x4C01
_LOOP_SET_STATUS64: Final = 0x4C04
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_READ_ONLY_AUTOCLEAR: Final = 1 | 4

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encryption, key size,
# flags; file name, crypt name, key; init.
_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
# struct loop_config: fd, block size, info, reserved.
_CONFIG_HEAD: Final = struct.Struct("=II")
_RESERVED: Final = bytes(8 * 8)

_ATTEMPTS: Final = 64
"""How often a free device may be snatched by somebody else before we give up."""


class LoopMounter:
    """Loop device and the kernel's squashfs, read-only, nosuid, nodev."""

    how: How = "loop"

    def __init__(self, scratch: Path) -> None:
        if os.geteuid() != 0:
            raise MounterUnavailableError("loop mounts need root")
        self.codecs = mountable_codecs(scratch, self.mount, clear)

    def mount(self, image: Source, target: Path) -> None:
        try:
            if not (image.cached and self._mounted_past_cache(image.path, target)):
                self._mount(image.path, target, 0)
        except OSError as exc:
            raise MountFailedError(_explain(image.path, exc)) from exc

    def _mounted_past_cache(self, image: Path, target: Path) -> bool:
        """So that memory holds what is in the image's files, and not its blocks beside that.

        Only for a disk of this node: what a shared file system reads ahead is worth more there.
        """
        try:
            if image.stat().st_size % ALIGNMENT:
                return False  # the device has whole blocks only, perhaps large ones
            self._mount(image, target, os.O_DIRECT)
        except OSError as exc:
            log.info("mounted_through_page_cache", image=image.name, why=exc.strerror)
            return False
        return True

    def _mount(self, image: Path, target: Path, how: int) -> None:
        flags = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
        backing = os.open(image, os.O_RDONLY | os.O_CLOEXEC | how)
        try:
            device, path = attach(backing, image.name)
        finally:
            os.close(backing)
        try:
            linux.mount(path, str(target), "squashfs", flags)
        finally:
            os.close(device)  # autoclear: from here on only the mount keeps the device


def attach(backing: int, name: str) -> tuple[int, str]:
    """A fresh read-only loop device over an open file: its descriptor and its path."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                configure(device, backing, name)
            except OSError as exc:
                os.close(device)
                if exc.errno != errno.EBUSY:  # somebody else was faster
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device stays free long enough to be taken")


def configure(device: int, backing: int, name: str) -> None:
    try:
        fcntl.ioctl(
            device, _LOOP_CONFIGURE, _CONFIG_HEAD.pack(backing, 0) + _info(name) + _RESERVED
        )
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        configure_in_two_steps(device, backing, name)


def configure_in_two_steps(device: int, backing: int, name: str) -> None:
    """For kernels before 5.8, which have no LOOP_CONFIGURE."""
    fcntl.ioctl(device, _LOOP_SET_FD, backing)
    try:
        fcntl.ioctl(device, _LOOP_SET_STATUS64, _info(name))
    except OSError:
        fcntl.ioctl(device, _LOOP_CLR_FD)
        raise


def _info(name: str) -> bytes:
    shown = name.encode()[:63]  # what losetup -l shows
    return _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _READ_ONLY_AUTOCLEAR, shown, b"", b"", 0, 0)


def _explain(image: Path, exc: OSError) -> str:
    match exc.errno:
        case errno.EINVAL | errno.EIO:
            why = "the kernel finds the image damaged or cannot read its compression"
        case errno.ENODEV:
            why = "this kernel has no squashfs: load or install its squashfs module"
        case errno.EPERM | errno.EACCES:
            why = "this root may not use loop devices or mount (a container without CAP_SYS_ADMIN?)"
        case errno.ENOENT if exc.filename and str(exc.filename).startswith("/dev/"):
            why = (
                f"there is no {exc.filename}: load the kernel's loop module, or give this node "
                "more loop devices"
            )
        case _:
            why = f"{exc.strerror}" + (f" ({exc.filename})" if exc.filename else "")
    return f"cannot mount {image.name} through a loop device: {why}"
