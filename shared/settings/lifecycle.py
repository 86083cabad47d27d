"""What may come in, and how much of it each user and each system may hold."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.models import Digest, Strict
from shared.settings.types import Seconds

Count = Annotated[int, Field(ge=0)]
Somebody = Annotated[
    str, StringConstraints(pattern=r"^(\*|@?[A-Za-z0-9_][A-Za-z0-9_.-]*\$?)$", max_length=256)
]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class QuotaSettings(Strict):
    """For each user, and for each system; None: as much as there is."""

    user_images: Count | None = None
    user_bytes: Count | None = None
    """Of different images: several references to one image count once."""
    user_pulls_in_flight: Count | None = None
    system_bytes: Count | None = None


class ImportSettings(Strict):
    """Who may make images of files. A user by name or uid, `@` and a group's, or `*`: everybody."""

    allow: tuple[Somebody, ...] = ()
    """Nobody by default; admins have to be named, too."""
    allow_public: tuple[Somebody, ...] = ()
    """Of those: who may give what they import to everybody."""


class AdmissionSettings(Strict):
    """What a site's security officer lets in. Patterns are as `docker.io/library/*`."""

    allow_registries: tuple[Pattern, ...] = ()
    """Registries and repositories; none given: all."""
    deny_registries: tuple[Pattern, ...] = ()
    """Refused, whatever else allows them."""
    deny_digests: tuple[Digest, ...] = ()
    """Of an index, a manifest, a config or a layer."""
    allow_digests: tuple[Digest, ...] = ()
    """Of manifests or indexes that need no examination: somebody has looked at them."""
    command: tuple[str, ...] = ()
    """Told on stdin what came; exit code 0 admits, 1 refuses and says why on stdout."""
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$")] | None = None
    timeout: Seconds = 600.0
    on_error: Literal["refuse", "allow"] = "refuse"
    """What an examination means that could not be made."""
    advice: Annotated[str, StringConstraints(max_length=1000)] | None = None
    """What users read in a refusal, such as whom to ask."""

    @model_validator(mode="after")
    def _one_examiner(self) -> Self:
        if self.command and self.url:
            message = "admission: give either a command or a url, not both"
            raise ValueError(message)
        if self.command and not Path(self.command[0]).is_absolute():
            message = "admission.command: begin with an absolute path"
            raise ValueError(message)
        return self
