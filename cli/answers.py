"""What the gateway says about pulls and images, read once into plain values.

shared.api defines it with pydantic; importing that takes longer than a status command may last.
A test holds the two together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cli.errors import UnexpectedAnswerError
from cli.http import Json
from shared.states import State


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's bytes; cached: its pack is in the store already."""

    digest: str
    done: int
    total: int
    cached: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running attempt is."""

    stage: State
    done: int
    total: int
    rate: float
    layers: tuple[Layer, ...]
    waiting: str | None = None


class Program(Protocol):
    """What an image runs, whoever says it."""

    @property
    def reference(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def content_digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def env(self) -> tuple[str, ...]: ...
    @property
    def entrypoint(self) -> tuple[str, ...]: ...
    @property
    def cmd(self) -> tuple[str, ...]: ...
    @property
    def workdir(self) -> str: ...


@dataclass(frozen=True, slots=True)
class NodeProgram:
    """Of an image that this node has, by its agent."""

    reference: str
    id: str
    content_digest: str
    size: int
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str


@dataclass(frozen=True, slots=True)
class Image:
    """A READY image, as far as a command acts on it."""

    id: str
    reference: str
    system: str
    size: int
    content_digest: str
    layers: int
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str
    ready_at: datetime
    private: bool
    owner: int | None
    pinned: bool
    expires_at: datetime | None
    last_used: datetime | None


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull, and the gateway's own words for whoever wants JSON."""

    id: str
    reference: str
    system: str
    state: State
    tries: int
    requested_by: str
    requested_at: datetime
    progress: Progress | None
    failure: str | None
    image: Image | None
    warning: str | None
    raw: Json

    @property
    def ended(self) -> bool:
        return not self.state.in_flight

    @property
    def trouble(self) -> str | None:
        """Why it failed; of one that is tried again, why the last try did."""
        if not self.failure or self.ended:
            return self.failure
        if self.state is State.INIT:
            return f"try {self.tries} in a moment: {self.failure}"
        return f"this is try {self.tries}, after: {self.failure}"


def read_pull(raw: Json) -> Pull:
    with reading("a pull"):
        failure = raw["failure"]
        return Pull(
            id=raw["id"],
            reference=raw["reference"],
            system=raw["system"],
            state=State(raw["state"]),
            tries=raw["tries"],
            requested_by=raw["requested_by"],
            requested_at=read_time(raw["requested_at"]),
            progress=_read_progress(raw["progress"]) if raw["progress"] else None,
            failure=failure["message"] if failure else None,
            image=read_image(raw["image"]) if raw["image"] else None,
            warning=raw.get("warning"),
            raw=raw,
        )


def read_image(raw: Json) -> Image:
    with reading("an image"):
        return Image(
            id=raw["id"],
            reference=raw["reference"],
            system=raw["system"],
            size=raw["size"],
            content_digest=raw["content_digest"],
            layers=len(raw["layers"]),
            env=tuple(raw["env"]),
            entrypoint=tuple(raw["entrypoint"]),
            cmd=tuple(raw["cmd"]),
            workdir=raw["workdir"],
            ready_at=read_time(raw["ready_at"]),
            private=bool(raw.get("private", False)),
            owner=raw.get("owner"),
            pinned=bool(raw.get("pinned", False)),
            expires_at=_read_time_if_any(raw.get("expires_at")),
            last_used=_read_time_if_any(raw.get("last_used")),
        )


def read_time(text: str) -> datetime:
    with reading("a time"):
        return datetime.fromisoformat(text)


def _read_time_if_any(text: str | None) -> datetime | None:
    return None if text is None else read_time(text)


def _read_progress(raw: Json) -> Progress:
    layers = (
        Layer(entry["digest"], entry["done"], entry["total"], entry["cached"])
        for entry in raw["layers"]
    )
    return Progress(
        stage=State(raw["stage"]),
        done=raw["done"],
        total=raw["total"],
        rate=raw["rate"],
        layers=tuple(layers),
        waiting=raw.get("waiting"),
    )


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Name an answer that lacks what the body takes from it."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as exc:
        raise UnexpectedAnswerError(
            f"the answer about {what} cannot be read ({exc!r}): "
            "is who gave it of another version than this command?"
        ) from exc
