"""What the inside of images has of a site."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from shared.inside.walk import parts
from shared.models import Strict


def _of_its_own(path: str) -> str:
    names = parts(path)
    if not path.startswith("/") or not names or ".." in names:
        raise ValueError("a path from the root on, and not the root itself")
    return str(PurePosixPath("/", *names))


HostPath = Annotated[str, AfterValidator(_of_its_own)]


class EnvSettings(Strict):
    """What is done to the environment, in this order: unset, set, prepend, append."""

    set: dict[str, str] = Field(default_factory=dict)
    prepend: dict[str, str] = Field(default_factory=dict)
    append: dict[str, str] = Field(default_factory=dict)
    unset: tuple[str, ...] = ()


class InsideSettings(Strict):
    """What each image sees of its node, in jobs that an agent sets up."""

    site_fs: tuple[HostPath, ...] = ()
    """Shared file systems and the like, with all that is mounted in them, at the same path."""
    tmp_size: Annotated[str, Field(pattern=r"^[1-9][0-9]*[kmgKMG%]$")] = "50%"
    """Of the job's own /tmp in memory; `site_fs: [/tmp]` is the node's /tmp instead."""
    env: EnvSettings = EnvSettings()
    modules: Path = Path("/etc/dray/modules")
    """Where the site's modules are, `NAME.yaml` each; there need be none."""
    user_namespaces: Literal["auto", "always", "never"] = "auto"
    """Whether a job's user enters by a user namespace of their own, as `dray run` does. Where not,
    only the scheduler's plugin takes ranks inside. `auto` asks the kernel's own settings."""
