"""Choosing how this node mounts images, and finding what is mounted already."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from services.node_agent.errors import MounterUnavailableError
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import How, Mounter
from services.node_agent.mountinfo import mounts_below
from services.node_agent.squashfuse import SquashfuseMounter
from services.node_agent.unpack import UnpackMounter
from shared.config import Settings
from shared.errors import ConfigError
from shared.logging import get_logger
from shared.models import ImageId

log = get_logger(__name__)

_ADAPTERS: Final[Mapping[How, Callable[[Path], Mounter]]] = {
    "loop": LoopMounter,
    "squashfuse": SquashfuseMounter,
    "unpack": lambda _scratch: UnpackMounter(),
}
_IMAGE_ID: Final = re.compile(r"[0-9a-f]{64}")
_FILESYSTEMS: Final[Mapping[str, How]] = {"squashfs": "loop"}


def choose_mounter(settings: Settings) -> Mounter:
    """The mounter that the settings name, or the fastest that works here. Blocks."""
    scratch = settings.agent_dir / "probe"
    wanted = settings.agent.mount
    if wanted != "auto":
        try:
            return _ADAPTERS[wanted](scratch)
        except MounterUnavailableError as exc:
            raise ConfigError(
                f"agent.mount is {wanted}, which cannot work on this machine: {exc.message}; "
                "agent.mount: auto takes what works"
            ) from exc
    refused: dict[str, str] = {}
    for how, adapter in _ADAPTERS.items():
        try:
            mounter = adapter(scratch)
        except MounterUnavailableError as exc:
            refused[how] = exc.message
        else:
            log.info("mounter_chosen", mounter=how, codecs=sorted(mounter.codecs), refused=refused)
            return mounter
    raise ConfigError(f"no way of mounting images works here: {refused}")


def mounted_images(directory: Path, inside: str = "") -> dict[ImageId, How]:
    """The images that stand in a directory, or inside of its directories, left by an agent."""
    kinds = {
        found.target: _FILESYSTEMS.get(found.fstype, "squashfuse")
        for found in mounts_below(directory)
    }
    return {
        path.name: kinds.get(path / inside, "unpack")
        for path in directory.iterdir()
        # An empty directory is a mount point whose mount never came, or is gone.
        if _IMAGE_ID.fullmatch(path.name) and (path / inside in kinds or _filled(path / inside))
    }


def _filled(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())
