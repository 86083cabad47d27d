"""Named files of an archive or a directory, and how they are read: bounded, in threads."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Final, Protocol

from services.converter.sources.errors import ArchiveInvalidError, ArchiveTooLargeError
from services.converter.sources.own_thread import own_thread
from shared.deadline import Deadline

CHUNK: Final = 1 << 20


class Files(Protocol):
    """Looks names up; they are keys, and never lead anywhere else. All of it blocks."""

    called: str

    def size(self, name: str) -> int | None:
        """None if there is no such file."""

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Up to `count` bytes, b"" at the end."""


def read_document(files: Files, name: str, limit: int) -> bytes | None:
    """A small file, whole; None if there is none. Blocks."""
    size = files.size(name)
    if size is None:
        return None
    if size > limit:
        raise ArchiveTooLargeError(
            f"{name} in {files.called} has {size:,} bytes, more than the {limit:,} allowed"
        )
    body = bytearray()
    while len(body) < size and (piece := files.read(name, len(body), size - len(body))):
        body += piece
    return bytes(body)


def needed_document(files: Files, name: str, limit: int) -> bytes:
    """As read_document, of a file that must be there."""
    body = read_document(files, name, limit)
    if body is None:
        raise ArchiveInvalidError(f"{files.called} does not hold {name}, which its image needs")
    return body


async def stream(
    files: Files, name: str, size: int, deadline: Deadline
) -> AsyncGenerator[bytes, None]:
    """The first `size` bytes of a file: what it has beyond them by now is no part of it."""
    done = 0
    with own_thread() as thread:
        while done < size:
            read = partial(files.read, name, done, min(CHUNK, size - done))
            piece = await thread.run(read, deadline, f"reading {files.called}")
            if not piece:
                raise ArchiveInvalidError(
                    f"{name} in {files.called} became shorter while it was read"
                )
            done += len(piece)
            yield piece
