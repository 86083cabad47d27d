"""READY images."""

from shared.catalog.records import ImageType
from shared.image.planning.shares import LayerShare
from shared.image.recipe import PackOptions
from shared.models import Bytes, Digest, ImageId, Instant, Sha256, SystemName, Tolerant


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


class LayerView(LayerShare):
    """One layer of an image, and how many other images of the catalog have its pack too."""

    others: Bytes


class ImageDetail(ImageView):
    """GET /images/{system}/{type}/{reference}?sharing=true: what the image is made of.

    `shares` is empty for an image that an earlier version placed.
    """

    options: PackOptions
    shares: tuple[LayerView, ...]


class ImagePage(Tolerant):
    """GET /images. `next` is the `after` of the next page; None: this was the last."""

    items: tuple[ImageView, ...]
    next: str | None
