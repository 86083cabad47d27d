"""Images of which there are only the files: nobody wrote down what to run, or any digest."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from services.converter.sources.interface import SourceImage, SourceLayer
from shared.image.merging.budget import ImageLimits
from shared.image.recipe import ImageConfig, SourceDigests

# What runtimes give to images that say nothing; there is no entry point, so a command is needed.
CONFIG: Final = ImageConfig(
    env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
)
# Whole software trees come this way: some 350 bytes of the planner's memory for each file.
LIMITS: Final = ImageLimits(max_nodes=16_000_000, max_index_bytes=2 << 30, max_steps=256_000_000)


def bare_image(
    called: str, layers: Sequence[SourceLayer], notes: Sequence[str] = ()
) -> SourceImage:
    """Its digests say what its layers looked like: another content, other digests."""
    known = {"layers": [layer.identity for layer in layers], "config": CONFIG.model_dump()}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return SourceImage(
        called=called,
        config=CONFIG,
        digests=SourceDigests(
            reference=digest,
            manifest=digest,
            config=digest,
            layers=tuple(layer.identity for layer in layers),
        ),
        layers=tuple(layers),
        limits=LIMITS,
        notes=tuple(notes),
    )
