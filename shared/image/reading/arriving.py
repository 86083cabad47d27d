"""Checks an image while its bytes come, in their order: for pipes, which nobody reads twice.

Its description, which lies at its end, has to be at hand before.
"""

import hashlib

from shared.image.errors import ImageCorruptError
from shared.image.reading.inspection import FoundImage, recipe_of
from shared.image.recipe import Segment
from shared.models import Sha256

_UNKNOWN = "0" * 64


class ArrivingImage:
    """Takes all of an image, piece by piece; `content_digest` says what it was."""

    def __init__(self, image: FoundImage) -> None:
        if image.description is None:
            raise ImageCorruptError(f"{image.path.name} does not say what its bytes must be")
        self._image = image
        self._description = image.description
        recipe = recipe_of(image, image.description, _UNKNOWN)
        self._superblock = bytes.fromhex(recipe.superblock)
        # What has bytes of its own, by where it ends; between them all is zero.
        self._regions = list(recipe.regions)
        self._position = 0
        self._digest = hashlib.sha256()

    def take(self, piece: bytes) -> None:
        """ImageCorruptError as soon as it shows that something is wrong."""
        view = memoryview(piece)
        while view:
            end = self._take_part(view)
            view = view[end - self._position :]
            self._position = end

    def _take_part(self, view: memoryview) -> int:
        """Up to the next place where something else begins."""
        position = self._position
        head = len(self._superblock)
        if position < head:
            end = min(head, position + len(view))
            if view[: end - position] != self._superblock[position:end]:
                raise self._damaged()
            return end
        if position >= self._image.size:
            raise self._damaged()
        region = self._regions[0]
        if position < region.offset:
            end = min(region.offset, position + len(view))
            if any(view[: end - position]):
                raise self._damaged()
            return end
        last = region.offset + region.length
        end = min(last, position + len(view))
        self._digest.update(view[: end - position])
        if end == last and isinstance(region, Segment):
            if self._digest.hexdigest() != region.sha256:
                raise self._damaged()
            self._digest = hashlib.sha256()
            del self._regions[0]
        return end

    def content_digest(self) -> Sha256:
        """Of all that came: the tables' own digest is only known now."""
        if self._position != self._image.size:
            raise self._damaged()
        recipe = recipe_of(self._image, self._description, self._digest.hexdigest())
        return recipe.content_digest

    def _damaged(self) -> ImageCorruptError:
        return ImageCorruptError(
            f"{self._image.path.name} is damaged near byte {self._position:,}: it is not what it "
            "says of itself"
        )
