"""Why a layer cannot become a pack."""

from shared.errors import DrayError, InvalidInputError


class LayerInvalidError(InvalidInputError):
    """The layer is no tar, or holds what no file system can."""

    code = "layer_invalid"
    status = 422


class LayerTooLargeError(InvalidInputError):
    """The layer exceeds the limits that keep a hostile one from filling disk or memory."""

    code = "layer_too_large"
    status = 413


class LayerMismatchError(DrayError):
    """What arrived is not what the image's manifest or config promised."""

    code = "layer_mismatch"
    status = 502
    retryable = True
