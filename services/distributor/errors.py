"""Why an image could not be placed."""

import errno
from typing import Final

from shared.errors import DrayError

# What a shared file system says while a server of it fails over: worth another try.
PASSING: Final = frozenset({errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.ENODEV})
_WITHOUT_LOCKS: Final = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})


class PlacementError(DrayError):
    """The system's file system did not take the image."""

    code = "placement_failed"


class PlacementInterruptedError(PlacementError):
    """The system's file system did not answer, or not as it should, for the moment."""

    code = "placement_interrupted"
    retryable = True


def advice_on(error: OSError) -> str:
    if error.errno in _WITHOUT_LOCKS:
        return (
            "the operator must let it have locks (flock; on Lustre the mount option of that name)"
        )
    return "the operator must look at that file system's space, quota and permissions"
