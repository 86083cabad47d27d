"""What each layer has in an image: bytes, and of them the dead ones."""

from collections import Counter
from collections.abc import Sequence

from shared.image.recipe import ImageLayer, PackKey, Segment
from shared.models import Bytes, Digest, Tolerant


class LayerShare(Tolerant):
    """One layer of one image, the lowest first."""

    digest: Digest
    pack: PackKey
    size: Bytes
    """In the image. A layer that occurs again has no bytes there."""
    dead: Bytes
    """Of these, what no file refers to."""
    left_out: Bytes
    """Dead bytes of the pack that the image was woven without."""
    pieces: Bytes
    """In how many parts it lies there: one, unless something was left out."""


def layer_shares(
    layers: Sequence[ImageLayer], segments: Sequence[Segment]
) -> tuple[LayerShare, ...]:
    """The lengths may be anybody's claims: what contradicts itself gives 0, never an error."""
    sizes: Counter[PackKey] = Counter()
    for segment in segments:
        sizes[segment.pack] += segment.length
    pieces = Counter(segment.pack for segment in segments)
    seen: set[PackKey] = set()
    shares = []
    for layer in layers:
        again = layer.pack in seen
        size = 0 if again else sizes[layer.pack]
        shares.append(
            LayerShare(
                digest=layer.digest,
                pack=layer.pack,
                size=size,
                dead=max(0, size - layer.live),
                left_out=0 if again else max(0, layer.length - size),
                pieces=0 if again else pieces[layer.pack],
            )
        )
        seen.add(layer.pack)
    return tuple(shares)
