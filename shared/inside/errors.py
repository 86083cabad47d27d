"""What can be wrong with a wish for the inside of an image."""

from shared.errors import DrayError, InvalidInputError


class NotAssembledError(DrayError):
    """The inside of the image could not be put together on this node."""

    code = "not_assembled"


class VolumeRefusedError(InvalidInputError):
    """A volume that cannot be had, or that would hide what must stay as it is."""

    code = "volume_refused"
