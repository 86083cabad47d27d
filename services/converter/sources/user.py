"""A registry as it gives an image to everybody, or else to one user.

It is asked as the site first: what everybody may have needs no password, which then stays where
it is. Only a registry that says no, or that it has no such image, is shown the user's.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from services.converter.registries import Registries
from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import Credentials
from services.converter.registry.errors import ImageNotFoundError, RegistryAccessError
from services.converter.registry.platforms import Platform
from services.converter.sources.interface import SourceImage
from services.converter.sources.registry import RegistrySource
from shared.deadline import Deadline
from shared.reference import ImageReference

T = TypeVar("T")

REFUSALS: Final = (RegistryAccessError, ImageNotFoundError)
Fetch = Callable[[Deadline], Awaitable[Credentials]]
"""Fetches the user's credentials, which can be done once."""


class UserSource:
    """One reference, for one user; `authenticated` says afterwards who could have it."""

    file: Final = None
    """It is in no file."""

    def __init__(
        self, registries: Registries, reference: ImageReference, fetch: Fetch | None
    ) -> None:
        self._registries = registries
        self._reference = reference
        self._fetch = fetch
        self.authenticated = False

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage:
        async def work(client: RegistryClient) -> SourceImage:
            source = RegistrySource(client, self._reference, public=not self.authenticated)
            return await source.resolve(platform, deadline)

        return await self._try(work, deadline)

    async def head_digest(self, deadline: Deadline) -> str:
        async def work(client: RegistryClient) -> str:
            return await client.head_digest(self._reference, deadline)

        return await self._try(work, deadline)

    async def _try(self, work: Callable[[RegistryClient], Awaitable[T]], deadline: Deadline) -> T:
        registry = self._reference.registry
        try:
            return await work(await self._registries.client(registry))
        except REFUSALS:
            if self._fetch is None:
                raise
        user = await self._fetch(deadline)
        self.authenticated = True
        return await work(await self._registries.client(registry, user))
