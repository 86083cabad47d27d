"""A registry as a source."""

from dataclasses import dataclass
from functools import partial

from services.converter.registry.client import RegistryClient
from services.converter.registry.platforms import Platform
from services.converter.sources.interface import Proof, SourceImage, SourceLayer
from shared.deadline import Deadline
from shared.reference import ImageReference


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """What one reference means, to one user of its registry."""

    client: RegistryClient
    reference: ImageReference
    public: bool = True
    """The client speaks for everybody here, and not for one user."""

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage:
        image = await self.client.resolve(self.reference, platform, deadline)
        return SourceImage(
            called=str(self.reference),
            config=image.config,
            digests=image.source,
            layers=tuple(
                SourceLayer(
                    diff_id=layer.diff_id,
                    blob=layer.digest,
                    size=layer.size,
                    open=partial(self.client.stream_blob, self.reference, layer),
                    proof=Proof(
                        registry=self.reference.registry,
                        public=self.public,
                        confirm=partial(self.client.has_blob, self.reference, layer.digest),
                    ),
                )
                for layer in image.layers
            ),
        )
