"""Which image is meant: by an option, by Shifter's variables, or by the job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cli.errors import UsageError
from cli.shifterimg.conf import Conf
from cli.shifterimg.options import parse_image
from shared.imported import is_imported, typed

LOCAL: Final = "local"
ID: Final = "id"
_BY_SPANK: Final = "SLURM_SPANK_"


@dataclass(frozen=True, slots=True)
class Asked:
    """`request` is what was written, and goes into the image's environment."""

    itype: str
    name: str
    request: str

    @property
    def reference(self) -> str:
        """As `dray run` takes it."""
        if self.itype == ID:
            return self.name
        name = typed(self.itype, self.name)
        # An image of Docker Hub may be called custom.
        return f"{self.itype}:{name}" if self.itype == "docker" and is_imported(name) else name


def variable(name: str, env: Mapping[str, str]) -> str | None:
    """The user's, or that of Shifter's plugin of Slurm."""
    return env.get(f"SHIFTER_{name}") or env.get(f"{_BY_SPANK}SHIFTER_{name}") or None


def asked_for(
    option: str | None, env: Mapping[str, str], conf: Callable[[], Conf | None]
) -> Asked | None:
    """None: nobody says, so it is the job's."""
    if option == "":
        raise UsageError("after --image there is no image's name")
    itype, name = variable("IMAGETYPE", env), variable("IMAGE", env)
    if option is None and itype and name:
        return _asked(f"{itype}:{name}", variable("IMAGEREQUEST", env), conf)
    text = option or variable("IMAGEREQUEST", env) or env.get("SHIFTER")
    return _asked(text, text, conf) if text else None


def _asked(text: str, request: str | None, conf: Callable[[], Conf | None]) -> Asked:
    itype, name = parse_image(text, "")
    if not itype:
        known = conf()
        itype = known.default_type if known else "docker"
    return Asked(itype, name, request or text)
