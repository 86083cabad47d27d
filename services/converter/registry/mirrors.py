"""A registry with mirrors before it: asked in their order, and the registry itself last.

A mirror is asked as its own settings say: no credentials of another ever reach it, nor a user's.
What it gives is as good as its digests. One that is gone or lies is left alone for a while. The
digest behind a tag is the first mirror's word that has one.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import aiohttp

from services.converter.registry.client import RegistryClient, ResolvedImage, ResolvedLayer
from services.converter.registry.endpoint import RegistryEndpoint
from services.converter.registry.errors import (
    ContentMismatchError,
    RegistryError,
    RegistryTlsError,
    RegistryUnknownHostError,
)
from services.converter.registry.platforms import Platform
from services.converter.registry.transport import Patience
from shared.deadline import Deadline
from shared.logging import get_logger
from shared.models import Digest
from shared.reference import ImageReference

log = get_logger(__name__)

T = TypeVar("T")

REST_SECONDS: Final = 300.0
_TOLD: Final = 300


def mirrors_patience(patience: Patience) -> Patience:
    """There is somebody else to ask: a mirror is not waited for as the last resort is."""
    return replace(
        patience,
        connect=min(patience.connect, 5.0),
        answer=min(patience.answer, 30.0),
        silence=min(patience.silence, 20.0),
        window=min(patience.window, 20.0),
        attempts=2,
        busy=min(patience.busy, 10.0),
        busy_answers=2,
    )


@dataclass(slots=True)
class Mirror:
    """One mirror, and below which path it has the registry's repositories."""

    name: str
    client: RegistryClient = field(repr=False)
    resting_until: float = 0.0

    @property
    def rests(self) -> bool:
        return time.monotonic() < self.resting_until

    def here(self, reference: ImageReference) -> ImageReference:
        """The same image, as this mirror calls it."""
        host, _, path = self.name.partition("/")
        inside = f"{path}/{reference.repository}" if path else reference.repository
        return replace(reference, registry=host, repository=inside)

    def failed(self, error: RegistryError) -> None:
        """What says nothing of other images says nothing of the mirror."""
        rests = error.retryable or isinstance(error, RegistryTlsError | RegistryUnknownHostError)
        if rests:
            self.resting_until = time.monotonic() + REST_SECONDS
            log.warning("mirror_rests", mirror=self.name, code=error.code, error=error.message)
        else:
            log.info("mirror_passed_over", mirror=self.name, code=error.code)


class MirroredClient(RegistryClient):
    """A registry as all of a site see it: `origin` for what no mirror has."""

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        http: aiohttp.ClientSession,
        endpoint: RegistryEndpoint,
        patience: Patience,
        slots: asyncio.Semaphore,
    ) -> None:
        super().__init__(http, endpoint, patience, slots)
        self._mirrors = tuple(mirrors)

    async def resolve(
        self, reference: ImageReference, platform: Platform, deadline: Deadline
    ) -> ResolvedImage:
        async def ask(client: RegistryClient, here: ImageReference) -> ResolvedImage:
            return await RegistryClient.resolve(client, here, platform, deadline)

        return replace(await self._first(ask, reference), reference=reference)

    async def head_digest(self, reference: ImageReference, deadline: Deadline) -> Digest:
        async def ask(client: RegistryClient, here: ImageReference) -> Digest:
            return await RegistryClient.head_digest(client, here, deadline)

        return await self._first(ask, reference)

    async def stream_blob(
        self, reference: ImageReference, layer: ResolvedLayer, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        """Goes on at the next one where one breaks off: all have the same bytes, or lie."""
        hashed = hashlib.sha256()
        done = 0
        givers: list[Mirror] = []
        for mirror in self._usable():
            chunks = mirror.client.stream_rest(mirror.here(reference), layer, deadline, done)
            try:
                async with aclosing(chunks):
                    async for chunk in chunks:
                        if mirror not in givers:
                            givers.append(mirror)
                        await asyncio.to_thread(hashed.update, chunk)
                        done += len(chunk)
                        yield chunk
            except RegistryError as exc:
                mirror.failed(exc)
            if done == layer.size:
                break
        if done < layer.size:
            rest = self.stream_rest(reference, layer, deadline, done)
            async with aclosing(rest):
                async for chunk in rest:
                    if givers:
                        await asyncio.to_thread(hashed.update, chunk)
                    yield chunk
        if givers and f"sha256:{hashed.hexdigest()}" != layer.digest:
            raise _told_to_rest(givers, reference, layer)

    async def _first(
        self,
        ask: Callable[[RegistryClient, ImageReference], Awaitable[T]],
        reference: ImageReference,
    ) -> T:
        passed: list[str] = []
        for mirror in self._usable():
            try:
                return await ask(mirror.client, mirror.here(reference))
            except RegistryError as exc:
                mirror.failed(exc)
                passed.append(f"{mirror.name}: {exc.message[:_TOLD]}")
        try:
            return await ask(self, reference)
        except RegistryError as exc:
            if passed:
                told = "; ".join(passed)
                raise type(exc)(f"{exc.message} (mirrors were asked before: {told})") from exc
            raise

    def _usable(self) -> list[Mirror]:
        return [mirror for mirror in self._mirrors if not mirror.rests]


def _told_to_rest(
    givers: Sequence[Mirror], reference: ImageReference, layer: ResolvedLayer
) -> ContentMismatchError:
    names = " and ".join(mirror.name for mirror in givers)
    error = ContentMismatchError(
        f"a part of {reference} ({layer.digest[:19]}…) is not what its digest promises, and came "
        f"from {names}, which is not asked for a while: try again"
    )
    for mirror in givers:
        mirror.failed(error)
    return error
