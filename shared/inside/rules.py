"""Where in an image a user may have a volume: not where programs look for what the system says."""

from collections.abc import Iterable
from typing import Final

from shared.inside.errors import VolumeRefusedError
from shared.inside.walk import parts

SYSTEM: Final = ("/proc", "/sys", "/dev", "/etc")
_TMP: Final = "tmp"


def in_system(path: str) -> bool:
    """Whether it is where programs look for what the system says."""
    names = parts(path)
    return bool(names) and f"/{names[0]}" in SYSTEM


def require_free(target: str, reserved: Iterable[str] = (), *, written: str | None = None) -> None:
    """An error where a mount at `target` would hide one of these, be in it, or be above of it.

    `written` is how the user called it, where links of the image lead from there to the target.
    Another /tmp takes away all of the job's, also what a site has in there: that is what it is for.
    """
    names = parts(target)
    called = written or target
    leads = "" if written in (None, target) else f", which is {target} in this image"
    if not names or ".." in names:
        raise VolumeRefusedError(
            f"a volume cannot be at {called!r}{leads}: name a directory of its own, such as /data"
        )
    for path in (*SYSTEM, *reserved):
        kept = parts(path)
        both = min(len(kept), len(names))
        if kept[:both] == names[:both] and not (names == [_TMP] and kept[0] == _TMP):
            raise VolumeRefusedError(
                f"a volume cannot be at {called}{leads}: it would hide {path}, which every job "
                "has as the system says; choose another place, such as /data"
            )
