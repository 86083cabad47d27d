"""Mounting through a loop device: the fastest way, for root.

Each mount gets a device of its own that the kernel frees when the last user is gone; mount(8)
would share one device between all mounts of a file, and with it the device's life.
"""

import errno
import os
from pathlib import Path

from services.node_agent import loop_device
from services.node_agent.errors import MounterUnavailableError, MountFailedError
from services.node_agent.mounter import How, Source
from services.node_agent.probe import mountable_codecs
from services.node_agent.unmount import clear
from shared import linux
from shared.image.kinds import ALIGNMENT
from shared.logging import get_logger

log = get_logger(__name__)


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
            device, path = loop_device.attach(backing, image.name)
        finally:
            os.close(backing)
        try:
            linux.mount(path, str(target), "squashfs", flags)
        finally:
            os.close(device)  # autoclear: from here on only the mount keeps the device


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
