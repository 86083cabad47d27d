"""How a system's images are laid over the servers of a Lustre file system."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.models import Strict
from shared.settings.lifecycle import Pattern
from shared.settings.types import Seconds

STRIPE_UNIT = 64 << 10


class LayoutSettings(Strict):
    """Lustre only: elsewhere files are just files."""

    file_system: Literal["auto", "lustre", "other"] = "auto"
    """What image_dir is on; `auto` asks the kernel."""
    lfs: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = "lfs"
    """The program, by name or path."""
    lfs_timeout: Seconds = 30.0
    """For each of its calls, but copying mirrors."""
    stripe_count: Annotated[int, Field(ge=-1, le=2000)] | None = None
    """None: by the image's size; -1: all targets; 0: as the directory says."""
    max_stripes: Annotated[int, Field(ge=1, le=2000)] = 16
    """Of what is chosen by size."""
    stripe_size: (
        Annotated[int, Field(ge=STRIPE_UNIT, lt=1 << 32, multiple_of=STRIPE_UNIT)] | None
    ) = None
    """None: as the directory says."""
    pool: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,15}$")] | None = None
    hot: tuple[Pattern, ...] = ("*",)
    """References of the images that the two below are for."""
    mirrors: Annotated[int, Field(ge=1, le=16)] = 1
    """Copies of the whole file, on different targets."""
    warm: bool = False
    """Ask the servers to have it in their memory."""
