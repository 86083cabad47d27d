"""Volumes as users write them: `--volume=/from:/to[:FLAG]`, several with `;` between them.

FLAG is `ro`, `rw`, or `perNodeCache=size=200G`: then each node has a file system of its own there,
of that size, which lives as long as the job and whose data lies in `from` meanwhile.
"""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.inside.errors import VolumeRefusedError
from shared.inside.plan import Bind
from shared.inside.rules import require_free
from shared.inside.walk import parts

MAX_VOLUMES: Final = 64
SMALLEST_CACHE: Final = 300 << 20
"""Of an XFS file system."""
_MAX_PATH: Final = 4095
_EXAMPLE: Final = "write it like /scratch/ada/run1:/data or /scratch/ada/input:/input:ro"
_CACHE: Final = "perNodeCache"
_VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_MEANINGFUL: Final = re.compile("[:;$]")
_SIZE: Final = re.compile(r"([1-9][0-9]{0,14})([kmgtp]?)b?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory or file of the user's, and where the image has it."""

    source: str
    target: str
    read_only: bool = False
    cache: int | None = None
    """The bytes of a file system of each node's own, whose data lies in the source."""

    @property
    def text(self) -> str:
        """As a user may write it."""
        flag = f"{_CACHE}=size={self.cache}" if self.cache else "ro" if self.read_only else "rw"
        return f"{self.source}:{self.target}:{flag}"

    @property
    def mount(self) -> Bind:
        return Bind(self.source, self.target, read_only=self.read_only, of_user=True)


def parse_volumes(
    texts: Iterable[str],
    reserved: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
    later: Container[str] = (),
) -> tuple[Volume, ...]:
    """All volumes of all options; an error names the one that is wrong, and says what is.

    Variables of `env` in the source are put in: job scripts' `#SBATCH` lines know no shell. Those
    that are set `later` only stay.
    """
    kept = tuple(reserved)
    written = [each.strip() for text in texts for each in text.split(";") if each.strip()]
    if len(written) > MAX_VOLUMES:
        raise VolumeRefusedError(f"{len(written)} volumes are wanted, and {MAX_VOLUMES} may be")
    volumes = tuple(_parse(each, env or {}, later) for each in written)
    for volume in volumes:
        require_free(volume.target, kept)
    targets = [volume.target for volume in volumes]
    for target in targets:
        if targets.count(target) > 1:
            raise VolumeRefusedError(f"two volumes are at {target}: give each a place of its own")
    return volumes


def _parse(text: str, env: Mapping[str, str], later: Container[str]) -> Volume:
    fields = text.split(":")
    if len(fields) not in (2, 3):
        raise _refused(text, "it must be a source and a target with ':' between them")
    source, target = _filled(text, fields[0], env, later), fields[1]
    for path in (source, target):
        if not path.startswith("/"):
            raise _refused(text, f"{path!r} does not begin with '/'")
        if len(path) > _MAX_PATH or not path.isprintable():
            raise _refused(text, "a path is too long, or holds characters that cannot be printed")
    if ".." in target.split("/"):
        raise _refused(text, "'..' has no place in a target")
    target = "/" + "/".join(parts(target))
    flag = fields[2] if len(fields) == 3 else "rw"
    name, _, options = flag.partition("=")
    if name == _CACHE:
        return Volume(source, target, cache=_cache_size(text, options))
    if flag not in ("ro", "rw"):
        raise _refused(text, f"{flag!r} is none of ro, rw and {_CACHE}=size=200G")
    return Volume(source, target, read_only=flag == "ro")


def _cache_size(text: str, options: str) -> int:
    """Shifter's other words are taken where they say what is done anyhow."""
    size = None
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        match = _SIZE.fullmatch(value)
        if key in ("size", "bs") and match is not None:
            if key == "size":
                size = int(match[1]) << 10 * " kmgtp".index(match[2].lower() or " ")
        elif (key, value) not in (("fstype", "xfs"), ("method", "loop")):
            raise _refused(text, f"{option!r} cannot be read after {_CACHE}: write size=200G")
    if size is None:
        raise _refused(text, f"{_CACHE} needs a size, for example {_CACHE}=size=200G")
    if not SMALLEST_CACHE <= size < 1 << 60:
        raise _refused(text, f"the size must be {SMALLEST_CACHE >> 20}M at least")
    return size


def _filled(text: str, source: str, env: Mapping[str, str], later: Container[str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in later:
            return f"${{{name}}}"
        if not env.get(name):
            raise _refused(text, f"${name} is not set here")
        if _MEANINGFUL.search(env[name]):
            # It is handed on as text, and would be read as another volume there.
            raise _refused(text, f"${name} is {env[name]!r}, with ':', ';' or '$' in it")
        return env[name]

    return _VARIABLE.sub(value, source)


def _refused(text: str, why: str) -> VolumeRefusedError:
    shown = text if len(text) <= 200 else text[:197] + "..."
    return VolumeRefusedError(f"volume {shown!r}: {why}; {_EXAMPLE}")
