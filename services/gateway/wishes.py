"""What somebody wants, and the record that a pull or an import begins with: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.gateway.access import named_by_owner
from services.gateway.steps import first_step
from shared import tracing
from shared.catalog.records import ImageRecord, ImageType, image_key
from shared.errors import DrayError
from shared.events import ImportedFile, Readers, new_id
from shared.settings.site import SystemSettings
from shared.states import State


class ImportUnderWayError(DrayError):
    """Another file is being imported under the same name."""

    code = "import_under_way"
    status = 409
    retryable = True


class NameTakenError(DrayError):
    """Somebody else has published an image under this name."""

    code = "name_taken"
    status = 409


@dataclass(frozen=True, slots=True)
class PullTarget:
    """What somebody wants: a reference, in its canonical form, on a system."""

    system: str
    itype: ImageType
    reference: str
    owner: int | None = None
    """Whose record it is; None: the site's."""

    @property
    def key(self) -> str:
        return image_key(self.system, self.itype, self.reference, self.owner)


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants it, and whether even if there is nothing new where it comes from."""

    target: PullTarget
    user: str
    force: bool = False
    uid: int | None = None
    login: str | None = field(default=None, repr=False)
    """Sealed; of an owner's pull."""
    readers: Readers | None = None
    """Whom the owner wants to have it besides; None: as it is."""
    file: ImportedFile | None = None
    """What is imported, and not pulled."""
    trace: str | None = field(default_factory=tracing.current)
    """Of the request that asked."""


def check_name_free(record: ImageRecord | None, ask: Request) -> None:
    """An error where an import would join, or replace, what is not the same or not theirs."""
    if ask.file is None or record is None:
        return
    stands = record.current is not None or record.state.in_flight
    if record.owner is None and stands and record.brought_by != ask.uid:
        raise NameTakenError(
            f"{record.reference} on {record.system} was published by another user: choose another "
            "name"
        )
    joined = record.file is not None and record.file.what == ask.file.what
    if record.state.in_flight and not joined:
        raise ImportUnderWayError(
            f"another file is being imported as {record.reference} on {record.system}: wait until "
            "that has ended (dray queue), or choose another name"
        )


def begun(
    record: ImageRecord | None,
    ask: Request,
    systems: Mapping[str, SystemSettings],
    now: datetime,
    due_at: datetime,
) -> ImageRecord:
    """The record of a new pull; what stands for the reference until it ends is kept."""
    target = ask.target
    fresh = ImageRecord(
        key=target.key,
        system=target.system,
        itype=target.itype,
        reference=target.reference,
        owner=target.owner,
        private=target.owner is not None,
        file=ask.file,
        login=ask.login,
        state=State.INIT,
        attempt=1,
        tries=1,
        pull_id=new_id(),
        trace=ask.trace,
        requested_at=now,
        requested_by=ask.user,
        requested_uid=ask.uid,
        brought_by=ask.uid,
        waiting_since=now,
        steps=first_step(State.INIT, 1, now),
        last_pull=now,
        pack=systems[target.system].pack,
        max_dead_share=systems[target.system].max_dead_share,
        due_at=due_at,
    )
    if record is not None:
        fresh = fresh.but(
            version=record.version,
            attempt=record.attempt + 1,
            steps=first_step(State.INIT, record.attempt + 1, now),
            image_id=record.image_id,
            current=record.current,
            # Pulling again what somebody brought for all makes it nobody else's.
            brought_by=ask.uid if record.current is None else record.brought_by,
            pinned=record.pinned,
            last_used=record.last_used,
            checked_at=record.checked_at,
            allowed_uids=record.allowed_uids,
            allowed_gids=record.allowed_gids,
            # Whoever has not been told yet how it failed is not forgotten.
            awaited_by=record.awaited_by if record.state is State.FAILURE else (),
        )
    return named_by_owner(fresh, ask.readers)
