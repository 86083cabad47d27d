"""Who may do what: ids and tokens become principals with scopes, by the site's settings."""

import os
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from services.gateway.auth.identity import Login, Principal, Scope, Via
from services.gateway.auth.tokens import Claims, TokenInvalidError
from services.gateway.auth.users import User, Users

Anonymous = Literal["none", "read", "pull"]

NOBODY: Final = "anonymous"
SERVICE: Final = "service:"
"""Before the name of a service account, which could otherwise be mistaken for a user."""

_NOTHING: Final[frozenset[Scope]] = frozenset()
_READ: Final = frozenset({Scope.READ})
_PULL: Final = _READ | {Scope.PULL}
_ALL: Final = _PULL | {Scope.ADMIN}
_INCLUDED: Final = {Scope.READ: _READ, Scope.PULL: _PULL, Scope.ADMIN: _ALL}
_PUBLIC: Final[dict[Anonymous, frozenset[Scope]]] = {
    "none": _NOTHING,
    "read": _READ,
    "pull": _PULL,
}


class Authority:
    """Admins are root, the user whose process the gateway is, and those whom the settings name."""

    def __init__(self, users: Users, admins: Iterable[str], anonymous: Anonymous) -> None:
        named = tuple(admins)
        self._users = users
        self._admin_uids = {0, os.geteuid(), *(int(name) for name in named if name.isdigit())}
        self._admin_names = {name for name in named if not name.isdigit()}
        self.public = Principal(NOBODY, _PUBLIC[anonymous], "nobody")

    async def user(self, uid: int, gid: int, via: Via, logins: Mapping[str, Login]) -> Principal:
        user = await self._users.find(uid, gid)
        return Principal(user.name, self._scopes(user), via, uid, user.gids, logins)

    async def ordinary(self, uid: int) -> Principal:
        """A user as any other, whatever they may do as an operator: so their jobs run."""
        user = await self._users.find(uid, None)
        return Principal(user.name, _READ, "nobody", uid, user.gids)

    async def bearer(self, claims: Claims) -> Principal:
        """No more than the token says, and no more than its user may still do."""
        scopes = including(claims.scopes)
        if claims.uid is None:
            return Principal(claims.name, scopes, "token", until=claims.expires)
        user = await self._users.find(claims.uid, None)
        if user.known and claims.name not in {user.name, str(claims.uid)}:
            raise TokenInvalidError(
                f"the token is {claims.name}'s, whose user id is another's by now: make a new one "
                "with `dray token`"
            )
        allowed = scopes & self._scopes(user)
        return Principal(user.name, allowed, "token", claims.uid, user.gids, until=claims.expires)

    def _scopes(self, user: User) -> frozenset[Scope]:
        named = user.known and user.name in self._admin_names
        return _ALL if named or user.uid in self._admin_uids else _PULL


def including(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Who may pull may read, and who is an admin may do both."""
    return frozenset().union(*(_INCLUDED[scope] for scope in scopes))
