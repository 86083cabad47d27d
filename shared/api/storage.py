"""Where the bytes are, and what sharing saves."""

from shared.catalog.records import ImageType
from shared.models import Bytes, ImageId, Instant, SystemName, Tolerant


class StoreView(Tolerant):
    """The pack store, as whoever cleaned it last has counted it."""

    packs: Bytes
    bytes: Bytes
    free_bytes: Bytes
    at: Instant


class ImageDirectoryView(Tolerant):
    """One system's image directory, as its distributor saw it last."""

    system: SystemName
    images: Bytes
    bytes: Bytes
    free_bytes: Bytes
    reserve_bytes: Bytes
    """With less room than this, pulls fail."""
    at: Instant


class SharingTotals(Tolerant):
    """What the images of the catalog are made of. An image of several references counts once."""

    images: Bytes
    image_bytes: Bytes
    """Of all images, each for itself."""
    pack_bytes: Bytes
    """Of what they are made of, each pack once."""
    layers: Bytes
    packs: Bytes


class StorageView(Tolerant):
    """GET /storage."""

    stores: tuple[StoreView, ...]
    systems: tuple[ImageDirectoryView, ...]
    sharing: SharingTotals


class ImageRow(Tolerant):
    """A READY image as a line of a table."""

    id: ImageId
    system: SystemName
    type: ImageType
    reference: str
    size: Bytes
    shared_bytes: Bytes | None
    """Of these, bytes of packs that other images have as well; null: not known."""
    layers: Bytes
    users: Bytes | None
    """How many have used it, as far as usage is kept; null: not for whoever asks."""
    last_used: Instant | None
    ready_at: Instant
    expires_at: Instant | None
    pinned: bool
    private: bool
    owner: int | None


class ImageTable(Tolerant):
    """GET /images/table: `total` and `bytes` are of all that match, not of this page."""

    items: tuple[ImageRow, ...]
    total: Bytes
    bytes: Bytes
    next: str | None = None
    """`after` of the next page; null: this was the last."""
