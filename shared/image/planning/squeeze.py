"""Which pieces of a pack an image takes where too much of the pack is dead, and their digests.

Nothing is recompressed: a piece is a run of blocks as they are. Pieces begin and end on
multiples of 4 KiB of the pack (or at its end), so that a file system can share their blocks; what
little is dead around them and in small gaps stays.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, Final

from shared.image.errors import PackCorruptError, WorkCancelledError
from shared.image.kinds import ALIGNMENT, aligned
from shared.image.merging.budget import Budget
from shared.image.merging.live import Extent
from shared.image.recipe import PackKey
from shared.models import Sha256

OpenPack = Callable[[PackKey], BinaryIO]
Pieces = tuple[Extent, ...]

# Each piece takes some 200 bytes of the recipe, which has to fit into an event.
MAX_PIECES: Final = 1000
# Less than this is not worth a piece of its own.
MIN_GAP: Final = 16 << 10
_CHUNK: Final = 1 << 20
_MAX_READERS: Final = 4


def choose_pieces(
    packs: Mapping[PackKey, tuple[Extent, ...]],
    lengths: Mapping[PackKey, int],
    *,
    max_dead_share: float,
    max_pieces: int = MAX_PIECES,
) -> dict[PackKey, Pieces]:
    """What to take of each pack; `packs` are their live extents, in the image's order.

    As long as no more than `max_dead_share` of all data is dead, every pack is taken whole. Else
    the packs are squeezed of which more than that share is dead: at least one is, and what is
    dead in the others is within the limit.
    """
    live = {key: sum(extent.length for extent in extents) for key, extents in packs.items()}
    total = sum(lengths.values())
    chosen: dict[PackKey, Pieces] = {
        key: (Extent(0, length),) if length else () for key, length in lengths.items()
    }
    if total - sum(live.values()) <= max_dead_share * total:
        return chosen
    squeezed = {
        key: _rounded(extents, lengths[key])
        for key, extents in packs.items()
        if lengths[key] - live[key] > max_dead_share * lengths[key]
    }
    # A pack begins and ends where its live data do; only gaps within it cost pieces.
    gaps = sorted(
        (before.end - after.start, number, after.start)
        for number, extents in enumerate(squeezed.values())
        for before, after in pairwise(extents)
        if after.start - before.end >= MIN_GAP
    )
    cuts = {(number, start) for _, number, start in gaps[: max(0, max_pieces - len(packs))]}
    return chosen | {
        key: _joined(extents, {start for cut, start in cuts if cut == number})
        for number, (key, extents) in enumerate(squeezed.items())
    }


def _rounded(extents: Iterable[Extent], length: int) -> list[Extent]:
    return [
        Extent(extent.start - extent.start % ALIGNMENT, min(aligned(extent.end), length))
        for extent in extents
    ]


def _joined(extents: Iterable[Extent], cuts: set[int]) -> Pieces:
    """The extents as one run, but for the cuts, which are named by what begins after them."""
    pieces: list[Extent] = []
    for extent in extents:
        # Several may begin in the one page that a cut is named by.
        if pieces and (extent.start not in cuts or extent.start < pieces[-1].end):
            pieces[-1] = Extent(pieces[-1].start, max(pieces[-1].end, extent.end))
        else:
            pieces.append(extent)
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class Squeezed:
    """A pack that an image takes in pieces."""

    key: PackKey
    length: int
    """Of its data region, whose digest is `sha256`."""
    sha256: Sha256
    pieces: Pieces


def digest_pieces(
    packs: Sequence[Squeezed], open_pack: OpenPack, budget: Budget
) -> dict[PackKey, list[Sha256]]:
    """The digests of all pieces. Blocks; several packs are read at the same time.

    Each pack is read as a whole and checked: what the pieces' digests vouch for from now on must
    be what was packed.
    """
    if not packs:
        return {}
    failed = threading.Event()

    def digests(pack: Squeezed) -> list[Sha256]:
        try:
            return _digests(pack, open_pack, budget, failed)
        except BaseException:
            failed.set()
            raise

    readers = min(len(packs), len(os.sched_getaffinity(0)), _MAX_READERS)
    with ThreadPoolExecutor(readers, thread_name_prefix="digest") as pool:
        tasks = {pack.key: pool.submit(digests, pack) for pack in packs}
    errors = [error for task in tasks.values() if (error := task.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, WorkCancelledError)):
        raise error  # what went wrong first, not what was given up because of it
    return {key: task.result() for key, task in tasks.items()}


def _digests(
    pack: Squeezed, open_pack: OpenPack, budget: Budget, failed: threading.Event
) -> list[Sha256]:
    whole = hashlib.sha256()
    found = []

    def read(file: BinaryIO, length: int, *digests: "hashlib._Hash") -> None:
        while length:
            budget.check()
            if failed.is_set():
                raise WorkCancelledError("another pack of the image could not be read")
            chunk = file.read(min(length, _CHUNK))
            if not chunk:
                raise PackCorruptError(f"the data of pack {pack.key} end too early: pull again")
            for digest in digests:
                digest.update(chunk)
            length -= len(chunk)

    with open_pack(pack.key) as file:
        position = 0
        for piece in pack.pieces:
            digest = hashlib.sha256()
            read(file, piece.start - position, whole)
            read(file, piece.length, whole, digest)
            found.append(digest.hexdigest())
            position = piece.end
        read(file, pack.length - position, whole)
    if whole.hexdigest() != pack.sha256:
        raise PackCorruptError(f"the data of pack {pack.key} are damaged: pull again")
    return found
