"""Files that an image can be imported from, as users, events and REST name their formats."""

from typing import Final, Literal, get_args

Format = Literal["docker-archive", "oci-archive", "oci", "tar", "dir", "squashfs"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
MAX_PATH: Final = 4096
"""In bytes: longer ones the kernel does not take."""
