"""Error classes: a stable code, an HTTP status and a message that tells the user what to do.

The code travels in events, records and problem details, so that a client can act on it without
parsing prose. `retryable` tells the pull's owner whether trying again by itself can help.
"""

from collections.abc import Mapping
from typing import ClassVar


class DrayError(Exception):
    """Something went wrong that we can name."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    @property
    def headers(self) -> Mapping[str, str]:
        """What an HTTP answer says of it besides."""
        return {}


class InvalidInputError(DrayError):
    """The request cannot be carried out as it was written."""

    code = "invalid_input"
    status = 400


class InvalidReferenceError(InvalidInputError):
    """An image reference that no registry could resolve."""

    code = "invalid_reference"


class UnknownSystemError(InvalidInputError):
    """A system that this site's settings do not name."""

    code = "unknown_system"
    status = 404


class NotFoundError(DrayError):
    """What was asked for is not here."""

    code = "not_found"
    status = 404


class ConflictError(DrayError):
    """The catalog changed under a request more often than it was willing to try again."""

    code = "conflict"
    status = 409
    retryable = True


class NotAdmittedError(DrayError):
    """The site does not let this image in."""

    code = "not_admitted"
    status = 403


class ConfigError(DrayError):
    """The settings cannot be used; the message names each key."""

    code = "config_invalid"


class DeadlineExceededError(DrayError):
    """A time budget ran out."""

    code = "deadline_exceeded"
    status = 504
    retryable = True


class BusUnavailableError(DrayError):
    """The event bus cannot take an event now; it stays in the outbox."""

    code = "bus_unavailable"
    status = 503
    retryable = True


class UndeliverableError(DrayError):
    """No queue is bound to an event's routing key: nobody would ever receive it."""

    code = "undeliverable"
    status = 503
    retryable = True


class CatalogUnavailableError(DrayError):
    """The catalog's database does not answer."""

    code = "catalog_unavailable"
    status = 503
    retryable = True


class MissingDependencyError(DrayError):
    """A Python package or a system tool is needed for this and is not installed."""

    code = "missing_dependency"
