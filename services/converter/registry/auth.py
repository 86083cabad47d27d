"""Keeps the right Authorization value at hand: none, basic, or a bearer token per scope.

A registry is asked without credentials first; its challenge then says what it wants. Tokens are
asked for pulling only, whatever scope the challenge suggests, are renewed before they run out, and
once for all the layers that are being read in parallel.
"""

import asyncio
import base64
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import Field, ValidationError
from yarl import URL

from services.converter.registry.challenge import Challenge
from services.converter.registry.endpoint import Credentials, RegistryEndpoint
from services.converter.registry.errors import RegistryAccessError, RegistryProtocolError
from services.converter.registry.transport import Request, Transport
from shared.deadline import Deadline
from shared.models import Tolerant

# An answer may have its token under two names, and another to refresh it with.
MAX_TOKEN_ANSWER: Final = 64 * 1024
MAX_TOKEN: Final = 16 * 1024
MAX_TOKENS: Final = 64
# What the token specification says when the answer does not.
DEFAULT_LIFETIME: Final = 60
MAX_LIFETIME: Final = 3600
# A token is renewed when a tenth of its life is left: it must outlive the request on its way.
_USABLE_PART: Final = 0.9

IDENTITY_TOKEN: Final = "<token>"  # noqa: S105 - a word, and no secret
"""As a user name, by Docker's custom: the password is an identity token, good for tokens only."""
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


class _TokenAnswer(Tolerant):
    token: str | None = None
    access_token: str | None = None
    expires_in: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    authorization: str = field(repr=False)
    usable_until: float

    @property
    def usable(self) -> bool:
        return time.monotonic() < self.usable_until


@dataclass(frozen=True, slots=True)
class _TokenService:
    realm: URL
    service: str | None


class Authorizer:
    """What one user may show to one registry."""

    def __init__(self, endpoint: RegistryEndpoint, transport: Transport) -> None:
        self._endpoint = endpoint
        self._transport = transport
        # By scope, the one that was used last at the end.
        self._tokens: OrderedDict[str, _Token] = OrderedDict()
        self._token_service: _TokenService | None = None
        self._wants_basic = False
        credentials = endpoint.credentials
        self._has_password = credentials is not None and credentials.username != IDENTITY_TOKEN
        self._renewing = asyncio.Lock()

    async def authorization(self, scope: str, deadline: Deadline) -> str | None:
        """What to send for this scope now; a token that is about to run out is renewed first."""
        if self._wants_basic and self._endpoint.credentials is not None:
            return _basic(self._endpoint.credentials)
        token = self._tokens.get(scope)
        if token is None:
            return None
        self._tokens.move_to_end(scope)
        if token.usable or self._token_service is None:
            return token.authorization
        return await self._renewed(scope, token.authorization, self._token_service, deadline)

    async def answer(
        self, challenges: tuple[Challenge, ...], scope: str, refused: str | None, deadline: Deadline
    ) -> str | None:
        """What to send after a 401 to `refused`; None if there is nothing better to show."""
        for challenge in challenges:
            if challenge.scheme == "bearer":
                self._token_service = await self._service_of(challenge, deadline)
                return await self._renewed(scope, refused, self._token_service, deadline)
            credentials = self._endpoint.credentials
            if challenge.scheme == "basic" and credentials is not None and self._has_password:
                self._wants_basic = True
                offered = _basic(credentials)
                return offered if offered != refused else None
        return None

    async def _renewed(
        self, scope: str, refused: str | None, service: _TokenService, deadline: Deadline
    ) -> str:
        async with deadline.bound(f"waiting for a token for {self._endpoint.registry}"):
            await self._renewing.acquire()
        try:
            current = self._tokens.get(scope)
            if current is not None and current.usable and current.authorization != refused:
                return current.authorization
            token = self._tokens[scope] = await self._fetch(scope, service, deadline)
            self._tokens.move_to_end(scope)
            if len(self._tokens) > MAX_TOKENS:
                self._tokens.popitem(last=False)
            return token.authorization
        finally:
            self._renewing.release()

    async def _fetch(self, scope: str, service: _TokenService, deadline: Deadline) -> _Token:
        request = _token_request(service, scope, self._endpoint.credentials)
        asked_at = time.monotonic()
        response = await self._transport.send(request, deadline)
        body = await self._transport.read_bounded(response, MAX_TOKEN_ANSWER, deadline)
        # 400 is what OAuth 2 answers to an identity token that is not valid any more.
        if response.status in {401, 403} or (response.status == 400 and request.form is not None):
            raise self._refused()
        if response.status != 200:
            raise RegistryProtocolError(
                f"{service.realm.host} answers {response.status} instead of a token for "
                f"{self._endpoint.registry}: try again later"
            )
        return _read_token(service, body, asked_at)

    def _refused(self) -> RegistryAccessError:
        registry = self._endpoint.registry
        if self._endpoint.credentials is not None:
            return RegistryAccessError(
                f"{registry} does not accept these credentials: log in to it again with the right "
                "user name and password"
            )
        return RegistryAccessError(
            f"{registry} serves only users whom it knows: log in first: dray login {registry}"
        )

    async def _service_of(self, challenge: Challenge, deadline: Deadline) -> _TokenService:
        registry = self._endpoint.registry
        try:
            realm = URL(challenge.params.get("realm", ""))
            usable = realm.scheme in {"http", "https"} and bool(realm.host) and realm.user is None
        except (ValueError, IndexError):  # the latter for `https://[]@`
            usable = False
        if not usable:
            raise RegistryProtocolError(f"{registry} names no usable address to get a token from")
        if self._endpoint.base_url.scheme == "https" and realm.scheme != "https":
            raise RegistryProtocolError(
                f"{registry} wants credentials sent in the clear to {realm.host}, "
                "which is refused: tell the registry's administrator"
            )
        await self._transport.refuse_neighbours(self._endpoint.base_url, realm, deadline)
        return _TokenService(realm, challenge.params.get("service"))


def _token_request(service: _TokenService, scope: str, credentials: Credentials | None) -> Request:
    asked = {"scope": scope, "service": service.service}
    query = {name: value for name, value in asked.items() if value}
    headers = {"Accept": "application/json"}
    if credentials is not None and credentials.username == IDENTITY_TOKEN:
        form = {**query, "grant_type": "refresh_token", "client_id": "dray"}
        form["refresh_token"] = credentials.password
        return Request("POST", service.realm, headers=headers, form=form)
    return Request(
        "GET",
        service.realm.update_query(query),
        headers=headers,
        authorization=_basic(credentials) if credentials else None,
    )


def _read_token(service: _TokenService, body: bytes, asked_at: float) -> _Token:
    try:
        answer = _TokenAnswer.model_validate_json(body)
    except ValidationError:  # its text may quote a token
        answer = _TokenAnswer()
    text = answer.token or answer.access_token or ""
    if len(text) > MAX_TOKEN or not _HEADER_SAFE.fullmatch(text):
        raise RegistryProtocolError(f"{service.realm.host} answers without a usable token")
    lifetime = min(answer.expires_in or DEFAULT_LIFETIME, MAX_LIFETIME)
    return _Token(f"Bearer {text}", asked_at + lifetime * _USABLE_PART)


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"
