"""What an image is made of, as small as a gateway can keep it for each of very many images."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Final, Protocol

from shared.image.recipe import PackKey
from shared.models import Bytes, Tolerant

_MOST: Final = 2**64 - 1


class Share(Protocol):
    """One layer's part of an image."""

    @property
    def pack(self) -> PackKey: ...
    @property
    def size(self) -> int: ...
    @property
    def left_out(self) -> int: ...


class OutlinedShare(Tolerant):
    """What is read of it."""

    pack: PackKey
    size: Bytes
    left_out: Bytes = 0


@dataclass(frozen=True, slots=True)
class MadeOf:
    """An image's layers. The texts of packs are shared by all that have them, numbers packed."""

    layers: int
    packs: tuple[PackKey, ...]
    """Each once, though a layer may occur again; none where an earlier version placed the image."""
    _in_image: bytes
    _whole: bytes

    @property
    def in_image(self) -> Iterator[tuple[PackKey, int]]:
        """Each pack, and how many of its bytes are in the image."""
        return zip(self.packs, memoryview(self._in_image).cast("Q"), strict=True)

    @property
    def whole(self) -> Iterator[tuple[PackKey, int]]:
        """Each pack, and how many bytes it has."""
        return zip(self.packs, memoryview(self._whole).cast("Q"), strict=True)


def made_of(layers: Sequence[object], shares: Iterable[Share]) -> MadeOf:
    first: dict[PackKey, Share] = {}
    for share in shares:
        first.setdefault(share.pack, share)
    in_image = _packed(share.size for share in first.values())
    whole = _packed(share.size + share.left_out for share in first.values())
    packs = tuple(map(intern, first))
    return MadeOf(len(layers), packs, in_image, in_image if whole == in_image else whole)


def _packed(numbers: Iterable[int]) -> bytes:
    return array("Q", (min(number, _MOST) for number in numbers)).tobytes()
