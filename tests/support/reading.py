"""Everything that our reader can do with an image, whatever the image says of itself."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from shared.image import kinds
from shared.image.reading.check import check
from shared.image.reading.reader import SquashImage

# Damage may make a file look huge: reading more of its holes tells nothing new.
_MAX_PIECES = 1000
_LOOKED_UP_EVERY = 20


def read_everything(path: Path) -> None:
    """List, look up, read files, links and attributes, then the full check."""
    with SquashImage(path) as image:
        for number, found in enumerate(islice(image.walk(), _MAX_PIECES)):
            image.xattrs(found.inode)
            if not number % _LOOKED_UP_EVERY:
                image.lookup(found.path)
                image.lookup(found.path + b"/nothing")
            if found.inode.kind == kinds.FILE:
                _consume(image.content(found.inode))
    check(path)


def _consume(pieces: Iterator[bytes]) -> None:
    for _ in islice(pieces, _MAX_PIECES):
        pass
