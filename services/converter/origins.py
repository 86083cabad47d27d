"""Whether a pull may use a pack that is there already: only what its user could fetch as well.

A pack is found by the digest of its layer, which is no secret: anybody can write a manifest that
names it. So a pack is used again where its layer was given to everybody once, by any registry, or
where the registry that gave it before confirms, asked as this user, that the repository has that
very blob. Else the layer is read again, and must be what the manifest promises. Of what users
import is known in the same way who has brought it once.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.converter.sources.interface import SourceLayer
from shared.deadline import Deadline
from shared.files import PARTIAL
from shared.image.recipe import PackKey
from shared.logging import get_logger
from shared.store.origins import Origin, note_origin, read_origin
from shared.store.store import PackStore

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Origins:
    """What a store knows of where its packs came from."""

    store: PackStore

    async def allow(self, key: PackKey, layer: SourceLayer, deadline: Deadline) -> bool:
        """Whether the pack may be used for this layer as it is."""
        proof = layer.proof
        if proof is None:
            return True
        known = await asyncio.to_thread(read_origin, self.store.root, key)
        if known.public:
            return True
        given = (proof.registry, layer.name) in known.blobs
        if not given or proof.public:
            # What everybody is said to have is read once, and then known to be everybody's.
            return False
        return await proof.confirm(deadline)

    async def note(self, key: PackKey, layer: SourceLayer) -> None:
        """The layer was read to its end, and was what was promised."""
        proof = layer.proof
        if proof is None:
            return
        if proof.public:
            origin = Origin(public=True)
        else:
            origin = Origin(blobs=((proof.registry, layer.name),))
        await asyncio.to_thread(note_origin, self.store.root, key, origin)

    @asynccontextmanager
    async def scratch(self, key: PackKey) -> AsyncIterator[Path]:
        """Where to pack once more what is there already; nothing of it stays."""
        log.info("layer_read_for_proof", pack=key)
        path = self.store.root / "proofs" / f".{key}.{secrets.token_hex(6)}{PARTIAL}"
        try:
            yield path
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
