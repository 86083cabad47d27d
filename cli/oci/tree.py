"""What is in a squashfs image, as the rows of one layer's tar."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.errors import CliError
from cli.show import plain
from shared.image import kinds
from shared.image.kinds import WHITEOUT
from shared.image.reading.reader import SquashImage
from shared.image.tar.contents import row_of
from shared.image.tar.links import Links
from shared.image.tar.row import Row

_HEADER: Final = 512


class NoLayerError(CliError):
    """A layer cannot say what is in the image."""

    code = "export_impossible"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a layer of the image will be."""

    size: int
    """Of its tar, about."""
    sockets: int
    """Which a tar cannot hold."""


def look_through(image: SquashImage) -> Outlook:
    """Before a byte is written, whether it can be."""
    size = sockets = 0
    for found in image.walk():
        inode = found.inode
        if found.name.startswith(WHITEOUT):
            raise NoLayerError(
                f"the image has a file {_shown(found.path)}: in a layer, a name that begins so "
                "means that another file is deleted. Export it as a squashfs, or rename the file"
            )
        if inode.kind == kinds.SOCKET:
            sockets += 1
            continue
        size += _HEADER
        if inode.kind == kinds.FILE:
            stored = inode.size - min(inode.size, inode.sparse)
            size += stored + -stored % _HEADER
    return Outlook(size, sockets)


def rows(image: SquashImage) -> Iterator[Row]:
    """In the order of paths; of an inode with several names, the first one has the content."""
    with Links() as links:
        for found in image.walk():
            inode = found.inode
            if inode.kind == kinds.SOCKET:
                continue
            row = row_of(found.path, inode)
            if inode.kind != kinds.DIRECTORY and inode.links > 1:
                first = links.first_name(0, inode.reference, found.path)
                if first is not None:
                    row = row._replace(kind=kinds.HARD_LINK, target=first, size=0, stored=0)
            yield row


def _shown(path: bytes) -> str:
    return plain(Path(path.decode(errors="replace")))[:200]
