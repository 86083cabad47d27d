"""Images in a catalog, and users who may do more or less with them."""

from datetime import datetime

from services.gateway.auth.identity import Principal, Scope
from services.gateway.expiring import lasting
from services.gateway.transitions import PullTarget
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord, JobRecord, image_key
from shared.events import NodeImage
from shared.models import utcnow
from tests.support.catalogs import put, soon
from tests.support.transitions import ready

SYSTEM = "cluster"
DAYS = 90


def somebody(uid: int | None, *more: Scope, gids: frozenset[int] = frozenset()) -> Principal:
    scopes = frozenset({Scope.READ, Scope.PULL, *more})
    return Principal(f"user{uid}", scopes, via="munge", uid=uid, gids=gids)


ADA, BOB, EVE = somebody(1000), somebody(2000), somebody(3000)
ADMIN = somebody(0, Scope.ADMIN)
NOBODY = Principal("anonymous", frozenset({Scope.READ, Scope.PULL}), via="nobody")


def target(name: str) -> PullTarget:
    return PullTarget(SYSTEM, "docker", f"docker.io/library/{name}:1")


def image(
    name: str = "debian",
    letter: str = "a",
    *,
    owner: int | None = None,
    last: datetime | None = None,
    days: int = DAYS,
    size: int = 8192,
    **fields: object,
) -> ImageRecord:
    """A reference that is READY, and was used last then."""
    reference = target(name).reference
    record = ready()
    assert record.current is not None
    current = record.current.model_copy(update={"image_id": letter * 64, "size": size})
    made: dict[str, object] = {
        "key": image_key(SYSTEM, "docker", reference, owner),
        "pull_id": f"pull-{name}-{owner}",
        "reference": reference,
        "owner": owner,
        "private": owner is not None,
        "requested_uid": 1000 if owner is None else owner,
        "brought_by": 1000 if owner is None else owner,
        "last_pull": last or utcnow(),
        "image_id": letter * 64,
        "current": current,
        **fields,
    }
    return lasting(record.but(**made), days)


async def store(catalog: Catalog, *records: ImageRecord) -> None:
    for record in records:
        await catalog.images.change(record.key, put(record), soon())


async def stored(catalog: Catalog, name: str = "debian", owner: int | None = None) -> ImageRecord:
    key = image_key(SYSTEM, "docker", target(name).reference, owner)
    found = await catalog.images.get(key)
    assert found is not None
    return found


async def announce(catalog: Catalog, job: str, *letters: str) -> None:
    images = tuple(
        NodeImage(image_id=letter * 64, content_digest="c" * 64, size=1) for letter in letters
    )
    record = JobRecord(
        key=job,
        job_id=job,
        system=SYSTEM,
        requested=(),
        images=images,
        nodes=("node1",),
        node_count=1,
        announced_by="slurm",
        announced_at=utcnow(),
    )
    await catalog.jobs.change(job, lambda _: Change(record), soon())


async def release(catalog: Catalog, job: str) -> None:
    def step(found: JobRecord | None) -> Change[JobRecord]:
        assert found is not None
        return Change(found.but(released_at=utcnow()))

    await catalog.jobs.change(job, step, soon())
