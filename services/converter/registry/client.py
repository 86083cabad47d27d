"""What the converter asks of a registry: an image's parts, a tag's digest, a layer's bytes."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import aiohttp

from services.converter.registry.blobs import stream
from services.converter.registry.connection import Connection, Wanted
from services.converter.registry.documents import (
    ACCEPT,
    MAX_CONFIG,
    MAX_MANIFEST,
    Compression,
    Descriptor,
    Index,
    Manifest,
    ParsedConfig,
    check_fits,
    layer_compression,
    not_offered,
    parse_config,
    parse_document,
)
from services.converter.registry.endpoint import RegistryEndpoint
from services.converter.registry.errors import (
    ContentMismatchError,
    RegistryAccessError,
    RegistryError,
    RegistryProtocolError,
)
from services.converter.registry.platforms import Platform, best_of
from services.converter.registry.transport import Patience
from shared.deadline import Deadline
from shared.image.recipe import ImageConfig, SourceDigests
from shared.models import Digest
from shared.reference import ImageReference
from shared.waiting import waiting_for

# Some small documents: a registry that needs longer keeps a slot from others.
RESOLVE_SECONDS: Final = 900.0
LAYERS_AT_A_TIME: Final = 16
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
_OK_OR_NO_HEAD: Final = frozenset({200, 405})


@dataclass(frozen=True, slots=True)
class ResolvedLayer:
    """One layer as it lies in the registry; `diff_id` is the digest of its tar."""

    digest: Digest
    size: int
    media_type: str
    compression: Compression
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """One image for one platform, by digests only.

    `reference_digest` is what the tag points to (an index, for a multi-platform image): it is what
    head_digest gives later, while `manifest_digest` names this platform's image.
    """

    reference: ImageReference
    reference_digest: Digest
    manifest_digest: Digest
    config_digest: Digest
    config: ImageConfig
    layers: tuple[ResolvedLayer, ...]

    @property
    def source(self) -> SourceDigests:
        return SourceDigests(
            reference=self.reference_digest,
            manifest=self.manifest_digest,
            config=self.config_digest,
            layers=tuple(layer.digest for layer in self.layers),
        )


class RegistryClient:
    """Reads images from one registry as one user."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoint: RegistryEndpoint,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        slots: asyncio.Semaphore | None = None,
    ) -> None:
        """`slots` are for the layers that are read at a time, by all clients of the registry."""
        self._connection = Connection(http, endpoint, patience)
        self._slots = slots or asyncio.Semaphore(LAYERS_AT_A_TIME)

    async def resolve(
        self, reference: ImageReference, platform: Platform, deadline: Deadline
    ) -> ResolvedImage:
        """Everything that the image consists of, verified down to its config."""
        deadline = deadline.sooner(RESOLVE_SECONDS)
        top, document = await self._document(reference, reference.target, deadline)
        digest, manifest = top, document
        if isinstance(manifest, Index):
            offer = _chosen(manifest, platform, reference)
            part = _part(reference, f"manifests/{offer.digest}", offer.digest)
            digest, manifest = await self._fetched(part, reference, offer.digest, deadline)
        if isinstance(manifest, Index):
            raise RegistryProtocolError(f"{reference} is an index within an index")
        config = await self._config(reference, manifest.config, deadline)
        check_fits(config, len(manifest.layers), platform, str(reference))
        return ResolvedImage(
            reference=reference,
            reference_digest=top,
            manifest_digest=digest,
            config_digest=manifest.config.digest,
            config=config.run,
            layers=tuple(
                ResolvedLayer(
                    digest=layer.digest,
                    size=layer.size,
                    media_type=layer.media_type,
                    compression=layer_compression(layer),
                    diff_id=diff_id,
                )
                for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
            ),
        )

    async def head_digest(self, reference: ImageReference, deadline: Deadline) -> Digest:
        """The digest that the reference points to now, to compare with `reference_digest`."""
        response, _ = await self._connection.fetch(
            "HEAD",
            _manifest(reference, reference.target),
            MAX_MANIFEST,
            deadline,
            headers={"Accept": ACCEPT},
            accepted=_OK_OR_NO_HEAD,
        )
        digest = response.headers.get("Docker-Content-Digest", "")
        if response.status != 200 or not _SHA256.fullmatch(digest):
            digest, _ = await self._document(reference, reference.target, deadline)
        elif reference.digest not in {None, digest}:
            raise _mismatch(str(reference))
        return digest

    async def has_blob(self, reference: ImageReference, digest: Digest, deadline: Deadline) -> bool:
        """Whether the registry says that this user may have this blob of this repository."""
        try:
            wanted = _part(reference, f"blobs/{digest}", digest)
            response = await self._connection.open("HEAD", wanted, deadline)
        except RegistryError:  # reading it will say what is wrong, or that nothing is
            return False
        response.release()
        return True

    async def log_in(self, deadline: Deadline) -> None:
        """An error unless the registry asks for credentials, and takes these."""
        registry = self._connection.endpoint.registry
        status = await self._connection.log_in(deadline)
        if status in {401, 403}:
            raise RegistryAccessError(
                f"{registry} does not accept this user name and password: check both; some "
                "registries want an access token in place of the password"
            )
        if status == 0:
            raise RegistryProtocolError(
                f"{registry} asks nobody who he is: no login is needed there"
            )
        if status != 200:
            raise RegistryProtocolError(
                f"{registry} answers {status} to a login, which a registry should not: check the "
                "registry's host and port"
            )

    def stream_blob(
        self, reference: ImageReference, layer: ResolvedLayer, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        """The layer's bytes, `layer.size` of them; close it (contextlib.aclosing).

        The digest is left to the reader, who hashes anyway while decompressing.
        """
        return self.stream_rest(reference, layer, deadline, 0)

    async def stream_rest(
        self, reference: ImageReference, layer: ResolvedLayer, deadline: Deadline, begin: int
    ) -> AsyncGenerator[bytes, None]:
        """The bytes from `begin` on, from this registry itself."""
        free = f"a free connection to {self._connection.endpoint.registry}"
        async with deadline.bound(f"waiting for {free}"):
            with waiting_for(f"waiting for {free}"):
                await self._slots.acquire()
        try:
            wanted = _part(reference, f"blobs/{layer.digest}", layer.digest)
            chunks = stream(self._connection, wanted, layer.size, deadline, begin)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        finally:
            self._slots.release()

    async def _document(
        self, reference: ImageReference, target: str, deadline: Deadline
    ) -> tuple[Digest, Manifest | Index]:
        return await self._fetched(_manifest(reference, target), reference, target, deadline)

    async def _fetched(
        self, wanted: Wanted, reference: ImageReference, target: str, deadline: Deadline
    ) -> tuple[Digest, Manifest | Index]:
        response, body = await self._connection.fetch(
            "GET", wanted, MAX_MANIFEST, deadline, headers={"Accept": ACCEPT}
        )
        digest = await _digest_of(body)
        promised = {target} if _SHA256.fullmatch(target) else set()
        announced = response.headers.get("Docker-Content-Digest", "")
        if _SHA256.fullmatch(announced):
            promised.add(announced)
        if promised - {digest}:
            raise _mismatch(f"the manifest of {reference}")
        document = await asyncio.to_thread(
            parse_document, body, response.headers.get("Content-Type", ""), str(reference)
        )
        return digest, document

    async def _config(
        self, reference: ImageReference, descriptor: Descriptor, deadline: Deadline
    ) -> ParsedConfig:
        wanted = _part(reference, f"blobs/{descriptor.digest}", descriptor.digest)
        _, body = await self._connection.fetch("GET", wanted, MAX_CONFIG, deadline)
        if len(body) != descriptor.size or await _digest_of(body) != descriptor.digest:
            raise _mismatch(f"the config of {reference}")
        return await asyncio.to_thread(parse_config, body, str(reference))


def _chosen(index: Index, platform: Platform, reference: ImageReference) -> Descriptor:
    offered = index.platforms()
    best = best_of(offered, platform)
    if best is None:
        raise not_offered(offered, platform, str(reference))
    return index.manifests[best]


def _manifest(reference: ImageReference, target: str) -> Wanted:
    return Wanted(reference, f"manifests/{target}", str(reference))


def _part(reference: ImageReference, path: str, digest: Digest) -> Wanted:
    return Wanted(reference, path, f"a part of {reference} ({digest[:19]}…)", named_by_another=True)


async def _digest_of(body: bytes) -> Digest:
    return "sha256:" + (await asyncio.to_thread(hashlib.sha256, body)).hexdigest()


def _mismatch(what: str) -> ContentMismatchError:
    return ContentMismatchError(
        f"{what} is not what its digest promises: it was damaged on its way or in the registry; "
        "try again, and if it stays so, push the image again"
    )
