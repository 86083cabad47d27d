"""Short-lived tokens that any gateway with the site's secret can check: nothing is stored.

`dray1.<claims>.<signature>`: base64url of JSON, and of its HMAC-SHA256 under a key that is derived
for nothing else. There is one algorithm, and no field that could choose another. A token cannot be
taken back; it ends by itself, soon.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Final

from pydantic import Field, ValidationError

from services.gateway.auth.identity import NotAuthenticatedError, Scope
from services.gateway.auth.secrets import SiteSecret
from shared.models import Strict

PURPOSE: Final = "tokens"
MAX_TOKEN: Final = 2048
CLOCK_SKEW: Final = 60.0
"""The clocks of two gateways may differ by so much."""
_PREFIX: Final = "dray1"
_REMEMBERED: Final = 1024


class TokenInvalidError(NotAuthenticatedError):
    """No token that this site's gateways made."""

    code = "token_invalid"


class TokenExpiredError(NotAuthenticatedError):
    """A token whose time is over."""

    code = "token_expired"


class Claims(Strict):
    """What a token says. One without a uid belongs to a service account, which owns nothing."""

    id: Annotated[str, Field(max_length=64)]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    scopes: frozenset[Scope]
    issued: float
    expires: float
    uid: Annotated[int, Field(ge=0, lt=1 << 32)] | None = None


class Tokens:
    """Makes and checks them."""

    def __init__(self, secret: SiteSecret, clock: Callable[[], float] = time.time) -> None:
        self._signing = secret.derive(PURPOSE)
        self._keys = secret.derive_all(PURPOSE)
        self._clock = clock
        # A signature does not change: whoever comes with the same token again is not computed anew.
        self._signed_claims = lru_cache(_REMEMBERED)(self._checked)

    def sign(self, claims: Claims) -> str:
        body = f"{_PREFIX}.{_encoded(claims.model_dump_json(exclude_none=True).encode())}"
        return f"{body}.{_signature(self._signing, body)}"

    def read(self, token: str) -> Claims:
        claims = self._signed_claims(token)
        now = self._clock()
        if now > claims.expires or now < claims.issued - CLOCK_SKEW:
            raise TokenExpiredError("the token has expired: make a new one with `dray token`")
        return claims

    def _checked(self, token: str) -> Claims:
        """What it says, whether it still holds or not; one that is not ours raises."""
        body, _, signature = token.rpartition(".")
        prefix, _, content = body.partition(".")
        well_formed = len(token) <= MAX_TOKEN and token.isascii() and prefix == _PREFIX
        if not well_formed or not self._signed(body, signature):
            raise TokenInvalidError(
                "this is no token of this site: make a new one with `dray token`; several "
                "gateways must share one gateway.secret_file"
            )
        return _claims(content)

    def _signed(self, body: str, signature: str) -> bool:
        # Compared as text: two texts may stand for the same bytes, and only one of them is ours.
        found = [
            hmac.compare_digest(_signature(key, body).encode(), signature.encode())
            for key in self._keys
        ]
        return any(found)


def _signature(key: bytes, body: str) -> str:
    return _encoded(hmac.digest(key, body.encode(), hashlib.sha256))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _claims(content: str) -> Claims:
    """What we signed ourselves; perhaps as another version of us."""
    try:
        raw = base64.b64decode(content + "=" * (-len(content) % 4), altchars=b"-_", validate=True)
        return Claims.model_validate_json(raw)
    except (binascii.Error, ValidationError):
        raise TokenInvalidError(
            "the token was made by another version: make a new one with `dray token`"
        ) from None
