"""The words of `dray convert`'s options as the settings that a system's images are made with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from cli.errors import UsageError
from shared.image.recipe import PackOptions

_SIZE = re.compile(r"([0-9]{1,9})([KkMm]?)(?:iB)?")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20}
# Every name that squashfs can hold. File capabilities are as good as setuid: a name for them alone.
_ALL_XATTRS: Final = ("security.", "security.capability", "trusted.", "user.")
_HIGHEST_LEVEL: Final[Mapping[str, int]] = {"gzip": 9, "zstd": 22}


@dataclass(frozen=True, slots=True)
class Words:
    """The options as they were typed; None where they were not."""

    owners: str
    setuid: str
    devices: str
    xattrs: str | None
    compression: str
    level: int | None
    block_size: str | None


def pack_options(words: Words) -> PackOptions:
    """What is not said is as for a system without settings of its own."""
    chosen: dict[str, Any] = {
        "keep_owners": words.owners == "image",
        "keep_setuid": words.setuid == "keep",
        "keep_devices": words.devices == "keep",
        "compression": words.compression,
    }
    if words.xattrs is not None:
        chosen["xattrs"] = _xattrs(words.xattrs)
    if words.level is not None:
        highest = _HIGHEST_LEVEL[words.compression]
        if not 1 <= words.level <= highest:
            raise UsageError(f"--level: {words.compression} has levels from 1 to {highest}")
        chosen["level"] = words.level
    if words.block_size is not None:
        chosen["block_size"] = _block_size(words.block_size)
    try:
        return PackOptions.model_validate(chosen)
    except ValidationError as exc:
        raise UsageError(_explained(exc)) from None


def _xattrs(text: str) -> tuple[str, ...]:
    if text == "all":
        return _ALL_XATTRS
    if text == "none":
        return ()
    # `user.*` is what others write for what is `user.` here.
    names = [name.strip() for name in text.split(",")]
    plain = tuple(name.removesuffix("*") if name.endswith(".*") else name for name in names)
    if any("*" in name for name in plain):
        raise UsageError("--xattrs: a '*' can only stand behind a dot, as in user.*")
    return plain


def _block_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    if not 4096 <= size <= 1 << 20 or size & (size - 1):
        raise UsageError(
            f"--block-size: {text[:40]!r} is no power of two from 4K to 1M; write for example 128K"
        )
    return size


def _explained(exc: ValidationError) -> str:
    problem = exc.errors(include_url=False, include_input=False)[0]
    if problem["loc"][0] == "xattrs":
        return (
            "--xattrs: write all, none, or names with commas between them, such as "
            "user.,security.capability; squashfs holds user., trusted. and security. only"
        )
    return f"{problem['loc'][0]}: {problem['msg']}"
