"""Pulls and the queue."""

from typing import Annotated, Literal

from pydantic import Field

from shared.api.images import ImageView, Named
from shared.catalog.records import Failure, ImageType, Progress, PullStep
from shared.events import Uid
from shared.models import Instant, Strict, SystemName, Tolerant
from shared.states import State


class PullRequest(Strict):
    """POST /pulls. Without a system the site's only one is meant.

    `force` checks and, where it is damaged, makes again what is placed, even if the registry has
    nothing new. `allowed_uids` and `allowed_gids` name who may use a private image besides its
    owner; who names nobody leaves that as it is. `uid` is for admins: for whom it is, as if that
    user had asked, with the logins that they keep here. So a scheduler stages images in.
    """

    reference: Annotated[str, Field(min_length=1, max_length=512)]
    system: SystemName | None = None
    type: Literal["docker"] = "docker"
    force: bool = False
    allowed_uids: Named | None = None
    allowed_gids: Named | None = None
    uid: Uid | None = None


class PullView(Tolerant):
    """One pull. `image` is what the reference stands for now, perhaps from an earlier pull."""

    id: str
    system: SystemName
    type: ImageType
    reference: str
    state: State
    attempt: int
    tries: int
    requested_at: Instant
    requested_by: str
    updated_at: Instant
    progress: Progress | None
    failure: Failure | None
    image: ImageView | None
    private: bool = False
    """Also while it is not known yet whether the registry gives it to everybody."""
    warning: str | None = None
    """What the user should know of a pull that went well."""
    steps: tuple[PullStep, ...] = ()
    """The states that it went through, the oldest first; of very many the first and the last."""


class QueueView(Tolerant):
    """GET /queue: what is under way, and what failed last."""

    items: tuple[PullView, ...]
    next: str | None = None
    """`after` of the next page; null: this was the last."""


class QueueGone(Tolerant):
    """GET /queue/events: a pull that is not in the queue any more, or not for your eyes."""

    id: str
