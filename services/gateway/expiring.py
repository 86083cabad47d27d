"""When references expire and what becomes of their images, as pure functions on one record.

A record that is READY is due when it expires, and so the sweep finds it. It drops its image at
once and is EXPIRING until the image's file is gone, or is known to stay for others; what decides
that is in `removals`. A pull that comes meanwhile starts from nothing and simply wins.
"""

from datetime import datetime, timedelta
from typing import Final, Protocol

from services.gateway.steps import moved
from shared.catalog.interface import Change
from shared.catalog.records import ImageRecord, image_key
from shared.errors import DrayError
from shared.events import Event, ImageExpireRequested, ImagePlaced
from shared.imported import pinned
from shared.models import ImageId
from shared.states import State

USE_COUNTS_AFTER: Final = timedelta(hours=1)
"""No use is written to the catalog while an earlier one is not older than this."""
FIRST_LOOK: Final = timedelta(minutes=1)
LAST_LOOKS: Final = timedelta(hours=1)
EXPIRED_SHOWN: Final = timedelta(days=30)

Changed = Change[ImageRecord] | None


class PullUnderWayError(DrayError):
    """What is being pulled cannot expire."""

    code = "pull_under_way"
    status = 409
    retryable = True


class Usable(Protocol):
    """What says when a record was used last: the record, or its outline."""

    @property
    def key(self) -> str: ...
    @property
    def system(self) -> str: ...
    @property
    def last_pull(self) -> datetime: ...
    @property
    def last_used(self) -> datetime | None: ...


def last_use(record: Usable) -> datetime:
    return max(record.last_pull, record.last_used or record.last_pull)


def lasting(record: ImageRecord, days: int) -> ImageRecord:
    """The record as it should be, so that it expires so many days after its last use; 0: never."""
    expires = None
    if record.current is not None and days:
        expires = last_use(record) + timedelta(days=days)
    due = record.due_at
    if record.state is State.READY:
        due = None if record.pinned else expires
    # Not validated again: both are as they were made here.
    return record.model_copy(update={"expires_at": expires, "due_at": due})


def used(record: ImageRecord | None, at: datetime, days: int) -> Changed:
    """Somebody has used the image."""
    if record is None or record.current is None or at - last_use(record) < USE_COUNTS_AFTER:
        return None
    return Change(lasting(record.but(last_used=at), days))


def reviewed(record: ImageRecord | None, now: datetime, days: int, *, held: bool) -> Changed:
    """What the settings say of it by now; what a job holds is being used."""
    if record is None or record.state is not State.READY:
        return None
    using = held and now - last_use(record) >= USE_COUNTS_AFTER
    after = lasting(record.but(last_used=now) if using else record, days)
    if after.due_at is not None and after.due_at <= now:
        return dismissed(record, now)
    if (after.expires_at, after.due_at) == (record.expires_at, record.due_at):
        return None
    return Change(after)


def dismissed(record: ImageRecord | None, now: datetime) -> Changed:
    """The reference stands for nothing any more; its image may go, if it is nobody else's."""
    if record is None or record.state in {State.EXPIRING, State.EXPIRED}:
        return None
    if record.state.in_flight:
        raise PullUnderWayError(
            f"{record.reference} is being pulled on {record.system}: wait until that has ended"
        )
    image = None if record.current is None else record.current.image_id
    after = moved(
        record,
        State.EXPIRED if image is None else State.EXPIRING,
        now,
        leaving=image,
        current=None,
        image_id=None,
        pinned=False,
        expires_at=None,
        progress=None,
        recipe=None,
        # That it was asked for is nobody else's news when it has expired, either.
        failure=record.failure if record.refused else None,
        waiting_since=now,
        due_at=now + (EXPIRED_SHOWN if image is None else FIRST_LOOK),
    )
    return Change(after, () if image is None else (expire_request(record, image),))


def asked_again(record: ImageRecord | None, now: datetime, *, reachable: bool) -> Changed:
    """Nobody has said yet what became of the image: ask again, ever more rarely."""
    if record is None or record.state is not State.EXPIRING or record.leaving is None:
        return None
    if record.due_at is None or record.due_at > now:
        return None
    if not reachable:  # the settings have no such system any more
        return settled(record, record.leaving, now)
    pause = min(LAST_LOOKS, max(FIRST_LOOK, now - record.waiting_since))
    request = expire_request(record, record.leaving)
    return Change(record.but(due_at=now + pause), (request,))


def settled(record: ImageRecord | None, image: ImageId, now: datetime) -> Changed:
    """The image is gone, or stays for others: either way this reference is done with it."""
    if record is None or record.state is not State.EXPIRING or record.leaving != image:
        return None
    due = now + EXPIRED_SHOWN
    return Change(moved(record, State.EXPIRED, now, leaving=None, due_at=due))


def pin(record: ImageRecord | None, days: int, *, pinned: bool) -> Changed:
    """A pinned reference does not expire by itself."""
    if record is None or record.pinned == pinned:
        return None
    return Change(lasting(record.but(pinned=pinned), days))


def stray(record: ImageRecord | None, event: ImagePlaced) -> Changed:
    """An image was placed that its pull did not want any more: have it looked at."""
    if record is None or record.image_id == event.image_id:
        return None
    if record.recipe is not None and record.recipe.image_id == event.image_id:
        return None  # the attempt that is placing it looks after it
    return Change(record, (expire_request(record, event.image_id),))


def by_digest(moving: ImageRecord) -> ImageRecord | None:
    """The image that a reference is about to move away from, under its digest; None: no need.

    Somebody may have looked its id up and count on it, such as a job that is not announced yet.
    """
    current = moving.current
    if current is None:
        return None
    reference = pinned(moving.reference, current.reference_digest)
    key = image_key(moving.system, moving.itype, reference, moving.owner)
    if key == moving.key:
        return None
    return moving.but(
        key=key,
        version=0,
        reference=reference,
        state=State.READY,
        steps=(),
        pull_id=f"{moving.pull_id}-before",
        awaited_by=(),
        pinned=False,
        progress=None,
        recipe=None,
        arrives_public=False,
        failure=None,
        file=None,
        file_identity=None,
        login=None,
        ticket=None,
    )


def kept(found: ImageRecord | None, digest: ImageRecord, days: int) -> Changed:
    """The record of that digest, unless it stands for something, or is about to."""
    if found is None:
        return Change(lasting(digest, days))
    if found.current is not None or found.state.in_flight:
        return None
    again = digest.but(version=found.version, attempt=found.attempt)
    return Change(lasting(again, days))


def dropped(before: ImageRecord, after: ImageRecord) -> tuple[Event, ...]:
    """What to say of images that a record stood for, or was to stand for, and does not now."""
    had = {before.image_id, before.recipe.image_id if before.recipe else None}
    return tuple(
        expire_request(after, image) for image in had if image not in {None, after.image_id}
    )


def expire_request(record: ImageRecord, image: ImageId) -> ImageExpireRequested:
    return ImageExpireRequested(correlation_id=record.pull_id, system=record.system, image_id=image)
