"""What is there before the day begins: READY images, of which some are private, and their use."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from random import Random
from typing import Final, TypeVar

from bench.scene.cast import OWNER, SECOND_SYSTEM, SYSTEM, USERS
from bench.scene.content import content, references
from services.gateway.placed import placed_image
from services.gateway.transitions import PullTarget, Request, Transitions
from shared.catalog.interface import Change, Collection, Step
from shared.catalog.records import ImageRecord, Record, UsageRecord
from shared.deadline import Deadline
from shared.events import ImagePlaced
from shared.models import utcnow
from shared.states import State

R = TypeVar("R", bound=Record)

IMAGES: Final = 260
_PRIVATE: Final = 9
_AT_ONCE: Final = 500
_USES: Final = 3000


def images(rules: Transitions, seed: int) -> Iterator[ImageRecord]:
    """Public ones on both systems, and the private ones of one user."""
    rng = Random(seed)
    names = references(IMAGES)
    for number, reference in enumerate(names):
        system = SECOND_SYSTEM if number % 7 == 3 else SYSTEM
        yield _ready(rules, PullTarget(system, "docker", reference), rng)
    for reference in names[:_PRIVATE]:
        repository, _, tag = reference.rpartition(":")
        mine = PullTarget(SYSTEM, "docker", f"{repository}-private:{tag}", OWNER.uid)
        yield _ready(rules, mine, rng)


def usage(seed: int) -> Iterator[UsageRecord]:
    """Some images are used far more than others, in working hours more than at night."""
    rng, now = Random(seed), utcnow()
    names = references(IMAGES)
    seen: set[str] = set()
    for _ in range(_USES):
        user = rng.choice(USERS)
        reference = names[min(int(rng.expovariate(0.03)), IMAGES - 1)]
        last = now - timedelta(minutes=rng.expovariate(1 / 4000))
        hour = last.strftime("%Y-%m-%dT%H")
        key = f"{hour}/{user.uid}/{reference}"
        if key in seen:
            continue
        seen.add(key)
        yield UsageRecord(
            key=key,
            due_at=last,
            system=SYSTEM,
            hour=hour,
            uid=user.uid,
            user=user.name,
            reference=reference,
            image_id=content(reference).recipe().image_id,
            lookups=rng.randint(1, 60),
            jobs=rng.randint(0, 12),
            last=last,
        )


async def put(collection: Collection[R], records: Iterable[R]) -> None:
    """Store what is new there."""
    everything = list(records)
    for start in range(0, len(everything), _AT_ONCE):
        await _put(collection, everything[start : start + _AT_ONCE])


async def _put(collection: Collection[R], records: Sequence[R]) -> None:
    steps = {record.key: _step(record) for record in records}
    await collection.change_all(steps, Deadline.after(60))


def _step(record: R) -> Step[R]:
    return lambda _found: Change(record)


def _ready(rules: Transitions, target: PullTarget, rng: Random) -> ImageRecord:
    user = OWNER if target.owner is not None else rng.choice(USERS)
    then = utcnow() - timedelta(hours=rng.uniform(1, 1500))
    used = then + (utcnow() - then) * rng.random() ** 0.3
    asked = rules.request(None, Request(target, user.name, uid=user.uid), then)
    assert asked is not None
    recipe = content(target.reference).recipe()
    placed = ImagePlaced(
        correlation_id=asked.record.pull_id,
        key=target.key,
        attempt=1,
        system=target.system,
        image_id=recipe.image_id,
        content_digest=recipe.content_digest,
        size=recipe.size,
    )
    days = rules.days(target.system)
    return asked.record.but(
        state=State.READY,
        current=placed_image(asked.record, recipe, placed, then),
        image_id=recipe.image_id,
        last_pull=then,
        checked_at=then,
        last_used=used,
        expires_at=used + timedelta(days=days),
        due_at=used + timedelta(days=days),
        pinned=rng.random() < 0.06,
    )
