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

    def peer_at_hand(self, uid: int, gid: int) -> Principal | None:
        """A user by the kernel's word, if this machine need not be asked who that is."""
        user = self._users.at_hand(uid, gid)
        if user is None:
            return None
        return Principal(user.name, self._scopes(user), "socket", uid, user.gids)

    async def ordinary(self, uid: int) -> Principal:
        """A user as any other, whatever they may do as an operator: so their jobs run."""
        user = await self._users.find(uid, None)
        return Principal(user.name, _READ, "nobody", uid, user.gids)

    async def bearer(self, claims: Claims) -> Principal:
        """No more than the token says, and no more than its user may still do."""
        if claims.uid is None:
            return _service(claims)
        return self._bearer(claims, await self._users.find(claims.uid, None))

    def bearer_at_hand(self, claims: Claims) -> Principal | None:
        """The same, if this machine need not be asked who that is."""
        if claims.uid is None:
            return _service(claims)
        user = self._users.at_hand(claims.uid, None)
        return None if user is None else self._bearer(claims, user)

    def _bearer(self, claims: Claims, user: User) -> Principal:
        if user.known and claims.name not in {user.name, str(claims.uid)}:
            raise TokenInvalidError(
                f"the token is {claims.name}'s, whose user id is another's by now: make a new one "
                "with `dray token`"
            )
        allowed = including(claims.scopes) & self._scopes(user)
        return Principal(user.name, allowed, "token", user.uid, user.gids, until=claims.expires)

    def _scopes(self, user: User) -> frozenset[Scope]:
        named = user.known and user.name in self._admin_names
        return _ALL if named or user.uid in self._admin_uids else _PULL


def _service(claims: Claims) -> Principal:
    return Principal(claims.name, including(claims.scopes), "token", until=claims.expires)


def including(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Who may pull may read, and who is an admin may do both."""
    return frozenset().union(*(_INCLUDED[scope] for scope in scopes))
