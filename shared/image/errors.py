"""What can be wrong with packs, recipes and images."""

from shared.errors import DrayError, InvalidInputError


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


class ImageCorruptError(DrayError):
    """A flat image is not what its recipe promises, or is no squashfs that we understand."""

    code = "image_corrupt"
    retryable = True


class WorkCancelledError(DrayError):
    """The work was given up because its owner asked for that."""

    code = "cancelled"
    status = 409
