"""Logins to registries, and how workers fetch what users gave for them."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, SecretStr, StringConstraints, field_validator

from shared.events import Ticket
from shared.models import Instant, Strict, SystemName, Tolerant

MAX_PASSWORD: Final = 8 << 10
INTERNAL: Final = "/internal/v1"
"""Between services: nothing below it is for users, or for a site's anonymous public."""
TICKETS: Final = f"{INTERNAL}/tickets"


class LoginRequest(Strict):
    """POST /logins: try these at the registry, and keep them if it takes them.

    A registry of None is Docker Hub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    registry: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    username: Annotated[
        str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^:\x00-\x1f]+$")
    ]
    password: SecretStr
    system: SystemName | None = None
    """Logins hold for all systems; named by clients that always name one."""

    @field_validator("password")
    @classmethod
    def _bounded(cls, value: SecretStr) -> SecretStr:
        if not 0 < len(value.get_secret_value().encode()) <= MAX_PASSWORD:
            message = f"a password has 1 to {MAX_PASSWORD} bytes"
            raise ValueError(message)
        return value


class LoginView(Tolerant):
    """One registry that a user is logged in to; never the password."""

    registry: str
    username: str
    checked_at: Instant
    expires_at: Instant


class LoginsView(Tolerant):
    """GET /logins: the registries that this user is logged in to."""

    items: tuple[LoginView, ...]


class TicketRequest(Strict):
    """POST /internal/v1/tickets: from a converter, for what an event's ticket is good for."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: Literal["pull", "login"]
    key: Annotated[str, Field(max_length=1024)]
    ticket: Ticket = Field(repr=False)


class TicketView(Tolerant):
    """What a registry wants to hear. It goes to converters, over this machine or TLS only."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    username: str = Field(repr=False)
    password: str = Field(repr=False)
