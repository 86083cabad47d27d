"""Paths of a tar as paths below the image's root, never above it."""

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.limits import MAX_NAME, MAX_PATH
from shared.image.kinds import WHITEOUT
from shared.image.merging.budget import MAX_DEPTH


def normalised(path: bytes) -> bytes:
    """`path` without ".", "..", doubled, leading or trailing slashes; b"" is the root."""
    plain = (
        path[:1] not in {b"/", b"."}
        and path[-1:] not in {b"/", b"."}
        and b"//" not in path
        and b"/." not in path
    )
    clean = path if plain else b"/".join(_components(path))
    if len(clean) > MAX_NAME:
        _check_lengths(clean)
    if b"\0" in clean:
        raise LayerInvalidError("a layer's tar has a path with a NUL in it")
    return clean


def _components(path: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in {b"", b"."}:
            parts.append(part)
    return parts


def _check_lengths(path: bytes) -> None:
    parts = path.split(b"/")
    # A whiteout's name is longer than the name that it takes away.
    parts[-1] = parts[-1].removeprefix(WHITEOUT)
    if len(path) > MAX_PATH or max(map(len, parts)) > MAX_NAME:
        message = f"a layer's tar has a path that is too long for Linux: {path[:60]!r}…"
        raise LayerInvalidError(message)
    if len(parts) > MAX_DEPTH:
        message = f"a layer's tar has a path of {len(parts)} parts, and {MAX_DEPTH} are allowed"
        raise LayerInvalidError(f"{message}: {path[:60]!r}…")
