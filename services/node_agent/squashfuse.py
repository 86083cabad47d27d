"""Mounting through squashfuse: for an ordinary user, on machines that have FUSE.

The squashfuse process outlives the agent, so a restarted agent finds the mount still working.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from services.node_agent.errors import MounterUnavailableError, MountFailedError
from services.node_agent.mounter import How, Source
from services.node_agent.probe import mountable_codecs
from services.node_agent.unmount import FUSERMOUNTS, clear

_START_SECONDS: Final = 30.0


class SquashfuseMounter:
    """One squashfuse process per image."""

    how: How = "squashfuse"

    def __init__(self, scratch: Path) -> None:
        self._program = _required()
        self.codecs = mountable_codecs(scratch, self.mount, clear)

    def mount(self, image: Source, target: Path) -> None:
        file = image.path
        # What mountinfo shows as the source: an agent that comes later sees what is mounted.
        name = str(file).replace("\\", r"\\").replace(",", r"\,")
        options = f"ro,nosuid,nodev,fsname={name}"
        if os.geteuid() == 0:
            options += ",allow_other"  # otherwise FUSE hides the mount from the jobs' users
        command = [self._program, "-o", options, str(file), str(target)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_START_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise MountFailedError(
                f"squashfuse did not mount {file.name} within {_START_SECONDS:g} s"
            ) from exc
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip() or f"exit {done.returncode}"
            raise MountFailedError(f"squashfuse cannot mount {file.name}: {said[-400:]}")


def _required() -> str:
    program = shutil.which("squashfuse")
    if program is None:
        raise MounterUnavailableError("the program squashfuse is not installed")
    if os.geteuid() != 0 and not any(shutil.which(name) for name in FUSERMOUNTS):
        raise MounterUnavailableError("the program fusermount3 (package fuse3) is not installed")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        raise MounterUnavailableError(f"/dev/fuse cannot be used: {exc.strerror}") from exc
    return program
