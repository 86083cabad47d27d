"""A module: what a site adds to images that want it, as a small YAML file of the administrator's.

about: the site's MPI, for images with MPICH or one of its kin
mpi: mpich
conflicts: [openmpi]
binds:
  - {from: /opt/site/mpich}
devices: [/dev/infiniband]
env:
  prepend: {LD_LIBRARY_PATH: /opt/site/mpich/lib}

docs/modules.md tells it all.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from shared.inside import module_names
from shared.models import Strict
from shared.settings.inside import EnvSettings, HostPath


def _below_dev(path: str) -> str:
    if not path.startswith("/dev/"):
        raise ValueError("a device is below /dev")
    return path


def _of_a_program(words: tuple[str, ...]) -> tuple[str, ...]:
    if not PurePosixPath(words[0]).is_absolute() or any("\0" in word for word in words):
        raise ValueError("a program is named by its path from the root on")
    return words


ModuleName = Annotated[str, StringConstraints(pattern=rf"^{module_names.PATTERN}$")]
DevicePath = Annotated[HostPath, AfterValidator(_below_dev)]
CdiName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+=[A-Za-z0-9_.:-]+$")
]
LibcVersion = Annotated[str, StringConstraints(pattern=r"^2\.[0-9]{1,3}$")]
Family = Literal["mpich", "openmpi"]


class BindEntry(Strict):
    """A file or directory of the node, at the same path unless `to` says another."""

    source: HostPath = Field(alias="from")
    target: HostPath | None = Field(None, alias="to")
    read_only: bool = True
    optional: bool = False


class CopyEntry(Strict):
    """A file as it is when the job begins, so that no rank reads it from a shared file system."""

    source: HostPath = Field(alias="from")
    target: HostPath | None = Field(None, alias="to")
    optional: bool = False


class Hook(Strict):
    """A program of the site's that root runs on the node, with none of the user's environment."""

    run: Annotated[
        tuple[str, ...], Field(min_length=1, max_length=64), AfterValidator(_of_a_program)
    ]
    seconds: Annotated[float, Field(gt=0, le=300)] = 10.0


class Module(Strict):
    """What it adds, and where it may."""

    about: Annotated[str, Field(max_length=1000)] = ""
    default: bool = False
    """In every job that does not say `--module=none`."""
    by_label: bool = False
    """Also where the image's LABEL `module` names it."""
    conflicts: Annotated[tuple[ModuleName, ...], Field(max_length=64)] = ()
    requires: Annotated[tuple[ModuleName, ...], Field(max_length=64)] = ()
    mpi: Family | None = None
    """Takes the place of the image's MPI, which must be of the same family."""
    min_libc: LibcVersion | None = None
    """Older C libraries than this cannot load what it brings."""
    binds: Annotated[tuple[BindEntry, ...], Field(max_length=256)] = ()
    copies: Annotated[tuple[CopyEntry, ...], Field(max_length=64)] = ()
    devices: Annotated[tuple[DevicePath, ...], Field(max_length=256)] = ()
    """May be patterns; what the node does not have is left out."""
    cdi: Annotated[tuple[CdiName, ...], Field(max_length=64)] = ()
    """Devices as a CDI specification of the node describes them, such as nvidia.com/gpu=job."""
    env: EnvSettings = EnvSettings()
    before: Annotated[tuple[Hook, ...], Field(max_length=16)] = ()
    """Run before anything is mounted; one that fails fails the job, and no node."""
    after: Annotated[tuple[Hook, ...], Field(max_length=16)] = ()
    """Run when the inside is whole, and nobody in it yet."""
