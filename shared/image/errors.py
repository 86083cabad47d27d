"""What can be wrong with packs, recipes and images."""

from typing import Self

from shared.errors import DrayError, InvalidInputError, NotFoundError


class ImageInvalidError(InvalidInputError):
    """The image's layers do not fit together."""

    code = "image_invalid"
    status = 422


class ImageUnsupportedError(InvalidInputError):
    """The image exceeds what one squashfs can hold."""

    code = "image_unsupported"
    status = 422


class ImageTooLargeError(InvalidInputError):
    """The image exceeds the limits that keep a hostile one from filling the memory."""

    code = "image_too_large"
    status = 413


class PackCorruptError(DrayError):
    """A pack in the store is not what was written there."""

    code = "pack_corrupt"
    retryable = True


class PackVersionError(PackCorruptError):
    """A pack that another version of Dray made: sound for all that we know, but not for us."""


class PackMissingError(NotFoundError):
    """The store lacks what an image is made of; whoever pulls again has it made again."""

    code = "pack_missing"
    status = 503
    retryable = True


class StoreUnavailableError(DrayError):
    """The pack store's file system does not take or give what it should."""

    code = "store_unavailable"
    status = 503
    retryable = True

    @classmethod
    def because(cls, error: OSError, name: str | None = None) -> Self:
        where = name or error.filename
        return cls(
            f"the pack store could not be used ({error.strerror or error}"
            f"{f': {where}' if where else ''}); "
            "the operator must look at its disks, space, quota and permissions"
        )


class ImageCorruptError(DrayError):
    """A flat image is not what its recipe promises, or is no squashfs that we understand."""

    code = "image_corrupt"
    retryable = True


class WorkCancelledError(DrayError):
    """The work was given up because its owner asked for that."""

    code = "cancelled"
    status = 409
