"""Uses of images, for tests of the statistics."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from services.gateway.auth.identity import Principal, Scope
from services.gateway.usage.counting import HOUR, Counting
from shared.catalog.interface import Catalog
from shared.catalog.records import UsageRecord


@dataclass(frozen=True)
class Image:
    """What is counted of an image."""

    reference: str = "docker.io/library/debian:12"
    image_id: str | None = "a" * 64
    private: bool = False
    owner: int | None = None
    system: str = "alps"


def user(name: str, uid: int | None, *more: Scope) -> Principal:
    return Principal(name, frozenset((Scope.READ, *more)), via="munge", uid=uid)


ADA, BOB = user("ada", 1000), user("bob", 2000)
ADMIN = user("root", 0, Scope.ADMIN)
SERVICE = user("dashboard", None)
PUBLIC = Principal("anonymous", frozenset({Scope.READ}), via="nobody")


def counting(catalog: Catalog) -> Counting:
    return Counting(catalog, interval=3600, timeout=10)


async def stored(catalog: Catalog) -> list[UsageRecord]:
    return await catalog.usage.find({}, limit=10_000)


def used(number: int, when: datetime, **fields: object) -> UsageRecord:
    given: dict[str, object] = {
        "key": f"{when.strftime(HOUR)}/{number:08}",
        "version": 1,
        "system": "alps",
        "hour": when.strftime(HOUR),
        "uid": number % 500,
        "user": f"user{number % 500}",
        "reference": f"docker.io/library/image{number % 1000}:1",
        "image_id": sha256(b"%d" % (number % 1000)).hexdigest(),
        "lookups": number % 7,
        "pulls": 1,
        "last": when,
        "due_at": when,
        **fields,
    }
    return UsageRecord.model_validate(given)
