"""Mount namespaces that can be pinned from where this process was started.

The kernel lets nobody pin a namespace that is older than their own, or two could keep each other
for ever, and tells by their numbers which is older. Since Linux 6.18 each CPU has a stock of
numbers: what is made later on another CPU may have a smaller one, and pinning it fails with EINVAL.
That meets an agent in a mount namespace of its own, as service managers give it.
"""

import os
from typing import Final

from shared import linux

_STEP: Final = 256
"""Numbers to skip at a time. A stock has some thousands, so this ends."""


def unshare_mounts() -> None:
    """A mount namespace younger than this process's; so are all that it makes from then on."""
    before = linux.mount_namespace_id()
    # Where numbers only grow. This process does not live long enough to miss the other CPUs.
    os.sched_setaffinity(0, {linux.current_cpu()})
    linux.unshare(linux.CLONE_NEWNS)
    while before is not None and (linux.mount_namespace_id() or 0) < before:
        for _ in range(_STEP):
            linux.unshare(linux.CLONE_NEWUTS)  # of the same stock, and cheaper by far
        linux.unshare(linux.CLONE_NEWNS)
