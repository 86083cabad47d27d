"""The pydantic bases of everything that crosses a boundary, and the types that they share."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints


class Strict(BaseModel):
    """Input that we define: an unknown key is a mistake, and is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tolerant(BaseModel):
    """Input that another version or another program wrote: what we do not know is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ImageId = Sha256
# Names become routing keys and file names: no dot, no slash, nothing to quote.
SystemName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
NodeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,252}$")]
JobId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+\[\]-]{0,127}$")]
# As many as a file system can count: a figure of any length would be nobody's to add up.
Bytes = Annotated[int, Field(ge=0, lt=1 << 63)]
# Per second. Infinity could be stored nowhere: JSON has no word for it.
Rate = Annotated[float, Field(ge=0, lt=1 << 63)]
Instant = AwareDatetime


def utcnow() -> datetime:
    return datetime.now(UTC)
