"""Who gets which token: never more than its maker may do, never for longer than the site allows."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from services.gateway.auth.authority import SERVICE, including
from services.gateway.auth.identity import NotAllowedError, Principal, Scope
from services.gateway.auth.tokens import Claims, Tokens
from shared.api.account import TokenRequest, TokenView
from shared.errors import InvalidInputError
from shared.events import new_id
from shared.logging import get_logger

log = get_logger(__name__)


class TokenIssuer:
    """Makes tokens for whoever has proved in another way who they are."""

    def __init__(
        self, tokens: Tokens, max_life: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._tokens = tokens
        self._max_life = max_life
        self._clock = clock

    def issue(self, maker: Principal, wanted: TokenRequest) -> TokenView:
        if maker.via == "token":
            raise NotAllowedError(
                "a token makes no tokens: use the gateway's socket on its own machine, or MUNGE"
            )
        if maker.uid is None:
            maker.require(Scope.ADMIN)  # which the public never has
        scopes = including(map(Scope, wanted.scopes))
        for scope in sorted(scopes):
            maker.require(scope)
        if wanted.service is not None:
            maker.require(Scope.ADMIN)
        if wanted.seconds > self._max_life:
            raise InvalidInputError(
                f"seconds: a token may live for {self._max_life:g} s "
                f"({self._max_life / 3600:.3g} h) here at most (gateway.token_max_life)"
            )
        claims = self._claims(maker, wanted, scopes)
        log.info(
            "token_made",
            token_id=claims.id,
            token_for=claims.name,
            made_by=maker.name,
            scopes=sorted(scopes),
            seconds=wanted.seconds,
        )
        return TokenView(
            token=self._tokens.sign(claims),
            id=claims.id,
            name=claims.name,
            scopes=tuple(scope.value for scope in Scope if scope in scopes),
            expires_at=datetime.fromtimestamp(claims.expires, UTC),
        )

    def _claims(self, maker: Principal, wanted: TokenRequest, scopes: frozenset[Scope]) -> Claims:
        now = self._clock()
        mine = wanted.service is None
        return Claims(
            id=new_id(),
            name=maker.name if mine else f"{SERVICE}{wanted.service}",
            scopes=scopes,
            issued=now,
            expires=now + wanted.seconds,
            uid=maker.uid if mine else None,
        )
