"""How much one layer may be: far above honest layers, far below what would hurt."""

from dataclasses import dataclass

from services.converter.packing.errors import LayerTooLargeError

GIB = 1 << 30
# Bounds on names, as Linux has them; longer ones could not be opened anyway.
MAX_NAME = 255
MAX_PATH = 4096
MAX_LINK_TARGET = 4095
MAX_XATTR_NAME = 255
MAX_XATTR_VALUE = 65536


@dataclass(frozen=True, slots=True)
class Limits:
    """Per layer. A ratio counts only from a size on: zeros compress without any malice."""

    max_bytes: int = 512 * GIB
    max_ratio: int = 250
    ratio_from: int = 8 * GIB
    max_entries: int = 8_000_000
    max_metadata: int = 1 << 20

    def check_bytes(self, size: int) -> None:
        if size > self.max_bytes:
            message = f"a layer holds more than {self.max_bytes // GIB} GiB, which is not allowed"
            raise LayerTooLargeError(message)

    def check_ratio(self, packed: int, size: int) -> None:
        self.check_bytes(size)
        if size > self.ratio_from and size > self.max_ratio * packed:
            message = f"a layer expands to more than {self.max_ratio} times its size"
            raise LayerTooLargeError(message)

    def check_entries(self, count: int) -> None:
        if count > self.max_entries:
            message = f"a layer has more than {self.max_entries} entries, which is not allowed"
            raise LayerTooLargeError(message)
