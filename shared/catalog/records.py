"""The catalog's documents. Frozen: a change is a copy, and becomes true by compare-and-set."""

from typing import Literal

from shared.catalog.job_records import (
    JobRecord,
    NodeRecord,
    StagingRecord,
    StagingState,
    staging_key,
)
from shared.catalog.record import Failure, Moment, Record
from shared.events import ImportedFile, LayerProgress, Readers, TraceParent, Uid
from shared.image.planning.shares import LayerShare
from shared.image.recipe import DeadShare, ImageConfig, PackOptions, Recipe
from shared.layout import PlacedLayout
from shared.models import (
    Bytes,
    Digest,
    ImageId,
    Instant,
    Rate,
    Sha256,
    SystemName,
    Tolerant,
)
from shared.states import State

__all__ = [
    "Failure",
    "ImageRecord",
    "ImageType",
    "JobRecord",
    "LoginRecord",
    "Moment",
    "NodeRecord",
    "PlacedImage",
    "Progress",
    "PullStep",
    "ReadersRecord",
    "Record",
    "StagingRecord",
    "StagingState",
    "UsageRecord",
    "image_key",
    "login_key",
    "staging_key",
]

ImageType = Literal["docker", "custom"]


class Progress(Tolerant):
    """How far the running attempt is, as its worker last said."""

    stage: State
    done: Bytes = 0
    total: Bytes = 0
    rate: Rate = 0.0
    layers: tuple[LayerProgress, ...] = ()
    waiting: str | None = None
    """What it waits for, such as a registry that asks to come back later."""


class PullStep(Tolerant):
    """A pull came into a state. One that fails and is tried again is in INIT once more."""

    state: State
    at: Instant
    attempt: int


class PlacedImage(Tolerant):
    """The image that a reference stands for now: usable, whatever a newer pull is doing."""

    image_id: ImageId
    reference_digest: Digest
    manifest_digest: Digest
    config_digest: Digest
    pack: PackOptions
    max_dead_share: DeadShare
    """Both say how it was made: a system that wants it otherwise by now gets another image."""
    content_digest: Sha256
    size: Bytes
    inodes: Bytes
    config: ImageConfig
    layers: tuple[Digest, ...]
    shares: tuple[LayerShare, ...] = ()
    """What each layer has in it; empty where an earlier version placed it."""
    layout: PlacedLayout | None = None
    """Of its file, on Lustre."""
    file: str | None = None
    """What tells the file that it was imported from; the next import looks whether that changed."""
    ready_at: Instant


class ImageRecord(Record):
    """One system, type, reference and owner: the state of its latest pull, and its image.

    `attempt` only grows; events of an older attempt change nothing. `tries` counts the attempts
    of the present pull, `pull_id` names the pull in every log line and event.
    """

    collection = "images"
    indexes = (
        ("system", "state"),
        ("pull_id",),
        ("image_id",),
        ("reference",),
        ("owner",),
        ("leaving",),
    )

    system: SystemName
    itype: ImageType = "docker"
    reference: str
    owner: Uid | None = None
    """Whose it is; None: the site's, which everybody sees. Each owner has a record of their own."""
    private: bool = False
    """Of an owner's record: its registry asked for credentials, or that is not known yet."""
    arrives_public: bool = False
    """What is being placed is everybody's; `private` tells of what stands until then."""
    allowed_uids: tuple[Uid, ...] = ()
    allowed_gids: tuple[Uid, ...] = ()
    """Who else may see and use a private image."""
    file: ImportedFile | None = None
    """What the latest import reads, or read."""
    file_identity: str | None = None
    """Of what is being placed."""
    login: str | None = None
    """What its registry wants to hear from its owner, sealed; only while the pull is under way."""
    ticket: Sha256 | None = None
    """What fetches that, once, for the worker on the present attempt; its digest only."""
    state: State
    attempt: int
    tries: int
    pull_id: str
    trace: TraceParent = None
    """Of the request that began the present pull: whatever is asked for it belongs to that."""
    requested_at: Instant
    requested_by: str
    requested_uid: Uid | None = None
    brought_by: Uid | None = None
    """Who pulled what is here first: of an image for all the one who may take it away again."""
    awaited_by: tuple[str, ...] = ()
    """Who asked for it over Shifter's wire, and has not been told yet how it ended."""
    waiting_since: Instant
    """When the present attempt began to wait for a worker of its state."""
    begun: bool = False
    """Whether a worker has spoken since then: silence is a loss only after that."""
    steps: tuple[PullStep, ...] = ()
    """What the present pull went through; empty where an earlier version began it."""
    last_pull: Instant
    checked_at: Instant | None = None
    """When the registry last said what the reference points to."""
    last_used: Instant | None = None
    expires_at: Instant | None = None
    pinned: bool = False
    """It does not expire by itself."""
    leaving: ImageId | None = None
    """The image that it stood for, until that is known to be gone, or to stay for others."""
    progress: Progress | None = None
    failure: Failure | None = None
    pack: PackOptions
    max_dead_share: DeadShare
    """Both say how the running attempt makes it."""
    recipe: Recipe | None = None
    """The recipe that is being placed; kept only while TRANSFER may have to be repeated."""
    image_id: ImageId | None = None
    current: PlacedImage | None = None

    @property
    def refused(self) -> bool:
        """All that there is of it is a registry's refusal."""
        return self.current is None and self.failure is not None and self.failure.refused


class LoginRecord(Record):
    """What a user has given for a registry; while it is being tried, under a key of its own."""

    collection = "logins"
    indexes = (("uid",),)

    uid: Uid
    registry: str
    username: str
    sealed: str
    """User name and password, readable by gateways only; empty where they were refused."""
    ticket: Sha256 | None = None
    """What fetches them, once, for the converter that tries them; its digest only."""
    checked_at: Instant | None = None
    failure: Failure | None = None
    expires_at: Instant


class ReadersRecord(Record):
    """Who may use an image of a system, over all records of it; counts how often that changed."""

    collection = "readers"

    system: SystemName
    image_id: ImageId
    readers: Readers | None
    """None: everybody."""
    revision: Bytes = 0
    """Of the last word to distributors, who take only later ones."""


class UsageRecord(Record):
    """What one user did with one image in one hour: kept for statistics, and then forgotten.

    `due_at` is the last use as well: retention counts from there.
    """

    collection = "usage"
    # The first holds whatever is ever added up, so that the documents need not be read for it.
    indexes = (
        (
            *("system", "hour", "reference", "image_id", "uid", "user", "private", "owner"),
            *("lookups", "pulls", "jobs", "last"),
        ),
        ("system", "last"),
        ("system", "uid", "last"),
        ("image_id", "system", "uid", "user", "private", "owner"),
    )

    system: SystemName
    hour: str
    """As 2026-11-21T09, so that the order of the text is the order of time."""
    uid: Uid | None
    user: str
    reference: str
    image_id: ImageId | None
    private: bool = False
    owner: Uid | None = None
    """Both as the image's record had them then: who may see that it was used."""
    lookups: int = 0
    pulls: int = 0
    jobs: int = 0
    last: Moment


def image_key(system: str, itype: str, reference: str, owner: int | None = None) -> str:
    # No reference has a "#".
    return f"{system}/{itype}/{reference}" + ("" if owner is None else f"#{owner}")


def login_key(uid: int, registry: str) -> str:
    return f"{uid}/{registry}"
