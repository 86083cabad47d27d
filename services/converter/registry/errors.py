"""What can go wrong with a registry, each with its own code and advice."""

from shared.errors import DrayError


class RegistryError(DrayError):
    """The registry could not be used."""

    code = "registry_error"
    status = 502


class RegistryUnknownHostError(RegistryError):
    """The registry's host name does not exist."""

    code = "registry_unknown_host"


class RegistryUnreachableError(RegistryError):
    """Nothing answers at the registry's address."""

    code = "registry_unreachable"
    retryable = True


class RegistryTlsError(RegistryError):
    """No trusted encrypted connection could be made."""

    code = "registry_tls"


class RegistryTimeoutError(RegistryError):
    """The registry stayed silent for too long."""

    code = "registry_timeout"
    status = 504
    retryable = True


class RegistryTooSlowError(RegistryTimeoutError):
    """The registry sends so little that the answer would hardly ever be complete."""

    code = "registry_too_slow"


class RegistryConnectionLostError(RegistryError):
    """The connection broke while the registry was answering."""

    code = "registry_connection_lost"
    retryable = True


class RegistryBusyError(RegistryError):
    """The registry asks to come back later, for longer than we may wait."""

    code = "registry_busy"
    status = 503
    retryable = True


class RegistryProtocolError(RegistryError):
    """The answer is not one that a registry gives."""

    code = "registry_protocol"


class RegistryAccessError(RegistryError):
    """The registry does not let this user have the image."""

    code = "registry_access_refused"
    status = 403


class ImageNotFoundError(RegistryError):
    """The registry has no such image."""

    code = "image_not_found"
    status = 404


class ImageIncompleteError(ImageNotFoundError):
    """The registry lacks a part of an image that it has."""

    code = "image_incomplete"
    status = 502
    retryable = True


class PlatformNotFoundError(RegistryError):
    """The image exists, but not for this system's processors."""

    code = "platform_not_found"
    status = 404


class UnsupportedImageError(RegistryError):
    """The image is of a kind that cannot be converted."""

    code = "unsupported_image"
    status = 422


class ImageLimitError(RegistryError):
    """The image exceeds a limit that protects this service."""

    code = "image_limit"
    status = 422


class ContentMismatchError(RegistryError):
    """What arrived is not what its digest or size promised."""

    code = "content_mismatch"
    retryable = True
