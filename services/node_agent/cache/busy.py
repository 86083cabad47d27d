"""Whether the shared directory is busy: how long a first read of an image takes there now.

That is what a job would wait for, again and again, if the image were mounted in place. The reads
are of what squashfs reads, at places that nobody has chosen; what this node remembers of the file
is fast, and then mounting in place is, too.
"""

import os
import random
import time
from pathlib import Path
from typing import Final

_READS: Final = 3
_BYTES: Final = 128 << 10


def first_read_seconds(shared_file: Path) -> float:
    """The longest of a few. Blocks as long as the file system does."""
    with shared_file.open("rb", buffering=0) as file:
        last = max(0, os.fstat(file.fileno()).st_size - _BYTES)
        # Not what the kernel thinks it should read ahead.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return max(_seconds(file.fileno(), random.randint(0, last)) for _ in range(_READS))


def _seconds(fd: int, offset: int) -> float:
    started = time.monotonic()
    os.pread(fd, _BYTES, offset)
    return time.monotonic() - started
