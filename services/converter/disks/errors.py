"""Why a disk image cannot become an image."""

from shared.errors import InvalidInputError


class DiskDamagedError(InvalidInputError):
    """The disk image, or a file system in it, contradicts itself or is not whole."""

    code = "disk_damaged"
    status = 422


class DiskUnsupportedError(InvalidInputError):
    """The disk image holds what is not read here, or not without other files."""

    code = "disk_unsupported"
    status = 422


class DiskUncleanError(InvalidInputError):
    """The file system was not unmounted: what is newest in it is in its journal only."""

    code = "disk_unclean"
    status = 422
