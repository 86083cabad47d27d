"""An image's file by itself: what it says of itself, and whether its bytes are what it says.

The file may be anybody's, cut short, or made to hurt: lengths are checked before they are used.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shared.image.description import FOOTER_SIZE, Description, decode, document_length
from shared.image.errors import ImageCorruptError, WorkCancelledError
from shared.image.making.verify import verify_image
from shared.image.recipe import Recipe, Tables
from shared.image.squashfs.superblock import SIZE, Superblock
from shared.models import Sha256

_CHUNK: Final = 1 << 20

Read = Callable[[int, int], bytes]
"""So many bytes from a place on, or what there is of them."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """A squashfs file; without a description another program made it, or its end is missing."""

    path: Path
    size: int
    superblock: Superblock
    description: Description | None
    document: int = 0
    """How many bytes at the end of the file are its description."""


def read_image(path: Path) -> FoundImage:
    """What a file says of itself. Blocks, for some small reads."""
    with _opened(path) as fd:
        return read_by(
            lambda offset, count: os.pread(fd, count, offset), path, os.fstat(fd).st_size
        )


def read_by(read: Read, path: Path, size: int) -> FoundImage:
    """The same of an image that is elsewhere; `path` is only what to call it."""
    superblock = Superblock.unpack(read(0, SIZE))
    if superblock.bytes_used > size:
        raise ImageCorruptError(
            f"{path.name} has {size:,} bytes, and its superblock says "
            f"{superblock.bytes_used:,}: it is cut short"
        )
    footer = read(max(size - FOOTER_SIZE, superblock.bytes_used), FOOTER_SIZE)
    length = document_length(footer)
    if length is None:
        return FoundImage(path, size, superblock, None)
    if length > size - superblock.bytes_used:
        raise ImageCorruptError("what the image says of itself has an impossible length")
    document = read(size - length, length)
    description = decode(document, superblock.compression)
    if description.superblock != superblock.pack().hex():
        raise ImageCorruptError(f"{path.name} is damaged: its superblock is not what it was")
    tables = description.tables
    ends = [segment.offset + segment.length for segment in description.segments]
    if tables.offset + tables.length != superblock.bytes_used or max([0, *ends]) > tables.offset:
        raise ImageCorruptError("what the image says of itself contradicts its superblock")
    return FoundImage(path, size, superblock, description, length)


def verify_by_itself(image: FoundImage, cancelled: threading.Event) -> Sha256:
    """The content digest, once every byte is what the image's description says. Blocks."""
    name = image.path.name
    if image.description is None:
        raise ImageCorruptError(
            f"{name} does not say what its bytes must be: Dray did not make it, or its end is gone"
        )
    tables = image.description.tables
    tables_end = tables.offset + tables.length
    with _opened(image.path) as fd:
        if _digest(fd, tables.offset, tables_end, cancelled) != tables.sha256:
            raise ImageCorruptError(f"{name} is damaged: its tables are not what they were")
        padding = _pieces(fd, tables_end, image.size - image.document, cancelled)
        if any(piece.count(0) != len(piece) for piece in padding):
            raise ImageCorruptError(f"{name} is damaged: the padding behind its tables is not 0")
        to_the_end = _digest(fd, tables.offset, image.size, cancelled)
    recipe = recipe_of(image, image.description, to_the_end)
    verify_image(image.path, recipe, cancelled)
    return recipe.content_digest


def recipe_of(image: FoundImage, description: Description, sha256: Sha256) -> Recipe:
    """What the image was made by; for a recipe, the tables go on to the end of the file."""
    offset = description.tables.offset
    try:
        return Recipe(
            image_id=description.image_id,
            size=image.size,
            inodes=description.inodes,
            compression=description.options.compression,
            block_size=description.options.block_size,
            superblock=description.superblock,
            segments=description.segments,
            tables=Tables(offset=offset, length=image.size - offset, sha256=sha256),
            config=description.config,
            source=description.source,
            layers=description.layers,
        )
    except ValidationError as exc:
        raise ImageCorruptError(
            "what the image says of itself contradicts itself: its parts overlap"
        ) from exc


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    # Not blocking: it may turn out to be a pipe, which nobody may ever write to.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageCorruptError(f"{path.name} is no file: a squashfs image is one")
        yield fd
    finally:
        os.close(fd)


def _digest(fd: int, start: int, end: int, cancelled: threading.Event) -> Sha256:
    digest = hashlib.sha256()
    for piece in _pieces(fd, start, end, cancelled):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(fd: int, start: int, end: int, cancelled: threading.Event) -> Iterator[bytes]:
    """What is there of the bytes from `start` to `end`."""
    while start < end:
        if cancelled.is_set():
            raise WorkCancelledError("checking the image was cancelled")
        piece = os.pread(fd, min(end - start, _CHUNK), start)
        if not piece:
            return
        yield piece
        start += len(piece)
