"""Who sent a request: a principal, however it was proved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from types import MappingProxyType
from typing import Final, Literal

from aiohttp import web

from shared.errors import DrayError


class Scope(StrEnum):
    """What a principal may ask for, besides what it may see."""

    READ = "read"
    PULL = "pull"
    ADMIN = "admin"


Via = Literal["nobody", "munge", "socket", "token"]


class NotAuthenticatedError(DrayError):
    """The request does not prove who sent it, and this needs to be known."""

    code = "not_authenticated"
    status = 401

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": "MUNGE, Bearer"}


class NotAllowedError(DrayError):
    """It is known who asks, and they may not do this."""

    code = "not_allowed"
    status = 403


@dataclass(frozen=True, slots=True)
class Login:
    """What a registry wants to hear from a user."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, a service account (no uid), or the public, which is nobody."""

    name: str
    scopes: frozenset[Scope]
    via: Via
    uid: int | None = None
    gids: frozenset[int] = frozenset()
    logins: Mapping[str, Login] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """Registry credentials that came along with the request itself, by registry or "default"."""
    until: float = inf
    """Seconds since 1970: an answer that goes on for long ends then."""

    @property
    def admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """An error unless it may; the public is told how to be somebody."""
        if scope in self.scopes:
            return
        if self.via == "nobody":
            raise NotAuthenticatedError(
                "this needs to know who you are: use the gateway's socket on its own machine, "
                "MUNGE, or a token (dray token)"
            )
        raise NotAllowedError(f"{self.name} may not do this: it needs the scope '{scope}'")


PRINCIPAL: Final = web.RequestKey("principal", Principal)


def principal_of(request: web.Request) -> Principal:
    """Set by the middleware for every request."""
    return request[PRINCIPAL]
