"""Images of which there are only the files: nobody wrote down what to run, or any digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from services.converter.sources.interface import SourceImage, SourceLayer
from shared.image.merging.budget import ImageLimits
from shared.image.recipe import ImageConfig, SourceDigests
from shared.models import Digest

# What runtimes give to images that say nothing; there is no entry point, so a command is needed.
CONFIG: Final = ImageConfig(
    env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
)
# Whole software trees come this way: some 350 bytes of the planner's memory for each file.
LIMITS: Final = ImageLimits(max_nodes=16_000_000, max_index_bytes=2 << 30, max_steps=256_000_000)


def bare_image(
    called: str, layers: Sequence[SourceLayer], notes: Sequence[str] = ()
) -> SourceImage:
    """Its digests only say what its layers looked like, until these are read."""
    return SourceImage(
        called=called,
        config=CONFIG,
        digests=_digests(CONFIG, [layer.identity for layer in layers]),
        layers=tuple(layers),
        limits=LIMITS,
        notes=tuple(notes),
    )


def read_through(image: SourceImage, diff_ids: Sequence[Digest]) -> SourceImage:
    """`image`, now that its layers are known: equal content is one image.

    A stamp says as well who looked, where and when, which is no part of what was found.
    """
    if all(layer.stamp is None for layer in image.layers):
        return image
    found = zip(image.layers, diff_ids, strict=True)
    return replace(
        image,
        digests=_digests(image.config, diff_ids),
        layers=tuple(replace(layer, diff_id=diff_id) for layer, diff_id in found),
    )


def _digests(config: ImageConfig, layers: Sequence[Digest]) -> SourceDigests:
    """As if somebody had written a manifest of them."""
    of_config = _digest(config.model_dump(mode="json"))
    manifest = _digest({"config": of_config, "layers": list(layers)})
    return SourceDigests(
        reference=manifest, manifest=manifest, config=of_config, layers=tuple(layers)
    )


def _digest(document: Mapping[str, object]) -> Digest:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
