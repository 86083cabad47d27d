"""Choosing how this node mounts images, and finding what is mounted already."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.node_agent.errors import MounterUnavailableError
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import How, Mounter
from services.node_agent.mountinfo import Mount, mounts_below
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


@dataclass(frozen=True, slots=True)
class Standing:
    """How an image is mounted, and from which file, as far as the kernel says that."""

    how: How
    backing: Path | None = None


def mounted_images(directory: Path, inside: str = "") -> dict[ImageId, Standing]:
    """The images that stand in a directory, or inside of its directories, left by an agent."""
    # Of several at one place the last is the one that is seen.
    mounts = {found.target: _standing(found) for found in mounts_below(directory)}
    return {
        path.name: mounts.get(path / inside, Standing("unpack"))
        for path in directory.iterdir()
        # An empty directory is a mount point whose mount never came, or is gone.
        if _IMAGE_ID.fullmatch(path.name) and (path / inside in mounts or _filled(path / inside))
    }


def _standing(found: Mount) -> Standing:
    if found.fstype != "squashfs":
        return Standing("squashfuse", Path(found.source))
    backing = Path("/sys/block") / Path(found.source).name / "loop/backing_file"
    try:
        return Standing("loop", Path(backing.read_text().rstrip("\n")))
    except OSError:  # unreadable, or no loop device at all
        return Standing("loop")


def _filled(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())
