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
# What listxattr() can return: names with their terminators.
MAX_XATTR_LIST = 65536


@dataclass(frozen=True, slots=True)
class Limits:
    """Per layer. A ratio counts only from a size on: zeros compress without any malice."""

    max_bytes: int = 512 * GIB
    max_ratio: int = 250
    ratio_from: int = 8 * GIB
    max_entries: int = 8_000_000
    max_text: int = 256 << 20
    max_metadata: int = 1 << 20

    def check_bytes(self, size: int) -> None:
        if size > self.max_bytes:
            large = self.max_bytes >= GIB
            most = f"{self.max_bytes // GIB} GiB" if large else f"{self.max_bytes >> 20} MiB"
            raise LayerTooLargeError(
                f"a layer holds more than {most}, which is not allowed: make it smaller, or ask "
                "the operator about converter.max_layer_bytes"
            )

    def check_ratio(self, packed: int, size: int) -> None:
        self.check_bytes(size)
        if size > self.ratio_from and size > self.max_ratio * packed:
            raise LayerTooLargeError(
                f"a layer expands to more than {self.max_ratio} times its size, as files that "
                "would fill a disk do: leave large empty files out of the image"
            )


class Budget:
    """What of one layer stays in memory until it is packed: its entries, and all their text."""

    def __init__(self, limits: Limits) -> None:
        self._max_entries = limits.max_entries
        self._max_text = limits.max_text
        self._entries = 0
        self._text = 0

    def add_entry(self, text: int) -> None:
        """An entry of the tar, or a directory that only paths name, with so many bytes of text."""
        self._entries += 1
        self._text += text
        if self._entries > self._max_entries or self._text > self._max_text:
            self._refuse()

    def add_text(self, size: int) -> None:
        self._text += size
        if self._text > self._max_text:
            self._refuse()

    def _refuse(self) -> None:
        if self._entries > self._max_entries:
            raise LayerTooLargeError(
                f"a layer has more than {self._max_entries:,} files and directories, "
                "which is not allowed"
            )
        raise LayerTooLargeError(
            "the names, paths, link targets and attributes in a layer take more than "
            f"{self._max_text >> 20:,} MiB, which is not allowed"
        )
