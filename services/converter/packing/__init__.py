"""One layer, straight off the wire, becomes one pack; nothing is ever unpacked."""

from services.converter.packing.compressors import Compressors
from services.converter.packing.errors import (
    LayerInvalidError,
    LayerMismatchError,
    LayerTooLargeError,
)
from services.converter.packing.limits import Limits
from services.converter.packing.pack_layer import PackSummary, pack_layer
from services.converter.packing.stream import ByteSource, LayerDigests

__all__ = [
    "ByteSource",
    "Compressors",
    "LayerDigests",
    "LayerInvalidError",
    "LayerMismatchError",
    "LayerTooLargeError",
    "Limits",
    "PackSummary",
    "pack_layer",
]
