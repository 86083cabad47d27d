"""What every document of the catalog has."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, PlainSerializer

from shared.catalog.store import sortable
from shared.models import Instant, Tolerant, utcnow

Moment = Annotated[Instant, PlainSerializer(sortable, when_used="json")]
"""A time that records are put in order by: the order of its text is the order of time."""


class Record(Tolerant):
    """One document. `version` counts its changes; `due_at` asks the sweep to look at it."""

    collection: ClassVar[str]
    indexes: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Top-level fields that `find` filters by, beside the key."""

    key: Annotated[str, Field(max_length=1024)]
    version: int = 0
    due_at: Instant | None = None
    updated_at: Instant = Field(default_factory=utcnow)

    def but(self, **changes: object) -> Self:
        """A validated copy with other values."""
        return type(self).model_validate({**dict(self), **changes, "updated_at": utcnow()})


class Failure(Tolerant):
    """Why a pull or a staging ended badly."""

    code: str
    message: str

    @property
    def refused(self) -> bool:
        """The registry does not give it, or says so by not knowing it, as many do."""
        return self.code in {"registry_access_refused", "image_not_found"}
