"""A registry as a source."""

from dataclasses import dataclass
from functools import partial

from services.converter.registry.client import RegistryClient
from services.converter.registry.platforms import Platform
from services.converter.sources.interface import SourceImage, SourceLayer
from shared.deadline import Deadline
from shared.reference import ImageReference


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """What one reference means, to one user of its registry."""

    client: RegistryClient
    reference: ImageReference

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
                )
                for layer in image.layers
            ),
        )
