"""Images that are made of packs, which are named by one letter each."""

from shared.catalog.records import ImageRecord
from shared.image.planning.shares import LayerShare
from tests.support.lifecycle import image

DIGEST = "sha256:" + "d" * 64


def length(pack: str) -> int:
    return (ord(pack) - ord("a") + 1) * 1000


def share(pack: str, left_out: int = 0) -> LayerShare:
    """A layer whose pack has a thousand bytes for each letter up to its own."""
    size = length(pack) - left_out
    return LayerShare(digest=DIGEST, pack=pack * 64, size=size, dead=0, left_out=left_out, pieces=1)


def made(name: str, letter: str, packs: str, *, left_out: int = 0, **fields: object) -> ImageRecord:
    """A reference to the image of that letter, which has these packs."""
    layers = [share(pack, left_out) for pack in packs]
    record = image(name, letter, **fields)  # type: ignore[arg-type]
    assert record.current is not None
    current = record.current.model_copy(
        update={
            "layers": (DIGEST,) * len(packs),
            "shares": tuple(layers),
            "size": sum(each.size for each in layers),
        }
    )
    return record.but(current=current)
