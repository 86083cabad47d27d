"""READY images."""

from typing import Annotated, Final

from pydantic import Field

from shared.catalog.records import ImageType
from shared.events import Uid
from shared.image.planning.shares import LayerShare
from shared.image.recipe import PackOptions
from shared.layout import PlacedLayout
from shared.models import Bytes, Digest, ImageId, Instant, Sha256, Strict, SystemName, Tolerant

MAX_NAMED: Final = 512
Named = Annotated[tuple[Uid, ...], Field(max_length=MAX_NAMED)]
"""Users or groups whom an owner names."""


class ImageView(Tolerant):
    """A READY image."""

    id: ImageId
    system: SystemName
    type: ImageType
    reference: str
    manifest_digest: Digest
    config_digest: Digest
    """What Docker calls the image's id."""
    content_digest: Sha256
    size: Bytes
    inodes: Bytes
    layers: tuple[Digest, ...]
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str
    labels: dict[str, str]
    ready_at: Instant
    private: bool = False
    """Its registry gives it only to users whom it knows: it is its owner's, and its readers'."""
    owner: Uid | None = None
    """Whose it is, if it is private; what is public is everybody's."""
    pinned: bool = False
    """It does not expire by itself."""
    expires_at: Instant | None = None
    """Unless it is used again, or pinned."""
    last_used: Instant | None = None
    """Pulling counts; uses within an hour of one that counts do not."""


class LayerView(LayerShare):
    """One layer of an image, and how many other images of the catalog have its pack too."""

    others: Bytes


class ImageDetail(ImageView):
    """GET /images/{system}/{type}/{reference}?sharing=true: what the image is made of.

    `shares` is empty for an image that an earlier version placed.
    """

    options: PackOptions
    shares: tuple[LayerView, ...]
    layout: PlacedLayout | None = None
    """Of its file, on Lustre."""


class ReadersRequest(Strict):
    """PUT /images/{system}/{type}/{reference}/readers: who may use it besides its owner."""

    uids: Named = ()
    gids: Named = ()


class ReadersView(Tolerant):
    """Who may use an image of one's own. `warning`: why naming them has no effect."""

    owner: Uid | None
    private: bool
    uids: tuple[Uid, ...]
    gids: tuple[Uid, ...]
    warning: str | None = None


class SystemsView(Tolerant):
    """GET /systems."""

    items: tuple[SystemName, ...]


class ImagePage(Tolerant):
    """GET /images. `next` is the `after` of the next page; None: this was the last."""

    items: tuple[ImageView, ...]
    next: str | None
