"""Very many nodes in few bytes: a letter for each, in the order of a hostlist."""

from array import array
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from services.gateway.lookups import etag_of
from shared.api import JobGrid, JobGridChange
from shared.catalog.records import JobRecord, StagingState
from shared.models import Instant, Tolerant

LETTERS: Final = {
    StagingState.PENDING: "P",
    StagingState.STAGED: "S",
    StagingState.IN_PLACE: "I",
    StagingState.FAILED: "F",
    StagingState.LOST: "L",
    StagingState.RELEASED: "R",
}
_CODES: Final = {state: ord(letter) for state, letter in LETTERS.items()}
_PENDING: Final = _CODES[StagingState.PENDING]
_TROUBLE: Final = frozenset({_CODES[StagingState.FAILED], _CODES[StagingState.LOST]})
_AT_ONCE: Final = 256
"""Letters that are compared as one."""


class Told(Protocol):
    """What counts of one node of a job."""

    @property
    def version(self) -> int: ...
    @property
    def announced_at(self) -> datetime: ...
    @property
    def state(self) -> StagingState: ...


class StagingOutline(Tolerant):
    """What is read of one node of a job."""

    version: int
    announced_at: Instant
    state: StagingState


class JobLetters:
    """The nodes of one announcement of a job. A node that nothing is known of is PENDING."""

    def __init__(self, job: JobRecord, names: Sequence[str]) -> None:
        self._job = job
        self.filled = False
        """Until it is, it is for nobody's eyes."""
        self.announced_at: datetime = job.announced_at
        self.trouble = 0
        """Grows with each change of a node that is, or was, failed or lost."""
        self._places = {name: place for place, name in enumerate(names)}
        self._letters = bytearray([_PENDING]) * len(names)
        self._versions = array("Q", bytes(8 * len(names)))
        self._body: tuple[bytes, bytes, str] | None = None

    def is_of(self, job: JobRecord) -> bool:
        """Whether it is this announcement; a reservation may get its nodes later."""
        return (self.announced_at, self._job.nodes) == (job.announced_at, job.nodes)

    def __len__(self) -> int:
        return len(self._letters)

    def knows(self, node: str, version: int) -> bool:
        """Also of a node that is not in the grid there is nothing to learn."""
        place = self._places.get(node)
        return place is None or self._versions[place] >= version

    def note(self, node: str, staging: Told) -> None:
        """Take over what is newer than what is known, of this very announcement."""
        place = self._places.get(node)
        if place is None or staging.announced_at != self.announced_at:
            return
        if staging.version <= self._versions[place]:
            return
        self._versions[place] = staging.version
        before, after = self._letters[place], _CODES[staging.state]
        self._letters[place] = after
        if before in _TROUBLE or after in _TROUBLE:
            self.trouble += 1

    @property
    def letters(self) -> bytes:
        return bytes(self._letters)

    def counts(self) -> dict[StagingState, int]:
        return {state: self._letters.count(code) for state, code in _CODES.items()}

    def body(self, letters: bytes) -> tuple[bytes, str]:
        """The grid with these letters as JSON, and its ETag."""
        if self._body is None or self._body[0] != letters:
            job = self._job
            grid = JobGrid(job_id=job.job_id, hostlist=job.nodes, letters=letters.decode())
            body = grid.model_dump_json().encode()
            # Another announcement of the same nodes is another grid.
            etag = etag_of(f"{self.announced_at.timestamp()} ".encode() + body)
            self._body = letters, body, etag
        return self._body[1:]


def changed_places(before: bytes, after: bytes) -> list[int]:
    """Where two rows of letters of the same length differ."""
    places: list[int] = []
    for start in range(0, len(after), _AT_ONCE):
        old, new = before[start : start + _AT_ONCE], after[start : start + _AT_ONCE]
        if old != new:
            places += [start + i for i in range(len(new)) if old[i] != new[i]]
    return places


def change_of(places: Sequence[int], after: bytes) -> JobGridChange:
    letters = bytes(after[place] for place in places)
    return JobGridChange(at=tuple(places), letters=letters.decode())
