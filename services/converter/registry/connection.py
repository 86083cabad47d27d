"""One registry, spoken to with the right authorization; its refusals become errors that help."""

from dataclasses import dataclass
from typing import Final

import aiohttp

from services.converter.registry.auth import Authorizer
from services.converter.registry.challenge import parse_challenges
from services.converter.registry.endpoint import RegistryEndpoint
from services.converter.registry.errors import (
    ImageIncompleteError,
    ImageNotFoundError,
    RegistryAccessError,
    RegistryError,
    RegistryProtocolError,
)
from services.converter.registry.transport import Patience, Request, Transport
from shared.deadline import Deadline
from shared.reference import ImageReference

_OK: Final = frozenset({200, 206})


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing of one repository: its path below the repository, and its name in messages."""

    reference: ImageReference
    path: str
    called: str
    named_by_another: bool = False
    """The registry itself has said that it is there."""

    @property
    def scope(self) -> str:
        return f"repository:{self.reference.repository}:pull"


class Connection:
    """Asks one registry for things."""

    def __init__(
        self, http: aiohttp.ClientSession, endpoint: RegistryEndpoint, patience: Patience
    ) -> None:
        self.endpoint = endpoint
        self.patience = patience
        self.transport = Transport(http, endpoint.ways, patience)
        self._authorizer = Authorizer(endpoint, self.transport)

    async def open(
        self,
        method: str,
        wanted: Wanted,
        deadline: Deadline,
        headers: dict[str, str] | None = None,
        accepted: frozenset[int] = _OK,
    ) -> aiohttp.ClientResponse:
        """The successful answer, its body unread. The caller releases it."""
        url = self.endpoint.base_url.joinpath(
            "v2", *wanted.reference.repository.split("/"), *wanted.path.split("/")
        )
        authorization = await self._authorizer.authorization(wanted.scope, deadline)
        request = Request(method, url, headers or {}, authorization)
        response = await self.transport.send(request, deadline)
        # A challenge counts only where the registry itself made it, not a host it redirects to.
        if response.status == 401 and response.url.origin() == url.origin():
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
            response.release()
            offered = await self._authorizer.answer(
                challenges, wanted.scope, authorization, deadline
            )
            if offered is None:
                raise self._refusal(wanted, response, authorization)
            authorization = offered
            request = Request(method, url, headers or {}, authorization)
            response = await self.transport.send(request, deadline)
        if response.status not in accepted:
            response.release()
            raise self._refusal(wanted, response, authorization)
        return response

    async def fetch(
        self,
        method: str,
        wanted: Wanted,
        limit: int,
        deadline: Deadline,
        *,
        headers: dict[str, str] | None = None,
        accepted: frozenset[int] = _OK,
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """A small document and the headers that came with it."""

        async def opened() -> aiohttp.ClientResponse:
            return await self.open(method, wanted, deadline, headers, accepted)

        return await self.transport.read_whole(opened, limit, deadline)

    async def log_in(self, deadline: Deadline) -> int:
        """The status that the registry answers to these credentials; 0 if it wants none at all."""
        url = self.endpoint.base_url.joinpath("v2", "")
        response = await self.transport.send(Request("GET", url), deadline)
        response.release()
        if response.status != 401 or response.url.origin() != url.origin():
            return 0 if response.status == 200 else response.status
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
        offered = await self._authorizer.answer(challenges, "", None, deadline)
        if offered is None:
            return response.status
        response = await self.transport.send(Request("GET", url, {}, offered), deadline)
        response.release()
        return response.status

    def _refusal(
        self, wanted: Wanted, response: aiohttp.ClientResponse, shown: str | None
    ) -> RegistryError:
        registry, name = self.endpoint.registry, wanted.reference.name
        if response.url.origin() != self.endpoint.base_url.origin():
            return RegistryProtocolError(
                f"{response.url.host}, to which {registry} redirects, answers {response.status} "
                f"for {wanted.called}: tell the registry's administrator"
            )
        match response.status:
            case 404 if wanted.named_by_another:
                return ImageIncompleteError(
                    f"{registry} does not have {wanted.called}, although it names it: the tag may "
                    "have moved meanwhile; try again, and if it stays so, push the image again"
                )
            case 404:
                return ImageNotFoundError(
                    f"{wanted.called} does not exist in {registry}: check the name and the tag"
                )
            case 401 if shown is not None and shown.startswith("Basic "):
                return RegistryAccessError(
                    f"{registry} does not accept these credentials: log in to it again with the "
                    f"right user name and password (dray login {registry})"
                )
            case 401 | 403 if self.endpoint.credentials is not None:
                # It gave a token for them, or knows them: they are right, and not enough.
                return RegistryAccessError(
                    f"{registry} takes these credentials, but refuses access to {name} with them: "
                    "check the spelling, and ask its owner to let this user pull it"
                )
            case 401 | 403:
                return RegistryAccessError(
                    f"{registry} refuses access to {name}: it may be misspelt, or private; "
                    f"in that case log in first: dray login {registry}"
                )
        hint = ""
        if response.status == 400 and self.endpoint.base_url.scheme == "http":
            hint = " (if it serves https, unset insecure for this registry)"
        return RegistryProtocolError(
            f"{registry} answers {response.status} for {wanted.called}, which a registry should not"
            f"{hint}: check the registry's host and port"
        )
