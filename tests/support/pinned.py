"""Insides of unpacked images, pinned as a node's agent does it, for jobs that no agent knows."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from services.node_agent.inside.furnish import plan_of
from services.node_agent.inside.insides import Insides, Wish
from services.node_agent.inside.pins import Pins
from services.node_agent.unmount import clear
from shared.deadline import Deadline
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
        user_namespaces: bool = True,
    ) -> Path:
        """Furnish the image in `tree` for a job of this user."""
        person = Person.of(uid, uid, ())
        wish = Wish(plan_of(str(tree), person, InsideSettings()), person, manifest or Manifest())

        async def have() -> Path:
            insides = Insides(self._pins, user_namespaces=user_namespaces)
            return await insides.have(job, wish, Deadline.after(SECONDS), image=image_id)

        with ThreadPoolExecutor(1) as pool:  # the caller may have a loop of its own
            return pool.submit(asyncio.run, have()).result()

    def close(self) -> None:
        """Nothing is left of them."""
        clear(self.directory)


@contextmanager
def pinned_in(directory: Path) -> Iterator[Pinned]:
    """Nothing is left of them afterwards."""
    pinned = Pinned(directory)
    try:
        yield pinned
    finally:
        pinned.close()
