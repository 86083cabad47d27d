"""Layers as blobs: reproducible gzip tars, written in one pass and kept for the next run."""

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import BaseModel, ConfigDict

from bench.convert.content import Entry
from bench.convert.images import Layer, layer_entries

GZIP_LEVEL: Final = 6
"""What docker and buildah compress layers with."""

_TYPES: Final = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}
_TIME: Final = 1_700_000_000


class BuiltLayer(BaseModel):
    """A layer's blob in the work directory, and what is known of it."""

    model_config = ConfigDict(frozen=True)

    digest: str
    diff_id: str
    size: int
    tar_size: int
    entries: int
    path: Path


@dataclass(frozen=True, slots=True)
class Scale:
    """Which share of the files a small image keeps; always the same ones."""

    share: float

    @property
    def is_whole(self) -> bool:
        return self.share >= 1

    def keeps(self, entry: Entry) -> bool:
        if self.is_whole or "/.wh." in entry.path:
            return True
        # Directories come by what lies in them; a hard link's other name may be left out.
        if entry.kind in {"directory", "hardlink"}:
            return False
        return zlib.crc32(entry.path.encode()) < self.share * (1 << 32)


def build_layers(layers: set[Layer], scale: Scale, work: Path) -> dict[Layer, BuiltLayer]:
    """Make those that are not here yet, several at a time."""
    wanted = sorted(layers, key=lambda layer: layer.key)
    # Not forked: whoever calls may have threads.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = {layer: pool.submit(_build_once, layer, scale, work) for layer in wanted}
        return {layer: job.result() for layer, job in jobs.items()}


def _build_once(layer: Layer, scale: Scale, work: Path) -> BuiltLayer:
    stem = work / "layers" / f"{layer.key}-{scale.share:g}"
    known = stem.with_name(f"{stem.name}.json")
    blob = stem.with_name(f"{stem.name}.tar.gz")
    if known.exists():
        return read_built(known, blob)
    stem.parent.mkdir(parents=True, exist_ok=True)
    unfinished = stem.with_name(f"{stem.name}.unfinished")
    kept = (entry for entry in layer_entries(layer, work) if scale.keeps(entry))
    with unfinished.open("wb") as file:
        built = _write(file, kept, blob)
    unfinished.replace(blob)
    known.write_text(built.model_dump_json())
    return built


def read_built(known: Path, blob: Path) -> BuiltLayer:
    """What an earlier run made; the work directory may have been moved since."""
    built = BuiltLayer.model_validate_json(known.read_bytes())
    return built.model_copy(update={"path": blob})


def _write(file: BinaryIO, entries: Iterator[Entry], blob: Path) -> BuiltLayer:
    packed = Packed(file)
    count = 0
    seen: set[str] = set()
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            if entry.path in seen:
                continue
            seen.add(entry.path)
            info = tarfile.TarInfo(entry.path)
            info.type, info.mode, info.mtime = _TYPES[entry.kind], entry.mode, _TIME
            info.linkname, info.size = entry.target, len(entry.data)
            tar.addfile(info, io.BytesIO(entry.data))
            count += 1
    packed.finish()
    return packed.built(blob, count)


class Packed(io.RawIOBase):
    """Takes a tar, writes gzip, and knows the digests of both."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zlib = zlib.compressobj(GZIP_LEVEL, wbits=31)
        self.tar = hashlib.sha256()
        self.blob = hashlib.sha256()
        self.size = self.tar_size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        self.tar.update(data)
        self.tar_size += len(data)
        self._put(self._zlib.compress(data))
        return len(data)

    def finish(self) -> None:
        self._put(self._zlib.flush())

    def built(self, path: Path, entries: int) -> BuiltLayer:
        return BuiltLayer(
            digest=f"sha256:{self.blob.hexdigest()}",
            diff_id=f"sha256:{self.tar.hexdigest()}",
            size=self.size,
            tar_size=self.tar_size,
            entries=entries,
            path=path,
        )

    def _put(self, piece: bytes) -> None:
        self.blob.update(piece)
        self.size += len(piece)
        self._file.write(piece)
