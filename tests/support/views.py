"""Pulls and images as the gateway would describe them."""

from datetime import UTC, datetime
from typing import Any

from shared.api import ImageDetail, ImageView, LayerView, PullView
from shared.catalog.records import Failure, Progress
from shared.events import LayerProgress
from shared.image.recipe import PackOptions
from shared.states import State

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
REFERENCE = "docker.io/library/alpine:3"
DIGEST = "sha256:" + "d" * 64


def image_view(**changes: Any) -> ImageView:
    values: dict[str, Any] = {
        "id": "a" * 64,
        "system": "local",
        "type": "docker",
        "reference": REFERENCE,
        "manifest_digest": DIGEST,
        "config_digest": "sha256:" + "a" * 64,
        "content_digest": "b" * 64,
        "size": 3_456_789,
        "inodes": 80,
        "layers": (DIGEST,),
        "env": ("PATH=/usr/bin", "LANG=C.UTF-8"),
        "entrypoint": (),
        "cmd": ("/bin/sh",),
        "workdir": "/srv",
        "labels": {},
        "ready_at": NOW,
    }
    return ImageView.model_validate(values | changes)


def image_detail(**changes: Any) -> ImageDetail:
    """The image above, of one layer that two others have as well."""
    share = LayerView(
        digest=DIGEST, pack="c" * 64, size=3_000_000, dead=300_000, left_out=5, pieces=2, others=2
    )
    values = dict(image_view()) | {"options": PackOptions(), "shares": (share,)}
    return ImageDetail.model_validate(values | changes)


def pull_view(state: State, **changes: Any) -> PullView:
    values: dict[str, Any] = {
        "id": "pull-1",
        "system": "local",
        "type": "docker",
        "reference": REFERENCE,
        "state": state,
        "attempt": 1,
        "tries": 1,
        "requested_at": NOW,
        "requested_by": "anonymous",
        "updated_at": NOW,
        "progress": None,
        "failure": None,
        "image": image_view() if state is State.READY else None,
    }
    return PullView.model_validate(values | changes)


def pulling(done: int, total: int, *, waiting: str | None = None) -> PullView:
    layer = LayerProgress(digest=DIGEST, done=done, total=total)
    reused = LayerProgress(digest="sha256:" + "e" * 64, done=0, total=total, cached=True)
    progress = Progress(
        stage=State.PULLING,
        done=done,
        total=total,
        rate=1e6,
        layers=(layer, reused),
        waiting=waiting,
    )
    return pull_view(State.PULLING, progress=progress)


def again(message: str, *, tries: int = 2) -> PullView:
    """A pull that failed and is tried again in a moment."""
    failure = Failure(code="unreachable", message=message)
    return pull_view(State.INIT, failure=failure, tries=tries)


def failed(message: str, **changes: Any) -> PullView:
    return pull_view(State.FAILURE, failure=Failure(code="denied", message=message), **changes)
