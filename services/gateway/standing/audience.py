"""Those who may see the same, for whom the same is looked up and written only once."""

from dataclasses import dataclass

from services.gateway.auth.identity import Principal, Scope


@dataclass(frozen=True, slots=True)
class Audience:
    """All that `access` looks at in a principal. Admins see everything, so they are one audience.

    What belongs to one request is left out: what they are called, and for how long they may ask.
    """

    admin: bool
    uid: int | None
    gids: frozenset[int]

    @classmethod
    def of(cls, principal: Principal) -> "Audience":
        if principal.admin:
            return cls(admin=True, uid=None, gids=frozenset())
        return cls(admin=False, uid=principal.uid, gids=principal.gids)

    @property
    def principal(self) -> Principal:
        """Somebody of it."""
        scopes = frozenset({Scope.READ, Scope.ADMIN} if self.admin else {Scope.READ})
        return Principal("a follower", scopes, "token", self.uid, self.gids)


EVERYTHING = Audience(admin=True, uid=None, gids=frozenset())
"""Nobody in particular, who sees everything."""
