"""Who holds how much on which system: sums over the directory, kept as it changes.

An image counts once for each user and once for its system, however many references stand for it.
A reference is its owner's; one of the site's is whose who brought it. A pull under way is whose who
asked for it; the public asks as one.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from services.gateway.directory import Directory, Entry
from shared.models import ImageId


@dataclass(slots=True)
class Holding:
    """The images of a user on one system, or of a system."""

    bytes: int = 0
    references: Counter[ImageId] = field(default_factory=Counter)
    """How many of the references stand for each image."""

    @property
    def images(self) -> int:
        return len(self.references)

    def add(self, image: ImageId, size: int) -> None:
        if not self.references[image]:
            self.bytes += size
        self.references[image] += 1

    def take(self, image: ImageId, size: int) -> None:
        self.references[image] -= 1
        if not self.references[image]:
            del self.references[image]
            self.bytes -= size

    def bytes_with(self, entry: Entry, image: ImageId, size: int) -> int:
        """What it would come to if this reference stood for that image."""
        total = self.bytes
        left = entry.image_id
        if left is not None and left != image and self.references.get(left) == 1:
            total -= entry.size
        return total if image in self.references else total + size


class Holdings:
    """All of them, in memory: some bytes for each reference of the catalog."""

    def __init__(self, directory: Directory) -> None:
        self._users: defaultdict[tuple[str, int], Holding] = defaultdict(Holding)
        self._systems: defaultdict[str, Holding] = defaultdict(Holding)
        self._pulls: Counter[int | None] = Counter()
        directory.listen(self._noted)

    def user(self, system: str, uid: int) -> Holding:
        return self._users.get((system, uid)) or Holding()

    def system(self, system: str) -> Holding:
        return self._systems.get(system) or Holding()

    def pulls(self, uid: int | None) -> int:
        """How many pulls of theirs are under way, on all systems."""
        return self._pulls[uid]

    def _noted(self, before: Entry | None, after: Entry) -> None:
        if before is not None:
            self._forget(before)
        if after.state.in_flight:
            self._pulls[after.requested_uid] += 1
        if after.image_id is None:
            return
        uid = holder(after)
        self._systems[after.system].add(after.image_id, after.size)
        if uid is not None:
            self._users[after.system, uid].add(after.image_id, after.size)

    def _forget(self, entry: Entry) -> None:
        if entry.state.in_flight:
            self._pulls[entry.requested_uid] -= 1
            if not self._pulls[entry.requested_uid]:
                del self._pulls[entry.requested_uid]
        if entry.image_id is None:
            return
        uid = holder(entry)
        self._systems[entry.system].take(entry.image_id, entry.size)
        if uid is not None:
            mine = self._users[entry.system, uid]
            mine.take(entry.image_id, entry.size)
            if not mine.references:
                del self._users[entry.system, uid]


def holder(entry: Entry) -> int | None:
    return entry.brought_by if entry.owner is None else entry.owner
