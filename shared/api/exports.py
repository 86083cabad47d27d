"""What leaves the site again: images as files."""

from shared.catalog.records import ImageType
from shared.models import Bytes, ImageId, Sha256, SystemName, Tolerant


class ExportView(Tolerant):
    """GET /images/{system}/{type}/{reference}/export: an image as a file."""

    id: ImageId
    system: SystemName
    type: ImageType
    reference: str
    size: Bytes
    content_digest: Sha256
    """Says what the file's bytes are: by its own description, which is at its end."""
    platform: str
    """Of the system, as linux/amd64."""
    private: bool = False
    file: str | None = None
    """Where it lies on the system's file system, for who sees that; the public is not told."""
