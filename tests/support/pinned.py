"""Insides of unpacked images, pinned as a node's agent does it, for jobs that no agent knows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.node_agent.inside.builder import build
from services.node_agent.inside.furnish import plan_of
from services.node_agent.inside.order import BuildOrder
from services.node_agent.inside.pins import ALIAS, Pins
from services.node_agent.unmount import clear
from shared.inside.manifest import Manifest
from shared.inside.people import Person
from shared.settings.inside import InsideSettings
from tests.support.users import NOBODY

SECONDS = 60.0


class Pinned:
    """What an agent has in its directory of insides."""

    def __init__(self, directory: Path) -> None:
        self._pins = Pins(directory)
        self.directory = self._pins.directory

    def add(
        self,
        job: str,
        image_id: str,
        tree: Path,
        manifest: Manifest | None = None,
        *,
        uid: int = NOBODY,
        for_users: bool = True,
        site: InsideSettings | None = None,
    ) -> Path:
        """Furnish the image in `tree` for a job of this user."""
        person = Person.of(uid, uid, ())
        order = BuildOrder(
            plan=plan_of(str(tree), person, site or InsideSettings()).to_json(),
            uid=uid,
            gid=uid,
            gids=(),
            for_users=for_users and uid != 0,
        )
        name = f"{job}.{image_id}"
        files = (manifest or Manifest()).files()
        path = build(self._pins, name, order, files, SECONDS)
        self._pins.call(name, f"{job}{ALIAS}{image_id}")
        return path

    def close(self) -> None:
        """Nothing is left of them."""
        clear(self.directory)


@contextmanager
def pinned_in(directory: Path) -> Iterator[Pinned]:
    pinned = Pinned(directory)
    try:
        yield pinned
    finally:
        pinned.close()
