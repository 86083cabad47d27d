"""Who one is to the gateway, and tokens."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.models import Instant, Strict, Tolerant

ScopeName = Literal["read", "pull", "admin"]
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


class WhoAmI(Tolerant):
    """GET /whoami. `uid` is missing for service accounts and for the public."""

    name: str
    uid: int | None
    gids: tuple[int, ...]
    scopes: tuple[ScopeName, ...]
    via: Literal["nobody", "munge", "socket", "token"]


class TokenRequest(Strict):
    """POST /tokens. `service` is a service account's name, for admins; else it is one's own."""

    scopes: Annotated[tuple[ScopeName, ...], Field(min_length=1, max_length=3)] = ("read",)
    service: ServiceName | None = None
    seconds: Annotated[float, Field(gt=0, le=1e12)] = 3600.0
    """For how long; each site has its own most."""


class TokenView(Tolerant):
    """The token, which is not kept anywhere: whoever has it is whom it names, until it expires."""

    token: str
    id: str
    name: str
    scopes: tuple[ScopeName, ...]
    expires_at: Instant
