"""What the catalog keeps of an image once it stands on its system's file system."""

from datetime import datetime

from shared.catalog.records import ImageRecord, PlacedImage
from shared.events import ImagePlaced
from shared.image.planning.shares import layer_shares
from shared.image.recipe import Recipe


def placed_image(
    record: ImageRecord, recipe: Recipe, event: ImagePlaced, now: datetime
) -> PlacedImage:
    return PlacedImage(
        image_id=recipe.image_id,
        reference_digest=recipe.source.reference,
        manifest_digest=recipe.source.manifest,
        config_digest=recipe.source.config,
        pack=record.pack,
        max_dead_share=record.max_dead_share,
        content_digest=event.content_digest,
        size=event.size,
        inodes=recipe.inodes,
        config=recipe.config,
        layers=recipe.source.layers,
        shares=layer_shares(recipe.layers, recipe.segments),
        file=record.file_identity,
        layout=event.layout,
        ready_at=now,
    )
