"""Users who pull: always about as many at once, and whenever one pull ends another begins."""

import asyncio
from datetime import timedelta
from random import Random
from typing import Final

from bench.scene.cast import OWNER, SECOND_SYSTEM, SYSTEM, TROUBLES, USERS, WAITING, User
from bench.scene.content import references
from bench.scene.shelf import IMAGES
from services.gateway.transitions import PullTarget, Request, Transitions
from shared.catalog.interface import Catalog, PendingEvent
from shared.catalog.records import ImageRecord, Record
from shared.deadline import Deadline
from shared.models import utcnow
from shared.tasks import cancel_all

_STRANGER: Final = User("<b>mallory</b>", 1666)
_NEW: Final = 400
"""References that take turns beyond those that are READY from the start."""


class Crowd:
    """The users of the site, as one service. They ask as a gateway would note it down."""

    name = "crowd"

    def __init__(
        self, catalog: Catalog, rules: Transitions, *, pulls: int, seed: int, plain: bool
    ) -> None:
        self._catalog = catalog
        self._rules = rules
        self._pulls = pulls
        self._plain = plain
        self._rng = Random(seed)
        self._names = references(IMAGES + _NEW)[IMAGES:]
        self._next = 0
        self._under_way: set[str] = set()
        self._ended: asyncio.Queue[None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        catalog.listen(self._changed)

    async def start(self, deadline: Deadline) -> None:
        del deadline
        for trouble in TROUBLES:
            strange = "<" in trouble.reference
            if strange and self._plain:
                continue
            user = _STRANGER if strange else self._rng.choice(USERS)
            target = PullTarget(SYSTEM, "docker", trouble.reference)
            await self._ask(target, user, ago=self._rng.uniform(20, 1500))
        for reference in WAITING:
            target = PullTarget(SYSTEM, "docker", reference)
            await self._ask(target, self._rng.choice(USERS), ago=self._rng.uniform(90, 400))
        # The longest ago first: the last ones still wait for a converter.
        begun = max(0, self._pulls - len(WAITING) - 1)
        for number in range(begun):
            await self._one_more(ago=3 + 200 * (1 - number / begun) ** 2)
        self._task = asyncio.create_task(self._go_on(), name="crowd")

    async def stop(self, deadline: Deadline) -> None:
        del deadline
        if self._task is not None:
            await cancel_all(self._task)

    async def _go_on(self) -> None:
        while True:
            await self._ended.get()
            await asyncio.sleep(self._rng.uniform(0.5, 4))
            await self._one_more()

    async def _one_more(self, *, ago: float = 0.0) -> None:
        reference = self._names[self._next % len(self._names)]
        private = self._next % 12 == 5
        system = SECOND_SYSTEM if self._next % 9 == 4 else SYSTEM
        self._next += 1
        user = OWNER if private else self._rng.choice(USERS)
        target = PullTarget(system, "docker", reference, OWNER.uid if private else None)
        self._under_way.add(target.key)
        await self._ask(target, user, ago=ago)

    async def _ask(self, target: PullTarget, user: User, *, ago: float) -> None:
        """What was asked for so many seconds ago."""
        then = utcnow() - timedelta(seconds=ago)
        ask = Request(target, user.name, force=True, uid=user.uid)
        await self._catalog.images.change(
            target.key,
            lambda found: self._rules.request(found, ask, then),
            Deadline.after(10),
        )

    def _changed(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        if (
            isinstance(record, ImageRecord)
            and not record.state.in_flight
            and record.key in self._under_way
        ):
            self._under_way.discard(record.key)
            self._ended.put_nowait(None)
